/*
 * disk_linux.c - what Linux names differently: how a disk's cache is flushed,
 * and how sectors are discarded.
 */
#include <sys/ioctl.h>

#include <fcntl.h>
#include <unistd.h>

#include <linux/fs.h>

#include "block/block.h"

const unsigned long xbb_disk_ioctls[] = {
	BLKDISCARD, BLKSECDISCARD, BLKGETSIZE64, 0,
};

/* fdatasync(2) also flushes the write cache of a block device. */
int
xbb_disk_flush(int fd, uint32_t disk_kind)
{

	(void)disk_kind;
	while (fdatasync(fd) != 0)
		if (errno != EINTR)
			return (-errno);
	return (0);
}

/* A hole in a file, which keeps its size; BLKDISCARD of a device. */
int
xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len)
{
	uint64_t range[2] = { (uint64_t)offset, (uint64_t)len };
	int error;

	do
		error = disk_kind == XBB_DISK_DEVICE ?
		    ioctl(fd, BLKDISCARD, range) :
		    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		    offset, len);
	while (error != 0 && errno == EINTR);
	return (error == 0 ? 0 : -errno);
}

/* A discard beyond recovery, of a device that says it can. */
int
xbb_disk_erase(int fd, off_t offset, off_t len)
{
	uint64_t range[2] = { (uint64_t)offset, (uint64_t)len };

	while (ioctl(fd, BLKSECDISCARD, range) != 0)
		if (errno != EINTR)
			return (-errno);
	return (0);
}

/*
 * A disk that was taken away fails with EIO; what tells it from one with a bad
 * place is that it has no size any more (del_gendisk()).
 */
bool
xbb_disk_is_gone(int fd, uint32_t disk_kind)
{
	uint64_t size;

	return (disk_kind == XBB_DISK_DEVICE &&
	    ioctl(fd, BLKGETSIZE64, &size) == 0 && size == 0);
}

/*
 * By its end, as the position is nobody's here.  fstat(2) costs more than its
 * own time: who has seen the times of a file makes the next write take a finer
 * one, and write the inode for it (multigrain timestamps, Linux 6.13).
 */
int
xbb_file_size(int fd, uint64_t *sizep)
{
	off_t end;

	end = lseek(fd, 0, SEEK_END);
	if (end < 0)
		return (-errno);
	*sizep = (uint64_t)end;
	return (0);
}

/* Of a device too. */
int
xbb_disk_size(int fd, uint32_t disk_kind, uint64_t *sizep)
{

	(void)disk_kind;
	return (xbb_file_size(fd, sizep));
}
