/*
 * dispatch.c - the batches that may start are started, and those that starved
 * are tried again: by the store (store.h), of which nothing is known here.
 * Ring thread.
 */
#include "block/block.h"

/*
 * The tunables may ask for fewer flushes than the guest does, and a disk that
 * is only read has nothing to flush (FreeBSD refuses to, geom_dev.c).
 */
static bool
flush_is_faked(struct xbb_queue *q)
{
	int32_t interval;

	if (q->set.params.read_only ||
	    XBB_GET(q->set.tunables->disable_flush) != 0)
		return (true);
	interval = XBB_GET(q->set.tunables->flush_interval);
	if (interval <= 0)
		return (false);
	if (++q->own.flush_count < (uint32_t)interval)
		return (true);
	q->own.flush_count = 0;
	return (false);
}

/* It may start, and is the store's from now on until it is settled. */
void
xbb_start(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_ring_state *rs = q->set.rs;
	uint16_t r;

	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		xbb_req_step(q, r, XBB_REQ_DISPATCHED);
	if (xbb_batch_is_flush(batch))
		batch->faked = flush_is_faked(q);
	xbb_order_started(q, batch);
	XBB_SET(rs->grants_mapped, q->own.started_segments);
	xbb_pages_pin(q, batch);
	xbb_devstat_start(&rs->dispatched, q->own.now_ns);

	/* As the kernel counts: forced when something else already waits. */
	if (q->own.pending.head != NULL)
		XBB_COUNT(rs->counters.forced_dispatch, 1);
	else
		XBB_COUNT(rs->counters.normal_dispatch, 1);
	XBB_COUNT(rs->counters.total_dispatch, 1);
}

/*
 * Of a disk that is paused nothing is begun: it waits, or fails if the ring
 * ends.  True if anything did.
 */
static bool
refuse_paused(struct xbb_queue *q)
{
	struct xbb_batch *batch;
	bool any;

	if (!xbb_conn_ends(&q->conn))
		return (false);
	any = false;
	while ((batch = xbb_order_next(q)) != NULL) {
		xbb_start(q, batch);
		xbb_hold_refuse(q, batch);
		any = true;
	}
	return (any);
}

/* Start what may start.  True if something was started. */
bool
xbb_dispatch(struct xbb_queue *q)
{
	struct xbb_batch *batch;
	bool started;

	if (xbb_pause_is_on(q))
		return (refuse_paused(q));
	started = false;
	while (!q->set.store->is_full(q) &&
	    (batch = xbb_order_next(q)) != NULL) {
		started = true;
		xbb_start(q, batch);
		if (q->set.store->submit(q, batch))
			break;
	}
	return (started);
}

/*
 * Try again what starved, until something does once more, or give it up.  True
 * if it was time to.
 */
bool
xbb_retry_starved(struct xbb_queue *q)
{
	struct xbb_retry *retry = &q->own.retry;
	struct xbb_work_list starved;
	struct xbb_batch *batch;
	bool lasts;

	if (!xbb_shortage_due(retry))
		return (false);
	starved = q->own.starved;
	lasts = xbb_shortage_lasts(retry, &q->conn);
	q->own.ring_starved = false;
	q->own.starved = (struct xbb_work_list){ 0 };
	while ((batch = xbb_batch_of(xbb_work_take(&starved))) != NULL)
		if (lasts) {
			xbb_batch_give_up(q, batch);
			xbb_settle(q, batch);
		} else if (retry->at_ns != 0)
			xbb_work_put(&q->own.starved, &batch->work);
		else
			(void)q->set.store->submit(q, batch);
	return (true);
}
