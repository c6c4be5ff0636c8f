/*
 * capsicum.c - the rights of descriptors, and the mode in which nothing can be
 * had by a path.  A call that lacks a right fails on FreeBSD, with ENOTCAPABLE;
 * here it is a panic, since the product must never make one.  Any thread.
 */
#include <sys/capsicum.h>
#include <sys/socket.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"

#define DESCRIPTORS	1024
#define MOST_IOCTLS	32

static struct {
	bool		 limited;
	uint64_t	 bits;
	size_t		 nioctls;
	unsigned long	 ioctl[MOST_IOCTLS];
} rights_of[DESCRIPTORS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool entered;

static void
add_rights(cap_rights_t *rights, va_list args)
{
	uint64_t right;

	while ((right = va_arg(args, unsigned long long)) != 0)
		rights->bits |= right;
}

cap_rights_t *
kernel_rights_init(cap_rights_t *rights, ...)
{
	va_list args;

	rights->bits = 0;
	va_start(args, rights);
	add_rights(rights, args);
	va_end(args);
	return (rights);
}

cap_rights_t *
kernel_rights_set(cap_rights_t *rights, ...)
{
	va_list args;

	va_start(args, rights);
	add_rights(rights, args);
	va_end(args);
	return (rights);
}

/* Rights only become fewer. */
int
cap_rights_limit(int fd, const cap_rights_t *rights)
{

	if (fd < 0 || fd >= DESCRIPTORS) {
		errno = EBADF;
		return (-1);
	}
	pthread_mutex_lock(&lock);
	if (rights_of[fd].limited && (rights->bits & ~rights_of[fd].bits) != 0)
		kernel_panic("cap_rights_limit of %d: more than it has", fd);
	rights_of[fd].limited = true;
	rights_of[fd].bits = rights->bits;
	pthread_mutex_unlock(&lock);
	return (0);
}

int
cap_ioctls_limit(int fd, const unsigned long *cmds, size_t ncmds)
{

	pthread_mutex_lock(&lock);
	if (fd < 0 || fd >= DESCRIPTORS || ncmds > MOST_IOCTLS ||
	    (rights_of[fd].bits & CAP_IOCTL) == 0)
		kernel_panic("cap_ioctls_limit of %d", fd);
	memcpy(rights_of[fd].ioctl, cmds, ncmds * sizeof(*cmds));
	rights_of[fd].nioctls = ncmds;
	pthread_mutex_unlock(&lock);
	return (0);
}

int
cap_enter(void)
{

	entered = true;
	return (0);
}

bool
kernel_capability_mode(void)
{

	return (entered);
}

void
kernel_must(int fd, uint64_t rights, const char *call)
{
	uint64_t lacking;

	if (fd < 0 || fd >= DESCRIPTORS)
		return;
	pthread_mutex_lock(&lock);
	lacking = rights_of[fd].limited ? rights & ~rights_of[fd].bits : 0;
	pthread_mutex_unlock(&lock);
	if (lacking != 0)
		kernel_panic("%s of %d: not capable, for want of %#llx", call,
		    fd, (unsigned long long)lacking);
}

void
kernel_must_ioctl(int fd, unsigned long cmd)
{
	size_t i;

	kernel_must(fd, CAP_IOCTL, "ioctl");
	if (fd < 0 || fd >= DESCRIPTORS || !rights_of[fd].limited)
		return;
	for (i = 0; i < rights_of[fd].nioctls; i++)
		if ((uint32_t)rights_of[fd].ioctl[i] == (uint32_t)cmd)
			return;
	kernel_panic("ioctl %#lx of %d: not capable", cmd, fd);
}

void
kernel_rights_forget(int fd)
{

	if (fd < 0 || fd >= DESCRIPTORS)
		return;
	pthread_mutex_lock(&lock);
	memset(&rights_of[fd], 0, sizeof(rights_of[fd]));
	pthread_mutex_unlock(&lock);
}

void
kernel_rights_inherit(int fd, int from)
{

	if (fd < 0 || fd >= DESCRIPTORS || from >= DESCRIPTORS)
		return;
	pthread_mutex_lock(&lock);
	rights_of[fd] = rights_of[from];
	pthread_mutex_unlock(&lock);
}
