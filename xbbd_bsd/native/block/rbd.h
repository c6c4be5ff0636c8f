/*
 * rbd.h - images in a cluster of Ceph from the inside: librbd.c (the library),
 * image.c (an image, from its opening to its close), rbd.c (the store).  Nobody
 * else includes it.
 *
 * An image is one thread's at a time: whoever opens it, then the ring's that
 * has taken it, until that is closed, then whoever closes it.
 */
#ifndef XBB_BLOCK_RBD_H
#define XBB_BLOCK_RBD_H

#include "block/block.h"
#include "block/librbd.h"

struct xbb_rbd_image;

/*
 * What was asked for, until its completion has come: there is no way to take it
 * back.  So it may outlive whoever asked, and keeps the buffer then.
 */
struct xbb_rbd_op {
	struct xbb_rbd_op *prev, *next;	/* those of its image */
	xbb_rbd_completion_t completion;
	struct xbb_away	*away;		/* NULL: nobody waits any more */
	uint8_t		*buffer;	/* of malloc(3), ours by then */
};

struct xbb_rbd_image {
	struct xbb_rbd_image *next;	/* image.c, its lock */
	bool		 taken;		/* likewise */
	int		 fd;		/* eventfd(2): something has come */
	xbb_rados_t	 cluster;
	xbb_rados_ioctx_t io;
	xbb_rbd_t	 image;
	struct xbb_rbd_op *ops;		/* that are out, newest first */
	uint32_t	 out;		/* so many */
};

/* image.c - one that is open, by its descriptor; what has come of its ops. */
struct xbb_rbd_image *xbb_rbd_take(int fd);
void	xbb_rbd_give_back(struct xbb_rbd_image *image);
void	xbb_rbd_link(struct xbb_rbd_image *image, struct xbb_rbd_op *op);
void	xbb_rbd_unlink(struct xbb_rbd_image *image, struct xbb_rbd_op *op);

#endif /* XBB_BLOCK_RBD_H */
