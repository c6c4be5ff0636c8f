/*
 * disk_freebsd.c - what FreeBSD names differently: how a disk's cache is
 * flushed, how sectors are discarded, and how a thread gets its name.
 */
#include <sys/disk.h>
#include <sys/ioctl.h>

#include <fcntl.h>
#include <pthread_np.h>
#include <unistd.h>

#include "internal.h"

/*
 * fsync(2) on a disk device leaves the drive's cache alone; DIOCGFLUSH does
 * not, and wants a descriptor open for writing (geom_dev.c).
 */
int
xbb_disk_flush(int fd, uint32_t disk_kind)
{
	int error;

	do
		error = disk_kind == XBB_DISK_DEVICE ?
		    ioctl(fd, DIOCGFLUSH) : fdatasync(fd);
	while (error != 0 && errno == EINTR);
	return (error == 0 ? 0 : -errno);
}

/*
 * DIOCGDELETE of a device, whose multiples of sectors the caller sees to.  It
 * ends early, and says that all is well, if a signal is pending: our threads
 * have them all blocked (thread.c), and one that stops the process leaves out
 * only what is advice.
 *
 * A hole in a file, which keeps its size: fspacectl(2) goes as far as it likes
 * and says what is left, also when interrupted.
 */
int
xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len)
{
	struct spacectl_range range = { .r_offset = offset, .r_len = len };
	struct spacectl_range left = range;
	off_t arg[2] = { offset, len };

	if (disk_kind == XBB_DISK_DEVICE) {
		while (ioctl(fd, DIOCGDELETE, arg) != 0)
			if (errno != EINTR)
				return (-errno);
		return (0);
	}
	for (; range.r_len > 0; range = left)
		if (fspacectl(fd, SPACECTL_DEALLOC, &range, 0, &left) != 0 &&
		    errno != EINTR)
			return (-errno);
	return (0);
}

/* Here every operation on a disk that is gone says so itself, by ENXIO. */
bool
xbb_disk_is_gone(int fd, uint32_t disk_kind)
{

	(void)fd;
	(void)disk_kind;
	return (false);
}

void
xbb_thread_name(const char *name)
{

	pthread_set_name_np(pthread_self(), name);
}
