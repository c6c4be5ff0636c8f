/*
 * disk.c - the disk of the tests.  It defines the system calls that the data
 * plane makes on a disk, so that a test can make them slow, partial,
 * failing or waiting; otherwise they are the system's own.  Those that discard
 * are in discards_*.c.  Any thread; what is set counts for calls that begin
 * later.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

typedef ssize_t	transfer_call(int fd, const struct iovec *iov, int niov,
		    off_t at);
typedef int	sync_call(int fd);

struct disk disk;

static transfer_call *real_preadv, *real_pwritev;
static sync_call *real_fdatasync;
static pthread_once_t found = PTHREAD_ONCE_INIT;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint64_t hold_from, hold_to;	/* lock: bytes */
static bool holding_syncs;	/* lock */
static uint32_t nheld;		/* lock */

static void
find(void)
{

	real_preadv = (transfer_call *)dlsym(RTLD_NEXT, "preadv");
	real_pwritev = (transfer_call *)dlsym(RTLD_NEXT, "pwritev");
	real_fdatasync = (sync_call *)dlsym(RTLD_NEXT, "fdatasync");
	CHECK(real_preadv != NULL && real_pwritev != NULL &&
	    real_fdatasync != NULL);
}

void
disk_reset(void)
{

	atomic_store(&disk.delay_us, 0);
	atomic_store(&disk.spin_us, 0);
	atomic_store(&disk.failure_us, 0);
	atomic_store(&disk.sync_us, 0);
	atomic_store(&disk.chunk, 0);
	atomic_store(&disk.interrupted, 0);
	atomic_store(&disk.errnum, 0);
	atomic_store(&disk.failing, 0);
	atomic_store(&disk.from, 0);
	atomic_store(&disk.to, UINT64_MAX);
	atomic_store(&disk.sync_nothing, false);
	atomic_store(&disk.sync_errnum, 0);
	atomic_store(&disk.sync_errnum_once, 0);
	atomic_store(&disk.discard_errnum, 0);
	atomic_store(&disk.transfers, 0);
	atomic_store(&disk.straddling, 0);
	atomic_store(&disk.most_inflight, 0);
	atomic_store(&disk.syncs, 0);
	atomic_store(&disk.discards, 0);
	atomic_store(&disk.erasures, 0);
	atomic_store(&disk.erased, 0);
	atomic_store(&disk.erase_errnum, 0);
	atomic_store(&disk.syncs_amid, 0);
}

void
disk_hold(void)
{

	disk_hold_range(0, UINT64_MAX);
}

void
disk_hold_range(uint64_t from, uint64_t to)
{

	pthread_mutex_lock(&lock);
	hold_from = from;
	hold_to = to;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

void
disk_hold_syncs(void)
{

	pthread_mutex_lock(&lock);
	holding_syncs = true;
	pthread_mutex_unlock(&lock);
}

void
disk_wait_held(uint32_t n)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += LIMIT_MS / 1000;
	pthread_mutex_lock(&lock);
	while (nheld < n)
		CHECK_EQ(pthread_cond_timedwait(&changed, &lock, &limit), 0);
	pthread_mutex_unlock(&lock);
}

