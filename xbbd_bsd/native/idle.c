/*
 * idle.c - the ring thread with nothing to do: it looks around for a while,
 * asks to be told, sleeps, and is woken by the frontend's event channel or by
 * a thread of ours.  Knows when there is work, not what it is.  Ring thread
 * only, but for xbb_queue_kick().
 */
#include <poll.h>
#include <unistd.h>

#include "internal.h"

/* Looking for work before sleeping: not for less, and when to try again. */
#define POLL_LEAST_NS	4000
#define POLL_MOST_US	10000	/* whatever the segment says */
#define POLL_RETRY	16

/* Events in a row that may bring no request before we look away for a while. */
#define IDLE_EVENTS	8
#define IDLE_EVENTS_MS	2

/* End the ring thread's poll, if it is in one.  Any thread. */
void
xbb_queue_kick(struct xbb_queue *q)
{
	ssize_t n;

	if (!atomic_load(&q->sleeping) || !atomic_exchange(&q->sleeping, false))
		return;
	do
		n = write(q->kick[1], "", 1);
	while (n < 0 && errno == EINTR);
	/* EAGAIN: a full pipe wakes as well. */
}

/* Is there a reason not to sleep?  Cheap, and asks for no event. */
static bool
has_work(struct xbb_queue *q)
{
	uint32_t unread;

	if (atomic_load(&q->done) != NULL || xbb_budget_presses(q))
		return (true);
	if (atomic_load(&q->draining))
		return (q->nstarted == 0);
	if (q->ring_starved)
		return (false);
	return (xbb_ring_unread(&q->ring, &unread) != 0 || unread != 0);
}

static bool
look_for(struct xbb_queue *q, uint64_t ns)
{
	uint64_t end;
	uint32_t i;

	end = xbb_now_ns() + ns;
	do
		for (i = 0; i < 32; i++) {
			if (has_work(q))
				return (true);
			xbb_relax();
		}
	while (xbb_now_ns() < end);
	return (false);
}

/*
 * Look for work for a while without asking for an event: the frontend is
 * spared a notification and we a wake-up.  As long as it pays, the whole time
 * allowed; each failure halves it, and once it is nothing, one sleep in
 * POLL_RETRY tries again.  How long a sleep was would tell less: it includes
 * the time to wake up.
 */
static bool
look_around(struct xbb_queue *q)
{
	uint64_t most;
	int32_t most_us;

	most_us = XBB_GET(q->tunables->poll_max_us);
	if (most_us > POLL_MOST_US)
		most_us = POLL_MOST_US;
	most = most_us > 0 ? (uint64_t)most_us * 1000 : 0;
	if (q->poll_ns < POLL_LEAST_NS) {
		if (++q->sleeps_unpolled < POLL_RETRY)
			return (false);
		q->poll_ns = most;
	}
	q->sleeps_unpolled = 0;
	if (q->poll_ns > most)
		q->poll_ns = most;
	if (q->poll_ns == 0)
		return (false);
	if (look_for(q, q->poll_ns)) {
		q->poll_ns = most;
		return (true);
	}
	q->poll_ns /= 2;
	return (false);
}

static void
take_event(struct xbb_queue *q)
{
	int n;

	n = q->ops->take(q->hv);
	if (n < 0)
		xbb_queue_stop(q, XBB_STOP_EVENT, -n);
	if (n > 0) {
		q->masked = true;
		q->idle_events++;
		XBB_COUNT(q->rs->counters.notifies_received, 1);
	}
}

/*
 * Sleep until the frontend or a worker has something.  A frontend that
 * notifies without need is not listened to for a moment (XSA-332).
 */
static void
rest(struct xbb_queue *q)
{
	struct pollfd pfd[2];
	char drop[64];
	int error, limit_ms, n;

	atomic_store(&q->sleeping, true);
	/* Whoever makes work for us looks at sleeping afterwards. */
	if (has_work(q) || (!atomic_load(&q->draining) && !q->ring_starved &&
	    xbb_ring_final_check(&q->ring))) {
		atomic_store(&q->sleeping, false);
		return;
	}
	if (q->masked && q->idle_events < IDLE_EVENTS) {
		q->masked = false;
		error = q->ops->unmask(q->hv);
		if (error != 0)
			xbb_queue_stop(q, XBB_STOP_EVENT, -error);
	}
	pfd[0] = (struct pollfd){ .fd = q->kick[0], .events = POLLIN };
	pfd[1] = (struct pollfd){ .events = POLLIN,
	    .fd = q->masked ? -1 : q->ops->event_fd(q->hv) };
	XBB_COUNT(q->rs->counters.ring_sleeps, 1);
	limit_ms = xbb_shortage_wait(q, q->masked ? IDLE_EVENTS_MS :
	    xbb_persist_trim(q));
	n = poll(pfd, 2, limit_ms);
	atomic_store(&q->sleeping, false);
	xbb_slept_elsewhere(q, 0);
	if (n == 0 && q->masked)
		q->idle_events = 0;
	if (n > 0 && pfd[0].revents != 0)
		while (read(q->kick[0], drop, sizeof(drop)) == sizeof(drop))
			continue;
	if (n > 0 && pfd[1].revents != 0)
		take_event(q);
}

/* Nothing to do: come back when there may be something. */
void
xbb_queue_idle(struct xbb_queue *q)
{

	if (!look_around(q))
		rest(q);
}
