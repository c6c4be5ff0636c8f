/*
 * device.c - a device that the process of a guest serves: its segment, which it
 * has locked, and the queues of its rings, which are opened all before any
 * starts, and end together, since a device that answers only in part is none.
 * Knows nothing of messages but the one that it is made from, and of its family
 * what any has (struct xbb_kind).
 *
 * What may have to wait is a thread's: opening maps pages of the guest's, and
 * closing waits for I/O in flight.  The rest is the loop's, which waits for
 * nothing.
 */
#include <sys/file.h>

#include <stdlib.h>
#include <unistd.h>

#include "guest/guest.h"

static void
close_fd(int *fdp)
{

	if (*fdp >= 0)
		close(*fdp);
	*fdp = -1;
}

/* Give everything back, however far opening came; the lock goes last. */
static void
release_device(struct xbb_device *d)
{
	uint32_t i;

	for (i = 0; i < d->nrings; i++)
		if (d->queue[i] != NULL)
			d->kind->close(d->queue[i]);
	for (i = 0; i < d->nrings; i++) {
		d->queue[i] = NULL;
		if (!d->own_grants)
			close_fd(&d->ring[i].conn.grant_fd);
		close_fd(&d->ring[i].conn.event_fd);
	}
	if (d->state != NULL)
		d->kind->unmap(d->state);
	d->state = NULL;
	for (i = 0; i < XBB_RATE_LEVELS; i++) {
		if (d->words[i] != NULL)
			xbb_rate_unmap(d->words[i]);
		d->words[i] = NULL;
		close_fd(&d->rate_fd[i]);
	}
	for (i = 0; i < XBB_MAX_RINGS; i++)
		close_fd(&d->medium[i]);
	for (i = 0; i < XBB_GUEST_KEPT; i++)
		close_fd(&d->kept[i]);
	close_fd(&d->segment_fd);
}

/*
 * What the device gives to its guest: a descriptor for each ring, or one for
 * all, which comes before they do.
 */
static int
medium_of_ring(struct xbb_device *d, uint32_t ring,
    struct xbb_message *message, uint32_t *atp)
{

	if (d->kind->each)
		d->medium[ring] = xbb_message_fd(message, (*atp)++);
	return (d->medium[d->kind->each ? ring : 0]);
}

/* The process's own grant device serves all rings there are. */
static int
grants_of_ring(struct xbb_message *message,
    const struct xbb_guest_params *params, uint32_t *atp)
{

	if (params->grant_fd >= 0)
		return (params->grant_fd);
	return (xbb_message_fd(message, (*atp)++));
}

/*
 * One as a valid ADD has it, whose descriptors it takes; NULL if there is no
 * memory for it.
 */
struct xbb_device *
xbb_device_new(struct xbb_message *message,
    const struct xbb_guest_params *params, int wake_fd)
{
	const struct xbb_guest_add *add = &message->add;
	struct xbb_device *d;
	uint32_t at, i;

	d = calloc(1, sizeof(*d));
	if (d == NULL)
		return (NULL);
	d->kind = xbb_kind_of(add->device);
	d->number = add->device;
	d->serial = add->head.serial;
	d->wake_fd = wake_fd;
	d->nrings = add->nrings;
	d->own_grants = params->grant_fd >= 0;
	d->shown.device = d->number;
	atomic_init(&d->stage, XBB_STAGE_OPENING);
	at = 0;
	d->segment_fd = xbb_message_fd(message, at++);
	for (i = 0; i < XBB_MAX_RINGS; i++)
		d->medium[i] = -1;
	if (!d->kind->each)
		d->medium[0] = xbb_message_fd(message, at++);
	for (i = 0; i < d->nrings; i++) {
		d->ring[i] = add->ring[i];
		d->ring[i].conn.grant_fd = grants_of_ring(message, params,
		    &at);
		d->ring[i].conn.event_fd = xbb_message_fd(message, at++);
		d->ring[i].conn.wake_fd = wake_fd;
		d->ring[i].conn.hv = params->hv;
		*d->kind->medium_fd(&d->ring[i]) = medium_of_ring(d, i,
		    message, &at);
	}
	for (i = 0; i < XBB_GUEST_KEPT; i++)
		d->kept[i] = i < add->nkept ? xbb_message_fd(message, at++) :
		    -1;
	for (i = 0; i < XBB_RATE_LEVELS; i++)
		d->rate_fd[i] = i != XBB_RATE_DISK && xbb_has_rate(add, i) ?
		    xbb_message_fd(message, at++) : -1;
	return (d);
}

/*
 * Whoever holds this lock serves the device: it is free once no thread of the
 * last one can touch the disk any more (the kernel gives it up when the process
 * has ended).
 */
static int
lock_segment(struct xbb_device *d)
{

	while (flock(d->segment_fd, LOCK_EX | LOCK_NB) != 0)
		if (errno != EINTR)
			return (xbb_fail(&d->error, "lock segment", errno));
	return (0);
}

/* Have it go by the limits of others, too. */
static int
share_rates(struct xbb_device *d)
{
	uint32_t i;
	int error;

	for (i = 0; i < XBB_RATE_LEVELS; i++) {
		if (d->rate_fd[i] < 0)
			continue;
		error = xbb_rate_map(d->rate_fd[i], &d->words[i]);
		if (error != 0)
			return (xbb_fail(&d->error, "map limits", -error));
		d->kind->share(d->state, i, d->words[i]);
		close_fd(&d->rate_fd[i]);
	}
	return (0);
}

