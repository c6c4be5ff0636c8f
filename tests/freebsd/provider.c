/*
 * provider.c - a disk as GEOM offers it, played on a file: whole sectors, one
 * vector, ioctls with rules of their own, and an end when somebody destroys it
 * (mdconfig -d -o force); and fspacectl(2) of a file of tmpfs, which goes a
 * little way at a time, if it comes back at all.  Any thread; one lock.
 */
#include <sys/capsicum.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "kernel.h"

/* The kernel's own numbers, written down once more: these judge the product's. */
#define DIOCGMEDIASIZE_NUMBER	0x40086481
#define DIOCGFLUSH_NUMBER	0x20006487
#define DIOCGDELETE_NUMBER	0x80106488

#define MAX_FDS		4096
#define PAGE		4096
/* Bytes of one fspacectl(2): where it stops is not for us to say. */
#define STEP		((64 << 10) + 512)

static atomic_uint sector_sizes[MAX_FDS];	/* 0: no provider */
static atomic_bool gone[MAX_FDS];		/* destroyed under its user */
static atomic_bool cannot_flush[MAX_FDS];	/* its driver has no such call */
static atomic_uint flushes, deallocations, last_words;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool holding;			/* lock: transfers begin and stay */
static unsigned int held;		/* lock: those that do */

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
	atomic_store(&gone[fd], false);
	atomic_store(&cannot_flush[fd], false);
	atomic_store(&sector_sizes[fd], sector_size);
}

void
kernel_provider_without_flush(int fd)
{

	atomic_store(&cannot_flush[fd], true);
}

void
kernel_provider_hold(void)
{

	pthread_mutex_lock(&lock);
	holding = true;
	pthread_mutex_unlock(&lock);
}

unsigned int
kernel_provider_held(void)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = held;
	pthread_mutex_unlock(&lock);
	return (n);
}

/* What is under way comes back with ENXIO, as does all that follows. */
void
kernel_provider_destroy(int fd)
{

	if (!provider_is(fd))
		kernel_panic("no provider: %d", fd);
	atomic_store(&gone[fd], true);
	pthread_mutex_lock(&lock);
	holding = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void
wait_while_held(void)
{

	pthread_mutex_lock(&lock);
	held++;
	while (holding)
		pthread_cond_wait(&changed, &lock);
	held--;
	pthread_mutex_unlock(&lock);
}

/* Of a destroyed one the descriptor is closed, and an error is said as well. */
int
provider_close(int fd)
{
	const bool was_gone = atomic_exchange(&gone[fd], false);

	atomic_store(&sector_sizes[fd], 0);
	if (__real_close(fd) != 0)
		kernel_panic("close(2) of %d: %d", fd, errno);
	return (was_gone ? fail(ENXIO) : 0);
}

/* A device has no size in its inode. */
int
provider_fstat(int fd, struct stat *st)
{

	if (atomic_load(&gone[fd]))
		return (fail(EBADF));
	if (__real_fstat(fd, st) != 0)
		return (-1);
	st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFCHR;
	st->st_size = 0;
	return (0);
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

	if (__real_fstat(fd, &st) != 0)
		kernel_panic("a provider that was closed");
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

	wait_while_held();
	if (atomic_load(&gone[fd]))
		return (fail(ENXIO));
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

/*
 * A signal that is pending ends a long one early, which nobody is told.  SIGBUS
 * is a thread's own, or ends the process as SIGKILL does (native/core/mapping.c).
 */
static void
check_signals(void)
{
	sigset_t blocked;
	int number;

	pthread_sigmask(SIG_BLOCK, NULL, &blocked);
	for (number = SIGHUP; number <= SIGTERM; number++)
		if (number != SIGKILL && number != SIGBUS &&
		    sigismember(&blocked, number) == 0)
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

/*
 * ENXIO of the device, and once its vnode is dead too what any dead vnode says;
 * which of them comes first nobody has promised.
 */
static int
last_word(void)
{
	static const int errnums[] = { ENOTTY, ENXIO, EBADF };

	return (fail(errnums[atomic_fetch_add(&last_words, 1) % 3]));
}

int
provider_ioctl(int fd, unsigned long cmd, void *arg)
{

	if (atomic_load(&gone[fd]))
		return (last_word());
	switch (cmd) {
	case DIOCGMEDIASIZE_NUMBER:
		*(off_t *)arg = media_size(fd, atomic_load(&sector_sizes[fd]));
		return (0);
	case DIOCGFLUSH_NUMBER:
		if (atomic_load(&cannot_flush[fd]))
			return (fail(ENOTTY));
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

/*
 * What is left is said also by a call that a signal has interrupted.
 *
 * On tmpfs a range is cut off at the end of the file, and then one that begins
 * on a page and ends within it makes the kernel go round for ever: nothing of
 * it is done, and it is tried again.
 */
int
fspacectl(int fd, int cmd, const struct spacectl_range *rqsr, int flags,
    struct spacectl_range *rmsr)
{
	struct spacectl_range range = *rqsr;
	off_t end, n;
	struct stat st;

	if (cmd != SPACECTL_DEALLOC || flags != 0 || range.r_offset < 0 ||
	    range.r_len <= 0 || range.r_offset > INT64_MAX - range.r_len)
		return (fail(EINVAL));
	kernel_must(fd, CAP_PWRITE, "fspacectl");
	if (provider_is(fd))
		return (fail(ENODEV));
	if (!is_writable(fd))
		return (fail(EBADF));
	if (__real_fstat(fd, &st) != 0)
		return (-1);
	end = range.r_offset + range.r_len;
	if (end > st.st_size)
		end = st.st_size;
	if (range.r_offset >= end)
		range.r_len = 0;
	else {
		if (range.r_offset % PAGE == 0 && end % PAGE != 0 &&
		    end - range.r_offset < PAGE)
			kernel_panic("fspacectl(2) of %lld, %lld never "
			    "returns", (long long)range.r_offset,
			    (long long)range.r_len);
		n = end - range.r_offset < STEP ? end - range.r_offset : STEP;
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    range.r_offset, n) != 0)
			return (-1);
		range.r_offset += n;
		range.r_len = end - range.r_offset;
	}
	if (rmsr != NULL)
		*rmsr = range;
	return (atomic_fetch_add(&deallocations, 1) % 3 == 2 ? fail(EINTR) : 0);
}
