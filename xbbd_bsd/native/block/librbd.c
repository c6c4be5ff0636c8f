/*
 * librbd.c - the libraries that speak to a cluster of Ceph, and their loading.
 * Knows no image and no ring.  Any thread.
 */
#include <dlfcn.h>
#include <string.h>

#include "block/block.h"
#include "block/librbd.h"

#define LIBRARY		"librbd.so.1"	/* which wants librados, and loads it */

struct xbb_librados xbb_librados;
struct xbb_librbd xbb_librbd;

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded;			/* load_lock */

/* Where each function goes; ISO C has no cast between the two pointers. */
#define RADOS(name)	{ "rados_" #name, offsetof(struct xbb_librados, name) }
#define RBD(name)	{ "rbd_" #name, offsetof(struct xbb_librbd, name) }

struct symbol {
	const char	*name;
	size_t		 at;
};

static const struct symbol rados_symbols[] = {
	RADOS(create), RADOS(conf_read_file), RADOS(conf_set), RADOS(connect),
	RADOS(shutdown), RADOS(cluster_fsid), RADOS(ioctx_create),
	RADOS(ioctx_destroy), RADOS(ioctx_set_namespace), RADOS(ioctx_get_id),
};

static const struct symbol rbd_symbols[] = {
	RBD(open), RBD(open_read_only), RBD(close), RBD(get_size),
	RBD(get_features), RBD(get_stripe_unit), RBD(get_id),
	RBD(config_image_list), RBD(config_image_list_cleanup),
	RBD(lock_acquire), RBD(lock_get_owners), RBD(lock_get_owners_cleanup),
	RBD(lock_break), RBD(set_image_notification), RBD(poll_io_events),
	RBD(aio_create_completion), RBD(aio_release), RBD(aio_get_arg),
	RBD(aio_get_return_value), RBD(aio_read), RBD(aio_write),
	RBD(aio_write_zeroes), RBD(aio_flush),
};

static int
find_all(void *library, const struct symbol *symbols, size_t n, void *to)
{
	void *symbol;
	size_t i;

	for (i = 0; i < n; i++) {
		symbol = dlsym(library, symbols[i].name);
		if (symbol == NULL)
			return (-ENOSYS);
		memcpy((uint8_t *)to + symbols[i].at, &symbol, sizeof(symbol));
	}
	return (0);
}

static int
find_libraries(void *library)
{
	int error;

	error = find_all(library, rados_symbols,
	    sizeof(rados_symbols) / sizeof(rados_symbols[0]), &xbb_librados);
	if (error == 0)
		error = find_all(library, rbd_symbols,
		    sizeof(rbd_symbols) / sizeof(rbd_symbols[0]), &xbb_librbd);
	return (error);
}

int
xbb_rbd_load(void)
{
	void *library;
	int error;

	pthread_mutex_lock(&load_lock);
	error = 0;
	if (!loaded) {
		library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
		error = library == NULL ? -ENOENT : find_libraries(library);
		loaded = error == 0;
	}
	pthread_mutex_unlock(&load_lock);
	return (error);
}