static int
open_device(struct xbb_device *d)
{
	uint32_t i;
	int error;

	error = lock_segment(d);
	if (error != 0)
		return (error);
	error = d->kind->map(d->segment_fd, &d->state);
	if (error != 0)
		return (xbb_fail(&d->error, "map segment", -error));
	error = share_rates(d);
	for (i = 0; i < d->nrings && error == 0; i++)
		error = d->kind->open(&d->ring[i], d->state, &d->error,
		    &d->queue[i]);
	/* One that cannot be had must not wait for requests of the others. */
	for (i = 0; i < d->nrings && error == 0; i++)
		error = d->kind->start(d->queue[i], &d->error);
	return (error);
}

static void
name_thread(const struct xbb_device *d, const char *what)
{

	xbb_thread_is("%s%u %s", d->kind->family->driver,
	    xbb_unit_of(d->number), what);
}

/* The thread's last word: the loop may look at the device again. */
static void
end_stage(struct xbb_device *d, enum xbb_stage stage)
{
	const int wake_fd = d->wake_fd;

	atomic_store(&d->stage, stage);
	xbb_wake(wake_fd);
}

static void *
opening_main(void *arg)
{
	struct xbb_device *d = arg;

	name_thread(d, "opening");
	if (open_device(d) == 0) {
		end_stage(d, XBB_STAGE_OPEN);
		return (NULL);
	}
	release_device(d);
	end_stage(d, XBB_STAGE_FAILED);
	return (NULL);
}

static void *
closing_main(void *arg)
{
	struct xbb_device *d = arg;

	name_thread(d, "closing");
	release_device(d);
	end_stage(d, XBB_STAGE_CLOSED);
	return (NULL);
}

/* Have it opened; if there can be no thread, nothing has begun. */
int
xbb_device_open(struct xbb_device *d)
{
	int error;

	error = xbb_thread_start(&d->thread, opening_main, d);
	d->has_thread = error == 0;
	return (error);
}

/* Have it closed; it is OPEN, and still is if there can be no thread. */
int
xbb_device_close(struct xbb_device *d)
{
	int error;

	atomic_store(&d->stage, XBB_STAGE_CLOSING);
	error = xbb_thread_start(&d->thread, closing_main, d);
	d->has_thread = error == 0;
	if (error != 0)
		atomic_store(&d->stage, XBB_STAGE_OPEN);
	return (error);
}

/* Is nobody at it but the loop?  The thread that was is joined. */
bool
xbb_device_settle(struct xbb_device *d)
{
	unsigned int stage;

	stage = atomic_load(&d->stage);
	if (stage == XBB_STAGE_OPENING || stage == XBB_STAGE_CLOSING)
		return (false);
	if (d->has_thread)
		pthread_join(d->thread, NULL);
	d->has_thread = false;
	return (true);
}

/* Give its ring a connection, which is that's from then on if this says 0. */
int
xbb_device_connect(struct xbb_device *d, int fd,
    const struct xbb_guest_connect *connect)
{

	return (d->kind->connect == NULL ? -ENOTSUP :
	    d->kind->connect(d->queue[0], fd, connect->export_name));
}

void
xbb_device_drain(struct xbb_device *d)
{
	uint32_t i;

	for (i = 0; i < d->nrings; i++)
		d->kind->drain(d->queue[i]);
}

/* Have its rings look at what its segment says. */
void
xbb_device_have_look(struct xbb_device *d)
{
	uint32_t i;

	for (i = 0; i < d->nrings; i++)
		if (d->kind->look != NULL)
			d->kind->look(d->queue[i]);
}

/* As xbb_device_drain(), for the next one that serves it. */
void
xbb_device_hand_over(struct xbb_device *d)
{
	uint32_t i;

	for (i = 0; i < d->nrings; i++)
		d->kind->hand_over(d->queue[i]);
}

/* Of one that has drained: does whoever goes on have requests to answer? */
bool
xbb_device_owes(const struct xbb_device *d)
{
	uint32_t i;

	if (!d->hands_over || d->kind->owes == NULL)
		return (false);
	for (i = 0; i < d->nrings; i++)
		if (d->kind->owes(d->queue[i]))
			return (true);
	return (false);
}

/*
 * Of all rings as one: drained when the last is, for the first reason that
 * there was.  One that stops by itself takes the others along.
 */
static void
look_at_rings(struct xbb_device *d, struct xbb_guest_device *found)
{
	struct xbb_queue_status status;
	uint32_t drained, i, running;

	drained = running = 0;
	for (i = 0; i < d->nrings; i++) {
		d->kind->status(d->queue[i], &status);
		running += status.state == XBB_QUEUE_RUNNING;
		drained += status.state == XBB_QUEUE_DRAINED;
		if (found->reason == XBB_STOP_NONE &&
		    status.reason != XBB_STOP_NONE) {
			found->reason = status.reason;
			found->errnum = status.errnum;
		}
	}
	if (running == d->nrings) {
		found->state = XBB_GUEST_RUNNING;
		return;
	}
	if (running != 0)
		xbb_device_drain(d);
	found->state = drained == d->nrings ? XBB_GUEST_DRAINED :
	    XBB_GUEST_DRAINING;
}

/* Where it is now. */
void
xbb_device_look(struct xbb_device *d, struct xbb_guest_device *found)
{

	*found = d->shown;
	switch (atomic_load(&d->stage)) {
	case XBB_STAGE_OPENING:
		found->state = XBB_GUEST_OPENING;
		break;
	case XBB_STAGE_OPEN:
		look_at_rings(d, found);
		break;
	case XBB_STAGE_CLOSING:
		found->state = XBB_GUEST_CLOSING;
		break;
	default:
		found->state = XBB_GUEST_GONE;
	}
}

/* One that nothing is held of any more, or that was never opened. */
void
xbb_device_free(struct xbb_device *d)
{

	release_device(d);
	free(d);
}
