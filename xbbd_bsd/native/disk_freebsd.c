/*
 * disk_freebsd.c - what FreeBSD names differently: how a disk's cache is
 * flushed, how sectors are discarded, and how a thread gets its name.  Its Xen
 * devices are not served yet.
 */
#include <sys/disk.h>
#include <sys/ioctl.h>

#include <fcntl.h>
#include <pthread_np.h>
#include <unistd.h>

#include "internal.h"

const struct xbb_hv_ops *const xbb_hv_xen = NULL;
const struct xbb_hvfront_ops *const xbb_hvfront_xen = NULL;

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
 * A hole in a file, which keeps its size (fspacectl(2), in steps as it likes);
 * DIOCGDELETE of a device, whose multiples of sectors the caller sees to.
 */
int
xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len)
{
	struct spacectl_range range = { .r_offset = offset, .r_len = len };
	off_t arg[2] = { offset, len };

	if (disk_kind == XBB_DISK_DEVICE) {
		while (ioctl(fd, DIOCGDELETE, arg) != 0)
			if (errno != EINTR)
				return (-errno);
		return (0);
	}
	while (range.r_len > 0)
		if (fspacectl(fd, SPACECTL_DEALLOC, &range, 0, &range) != 0 &&
		    errno != EINTR)
			return (-errno);
	return (0);
}

void
xbb_thread_name(const char *name)
{

	pthread_set_name_np(pthread_self(), name);
}
