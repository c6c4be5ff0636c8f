/*
 * image.c - an image in a cluster of Ceph, from its opening to its close:
 * whoever has it open for writing has its lock, which nobody else gets, and
 * takes it from a dead predecessor so that nothing of that one's comes late.
 * Knows no ring.  Opening and closing may take as long as the cluster does, and
 * are for a thread that may wait; any thread.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/rbd.h"

#define MOST_OPTIONS	1024	/* of an image; there are less than 200 */
#define MOST_OWNERS	8	/* of a lock that has one */
#define EVENTS		64	/* taken at once */

static pthread_mutex_t images_lock = PTHREAD_MUTEX_INITIALIZER;
static struct xbb_rbd_image *images;	/* images_lock: all that are open */

/* Say what failed, and whether that is all there is to say. */
static int
fail_for(struct xbb_rbd_found *found, int error, bool explained,
    const char *words)
{

	(void)snprintf((char *)found->words, sizeof(found->words), "%s", words);
	found->explained = explained;
	return (error);
}

static const char *
text_or_null(const uint8_t *text)
{

	return (*text == '\0' ? NULL : (const char *)text);
}

/*
 * What is acknowledged has to be in the cluster, whatever becomes of us; and
 * librados has nothing to tell on our streams.
 */
static int
set_options(xbb_rados_t cluster, const struct xbb_rbd_wanted *wanted)
{
	char seconds[16];
	const char *const options[][2] = {
		{ "rbd_cache", "false" },
		{ "log_to_stderr", "false" },
		{ "err_to_stderr", "false" },
		{ "client_mount_timeout", seconds },
		{ "rados_mon_op_timeout", seconds },
		{ "keyring", text_or_null(wanted->keyring) },
	};
	size_t i;
	int error;

	(void)snprintf(seconds, sizeof(seconds), "%u", wanted->timeout);
	error = 0;
	for (i = 0; i < sizeof(options) / sizeof(options[0]) && error == 0; i++)
		if (options[i][1] != NULL)
			error = xbb_librados.conf_set(cluster, options[i][0],
			    options[i][1]);
	/*
	 * Answers are one thread's, not two that wake each other for each: with
	 * 16 reads of 4 KiB out that is a third more of them a second, on two
	 * processors.  What a version does not know it does without.
	 */
	if (error == 0)
		(void)xbb_librados.conf_set(cluster, "librados_thread_count",
		    "1");
	return (error);
}

static int
connect_cluster(struct xbb_rbd_image *im, const struct xbb_rbd_wanted *wanted,
    struct xbb_rbd_found *found)
{
	const struct xbb_librados *lib = &xbb_librados;
	int error;

	error = lib->create(&im->cluster, text_or_null(wanted->id));
	if (error != 0)
		return (fail_for(found, error, false,
		    "librados does not begin"));
	error = lib->conf_read_file(im->cluster, text_or_null(wanted->conf));
	if (error != 0)
		return (fail_for(found, error, false,
		    "the cluster's configuration cannot be read"));
	error = set_options(im->cluster, wanted);
	if (error != 0)
		return (fail_for(found, error, false,
		    "librados refuses an option"));
	error = lib->connect(im->cluster);
	/* What it looks for on this computer; it does not say which. */
	if (error == -ENOENT)
		return (fail_for(found, error, true, "its client's keyring is "
		    "not there, or its configuration has no 'mon host'"));
	if (error != 0)
		return (fail_for(found, error, false,
		    "its cluster cannot be reached"));
	error = lib->ioctx_create(im->cluster, (const char *)wanted->pool,
	    &im->io);
	if (error == -ENOENT)
		return (fail_for(found, error, true, "there is no such pool"));
	if (error != 0)
		return (fail_for(found, error, false,
		    "its pool cannot be had"));
	lib->ioctx_set_namespace(im->io, (const char *)wanted->space);
	return (0);
}

static int
open_image(struct xbb_rbd_image *im, const struct xbb_rbd_wanted *wanted,
    struct xbb_rbd_found *found)
{
	const char *snapshot = text_or_null(wanted->snapshot);
	const char *name = (const char *)wanted->image;
	int error;

	error = (wanted->read_only ? xbb_librbd.open_read_only :
	    xbb_librbd.open)(im->io, name, &im->image, snapshot);
	if (error == 0)
		return (0);
	im->image = NULL;
	if (error == -ENOENT)
		return (fail_for(found, error, true, "there is no such image"));
	return (fail_for(found, error, false, "its image cannot be opened"));
}

