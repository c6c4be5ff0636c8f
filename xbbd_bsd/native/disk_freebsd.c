/*
 * disk_freebsd.c - what FreeBSD names differently: how a disk's cache is
 * flushed and how a thread gets its name.  Its Xen devices are not served yet.
 */
#include <sys/disk.h>
#include <sys/ioctl.h>

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

void
xbb_thread_name(const char *name)
{

	pthread_set_name_np(pthread_self(), name);
}
