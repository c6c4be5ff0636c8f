/*
 * guest.c - the process of a guest: one loop, which hears the daemon, looks at
 * the devices, and waits for none of them.  A daemon that dies costs it
 * nothing: it serves on, and listens for the next one.  Knows no path, no store
 * and no policy.  One thread.
 */
#include <sys/socket.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

/* How soon what could not be done for want of something is tried again. */
#define AGAIN_MS	200

struct xbb_guest {
	const struct xbb_guest_params *params;
	int		 wake[2];	/* bytes of rings, and others */
	int		 daemon_fd;	/* the one daemon, -1: none */
	bool		 greeted;	/* it has said HELLO */
	bool		 deaf;		/* no descriptor for a connection */
	bool		 behind;	/* something is to be tried again */
	bool		 leaving;	/* the daemon has said BYE */
	uint32_t	 idle_seconds;
	uint64_t	 alone_ns;	/* since when, 0: not alone */
	struct xbb_device *devices;
	uint32_t	 ndevices;
};

/* Signals are for the daemon: what it wants of us it says. */
static void
ignore_signals(void)
{
	static const int ignored[] = {
		SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ,
	};
	size_t i;

	for (i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		(void)signal(ignored[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
}

static int
open_wake(int wake[2])
{
	int i;

	if (pipe(wake) != 0)
		return (-errno);
	for (i = 0; i < 2; i++) {
		(void)fcntl(wake[i], F_SETFD, FD_CLOEXEC);
		(void)fcntl(wake[i], F_SETFL, O_NONBLOCK);
	}
	return (0);
}

/* The daemon, and what it is told. */

static void
lose_daemon(struct xbb_guest *g)
{
	struct xbb_device *d;

	close(g->daemon_fd);
	g->daemon_fd = -1;
	g->greeted = false;
	/* Whoever comes next has not asked. */
	for (d = g->devices; d != NULL; d = d->next)
		d->serial = 0;
}

/* One that does not read what it is told is as good as none. */
static void
tell_daemon(struct xbb_guest *g, void *message, uint32_t type, size_t size,
    uint32_t serial)
{

	if (g->daemon_fd >= 0 && xbb_message_send(g->daemon_fd, message, type,
	    size, serial, NULL, 0) != 0)
		lose_daemon(g);
}

static void
answer_request(struct xbb_guest *g, uint32_t serial, uint32_t device,
    int errnum, const char *words)
{
	struct xbb_guest_done done = { .device = device, .errnum = errnum };

	strncpy((char *)done.words, words, sizeof(done.words) - 1);
	tell_daemon(g, &done, XBB_GUEST_DONE, sizeof(done), serial);
}

/* What waits for a device has happened, or cannot. */
static void
answer_waiting(struct xbb_guest *g, struct xbb_device *d, int errnum,
    const char *words)
{
	const uint32_t serial = d->serial;

	d->serial = 0;
	if (serial != 0)
		answer_request(g, serial, d->number, errnum, words);
}

static void
list_devices(struct xbb_guest *g, uint32_t serial)
{
	struct xbb_guest_devices list = { .pid = (uint32_t)getpid() };
	struct xbb_device *d;

	for (d = g->devices; d != NULL; d = d->next)
		list.device[list.ndevices++] = d->shown;
	tell_daemon(g, &list, XBB_GUEST_DEVICE_LIST, sizeof(list), serial);
}

/* The devices. */

static struct xbb_device *
find_device(struct xbb_guest *g, uint32_t number)
{
	struct xbb_device *d;

	for (d = g->devices; d != NULL && d->number != number; d = d->next)
		;
	return (d);
}

static void
forget_device(struct xbb_guest *g, struct xbb_device *d)
{
	struct xbb_device **dp;

	for (dp = &g->devices; *dp != d; dp = &(*dp)->next)
		;
	*dp = d->next;
	g->ndevices--;
	xbb_device_free(d);
}

static void
show_device(struct xbb_guest *g, struct xbb_device *d)
{
	struct xbb_guest_report report;
	struct xbb_guest_device found;

	xbb_device_look(d, &found);
	if (memcmp(&found, &d->shown, sizeof(found)) == 0)
		return;
	d->shown = found;
	report.device = found;
	if (g->greeted)
		tell_daemon(g, &report, XBB_GUEST_STATE, sizeof(report), 0);
}

/*
 * One that has drained is closed if that was asked for, and if nobody is there
 * to ask for it: its guest may be gone, and not end as long as pages of it are
 * mapped.  Why it has drained its segment says.
 */
static bool
may_close(const struct xbb_guest *g, const struct xbb_device *d)
{

	return (d->shown.state == XBB_GUEST_DRAINED &&
	    (d->leaving || g->daemon_fd < 0));
}

/* Do what is due for a device, which may be its end. */
static void
tend_device(struct xbb_guest *g, struct xbb_device *d)
{

	if (!xbb_device_settle(d)) {
		show_device(g, d);
		return;
	}
	show_device(g, d);
	switch (atomic_load(&d->stage)) {
	case XBB_STAGE_OPEN:
		if (d->leaving && d->shown.state == XBB_GUEST_RUNNING)
			xbb_device_drain(d);
		else if (!d->leaving)
			answer_waiting(g, d, 0, "");
		show_device(g, d);
		if (may_close(g, d) && xbb_device_close(d) != 0)
			g->behind = true;
		show_device(g, d);
		break;
	case XBB_STAGE_FAILED:
		answer_waiting(g, d, d->error.errnum, d->error.operation);
		forget_device(g, d);
		break;
	default:
		answer_waiting(g, d, 0, "");
		forget_device(g, d);
	}
}

static void
tend_devices(struct xbb_guest *g)
{
	struct xbb_device *d, *next;
	char drop[256];

	while (read(g->wake[0], drop, sizeof(drop)) == (ssize_t)sizeof(drop))
		;
	g->behind = false;
	for (d = g->devices; d != NULL; d = next) {
		next = d->next;
		tend_device(g, d);
	}
}

/* What the daemon asks for. */

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
	if (error == 0)
		error = xbb_confine_fd(d->disk_fd, XBB_USE_DISK, params);
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
	return (error);
}

static void
refuse_add(struct xbb_guest *g, const struct xbb_message *message, int errnum,
    const char *words)
{

	answer_request(g, message->head.serial, message->add.device, errnum,
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
	d = xbb_device_new(message, g->params, g->wake[1]);
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
close_device(struct xbb_guest *g, struct xbb_device *d, bool at_once,
    uint32_t serial)
{

	if (d->leaving && d->serial != 0) {
		answer_request(g, serial, d->number, EALREADY,
		    "it is being closed");
		return;
	}
	answer_waiting(g, d, ECANCELED, "closed before it was open");
	d->serial = serial;
	d->leaving = true;
	if (at_once && xbb_device_settle(d) &&
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
		answer_request(g, serial, d->number, EBUSY,
		    "it is being opened or closed");
		return;
	}
	n = 0;
	fds[n++] = d->disk_fd;
	for (i = 0; i < XBB_GUEST_KEPT; i++)
		if (d->kept[i] >= 0)
			fds[n++] = d->kept[i];
	if (xbb_message_send(g->daemon_fd, &done, XBB_GUEST_DONE, sizeof(done),
	    serial, fds, n) != 0)
		lose_daemon(g);
}

static void
do_with_device(struct xbb_guest *g, const struct xbb_guest_request *request)
{
	const uint32_t serial = request->head.serial;
	struct xbb_device *d;

	d = find_device(g, request->device);
	if (d == NULL) {
		answer_request(g, serial, request->device, ENOENT,
		    "no such device");
		return;
	}
	switch (request->head.type) {
	case XBB_GUEST_DRAIN:
		if (!xbb_device_settle(d) ||
		    atomic_load(&d->stage) != XBB_STAGE_OPEN) {
			answer_request(g, serial, d->number, EBUSY,
			    "it is being opened or closed");
			return;
		}
		xbb_device_drain(d);
		answer_request(g, serial, d->number, 0, "");
		break;
	case XBB_GUEST_GIVE:
		give_descriptors(g, d, serial);
		break;
	case XBB_GUEST_QUIESCE:
		close_device(g, d, false, serial);
		break;
	default:
		close_device(g, d, true, serial);
	}
}

static void
say_bye(struct xbb_guest *g, uint32_t serial)
{

	if (g->devices != NULL) {
		answer_request(g, serial, 0, EBUSY, "there are devices");
		return;
	}
	answer_request(g, serial, 0, 0, "");
	g->leaving = true;
}

static void
obey_daemon(struct xbb_guest *g, struct xbb_message *message)
{
	const struct xbb_guest_head *head = &message->head;

	if (!g->greeted && head->type != XBB_GUEST_HELLO) {
		answer_request(g, head->serial, 0, EPROTO,
		    "HELLO comes first");
		return;
	}
	switch (head->type) {
	case XBB_GUEST_HELLO:
		take_bounds(g, &message->hello);
		g->greeted = true;
		list_devices(g, head->serial);
		break;
	case XBB_GUEST_STATUS:
		list_devices(g, head->serial);
		break;
	case XBB_GUEST_ADD:
		add_device(g, message);
		break;
	case XBB_GUEST_BYE:
		say_bye(g, head->serial);
		break;
	default:
		do_with_device(g, &message->request);
	}
}

/* One message, so that a daemon that never stops does not stop the loop. */
static void
hear_daemon(struct xbb_guest *g)
{
	struct xbb_message message;
	const char *fault;
	int got;

	got = xbb_message_take(g->daemon_fd, &message);
	if (got == 0)
		return;
	if (got == -EMSGSIZE || got == -EMFILE) {
		answer_request(g, xbb_message_serial(&message), 0, -got,
		    got == -EMFILE ? "no room for its descriptors" :
		    "longer than any message");
		return;
	}
	if (got < 0) {
		lose_daemon(g);
		return;
	}
	fault = xbb_message_fault(&message, g->params->grant_fd >= 0);
	if (fault == NULL)
		obey_daemon(g, &message);
	else
		answer_request(g, xbb_message_serial(&message), 0, EBADMSG,
		    fault);
	xbb_message_drop(&message);
}

/* Who comes to be the daemon: it must be of its user, and the only one. */
static void
meet_daemon(struct xbb_guest *g)
{
	struct xbb_guest_done done = { .errnum = EBUSY };
	uint32_t uid;
	int fd;

	fd = accept(g->params->listen_fd, NULL, NULL);
	if (fd < 0) {
		g->deaf = errno != EAGAIN && errno != EINTR &&
		    errno != ECONNABORTED;
		return;
	}
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (xbb_peer_uid(fd, &uid) != 0 || uid != g->params->daemon_uid ||
	    xbb_confine_fd(fd, XBB_USE_DAEMON, g->params) != 0) {
		close(fd);
		return;
	}
	if (g->daemon_fd >= 0) {
		strcpy((char *)done.words, "another daemon is connected");
		(void)xbb_message_send(fd, &done, XBB_GUEST_DONE, sizeof(done),
		    0, NULL, 0);
		close(fd);
		return;
	}
	g->daemon_fd = fd;
}

/* The loop. */

/* Milliseconds until it is to end for want of work, -1: it is not, 0: now. */
static int
idle_ms(struct xbb_guest *g)
{
	uint64_t end, now;

	if (g->devices != NULL || g->daemon_fd >= 0) {
		g->alone_ns = 0;
		return (-1);
	}
	now = xbb_now_ns();
	if (g->alone_ns == 0)
		g->alone_ns = now;
	end = g->alone_ns + (uint64_t)g->idle_seconds * 1000000000;
	if (now >= end)
		return (0);
	end = (end - now) / 1000000 + 1;
	return (end > 60000 ? 60000 : (int)end);
}

static void
run_guest(struct xbb_guest *g)
{
	struct pollfd pfd[3];
	int timeout;

	while (!g->leaving && (timeout = idle_ms(g)) != 0) {
		pfd[0] = (struct pollfd){ .fd = g->wake[0], .events = POLLIN };
		pfd[1] = (struct pollfd){
			.fd = g->deaf ? -1 : g->params->listen_fd,
			.events = POLLIN,
		};
		pfd[2] = (struct pollfd){
			.fd = g->daemon_fd, .events = POLLIN,
		};
		if ((g->deaf || g->behind) &&
		    (timeout < 0 || timeout > AGAIN_MS))
			timeout = AGAIN_MS;
		g->deaf = false;
		if (poll(pfd, 3, timeout) < 0)
			continue;
		tend_devices(g);
		if (pfd[2].revents != 0 && g->daemon_fd >= 0)
			hear_daemon(g);
		if (pfd[1].revents != 0)
			meet_daemon(g);
		/* What was asked for may be over already. */
		tend_devices(g);
	}
}

int
xbb_guest_main(const struct xbb_guest_params *params, struct xbb_error *error)
{
	struct xbb_guest g = {
		.params = params, .daemon_fd = -1,
		.idle_seconds = params->idle_seconds,
	};
	int e;

	if (xbb_hv_lookup(params->hv) == NULL)
		return (xbb_fail(error, "check parameters", EINVAL));
	ignore_signals();
	e = open_wake(g.wake);
	if (e != 0)
		return (xbb_fail(error, "open pipe", -e));
	(void)fcntl(params->listen_fd, F_SETFL, O_NONBLOCK);
	e = xbb_confine_fd(params->listen_fd, XBB_USE_LISTENER, params);
	if (e == 0 && params->grant_fd >= 0)
		e = xbb_confine_fd(params->grant_fd, XBB_USE_GRANTS, params);
	if (e == 0)
		e = xbb_limit(params);
	if (e == 0 && params->confined)
		e = xbb_confine(params);
	if (e != 0)
		return (xbb_fail(error, "confine", -e));
	run_guest(&g);
	if (g.daemon_fd >= 0)
		close(g.daemon_fd);
	close(g.wake[0]);
	close(g.wake[1]);
	return (0);
}
