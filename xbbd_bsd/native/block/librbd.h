/*
 * librbd.h - as much of librbd's and librados' interfaces as we use, which are
 * stable: found by dlopen(3) when they are wanted, so that nobody needs them
 * who has no such disk.
 */
#ifndef XBB_BLOCK_LIBRBD_H
#define XBB_BLOCK_LIBRBD_H

#include <stddef.h>
#include <stdint.h>

#define RBD_FEATURE_EXCLUSIVE_LOCK	((uint64_t)1 << 2)
#define RBD_LOCK_EXCLUSIVE		0	/* mode: nobody else's, ever */
#define RBD_NOTIFY_EVENTFD		2

/* Handles of theirs, of which they say no more than that. */
typedef void *xbb_rados_t;
typedef void *xbb_rados_ioctx_t;
typedef void *xbb_rbd_t;
typedef void *xbb_rbd_completion_t;

/* An option as it is in force for an image, and where that is said. */
struct xbb_rbd_option {
	char	*name;
	char	*value;
	int	 source;
};

/* Functions of the libraries, by their names there without "rados_", "rbd_". */
struct xbb_librados {
	int	(*create)(xbb_rados_t *cluster, const char *id);
	int	(*conf_read_file)(xbb_rados_t cluster, const char *path);
	int	(*conf_set)(xbb_rados_t cluster, const char *option,
		    const char *value);
	int	(*connect)(xbb_rados_t cluster);
	void	(*shutdown)(xbb_rados_t cluster);
	int	(*cluster_fsid)(xbb_rados_t cluster, char *buf, size_t len);
	int	(*ioctx_create)(xbb_rados_t cluster, const char *pool,
		    xbb_rados_ioctx_t *io);
	void	(*ioctx_destroy)(xbb_rados_ioctx_t io);
	void	(*ioctx_set_namespace)(xbb_rados_ioctx_t io, const char *name);
	int64_t	(*ioctx_get_id)(xbb_rados_ioctx_t io);
};

struct xbb_librbd {
	int	(*open)(xbb_rados_ioctx_t io, const char *name,
		    xbb_rbd_t *image, const char *snapshot);
	int	(*open_read_only)(xbb_rados_ioctx_t io, const char *name,
		    xbb_rbd_t *image, const char *snapshot);
	int	(*close)(xbb_rbd_t image);
	int	(*get_size)(xbb_rbd_t image, uint64_t *size);
	int	(*get_features)(xbb_rbd_t image, uint64_t *features);
	int	(*get_stripe_unit)(xbb_rbd_t image, uint64_t *size);
	int	(*get_id)(xbb_rbd_t image, char *id, size_t len);
	int	(*config_image_list)(xbb_rbd_t image,
		    struct xbb_rbd_option *options, int *count);
	void	(*config_image_list_cleanup)(struct xbb_rbd_option *options,
		    int count);
	int	(*lock_acquire)(xbb_rbd_t image, int mode);
	int	(*lock_get_owners)(xbb_rbd_t image, int *mode, char **owners,
		    size_t *count);
	void	(*lock_get_owners_cleanup)(char **owners, size_t count);
	int	(*lock_break)(xbb_rbd_t image, int mode, const char *owner);
	int	(*set_image_notification)(xbb_rbd_t image, int fd, int type);
	int	(*poll_io_events)(xbb_rbd_t image,
		    xbb_rbd_completion_t *completions, int count);
	int	(*aio_create_completion)(void *arg,
		    void (*done)(xbb_rbd_completion_t completion, void *arg),
		    xbb_rbd_completion_t *completion);
	void	(*aio_release)(xbb_rbd_completion_t completion);
	void	*(*aio_get_arg)(xbb_rbd_completion_t completion);
	int64_t	(*aio_get_return_value)(xbb_rbd_completion_t completion);
	int	(*aio_read)(xbb_rbd_t image, uint64_t offset, size_t length,
		    char *to, xbb_rbd_completion_t completion);
	int	(*aio_write)(xbb_rbd_t image, uint64_t offset, size_t length,
		    const char *from, xbb_rbd_completion_t completion);
	int	(*aio_write_zeroes)(xbb_rbd_t image, uint64_t offset,
		    size_t length, xbb_rbd_completion_t completion,
		    int zero_flags, int op_flags);
	int	(*aio_flush)(xbb_rbd_t image, xbb_rbd_completion_t completion);
};

/* librbd.c - the libraries; valid once xbb_rbd_load() has said 0. */
extern struct xbb_librados xbb_librados;
extern struct xbb_librbd xbb_librbd;

#endif /* XBB_BLOCK_LIBRBD_H */