void
disk_release(void)
{

	pthread_mutex_lock(&lock);
	hold_from = hold_to = 0;
	holding_syncs = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static bool
overlap(uint64_t at, uint64_t size, uint64_t from, uint64_t to)
{

	return (at < to && from < at + size);
}

static void
stay_while_held(uint64_t at, uint64_t size)
{

	pthread_mutex_lock(&lock);
	nheld++;
	pthread_cond_broadcast(&changed);
	while (overlap(at, size, hold_from, hold_to))
		pthread_cond_wait(&changed, &lock);
	nheld--;
	pthread_mutex_unlock(&lock);
}

static void
stay_while_syncs_held(void)
{

	pthread_mutex_lock(&lock);
	nheld++;
	pthread_cond_broadcast(&changed);
	while (holding_syncs)
		pthread_cond_wait(&changed, &lock);
	nheld--;
	pthread_mutex_unlock(&lock);
}

static void
sleep_us(unsigned int us)
{
	const struct timespec ts = {
		.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L,
	};

	if (us != 0)
		nanosleep(&ts, NULL);
}

/* Take a while, each time another. */
static void
delay(uint64_t number)
{
	unsigned int most = atomic_load(&disk.delay_us);

	if (most != 0)
		sleep_us(1 + (unsigned int)random_below(&number, most));
}

static void
spin(void)
{
	const uint64_t us = atomic_load(&disk.spin_us);
	uint64_t begun;

	if (us == 0)
		return;
	begun = xbb_thread_cpu_ns();
	while (xbb_thread_cpu_ns() - begun < us * 1000)
		continue;
}

static bool
touches(off_t at, size_t size)
{

	return (overlap((uint64_t)at, size, atomic_load(&disk.from),
	    atomic_load(&disk.to)));
}

/*
 * A file that may not grow further: Linux signals the thread, and those of a
 * queue have all signals blocked; FreeBSD signals the process.  Here it is both.
 */
static void
signal_process(ssize_t done)
{

	if (done < 0 && errno == EFBIG) {
		CHECK_EQ(kill(getpid(), SIGXFSZ), 0);
		errno = EFBIG;
	}
}

/* As much of the vector as one call may move; at least one piece. */
static size_t
cut(const struct iovec *iov, int niov, size_t most, struct iovec *piece,
    int *npieces)
{
	size_t size;
	int i;

	size = 0;
	for (i = 0; i < niov && size < most; i++) {
		piece[i] = iov[i];
		if (piece[i].iov_len > most - size)
			piece[i].iov_len = most - size;
		size += piece[i].iov_len;
	}
	*npieces = i;
	return (size);
}

static ssize_t
transfer(transfer_call *real, int fd, const struct iovec *iov, int niov,
    off_t at)
{
	struct iovec piece[XBB_MAX_BATCH_SEGMENTS], all[XBB_MAX_BATCH_SEGMENTS];
	unsigned int failing, interrupted, chunk, most, now, number;
	size_t size;
	ssize_t done;
	int npieces;

	number = atomic_fetch_add(&disk.transfers, 1);
	if ((uintptr_t)iov->iov_base % XBB_PAGE_SIZE != 0)
		atomic_fetch_add(&disk.straddling, 1);
	now = atomic_fetch_add(&disk.inflight, 1) + 1;
	most = atomic_load(&disk.most_inflight);
	while (now > most && !atomic_compare_exchange_weak(
	    &disk.most_inflight, &most, now))
		continue;
	stay_while_held((uint64_t)at,
	    cut(iov, niov, SIZE_MAX, all, &npieces));
	delay(number);
	spin();

	chunk = atomic_load(&disk.chunk);
	size = cut(iov, niov, chunk != 0 ? chunk : SIZE_MAX, piece, &npieces);
	interrupted = atomic_load(&disk.interrupted);
	failing = atomic_load(&disk.failing);
	done = -1;
	if (failing != 0 && number % failing == failing - 1)
		errno = EIO;
	else if (interrupted != 0 && number % interrupted == 0)
		errno = EINTR;
	else if (atomic_load(&disk.errnum) != 0 && touches(at, size)) {
		sleep_us(atomic_load(&disk.failure_us));
		errno = atomic_load(&disk.errnum);
	} else
		done = real(fd, piece, npieces, at);
	signal_process(done);
	atomic_fetch_sub(&disk.inflight, 1);
	return (done);
}

ssize_t
preadv(int fd, const struct iovec *iov, int niov, off_t at)
{

	pthread_once(&found, find);
	return (transfer(real_preadv, fd, iov, niov, at));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int niov, off_t at)
{

	pthread_once(&found, find);
	return (transfer(real_pwritev, fd, iov, niov, at));
}

int
fdatasync(int fd)
{
	unsigned int number;
	int amid, errnum;

	pthread_once(&found, find);
	number = atomic_fetch_add(&disk.syncs, 1);
	amid = atomic_load(&disk.inflight) != 0;
	stay_while_syncs_held();
	delay(number);
	sleep_us(atomic_load(&disk.sync_us));
	amid |= atomic_load(&disk.inflight) != 0;
	atomic_fetch_add(&disk.syncs_amid, (unsigned int)amid);
	errnum = atomic_exchange(&disk.sync_errnum_once, 0);
	if (errnum == 0)
		errnum = atomic_load(&disk.sync_errnum);
	if (errnum != 0) {
		errno = errnum;
		return (-1);
	}
	return (atomic_load(&disk.sync_nothing) ? 0 : real_fdatasync(fd));
}

/* Of a discard: the errno that it fails with, 0 if it is to be done. */
int
disk_discards(uint64_t at, uint64_t size)
{

	atomic_fetch_add(&disk.discards, 1);
	stay_while_held(at, size);
	return (atomic_load(&disk.discard_errnum));
}

/* Likewise of a secure one, but that it is never done. */
int
disk_erases(uint64_t at, uint64_t size)
{
	int errnum;

	atomic_fetch_add(&disk.erasures, 1);
	stay_while_held(at, size);
	errnum = atomic_load(&disk.erase_errnum);
	if (errnum == 0)
		atomic_fetch_add(&disk.erased, size);
	return (errnum);
}
