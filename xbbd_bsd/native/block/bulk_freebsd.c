/*
 * bulk_freebsd.c - there is no such call: lio_listio(2) begins several
 * transfers by one, but a device does each by a thread of the kernel's, and
 * none of them knows memory that was looked up before.  Any thread.
 */
#include "block/block.h"

struct xbb_bulk *
xbb_bulk_open(int disk_fd, uint32_t sector_size, int fence_fd, void *buffer,
    size_t size)
{

	(void)disk_fd;
	(void)sector_size;
	(void)fence_fd;
	(void)buffer;
	(void)size;
	return (NULL);
}

void
xbb_bulk_close(struct xbb_bulk *bulk)
{

	(void)bulk;
}

bool
xbb_bulk_move(struct xbb_bulk *bulk, bool to_disk,
    struct xbb_bulk_piece *pieces, uint32_t n)
{

	(void)bulk;
	(void)to_disk;
	(void)pieces;
	(void)n;
	return (false);
}
