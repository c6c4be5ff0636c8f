/*
 * faulty_disk.c - preloaded, makes the disks of a process fail as a file tells
 * that may change at any time (XBBD_FAULTS): so many of 65536 calls fail with
 * EIO, are interrupted, move less than they were asked to, or take longer; so
 * many flushes fail with EIO, once and for all; and one disk, by its inode, has a
 * fault of its own as long as that stands there.
 * Reads and writes of vectors, fdatasync(2) and fallocate(2): what the data
 * plane uses, and the control plane does not.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct faults {
	uint32_t	fail;		/* of 65536 calls, each */
	uint32_t	interrupt;
	uint32_t	cut;
	uint32_t	delay;
	uint32_t	delay_us;
	uint32_t	seed;
	uint32_t	flushes;	/* that fail, in the life of the process */
	uint32_t	victim;		/* inode, 0: none */
	uint32_t	accident;	/* enum accident, of the victim */
};

enum accident {
	FLUSHES_FAIL	= 1,		/* EIO */
	GONE		= 2,		/* ENXIO, whatever is asked */
	FULL		= 3,		/* writes ENOSPC */
	SILENT		= 4		/* nothing, until this changes */
};

enum purpose {
	READ, WRITE, FLUSH
};

static struct faults none;
static struct faults *faults = &none;
static atomic_uint calls, flushes_failed;

__attribute__((constructor)) static void
open_faults(void)
{
	const char *path = getenv("XBBD_FAULTS");
	void *p;
	int fd;

	if (path == NULL || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return;
	p = mmap(NULL, sizeof(*faults), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		faults = p;
}

/* A number below 65536 that depends on the seed, the call, and what it is for. */
static uint32_t
draw(uint32_t call, uint32_t purpose)
{
	uint32_t z = call * 2654435761U + purpose * 40503U +
	    __atomic_load_n(&faults->seed, __ATOMIC_RELAXED);

	z ^= z >> 15;
	z *= 2246822519U;
	z ^= z >> 13;
	return (z & 0xffff);
}

#define HAPPENS(what, call, purpose) \
	(draw(call, purpose) < __atomic_load_n(&faults->what, __ATOMIC_RELAXED))

/* 0, or the errno that a call has which may fail like others. */
static int
disturb(uint32_t call, int may_fail)
{
	struct timespec delay = { 0 };

	if (HAPPENS(delay, call, 1)) {
		delay.tv_nsec = 1000L *
		    __atomic_load_n(&faults->delay_us, __ATOMIC_RELAXED);
		nanosleep(&delay, NULL);
	}
	if (HAPPENS(interrupt, call, 2))
		return (EINTR);
	return (may_fail && HAPPENS(fail, call, 3) ? EIO : 0);
}

/* Wait until the victim answers again. */
static void
wait_for_answer(void)
{
	const struct timespec moment = { .tv_nsec = 1000000 };

	while (__atomic_load_n(&faults->accident, __ATOMIC_RELAXED) == SILENT)
		nanosleep(&moment, NULL);
}

/* 0, or what the victim says to this. */
static int
suffer(int fd, enum purpose purpose)
{
	const uint32_t victim = __atomic_load_n(&faults->victim,
	    __ATOMIC_ACQUIRE);
	struct stat st;

	if (victim == 0 || fstat(fd, &st) != 0 || (uint32_t)st.st_ino != victim)
		return (0);
	switch (__atomic_load_n(&faults->accident, __ATOMIC_RELAXED)) {
	case FLUSHES_FAIL:
		return (purpose == FLUSH ? EIO : 0);
	case GONE:
		return (ENXIO);
	case FULL:
		return (purpose == WRITE ? ENOSPC : 0);
	case SILENT:
		wait_for_answer();
		return (0);
	default:
		return (0);
	}
}

typedef ssize_t vectored(int, const struct iovec *, int, off_t);

static ssize_t
transfer(vectored *real, enum purpose purpose, int fd, const struct iovec *iov,
    int niov, off_t at)
{
	const uint32_t call = atomic_fetch_add(&calls, 1);
	struct iovec part;

	errno = suffer(fd, purpose);
	if (errno == 0)
		errno = disturb(call, 1);
	if (errno != 0)
		return (-1);
	if (HAPPENS(cut, call, 4) && iov[0].iov_len > 512) {
		part = iov[0];
		part.iov_len = 512;
		return (real(fd, &part, 1, at));
	}
	return (real(fd, iov, niov, at));
}

ssize_t
preadv(int fd, const struct iovec *iov, int niov, off_t at)
{
	static vectored *real;

	if (real == NULL)
		real = (vectored *)dlsym(RTLD_NEXT, "preadv");
	return (transfer(real, READ, fd, iov, niov, at));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int niov, off_t at)
{
	static vectored *real;

	if (real == NULL)
		real = (vectored *)dlsym(RTLD_NEXT, "pwritev");
	return (transfer(real, WRITE, fd, iov, niov, at));
}

int
fdatasync(int fd)
{
	static int (*real)(int);

	if (real == NULL)
		real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	errno = suffer(fd, FLUSH);
	if (errno == 0)
		errno = disturb(atomic_fetch_add(&calls, 1), 0);
	if (errno == 0 && atomic_load(&flushes_failed) <
	    __atomic_load_n(&faults->flushes, __ATOMIC_RELAXED)) {
		atomic_fetch_add(&flushes_failed, 1);
		errno = EIO;
	}
	return (errno != 0 ? -1 : real(fd));
}

int
fallocate(int fd, int mode, off_t offset, off_t len)
{
	static int (*real)(int, int, off_t, off_t);

	if (real == NULL)
		real = (int (*)(int, int, off_t, off_t))dlsym(RTLD_NEXT,
		    "fallocate");
	errno = disturb(atomic_fetch_add(&calls, 1), 1);
	return (errno != 0 ? -1 : real(fd, mode, offset, len));
}
