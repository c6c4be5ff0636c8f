/*
 * rest.c - the ring's thread with nothing to do: it looks around for a while,
 * asks to be told, sleeps, and is woken by the frontend's event channel, by a
 * thread of ours (kick.c), or by whatever else its family waits for.  Whether
 * there is work the family says.  Ring thread.
 */
#include <poll.h>
#include <unistd.h>

#include "core/core.h"

/*
 * Looking for work before sleeping: not for less, and after how many sleeps to
 * try again, which doubles as long as that leads to nothing.
 */
#define POLL_LEAST_NS	4000
#define POLL_MOST_US	10000	/* whatever the segment says */
#define POLL_RETRY	16
#define POLL_RETRY_LAST	1024

/* Events in a row that may bring nothing before we look away for a while. */
#define IDLE_EVENTS	8
#define IDLE_EVENTS_MS	2

static bool
look_for_work(struct xbb_conn *conn, uint64_t ns)
{
	uint64_t end;
	uint32_t i;

	end = xbb_now_ns() + ns;
	do
		for (i = 0; i < 32; i++) {
			if (conn->family->has_work(conn->self))
				return (true);
			xbb_relax();
		}
	while (xbb_now_ns() < end);
	return (false);
}

/* How long it may be, as the segment has it. */
static uint64_t
allowed_look(const struct xbb_rest *rest)
{
	int32_t us;

	us = XBB_GET(*rest->poll_max_us);
	if (us > POLL_MOST_US)
		us = POLL_MOST_US;
	return (us > 0 ? (uint64_t)us * 1000 : 0);
}

/* How long may be looked; another answer than before, and all begins anew. */
static uint64_t
longest_look(struct xbb_rest *rest)
{
	const uint64_t most = allowed_look(rest);

	if (most != rest->poll_most_ns) {
		rest->poll_most_ns = most;
		rest->poll_ns = 0;
		rest->sleeps_unpolled = 0;
		rest->poll_retry = POLL_RETRY;
	}
	return (most);
}

/*
 * Look for work for a while without asking for an event: the frontend is
 * spared a notification and we a wake-up.  As long as it pays, the whole time
 * allowed; each failure halves it, and once it is nothing it is tried again
 * after so many sleeps, more each time: with one processor it can never pay.
 * How long a sleep was would tell less: it includes the time to wake up.
 */
static bool
look_around(struct xbb_conn *conn)
{
	struct xbb_rest *rest = &conn->rest;
	const uint64_t most = longest_look(rest);

	if (most == 0)
		return (false);
	if (rest->poll_ns < POLL_LEAST_NS) {
		if (++rest->sleeps_unpolled < rest->poll_retry)
			return (false);
		rest->poll_ns = most;
		rest->sleeps_unpolled = 0;
	}
	if (look_for_work(conn, rest->poll_ns)) {
		rest->poll_ns = most;
		rest->poll_retry = POLL_RETRY;
		return (true);
	}
	rest->poll_ns /= 2;
	if (rest->poll_ns < POLL_LEAST_NS && rest->poll_retry < POLL_RETRY_LAST)
		rest->poll_retry *= 2;
	return (false);
}

/* One has come: the channel is masked. */
static void
note_event(struct xbb_conn *conn)
{

	conn->rest.masked = conn->rest.notified = true;
	conn->rest.idle_events++;
	XBB_COUNT(conn->rc->counters.notifies_received, 1);
}

/* False if there was none. */
static bool
take_event(struct xbb_conn *conn)
{
	int n;

	n = conn->ops->take(conn->hv);
	if (n < 0)
		xbb_conn_stop(conn, XBB_STOP_EVENT, -n);
	if (n <= 0)
		return (false);
	conn->rest.doze.unread = 0;
	note_event(conn);
	return (true);
}

static bool
may_unmask(const struct xbb_rest *rest)
{

	return (rest->idle_events < IDLE_EVENTS);
}

static void
unmask_channel(struct xbb_conn *conn)
{
	int error;

	conn->rest.masked = false;
	error = conn->ops->unmask(conn->hv);
	if (error != 0)
		xbb_conn_stop(conn, XBB_STOP_EVENT, -error);
}

/* For so many milliseconds at most, -1 for any time. */
static void
poll_all(struct xbb_conn *conn, int ms)
{
	struct xbb_rest *rest = &conn->rest;
	struct pollfd pfd[3] = {
		{ .fd = rest->kick, .events = POLLIN },
		{ .fd = rest->masked ? -1 : conn->ops->event_fd(conn->hv),
		    .events = POLLIN },
		{ .fd = rest->also_fd, .events = rest->also_events },
	};
	uint64_t drop;
	int n;

	if (rest->masked && (ms < 0 || ms > IDLE_EVENTS_MS))
		ms = IDLE_EVENTS_MS;
	n = poll(pfd, rest->also_fd < 0 ? 2 : 3, ms);
	atomic_store(&rest->sleeping, XBB_AWAKE);
	rest->also_ready = n > 0 && pfd[2].revents != 0;
	if (n == 0 && rest->masked)
		rest->idle_events = 0;
	if (n <= 0)
		return;
	if (pfd[0].revents != 0)
		(void)!read(rest->kick, &drop, sizeof(drop));
	if (pfd[1].revents != 0)
		(void)take_event(conn);
}

