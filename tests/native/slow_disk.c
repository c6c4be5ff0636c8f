/*
 * slow_disk.c - preloaded, makes every disk slow: each vectored read and write
 * takes a fifth of a millisecond longer, so that the data plane hands its work
 * to threads whatever the machine's real disk is like.
 */
#define _GNU_SOURCE
#include <sys/types.h>
#include <sys/uio.h>

#include <dlfcn.h>
#include <time.h>

typedef ssize_t vectored(int, const struct iovec *, int, off_t);

static ssize_t
slowly(const char *name, int fd, const struct iovec *iov, int niov, off_t at)
{
	const struct timespec delay = { .tv_nsec = 200000 };
	vectored *real = (vectored *)dlsym(RTLD_NEXT, name);

	nanosleep(&delay, NULL);
	return (real(fd, iov, niov, at));
}

ssize_t
preadv(int fd, const struct iovec *iov, int niov, off_t at)
{

	return (slowly("preadv", fd, iov, niov, at));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int niov, off_t at)
{

	return (slowly("pwritev", fd, iov, niov, at));
}
