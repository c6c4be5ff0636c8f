/*
 * tap.c - taps and their interfaces: /dev/tap, the name that devfs has for one,
 * ioctls of both.  Frames go nowhere, and a descriptor of a tap never has any.
 * One thread sets; any thread asks.
 */
#include <sys/sockio.h>

#include <net/if.h>
#include <net/if_tap.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"

#define MOST		8
#define LEAST_MTU	72
#define MOST_MTU	65535
#define MOST_FRAME	65535

int	__wrap_open(const char *path, int flags, ...);
unsigned int __wrap_if_nametoindex(const char *name);

struct interface {
	char	name[IFNAMSIZ];	/* "": there is none */
	char	device[IFNAMSIZ];	/* below /dev; "": it is no tap */
	bool	alias;		/* its name is there too */
	int	fd;		/* of who has it open, -1 */
	uint32_t flags;
	int	mtu;
	int	header;		/* bytes before a frame */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct interface interfaces[MOST] = {
	{ .name = "lo0", .fd = -1, .flags = IFF_UP, .mtu = 16384 },
};

static int
fail(int errnum)
{

	errno = errnum;
	return (-1);
}

static struct interface *
interface_of(const char *name)
{
	int i;

	for (i = 0; i < MOST; i++)
		if (interfaces[i].name[0] != '\0' &&
		    strncmp(interfaces[i].name, name, IFNAMSIZ) == 0)
			return (&interfaces[i]);
	return (NULL);
}

static struct interface *
tap_of(int fd)
{
	int i;

	for (i = 0; i < MOST; i++)
		if (fd >= 0 && interfaces[i].name[0] != '\0' &&
		    interfaces[i].fd == fd)
			return (&interfaces[i]);
	return (NULL);
}

static struct interface *
device_of(const char *name)
{
	struct interface *t;
	int i;

	for (i = 0; i < MOST; i++) {
		t = &interfaces[i];
		if (t->name[0] != '\0' && t->device[0] != '\0' &&
		    (strcmp(t->device, name) == 0 ||
		    (t->alias && strcmp(t->name, name) == 0)))
			return (t);
	}
	return (NULL);
}

uint32_t
kernel_interface_flags(const char *name)
{
	struct interface *t = interface_of(name);

	return (t != NULL ? t->flags : 0);
}

int
kernel_interface_mtu(const char *name)
{
	struct interface *t = interface_of(name);

	return (t != NULL ? t->mtu : -1);
}

int
kernel_tap_header(const char *name)
{
	struct interface *t = interface_of(name);

	return (t != NULL ? t->header : -1);
}

/* The next unit, as opening /dev/tap makes one. */
static struct interface *
clone_tap(void)
{
	struct interface *t;
	char name[IFNAMSIZ];
	int i, unit;

	for (i = 0; i < MOST && interfaces[i].name[0] != '\0'; i++)
		continue;
	if (i == MOST)
		kernel_panic("too many interfaces");
	for (unit = 0;; unit++) {
		(void)snprintf(name, sizeof(name), "tap%d", unit);
		if (device_of(name) == NULL && interface_of(name) == NULL)
			break;
	}
	t = &interfaces[i];
	memset(t, 0, sizeof(*t));
	strcpy(t->name, name);
	strcpy(t->device, name);
	t->fd = -1;
	t->flags = IFF_BROADCAST | IFF_SIMPLEX | IFF_MULTICAST | IFF_PPROMISC;
	t->mtu = 1500;
	return (t);
}

static int
tap_open(struct interface *t, int flags)
{

	if ((flags & O_ACCMODE) != O_RDWR || (flags & O_NONBLOCK) == 0)
		kernel_panic("%s: a read without a frame would wait", t->name);
	if (t->fd >= 0)
		return (fail(EBUSY));
	t->fd = __real_open("/dev/null", flags);
	return (t->fd);
}

int
__wrap_open(const char *path, int flags, ...)
{
	static const char devices[] = "/dev/";
	struct interface *t = NULL;
	va_list args;
	mode_t mode;
	int fd;

	va_start(args, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
	va_end(args);
	if (strncmp(path, devices, strlen(devices)) != 0)
		return (__real_open(path, flags, mode));
	path += strlen(devices);
	pthread_mutex_lock(&lock);
	t = strcmp(path, "tap") == 0 ? clone_tap() : device_of(path);
	fd = t != NULL ? tap_open(t, flags) :
	    __real_open(path - strlen(devices), flags, mode);
	pthread_mutex_unlock(&lock);
	return (fd);
}

/* The last one: it goes down, unless IFF_LINK0 says otherwise (tap(4)). */
bool
tap_close(int fd)
{
	struct interface *t;

	pthread_mutex_lock(&lock);
	if ((t = tap_of(fd)) != NULL) {
		t->fd = -1;
		t->header = 0;
		if ((t->flags & IFF_LINK0) == 0)
			t->flags &= ~(uint32_t)IFF_UP;
	}
	pthread_mutex_unlock(&lock);
	return (t != NULL);
}

bool
tap_is(int fd)
{
	bool found;

	pthread_mutex_lock(&lock);
	found = tap_of(fd) != NULL;
	pthread_mutex_unlock(&lock);
	return (found);
}

int
tap_ioctl(int fd, unsigned long cmd, void *arg)
{
	struct interface *t;
	struct ifreq *ifr = arg;
	int size;

	t = tap_of(fd);
	switch (cmd) {
	case TAPGIFNAME:
		strcpy(ifr->ifr_name, t->name);
		return (0);
	case TAPSVNETHDR:
		memcpy(&size, arg, sizeof(size));
		if (size != 0 && size != 10 && size != 12)
			return (fail(EINVAL));
		t->header = size;
		return (0);
	default:
		return (fail(ENOTTY));
	}
}

/*
 * A frame behind its header.  To an interface that is down it is no error, but
 * nothing of it is taken.
 */
ssize_t
tap_writev(int fd, const struct iovec *iov, int niov)
{
	struct interface *t;
	size_t size;
	uint32_t flags;
	int i, header;

	for (size = 0, i = 0; i < niov; i++)
		size += iov[i].iov_len;
	pthread_mutex_lock(&lock);
	t = tap_of(fd);
	flags = t->flags;
	header = t->header;
	pthread_mutex_unlock(&lock);
	if ((flags & IFF_UP) == 0)
		return (0);
	if (size > MOST_FRAME + (size_t)header)
		return (fail(EIO));
	return ((ssize_t)size);
}

/* devfs has the new name too, unless something else is called so there. */
static int
rename_to(struct interface *t, const char *name)
{
	char path[sizeof("/dev/") + IFNAMSIZ];
	int fd;

	if (strnlen(name, IFNAMSIZ) == IFNAMSIZ)
		return (fail(ENAMETOOLONG));
	if (name[0] == '\0')
		return (fail(EINVAL));
	if (interface_of(name) != NULL)
		return (fail(EEXIST));
	(void)snprintf(path, sizeof(path), "/dev/%s", name);
	if ((fd = __real_open(path, O_PATH)) >= 0)
		__real_close(fd);
	t->alias = fd < 0;
	strcpy(t->name, name);
	return (0);
}

static int
destroy(struct interface *t)
{

	if (t->device[0] == '\0')
		return (fail(EINVAL));
	if (t->fd >= 0)
		kernel_panic("destroying %s waits until it is closed", t->name);
	memset(t, 0, sizeof(*t));
	t->fd = -1;
	return (0);
}

bool
interface_is_asked(unsigned long cmd)
{

	return (cmd == SIOCGIFFLAGS || cmd == SIOCSIFFLAGS ||
	    cmd == SIOCSIFNAME || cmd == SIOCSIFMTU || cmd == SIOCIFDESTROY);
}

int
interface_ioctl(unsigned long cmd, void *arg)
{
	struct ifreq *ifr = arg;
	struct interface *t;
	int error = 0;

	pthread_mutex_lock(&lock);
	if ((t = interface_of(ifr->ifr_name)) == NULL)
		error = fail(ENXIO);
	else if (cmd == SIOCGIFFLAGS) {
		ifr->ifr_flags = (short)(t->flags & 0xffff);
		ifr->ifr_flagshigh = (short)(t->flags >> 16);
	} else if (cmd == SIOCSIFFLAGS)
		t->flags = (uint16_t)ifr->ifr_flags |
		    (uint32_t)(uint16_t)ifr->ifr_flagshigh << 16;
	else if (cmd == SIOCSIFNAME)
		error = rename_to(t, ifr->ifr_data);
	else if (cmd == SIOCIFDESTROY)
		error = destroy(t);
	else if (ifr->ifr_mtu < LEAST_MTU || ifr->ifr_mtu > MOST_MTU)
		error = fail(EINVAL);
	else
		t->mtu = ifr->ifr_mtu;
	pthread_mutex_unlock(&lock);
	return (error);
}

unsigned int
__wrap_if_nametoindex(const char *name)
{
	struct interface *t;

	pthread_mutex_lock(&lock);
	t = interface_of(name);
	pthread_mutex_unlock(&lock);
	if (t == NULL)
		errno = ENXIO;
	return (t != NULL ? (unsigned int)(t - interfaces) + 1 : 0);
}