/*
 * May the thread sleep in a read of the event channel, which is one system call
 * less than to poll for it?  That knows of nothing else and of no time, and is
 * dear to end for a kick: so only while the frontend is at work, and nobody
 * else is.
 */
static bool
may_wait(struct xbb_conn *conn)
{
	const struct xbb_family *family = conn->family;

	return (conn->ops->take_waits && conn->rest.notified &&
	    may_unmask(&conn->rest) &&
	    conn->ops->event_fd(conn->hv) >= 0 &&
	    family->awaits_frontend != NULL &&
	    family->awaits_frontend(conn->self));
}

/*
 * Prepare such a sleep, if it may be that long: from now on a kick ends it.  A
 * doze may miss its event, so that it never goes without the tick.
 */
static bool
prepare_wait(struct xbb_conn *conn, int ms, unsigned int sleep)
{
	const int fd = conn->ops->event_fd(conn->hv);
	struct xbb_rest *rest = &conn->rest;

	if (ms >= 0 && ms < XBB_TICK_MS)
		return (false);
	if (sleep == XBB_WAITS && !rest->blocks) {
		rest->blocks = true;
		xbb_kick_set_blocking(fd, true);
	}
	atomic_store_explicit(&rest->thread, pthread_self(),
	    memory_order_relaxed);
	atomic_store_explicit(&rest->waits_for, fd, memory_order_relaxed);
	atomic_store(&rest->sleeping, sleep);
	return ((ms < 0 && sleep != XBB_DOZES) || xbb_tick_ask(rest));
}

/* If nothing came of it the descriptor may be one that does not block. */
static void
wait_in_read(struct xbb_conn *conn)
{

	conn->rest.blocks = take_event(conn);
	atomic_store(&conn->rest.sleeping, XBB_AWAKE);
}

/*
 * Or the thread dozes, and sleeps after that if it was for nothing.  An event
 * that the host has had is not pending any more, and ends no doze: so there is
 * a last look, as it may have come while the channel was unmasked.  What is
 * later than that ends with the host's next tick, or ours.
 *
 * What it leaves unread is read in time, if it is there by now: no matter what
 * the frontend does, this is not to wait.
 */
static void
doze_a_while(struct xbb_conn *conn)
{
	struct xbb_rest *rest = &conn->rest;
	bool came;
	int n;

	came = !conn->family->has_work(conn->self) && xbb_doze_now(conn);
	/* A kick has its reasons; if there was an event too it is unread. */
	came &= atomic_exchange(&rest->sleeping, XBB_AWAKE) == XBB_DOZES;
	rest->notified = true;
	if (!came)
		return;
	note_event(conn);
	if (!xbb_doze_overflows(conn))
		return;
	if (rest->blocks)
		xbb_kick_set_blocking(conn->ops->event_fd(conn->hv), false);
	rest->blocks = false;
	rest->doze.unread = 0;
	n = conn->ops->take(conn->hv);
	if (n < 0)
		xbb_conn_stop(conn, XBB_STOP_EVENT, -n);
}

/*
 * Sleep until the frontend or a worker has something.  A frontend that
 * notifies without need is not listened to for a moment (XSA-332).
 */
static bool
sleep_unless_work(struct xbb_conn *conn)
{
	struct xbb_rest *rest = &conn->rest;
	unsigned int sleep;
	bool asked;
	int ms;

	ms = 0;
	sleep = XBB_POLLS;
	asked = may_wait(conn);
	if (asked) {
		ms = conn->family->may_sleep(conn->self);
		sleep = xbb_doze_wanted(conn, allowed_look(rest)) ?
		    XBB_DOZES : XBB_WAITS;
		if (!prepare_wait(conn, ms, sleep))
			sleep = XBB_POLLS;
	}
	if (sleep == XBB_POLLS)
		atomic_store(&rest->sleeping, XBB_POLLS);
	/* Whoever makes work for us looks at sleeping afterwards. */
	if (conn->family->has_work(conn->self) ||
	    conn->family->ask(conn->self)) {
		atomic_store(&rest->sleeping, XBB_AWAKE);
		return (false);
	}
	if (rest->masked && may_unmask(rest))
		unmask_channel(conn);
	XBB_COUNT(conn->rc->counters.ring_sleeps, 1);
	rest->notified = false;
	if (sleep == XBB_DOZES)
		doze_a_while(conn);
	else if (sleep == XBB_WAITS)
		wait_in_read(conn);
	else
		poll_all(conn, asked ? ms :
		    conn->family->may_sleep(conn->self));
	return (true);
}

/* Nothing to do: back when there may be something.  Has the thread slept? */
bool
xbb_rest_now(struct xbb_conn *conn)
{

	return ((conn->rest.also_awaited || !look_around(conn)) &&
	    sleep_unless_work(conn));
}
