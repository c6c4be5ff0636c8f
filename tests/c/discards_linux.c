/*
 * discards_linux.c - the calls by which Linux discards, as disk.c has them fail
 * or wait: fallocate(2) for a file, ioctl(2) for what a device erases.  Any
 * thread.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>

#include <linux/fs.h>

#include "harness.h"

typedef int	control_call(int fd, unsigned long request, ...);
typedef int	allocate_call(int fd, int mode, off_t at, off_t size);

static allocate_call *real_fallocate;
static control_call *real_ioctl;
static pthread_once_t found = PTHREAD_ONCE_INIT;

static void
find(void)
{

	real_fallocate = (allocate_call *)dlsym(RTLD_NEXT, "fallocate");
	real_ioctl = (control_call *)dlsym(RTLD_NEXT, "ioctl");
	CHECK(real_fallocate != NULL && real_ioctl != NULL);
}

int
fallocate(int fd, int mode, off_t at, off_t size)
{

	pthread_once(&found, find);
	errno = disk_discards((uint64_t)at, (uint64_t)size);
	if (errno != 0)
		return (-1);
	return (real_fallocate(fd, mode, at, size));
}

int
ioctl(int fd, unsigned long request, ...)
{
	const uint64_t *range;
	va_list ap;
	void *arg;

	pthread_once(&found, find);
	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request != BLKSECDISCARD)
		return (real_ioctl(fd, request, arg));
	range = arg;
	errno = disk_erases(range[0], range[1]);
	return (errno == 0 ? 0 : -1);
}
