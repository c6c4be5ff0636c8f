/*
 * disk_freebsd.c - what FreeBSD names differently: how a disk's cache is
 * flushed, and how sectors are discarded.
 */
#include <sys/disk.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <unistd.h>

#include "block/block.h"

const unsigned long xbb_disk_ioctls[] = {
	DIOCGFLUSH, DIOCGDELETE, DIOCGMEDIASIZE, 0,
};

/*
 * A disk that was destroyed says ENXIO, but what any dead vnode says once its
 * own is (dead_vnops.c; read there, not seen).  One that is there and has no
 * such call may say the same, but knows its size.
 */
static int
ask_device(int fd, unsigned long request, off_t *arg)
{
	off_t size;
	int error;

	while (ioctl(fd, request, arg) != 0) {
		error = errno;
		if (error == EINTR)
			continue;
		if ((error == ENOTTY || error == EBADF) &&
		    ioctl(fd, DIOCGMEDIASIZE, &size) != 0)
			return (-ENXIO);
		return (-error);
	}
	return (0);
}

/*
 * fsync(2) on a disk device leaves the drive's cache alone; DIOCGFLUSH does
 * not, and wants a descriptor open for writing (geom_dev.c).
 */
int
xbb_disk_flush(int fd, uint32_t disk_kind)
{

	if (disk_kind == XBB_DISK_DEVICE)
		return (ask_device(fd, DIOCGFLUSH, NULL));
	while (fdatasync(fd) != 0)
		if (errno != EINTR)
			return (-errno);
	return (0);
}

/* Parts of pages, which lie in the file. */
static int
write_zeros(int fd, off_t from, off_t to)
{
	static const uint8_t zeros[XBB_PAGE_SIZE];
	ssize_t n;

	while (from < to) {
		n = pwrite(fd, zeros, to - from < (off_t)sizeof(zeros) ?
		    (size_t)(to - from) : sizeof(zeros), from);
		if (n > 0)
			from += n;
		else if (n == 0)
			return (-EIO);
		else if (errno != EINTR)
			return (-errno);
	}
	return (0);
}

/*
 * Whole pages, none of them beyond the end.  fspacectl(2) goes as far as it
 * likes and says what is left, also when interrupted.
 */
static int
make_hole(int fd, off_t from, off_t to)
{
	struct spacectl_range range = { .r_offset = from, .r_len = to - from };
	struct spacectl_range left = range;

	for (; range.r_len > 0; range = left)
		if (fspacectl(fd, SPACECTL_DEALLOC, &range, 0, &left) != 0 &&
		    errno != EINTR)
			return (-errno);
	return (0);
}

/*
 * On tmpfs a range that begins on a page and ends within it, by itself or since
 * the file ends there, holds the thread in the kernel for ever: seen on 15.1
 * for the former, the latter read in tmpfs_reg_punch_hole().  So whole pages of
 * the file only; what is around them is written, since it must read as zeros
 * too.  Nobody can help a file that is made shorter at that very moment.
 */
static int
discard_file(int fd, off_t from, off_t to)
{
	const off_t page = getpagesize();
	off_t first, last;
	struct stat st;
	int error;

	if (fstat(fd, &st) != 0)
		return (-errno);
	if (to > st.st_size)
		to = st.st_size;
	first = (from + page - 1) / page * page;
	last = to / page * page;
	if (first >= last)
		return (write_zeros(fd, from, to));
	error = write_zeros(fd, from, first);
	if (error == 0)
		error = make_hole(fd, first, last);
	return (error != 0 ? error : write_zeros(fd, last, to));
}

/*
 * DIOCGDELETE of a device, whose multiples of sectors the caller sees to.  It
 * ends early, and says that all is well, if a signal is pending: our threads
 * have all blocked but their own faults (thread.c), and one that stops the
 * process leaves out only what is advice (geom_dev.c; read there, not seen).
 *
 * A hole in a file, which keeps its size.
 */
int
xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len)
{
	off_t arg[2] = { offset, len };

	if (disk_kind == XBB_DISK_DEVICE)
		return (ask_device(fd, DIOCGDELETE, arg));
	return (discard_file(fd, offset, offset + len));
}

/* There is no such call here. */
int
xbb_disk_erase(int fd, off_t offset, off_t len)
{

	(void)fd;
	(void)offset;
	(void)len;
	return (-EOPNOTSUPP);
}

/* Here every operation on a disk that is gone says so itself, by ENXIO. */
bool
xbb_disk_is_gone(int fd, uint32_t disk_kind)
{

	(void)fd;
	(void)disk_kind;
	return (false);
}

int
xbb_file_size(int fd, uint64_t *sizep)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return (-errno);
	*sizep = (uint64_t)st.st_size;
	return (0);
}

int
xbb_disk_size(int fd, uint32_t disk_kind, uint64_t *sizep)
{
	off_t size;
	int error;

	if (disk_kind != XBB_DISK_DEVICE)
		return (xbb_file_size(fd, sizep));
	error = ask_device(fd, DIOCGMEDIASIZE, &size);
	if (error == 0)
		*sizep = (uint64_t)size;
	return (error);
}
