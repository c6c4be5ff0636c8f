/*
 * flush.c - the flushes of a disk, of which all rings of a device have one
 * account: one at a time, and none is believed after one that failed.  Knows
 * no ring and no request.  Any thread of any queue.
 *
 * A kernel that could not write pages out says so once, to one of those who
 * ask, and takes the pages for clean: the next flush of the same open file, or
 * one that goes on beside the failing one, finds nothing to do and succeeds. So
 * the first failure is noted in the state segment, for good; that word is
 * looked at before a flush and, by whoever waited, after it.  A file that was
 * cut off under a write is noted there as well (io.c).
 */
#include <stdlib.h>

#include "block/block.h"

/* Of the queues that share a state segment; there is one for each of these. */
struct xbb_flushes {
	struct xbb_flushes *next;
	struct xbb_state *state;
	struct xbb_mapping *mapping;	/* of the segment */
	uint32_t	 users;		/* registry_lock */
	pthread_mutex_t	 lock;
	pthread_cond_t	 changed;
	uint64_t	 begun;		/* lock: flushes, under way or over */
	uint64_t	 ended;		/* lock: begun, or one less */
	int		 error;		/* lock: of the last that ended */
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct xbb_flushes *registry;	/* registry_lock */

static struct xbb_flushes *
find_flushes(const struct xbb_state *state)
{
	struct xbb_flushes *f;

	for (f = registry; f != NULL && f->state != state; f = f->next)
		continue;
	return (f);
}

static struct xbb_flushes *
make_flushes(struct xbb_state *state)
{
	struct xbb_flushes *f;

	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return (NULL);
	if (pthread_mutex_init(&f->lock, NULL) != 0) {
		free(f);
		return (NULL);
	}
	if (pthread_cond_init(&f->changed, NULL) != 0) {
		pthread_mutex_destroy(&f->lock);
		free(f);
		return (NULL);
	}
	f->state = state;
	f->mapping = xbb_mapping_of(state);
	f->next = registry;
	registry = f;
	return (f);
}

/* The account of the disk whose segment this is; leave gives it back. */
int
xbb_flushes_join(struct xbb_state *state, struct xbb_flushes **flushesp)
{
	struct xbb_flushes *f;

	pthread_mutex_lock(&registry_lock);
	f = find_flushes(state);
	if (f == NULL)
		f = make_flushes(state);
	if (f != NULL)
		f->users++;
	pthread_mutex_unlock(&registry_lock);
	if (f == NULL)
		return (-ENOMEM);
	*flushesp = f;
	return (0);
}

void
xbb_flushes_leave(struct xbb_flushes *f)
{
	struct xbb_flushes **at;

	pthread_mutex_lock(&registry_lock);
	if (--f->users == 0) {
		for (at = &registry; *at != f; at = &(*at)->next)
			continue;
		*at = f->next;
		pthread_cond_destroy(&f->changed);
		pthread_mutex_destroy(&f->lock);
		free(f);
	}
	pthread_mutex_unlock(&registry_lock);
}

/* The disk has no such operation: nothing is there to flush, nothing lost. */
bool
xbb_means_cannot(int error)
{

	return (error == -EOPNOTSUPP || error == -ENOTTY ||
	    error == -ENOSYS || error == -EINVAL);
}

/* Or it has shut us out, as a cluster does when another client takes it. */
bool
xbb_means_gone(int error)
{

	return (error == -ENXIO || error == -ENODEV || error == -ESHUTDOWN);
}

int
xbb_can_flush(int fd, uint32_t disk_kind)
{
	int error;

	error = xbb_disk_flush(fd, disk_kind);
	if (error == 0)
		return (1);
	return (xbb_means_cannot(error) ? 0 : error);
}

/* The errno of the first loss (xbb.h), 0 if there was none. */
int
xbb_flushes_lost(const struct xbb_flushes *f)
{

	return (xbb_medium_loss(f->mapping, f->state));
}

/* What the disk was given may be lost: none is believed from now on. */
void
xbb_flushes_lose(struct xbb_flushes *f, int errnum)
{

	xbb_state_lose(f->state, errnum);
}

/* Have the disk write its cache out, while others wait.  Locked; unlocks. */
static void
flush_now(struct xbb_flushes *f, int fd, uint32_t disk_kind)
{
	int error;

	f->begun++;
	pthread_mutex_unlock(&f->lock);
	error = xbb_disk_flush(fd, disk_kind);
	if (error != 0 && !xbb_means_cannot(error))
		xbb_flushes_lose(f, -error);
	pthread_mutex_lock(&f->lock);
	f->error = error;
	f->ended = f->begun;
	pthread_cond_broadcast(&f->changed);
}

/*
 * See to it that what the disk has been given is durable: by a flush that
 * began since we came, our own (*done) or one of somebody who came with us.
 * 0 or a negative errno; after a failure that of the first, each time.
 */
int
xbb_flush(struct xbb_flushes *f, int fd, uint32_t disk_kind, bool *done)
{
	uint64_t wanted;
	int error;

	*done = false;
	pthread_mutex_lock(&f->lock);
	wanted = f->begun + 1;
	while (f->ended < wanted && f->begun != f->ended)
		pthread_cond_wait(&f->changed, &f->lock);
	if (f->ended < wanted && xbb_flushes_lost(f) == 0) {
		flush_now(f, fd, disk_kind);
		*done = true;
	}
	error = xbb_flushes_lost(f);
	error = error != 0 ? -error : f->error;
	pthread_mutex_unlock(&f->lock);
	return (error);
}
