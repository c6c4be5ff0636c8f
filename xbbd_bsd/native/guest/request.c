/*
 * request.c - what the daemon asks of the process of a guest, once its message
 * is known to be one.  The loop's thread.
 */
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

static struct xbb_device *
find_device(struct xbb_guest *g, uint32_t number)
{
	struct xbb_device *d;

	for (d = g->devices; d != NULL && d->number != number; d = d->next)
		;
	return (d);
}

static void
take_bounds(struct xbb_guest *g, const struct xbb_guest_hello *hello)
{
	struct xbb_io_use use;

	g->idle_seconds = hello->idle_seconds;
	xbb_budget_set(&hello->budget);
	xbb_io_bound(hello->io_threads, hello->io_bytes, &use);
}

static int
confine_descriptors(const struct xbb_device *d,
    const struct xbb_guest_params *params)
{
	uint32_t i;
	int error;

	error = xbb_confine_fd(d->segment_fd, XBB_USE_SEGMENT, params);
	for (i = 0; i < XBB_MAX_RINGS && error == 0; i++)
		if (d->medium[i] >= 0)
			error = xbb_confine_fd(d->medium[i], d->kind->medium,
			    params);
	for (i = 0; i < d->nrings && error == 0; i++) {
		error = xbb_confine_fd(d->ring[i].conn.grant_fd,
		    XBB_USE_GRANTS, params);
		if (error == 0)
			error = xbb_confine_fd(d->ring[i].conn.event_fd,
			    XBB_USE_EVENTS, params);
	}
	for (i = 0; i < XBB_GUEST_KEPT && error == 0; i++)
		if (d->kept[i] >= 0)
			error = xbb_confine_fd(d->kept[i], XBB_USE_KEPT,
			    params);
	for (i = 0; i < XBB_RATE_LEVELS && error == 0; i++)
		if (d->rate_fd[i] >= 0)
			error = xbb_confine_fd(d->rate_fd[i], XBB_USE_RATES,
			    params);
	return (error);
}

static void
refuse_add(struct xbb_guest *g, const struct xbb_message *message, int errnum,
    const char *words)
{

	xbb_daemon_answer(g, message->head.serial, message->add.device, errnum,
	    words);
}

static void
add_device(struct xbb_guest *g, struct xbb_message *message)
{
	struct xbb_device *d;
	int error;

	if (find_device(g, message->add.device) != NULL) {
		refuse_add(g, message, EEXIST, "there is such a device");
		return;
	}
	if (g->ndevices == XBB_GUEST_DEVICES) {
		refuse_add(g, message, ENOSPC, "no room for another device");
		return;
	}
	d = xbb_device_new(message, g->params, g->wake);
	if (d == NULL) {
		refuse_add(g, message, ENOMEM, "allocate a device");
		return;
	}
	error = confine_descriptors(d, g->params);
	if (error == 0)
		error = xbb_device_open(d);
	if (error != 0) {
		xbb_device_free(d);
		refuse_add(g, message, -error, "begin to open a device");
		return;
	}
	d->next = g->devices;
	g->devices = d;
	g->ndevices++;
}

/* Both ways to close one end with a DONE, later. */
static void
close_device(struct xbb_guest *g, struct xbb_device *d, bool hands_over,
    uint32_t serial)
{

	if (d->leaving && d->serial != 0) {
		xbb_daemon_answer(g, serial, d->number, EALREADY,
		    "it is being closed");
		return;
	}
	xbb_daemon_answer_for(g, d, ECANCELED, "closed before it was open");
	d->serial = serial;
	d->leaving = true;
	d->hands_over = hands_over;
	if (!hands_over && xbb_device_settle(d) &&
	    atomic_load(&d->stage) == XBB_STAGE_OPEN &&
	    xbb_device_close(d) != 0)
		g->behind = true;
}