/*
 * Images and pools may have options of their own, which come before ours: one
 * that keeps writes in memory would lose them with us.
 */
static int
check_cache(struct xbb_rbd_image *im, struct xbb_rbd_found *found)
{
	struct xbb_rbd_option *options;
	int count, error, i;
	bool caches;

	count = MOST_OPTIONS;
	options = calloc((size_t)count, sizeof(*options));
	if (options == NULL)
		return (-ENOMEM);
	error = xbb_librbd.config_image_list(im->image, options, &count);
	if (error != 0) {
		free(options);
		return (fail_for(found, error, false,
		    "its options cannot be read"));
	}
	caches = false;
	for (i = 0; i < count; i++)
		if (strcmp(options[i].name, "rbd_cache") == 0)
			caches = strcmp(options[i].value, "false") != 0;
	xbb_librbd.config_image_list_cleanup(options, count);
	free(options);
	return (caches ? fail_for(found, -EINVAL, true, "the image or its pool "
	    "sets rbd_cache, which would lose what was acknowledged") : 0);
}

/* Who has the lock, "" if nobody has. */
static int
find_owner(struct xbb_rbd_image *im, char *owner, size_t size)
{
	char *owners[MOST_OWNERS];
	size_t count;
	int error, mode;

	*owner = '\0';
	count = MOST_OWNERS;
	error = xbb_librbd.lock_get_owners(im->image, &mode, owners, &count);
	if (error == -ENOENT)
		return (0);
	if (error != 0)
		return (error);
	if (count != 0)
		(void)snprintf(owner, size, "%s", owners[0]);
	xbb_librbd.lock_get_owners_cleanup(owners, count);
	return (0);
}

/*
 * Have the lock.  A predecessor that is known to be dead has it still, for some
 * time; to take it from him has the cluster refuse whatever he sent.  From
 * others librbd takes it if they are gone.
 */
static int
take_lock(struct xbb_rbd_image *im, const struct xbb_rbd_wanted *wanted,
    struct xbb_rbd_found *found)
{
	const char *former = (const char *)wanted->former;
	char *holder = (char *)found->holder;
	int error;

	error = find_owner(im, holder, sizeof(found->holder));
	if (error == 0 && *former != '\0' && strcmp(holder, former) == 0) {
		error = xbb_librbd.lock_break(im->image, RBD_LOCK_EXCLUSIVE,
		    former);
		error = error == -ENOENT ? 0 : error;
	}
	if (error == 0)
		error = xbb_librbd.lock_acquire(im->image, RBD_LOCK_EXCLUSIVE);
	if (error == -EROFS || error == -EBUSY)
		return (fail_for(found, -EBUSY, true,
		    "another client has its lock; 'rbd lock ls' says which"));
	if (error == 0)
		error = find_owner(im, holder, sizeof(found->holder));
	return (error == 0 ? 0 : fail_for(found, error, false,
	    "its lock cannot be had"));
}

static int
own_image(struct xbb_rbd_image *im, const struct xbb_rbd_wanted *wanted,
    struct xbb_rbd_found *found)
{
	uint64_t features;
	int error;

	if (wanted->read_only)
		return (0);
	error = check_cache(im, found);
	if (error != 0)
		return (error);
	error = xbb_librbd.get_features(im->image, &features);
	if (error != 0)
		return (fail_for(found, error, false,
		    "its image does not answer"));
	if ((features & RBD_FEATURE_EXCLUSIVE_LOCK) == 0)
		return (fail_for(found, -EINVAL, true, "its image has no lock, "
		    "which 'rbd feature enable ... exclusive-lock' gives it"));
	return (wanted->shared ? 0 : take_lock(im, wanted, found));
}

static int
measure_image(struct xbb_rbd_image *im, struct xbb_rbd_found *found)
{
	int error;

	error = xbb_librbd.get_size(im->image, &found->size);
	if (error == 0)
		error = xbb_librbd.get_stripe_unit(im->image, &found->unit);
	if (error == 0)
		error = xbb_librbd.get_id(im->image, (char *)found->id,
		    sizeof(found->id));
	if (error == 0)
		error = xbb_librados.cluster_fsid(im->cluster,
		    (char *)found->fsid, sizeof(found->fsid));
	found->pool_id = xbb_librados.ioctx_get_id(im->io);
	return (error < 0 ? fail_for(found, error, false,
	    "its image does not answer") : 0);
}

