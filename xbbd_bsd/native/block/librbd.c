/*
 * librbd.c - the libraries that speak to a cluster of Ceph, and what is wanted
 * of them.  Knows no image and no ring.  Any thread.
 */
#include "block/block.h"
#include "block/library.h"
#include "block/librbd.h"

struct xbb_librados xbb_librados;
struct xbb_librbd xbb_librbd;

#define RADOS(name)	{ "rados_" #name, &xbb_librados.name }
#define RBD(name)	{ "rbd_" #name, &xbb_librbd.name }

static const struct xbb_symbol symbols[] = {
	RADOS(create), RADOS(conf_read_file), RADOS(conf_set), RADOS(connect),
	RADOS(shutdown), RADOS(cluster_fsid), RADOS(ioctx_create),
	RADOS(ioctx_destroy), RADOS(ioctx_set_namespace), RADOS(ioctx_get_id),
	RBD(open), RBD(open_read_only), RBD(close), RBD(get_size),
	RBD(get_features), RBD(get_stripe_unit), RBD(get_id),
	RBD(config_image_list), RBD(config_image_list_cleanup),
	RBD(lock_acquire), RBD(lock_get_owners), RBD(lock_get_owners_cleanup),
	RBD(lock_break), RBD(set_image_notification), RBD(poll_io_events),
	RBD(aio_create_completion), RBD(aio_release), RBD(aio_get_arg),
	RBD(aio_get_return_value), RBD(aio_read), RBD(aio_write),
	RBD(aio_write_zeroes), RBD(aio_flush),
};

static struct xbb_library library = {
	.file = "librbd.so.1",		/* which wants librados, and loads it */
	.symbols = symbols,
	.count = sizeof(symbols) / sizeof(symbols[0]),
};

int
xbb_rbd_load(void)
{

	return (xbb_library_load(&library));
}