/* Copies of what keeps others off the disk, while it is open here. */
static void
give_descriptors(struct xbb_guest *g, struct xbb_device *d, uint32_t serial)
{
	struct xbb_guest_done done = { .device = d->number };
	int fds[1 + XBB_GUEST_KEPT];
	uint32_t i, n;

	if (!xbb_device_settle(d) || atomic_load(&d->stage) != XBB_STAGE_OPEN) {
		xbb_daemon_answer(g, serial, d->number, EBUSY,
		    "it is being opened or closed");
		return;
	}
	n = 0;
	if (!d->kind->each)
		fds[n++] = d->medium[0];
	for (i = 0; i < XBB_GUEST_KEPT; i++)
		if (d->kept[i] >= 0)
			fds[n++] = d->kept[i];
	if (xbb_message_send(g->daemon_fd, &done, XBB_GUEST_DONE, sizeof(done),
	    serial, fds, n) != 0)
		xbb_daemon_lose(g);
}

static void
connect_device(struct xbb_guest *g, struct xbb_message *message)
{
	const struct xbb_guest_connect *connect = &message->connect;
	struct xbb_device *d;
	int error, fd;

	d = find_device(g, connect->device);
	error = d == NULL ? -ENOENT : !xbb_device_settle(d) ||
	    atomic_load(&d->stage) != XBB_STAGE_OPEN ? -EBUSY : 0;
	if (error == 0)
		error = xbb_confine_fd(message->fd[0], XBB_USE_SERVER,
		    g->params);
	if (error == 0) {
		fd = xbb_message_fd(message, 0);
		error = xbb_device_connect(d, fd, connect);
		if (error != 0)
			close(fd);
	}
	xbb_daemon_answer(g, connect->head.serial, connect->device, -error,
	    error == 0 ? "" : "connect its disk");
}

static void
do_with_device(struct xbb_guest *g, const struct xbb_guest_request *request)
{
	const uint32_t serial = request->head.serial;
	struct xbb_device *d;

	d = find_device(g, request->device);
	if (d == NULL) {
		xbb_daemon_answer(g, serial, request->device, ENOENT,
		    "no such device");
		return;
	}
	switch (request->head.type) {
	case XBB_GUEST_DRAIN:
	case XBB_GUEST_LOOK:
		if (!xbb_device_settle(d) ||
		    atomic_load(&d->stage) != XBB_STAGE_OPEN) {
			xbb_daemon_answer(g, serial, d->number, EBUSY,
			    "it is being opened or closed");
			return;
		}
		(request->head.type == XBB_GUEST_DRAIN ? xbb_device_drain :
		    xbb_device_have_look)(d);
		xbb_daemon_answer(g, serial, d->number, 0, "");
		break;
	case XBB_GUEST_GIVE:
		give_descriptors(g, d, serial);
		break;
	case XBB_GUEST_QUIESCE:
		close_device(g, d, true, serial);
		break;
	default:
		close_device(g, d, false, serial);
	}
}

static void
say_bye(struct xbb_guest *g, uint32_t serial)
{

	if (g->devices != NULL) {
		xbb_daemon_answer(g, serial, 0, EBUSY, "there are devices");
		return;
	}
	xbb_daemon_answer(g, serial, 0, 0, "");
	g->leaving = true;
}

void
xbb_request_obey(struct xbb_guest *g, struct xbb_message *message)
{
	const struct xbb_guest_head *head = &message->head;

	if (!g->greeted && head->type != XBB_GUEST_MEET) {
		xbb_daemon_answer(g, head->serial, 0, EPROTO,
		    "MEET comes first");
		return;
	}
	switch (head->type) {
	case XBB_GUEST_MEET:
		g->greeted = true;
		xbb_daemon_list(g, head->serial);
		break;
	case XBB_GUEST_HELLO:
		take_bounds(g, &message->hello);
		xbb_daemon_list(g, head->serial);
		break;
	case XBB_GUEST_STATUS:
		xbb_daemon_list(g, head->serial);
		break;
	case XBB_GUEST_ADD:
		add_device(g, message);
		break;
	case XBB_GUEST_CONNECT:
		connect_device(g, message);
		break;
	case XBB_GUEST_BYE:
		say_bye(g, head->serial);
		break;
	default:
		do_with_device(g, &message->request);
	}
}