/* Have what comes said by a descriptor, for whoever polls. */
static int
listen_to(struct xbb_rbd_image *im, struct xbb_rbd_found *found)
{
	int error;

	im->fd = xbb_wake_open();
	error = im->fd < 0 ? im->fd : xbb_librbd.set_image_notification(
	    im->image, im->fd, RBD_NOTIFY_EVENTFD);
	return (error == 0 ? 0 : fail_for(found, error, false,
	    "its image cannot be listened to"));
}

/* Undo what was done; waits for what is out. */
static void
release_image(struct xbb_rbd_image *im)
{
	xbb_rbd_completion_t come[EVENTS];
	struct pollfd pfd = { .fd = im->fd, .events = POLLIN };
	struct xbb_rbd_op *op;
	uint64_t drop;
	int i, n;

	while (im->out != 0) {
		(void)poll(&pfd, 1, -1);
		(void)!read(im->fd, &drop, sizeof(drop));
		n = xbb_librbd.poll_io_events(im->image, come, EVENTS);
		for (i = 0; i < n; i++) {
			op = xbb_librbd.aio_get_arg(come[i]);
			xbb_librbd.aio_release(come[i]);
			xbb_rbd_unlink(im, op);
			free(op->buffer);
			free(op);
		}
	}
	if (im->image != NULL)
		(void)xbb_librbd.close(im->image);
	if (im->io != NULL)
		xbb_librados.ioctx_destroy(im->io);
	if (im->cluster != NULL)
		xbb_librados.shutdown(im->cluster);
	if (im->fd >= 0)
		close(im->fd);
	free(im);
}

int
xbb_rbd_open(const struct xbb_rbd_wanted *wanted, struct xbb_rbd_found *found)
{
	struct xbb_rbd_image *im;
	int error;

	memset(found, 0, sizeof(*found));
	error = xbb_rbd_load();
	if (error != 0)
		return (fail_for(found, error, false,
		    "librbd cannot be loaded"));
	im = calloc(1, sizeof(*im));
	if (im == NULL)
		return (-ENOMEM);
	im->fd = -1;
	error = connect_cluster(im, wanted, found);
	if (error == 0)
		error = open_image(im, wanted, found);
	if (error == 0)
		error = own_image(im, wanted, found);
	if (error == 0)
		error = measure_image(im, found);
	if (error == 0)
		error = listen_to(im, found);
	if (error != 0) {
		release_image(im);
		return (error);
	}
	pthread_mutex_lock(&images_lock);
	im->next = images;
	images = im;
	pthread_mutex_unlock(&images_lock);
	return (im->fd);
}

/* The one of that descriptor; locked. */
static struct xbb_rbd_image **
image_of_fd(int fd)
{
	struct xbb_rbd_image **at;

	for (at = &images; *at != NULL && (*at)->fd != fd; at = &(*at)->next)
		continue;
	return (at);
}

void
xbb_rbd_close(int fd)
{
	struct xbb_rbd_image **at, *im;

	pthread_mutex_lock(&images_lock);
	at = image_of_fd(fd);
	im = *at;
	if (im != NULL)
		*at = im->next;
	pthread_mutex_unlock(&images_lock);
	if (im != NULL)
		release_image(im);
}

int
xbb_rbd_size(int fd, uint64_t *size)
{
	struct xbb_rbd_image *im;

	pthread_mutex_lock(&images_lock);
	im = *image_of_fd(fd);
	pthread_mutex_unlock(&images_lock);
	return (im == NULL ? -EBADF : xbb_librbd.get_size(im->image, size));
}

/* For a ring, which alone has it then; NULL if somebody has. */
struct xbb_rbd_image *
xbb_rbd_take(int fd)
{
	struct xbb_rbd_image *im;

	pthread_mutex_lock(&images_lock);
	im = *image_of_fd(fd);
	if (im != NULL && im->taken)
		im = NULL;
	else if (im != NULL)
		im->taken = true;
	pthread_mutex_unlock(&images_lock);
	return (im);
}

void
xbb_rbd_give_back(struct xbb_rbd_image *im)
{

	pthread_mutex_lock(&images_lock);
	im->taken = false;
	pthread_mutex_unlock(&images_lock);
}

void
xbb_rbd_link(struct xbb_rbd_image *im, struct xbb_rbd_op *op)
{

	op->prev = NULL;
	op->next = im->ops;
	if (op->next != NULL)
		op->next->prev = op;
	im->ops = op;
	im->out++;
}

void
xbb_rbd_unlink(struct xbb_rbd_image *im, struct xbb_rbd_op *op)
{

	*(op->prev != NULL ? &op->prev->next : &im->ops) = op->next;
	if (op->next != NULL)
		op->next->prev = op->prev;
	im->out--;
}
