/*
 * guest.c - the process of a guest: one loop, which hears the daemon, looks at
 * the devices, and waits for none of them.  A daemon that dies costs it
 * nothing: it serves on, and listens for the next one.  Knows no path, no store
 * and no policy.  One thread.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

/* How soon what could not be done for want of something is tried again. */
#define AGAIN_MS	200

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

/* The devices. */

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
		xbb_daemon_tell(g, &report, XBB_GUEST_STATE, sizeof(report), 0);
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
			(d->hands_over ? xbb_device_hand_over :
			    xbb_device_drain)(d);
		else if (!d->leaving)
			xbb_daemon_answer_for(g, d, 0, "");
		show_device(g, d);
		if (may_close(g, d)) {
			d->owes = xbb_device_owes(d);
			if (xbb_device_close(d) != 0)
				g->behind = true;
		}
		show_device(g, d);
		break;
	case XBB_STAGE_FAILED:
		xbb_daemon_answer_for(g, d, d->error.errnum,
		    d->error.operation);
		forget_device(g, d);
		break;
	default:
		if (d->hands_over && d->shown.reason != XBB_STOP_NONE)
			xbb_daemon_answer_for(g, d, EIO,
			    "it has stopped by itself");
		else if (d->owes)
			xbb_daemon_answer_for(g, d, EBUSY,
			    "the disk is paused, or has failed");
		else
			xbb_daemon_answer_for(g, d, 0, "");
		forget_device(g, d);
	}
}

static void
tend_devices(struct xbb_guest *g)
{
	struct xbb_device *d, *next;
	uint64_t drop;

	(void)!read(g->wake, &drop, sizeof(drop));
	g->behind = false;
	for (d = g->devices; d != NULL; d = next) {
		next = d->next;
		tend_device(g, d);
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
		xbb_daemon_answer(g, xbb_message_serial(&message), 0, -got,
		    got == -EMFILE ? "no room for its descriptors" :
		    "longer than any message");
		return;
	}
	if (got < 0) {
		xbb_daemon_lose(g);
		return;
	}
	fault = xbb_message_fault(&message, g->params->grant_fd >= 0);
	if (fault == NULL)
		xbb_request_obey(g, &message);
	else
		xbb_daemon_answer(g, xbb_message_serial(&message), 0, EBADMSG,
		    fault);
	xbb_message_drop(&message);
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
		pfd[0] = (struct pollfd){ .fd = g->wake, .events = POLLIN };
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
			xbb_daemon_meet(g);
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
	g.wake = xbb_wake_open();
	if (g.wake < 0)
		return (xbb_fail(error, "open eventfd", -g.wake));
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
	close(g.wake);
	return (0);
}
