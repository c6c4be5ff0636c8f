/*
 * queue.c - the thread of a ring.  It has requests taken in (intake.c), batches
 * started in order and what the host was short for tried again (dispatch.c),
 * both by the disk's store (store.h), what that has finished settled, and
 * answers.  Ring, lists and event channel belong to it alone.
 */
#include "block/block.h"

/* Responses that may gather before the frontend is told. */
#define PUSH_BATCH	16

/* What core asks of us. */

static bool
block_has_work(void *self)
{
	struct xbb_queue *q = self;
	uint32_t unread;

	if (atomic_load(&q->shared.done) != NULL ||
	    atomic_load(&q->shared.offered) != NULL ||
	    xbb_budget_presses(&q->own.persist.share) ||
	    xbb_pause_has_news(q))
		return (true);
	if (atomic_load(&q->conn.draining))
		return (q->own.nstarted == 0 &&
		    (q->own.owed == XBB_NONE || !q->own.ring_starved) &&
		    (!q->conn.rest.also_awaited || xbb_conn_ends(&q->conn)));
	if (q->own.ring_starved || xbb_pause_is_on(q))
		return (false);
	return (xbb_ring_unread(&q->own.ring, &unread) != 0 || unread != 0);
}

static bool
block_ask(void *self)
{
	struct xbb_queue *q = self;

	return (!atomic_load(&q->conn.draining) && !q->own.ring_starved &&
	    !xbb_pause_is_on(q) && xbb_ring_want(&q->own.ring, 1));
}

static int
block_may_sleep(void *self)
{
	struct xbb_queue *q = self;
	int ms, store_ms;

	ms = xbb_persist_trim(&q->own.persist, q->own.inflight == 0);
	store_ms = q->set.store->wait != NULL ? q->set.store->wait(q) : -1;
	if (store_ms >= 0 && (ms < 0 || store_ms < ms))
		ms = store_ms;
	return (xbb_throttle_wait(q, xbb_hold_wait(q,
	    xbb_shortage_wait(&q->own.retry, ms))));
}

/* A store that waits for something has more to wait for. */
static bool
block_awaits_frontend(void *self)
{
	struct xbb_queue *q = self;

	return (q->own.nstarted == 0 && q->set.store->wait == NULL);
}

const struct xbb_family xbb_block_family = {
	.driver = "xbbd",
	.has_work = block_has_work,
	.ask = block_ask,
	.may_sleep = block_may_sleep,
	.awaits_frontend = block_awaits_frontend,
	.work = xbb_local_work,
};

/* Nothing to do for now. */
static void
rest_queue(struct xbb_queue *q)
{

	if (xbb_rest_now(&q->conn))
		xbb_speed_slept_elsewhere(q, 0);
}

/*
 * Requests that nobody has begun: those that are owed before all that is on the
 * ring.  True if there was any.
 */
static bool
take_in(struct xbb_queue *q)
{

	if (q->own.ring_starved ||
	    (xbb_pause_is_on(q) && !xbb_conn_ends(&q->conn)))
		return (false);
	if (q->own.owed != XBB_NONE)
		return (xbb_queue_readmit(q));
	if (atomic_load(&q->conn.draining) || !xbb_queue_gather(q))
		return (false);
	q->conn.rest.idle_events = 0;
	return (true);
}

/*
 * Is everything answered that was taken?  Or has whoever goes on with the ring
 * to see to the rest, since the disk is paused, or is to be tried again?
 */
static bool
has_drained(const struct xbb_queue *q)
{

	if (!atomic_load(&q->conn.draining))
		return (false);
	if (!xbb_conn_ends(&q->conn) && xbb_pause_is_still(q) &&
	    (q->own.held.head != NULL || xbb_pause_is_on(q)))
		return (true);
	if (!xbb_conn_ends(&q->conn) && !xbb_pause_is_still(q))
		return (false);
	return (q->own.nstarted == 0 &&
	    q->own.pending.head == NULL && q->own.waiting.head == NULL &&
	    q->own.owed == XBB_NONE);
}

/* The thread: until drained. */
void *
xbb_queue_main(void *arg)
{
	struct xbb_queue *q = arg;
	struct xbb_conn *conn = &q->conn;
	bool busy;

	xbb_thread_is("%s%u ring%u", conn->family->driver, conn->params->unit,
	    conn->params->ring);
	if (conn->params->adopt)
		xbb_adopt_begin(q);
	for (;;) {
		xbb_conn_check(conn);
		busy = q->set.store->reap(q);
		if (q->own.retry.at_ns != 0)
			busy |= xbb_retry_starved(q);
		if (q->own.held.head != NULL)
			busy |= xbb_hold_release(q);
		busy |= take_in(q);
		busy |= xbb_dispatch(q);
		xbb_persist_trim_at_work(&q->own.persist,
		    q->own.inflight == 0);
		busy |= q->set.store->push(q);
		if (q->own.unpushed >= PUSH_BATCH || !busy)
			xbb_answer_push(q);
		busy |= xbb_pause_follow(q);
		if (busy)
			continue;
		if (has_drained(q))
			break;
		rest_queue(q);
	}
	if (q->set.store->leave != NULL)
		q->set.store->leave(q);
	xbb_persist_drop(&q->own.persist);
	xbb_conn_drained(conn);
	return (NULL);
}
