/*
 * provider.c - a disk as GEOM offers it, played on a file: whole sectors, one
 * vector, and ioctls with rules of their own; and fspacectl(2) of a real file,
 * which goes a little way at a time.  Any thread; one lock.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kernel.h"

/* The kernel's own numbers, written down once more: these judge the product's. */
#define DIOCGFLUSH_NUMBER	0x20006487
#define DIOCGDELETE_NUMBER	0x80106488

#define MAX_FDS		4096
#define STEP		(64 << 10)	/* bytes of one fspacectl(2) */

static atomic_uint sector_sizes[MAX_FDS];	/* 0: no provider */
static atomic_uint flushes, deallocations;

static int
fail(int errnum)
{

	errno = errnum;
	return (-1);
}

void
kernel_provider(int fd, uint32_t sector_size)
{

	if (fd < 0 || fd >= MAX_FDS)
		kernel_panic("descriptor %d", fd);
	atomic_store(&sector_sizes[fd], sector_size);
}

bool
provider_is(int fd)
{

	return (fd >= 0 && fd < MAX_FDS && atomic_load(&sector_sizes[fd]) != 0);
}

unsigned int
kernel_flushes(void)
{

	return (atomic_load(&flushes));
}

static off_t
media_size(int fd, uint32_t sector_size)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		kernel_panic("a provider that is gone");
	return (st.st_size / sector_size * sector_size);
}

static bool
is_writable(int fd)
{

	return ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY);
}

/* Begun beyond the end: EIO; at the end: 0; across it: what there is. */
ssize_t
provider_transfer(int fd, bool write, const struct iovec *iov, int niov,
    off_t at)
{
	const uint32_t sector_size = atomic_load(&sector_sizes[fd]);
	const off_t size = media_size(fd, sector_size);
	struct iovec piece;
	int i;

	for (i = 0; i < niov; i++)
		if (iov[i].iov_len % sector_size != 0)
			return (fail(EINVAL));
	if (at < 0 || at % sector_size != 0)
		return (fail(EINVAL));
	if (niov != 1)
		kernel_panic("%d vectors, which a disk gets one after the "
		    "other", niov);
	if (at > size)
		return (fail(EIO));
	piece = *iov;
	if ((off_t)piece.iov_len > size - at)
		piece.iov_len = (size_t)(size - at);
	if (piece.iov_len == 0)
		return (0);
	return (write ? __real_pwritev(fd, &piece, 1, at) :
	    __real_preadv(fd, &piece, 1, at));
}

/* A signal that is pending ends a long one early, which nobody is told. */
static void
check_signals(void)
{
	sigset_t blocked;
	int number;

	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	for (number = SIGHUP; number <= SIGTERM; number++)
		if (number != SIGKILL && sigismember(&blocked, number) == 0)
			kernel_panic("signal %d would end DIOCGDELETE early, "
			    "with success", number);
}

static int
delete(int fd, const off_t range[2])
{
	const uint32_t sector_size = atomic_load(&sector_sizes[fd]);

	check_signals();
	if (!is_writable(fd))
		return (fail(EPERM));
	if (range[0] < 0 || range[0] % sector_size != 0 || range[1] <= 0 ||
	    range[1] % sector_size != 0)
		return (fail(EINVAL));
	if (range[0] >= media_size(fd, sector_size))
		return (fail(EIO));
	return (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	    range[0], range[1]));
}

int
provider_ioctl(int fd, unsigned long cmd, void *arg)
{

	switch (cmd) {
	case DIOCGFLUSH_NUMBER:
		if (!is_writable(fd))
			return (fail(EPERM));
		atomic_fetch_add(&flushes, 1);
		return (0);
	case DIOCGDELETE_NUMBER:
		return (delete(fd, arg));
	default:
		return (fail(ENOTTY));
	}
}

/* What is left is said also by a call that a signal has interrupted. */
int
fspacectl(int fd, int cmd, const struct spacectl_range *rqsr, int flags,
    struct spacectl_range *rmsr)
{
	struct spacectl_range range = *rqsr;
	struct stat st;
	off_t n;

	if (cmd != SPACECTL_DEALLOC || flags != 0 || range.r_offset < 0 ||
	    range.r_len <= 0 || range.r_offset > INT64_MAX - range.r_len)
		return (fail(EINVAL));
	if (provider_is(fd))
		return (fail(ENODEV));
	if (!is_writable(fd))
		return (fail(EBADF));
	if (fstat(fd, &st) != 0)
		return (-1);
	if (range.r_offset >= st.st_size) {
		range.r_offset += range.r_len;
		range.r_len = 0;
	} else {
		n = range.r_len < STEP ? range.r_len : STEP;
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    range.r_offset, n) != 0)
			return (-1);
		range.r_offset += n;
		range.r_len -= n;
	}
	if (rmsr != NULL)
		*rmsr = range;
	return (atomic_fetch_add(&deallocations, 1) % 3 == 2 ? fail(EINTR) : 0);
}
