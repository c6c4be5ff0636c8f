/*
 * dispatch.c - which of the batches that may start this thread carries out
 * itself, alone or a sweep of them, and which are handed over to a worker; and
 * likewise those that starved.  Ring thread.
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

static void
start_batch(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_counters *c = &q->set.rs->counters;
	uint16_t r;

	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		xbb_req_step(q, r, XBB_REQ_DISPATCHED);
	if (xbb_batch_is_flush(batch))
		batch->faked = flush_is_faked(q);
	xbb_order_started(q, batch);
	XBB_SET(q->set.rs->grants_mapped, q->own.started_segments);
	xbb_pages_pin(q, batch);
	xbb_devstat_start(&q->set.rs->dispatched, q->own.now_ns);

	/* As the kernel counts: forced when something else already waits. */
	if (q->own.pending.head != NULL)
		XBB_COUNT(c->forced_dispatch, 1);
	else
		XBB_COUNT(c->normal_dispatch, 1);
	XBB_COUNT(c->total_dispatch, 1);
}

/*
 * Carry a batch out on this thread.  What is ready is published first: nobody
 * knows how long this will take.
 */
void
xbb_run_here(struct xbb_queue *q, struct xbb_batch *batch)
{

	xbb_answer_push(q);
	if (!xbb_batch_run(q, batch, 0)) {
		xbb_pool_submit(&q->shared.pool, &batch->work);
		return;
	}
	if (!batch->starved)
		XBB_COUNT(q->set.rs->counters.io_inline, 1);
	xbb_settle(q, batch);
}

/*
 * Carry batches out whose grants go by one call.  Of what could not be done so
 * each is done by itself, or handed over if the disk has turned out slow.
 */
static void
run_sweep(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	struct xbb_batch *batch;
	uint32_t i;

	if (sweep->n > 1) {
		xbb_answer_push(q);
		xbb_sweep_run(q, sweep);
	}
	for (i = 0; i < sweep->n; i++) {
		batch = sweep->part[i].batch;
		if (sweep->part[i].ended) {
			if (!batch->starved)
				XBB_COUNT(q->set.rs->counters.io_inline, 1);
			xbb_settle(q, batch);
		} else if (xbb_speed_is_slow(q, batch))
			xbb_pool_submit(&q->shared.pool, &batch->work);
		else
			xbb_run_here(q, batch);
	}
}

/*
 * How many quick batches may be carried out before the first of them is
 * answered?  The more, the longer none had to be waited for.
 */
static uint32_t
longest_sweep(struct xbb_queue *q)
{
	const uint32_t most = q->own.longest_sweep;

	if (!xbb_speed_is_quick(q))
		q->own.longest_sweep = 1;
	else if (most < XBB_SWEEP_MOST)
		q->own.longest_sweep = most == 0 ? 1 : 2 * most;
	return (q->own.longest_sweep);
}

/*
 * From this batch on, which is started, as many as may be before the first is
 * answered; one that is not for a sweep ends it.
 */
static void
run_swept(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_sweep reads, writes;
	uint32_t left;

	left = longest_sweep(q);
	xbb_sweep_begin(&reads, false);
	xbb_sweep_begin(&writes, true);
	while (xbb_sweep_add(q, xbb_batch_writes(batch) ? &writes : &reads,
	    batch)) {
		batch = --left == 0 ? NULL : xbb_order_next(q);
		if (batch == NULL)
			break;
		start_batch(q, batch);
	}
	run_sweep(q, &reads);
	run_sweep(q, &writes);
	if (batch == NULL)
		return;
	if (xbb_speed_is_slow(q, batch))
		xbb_pool_submit(&q->shared.pool, &batch->work);
	else
		xbb_run_here(q, batch);
}

/*
 * Start what may start.  What will be over before another thread would be awake
 * this thread does itself, one at a time, and comes back; or a sweep of such
 * batches, if grants are mapped or copied for each.  What may take long is
 * handed over, lest the ring waits behind the disk.  True if something was
 * started.
 */
bool
xbb_dispatch(struct xbb_queue *q)
{
	struct xbb_batch *batch;
	bool started;

	started = false;
	while ((batch = xbb_order_next(q)) != NULL) {
		started = true;
		start_batch(q, batch);
		if (!xbb_speed_is_slow(q, batch)) {
			if (xbb_sweep_admits(q, batch))
				run_swept(q, batch);
			else
				xbb_run_here(q, batch);
			return (true);
		}
		xbb_pool_submit(&q->shared.pool, &batch->work);
	}
	return (started);
}

/*
 * Have what was handed over done: without a single worker by this thread, one
 * at a time.  True if it did one.
 */
bool
xbb_hand_over(struct xbb_queue *q)
{
	struct xbb_batch *batch;

	if (q->own.nstarted == 0)
		return (false);
	xbb_pool_wake(&q->shared.pool);
	if (q->shared.pool.nthreads != 0)
		return (false);
	batch = xbb_batch_of(xbb_pool_take(&q->shared.pool));
	if (batch == NULL)
		return (false);
	xbb_run_here(q, batch);
	return (true);
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

	if (retry->at_ns == 0 || !xbb_shortage_due(retry))
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
		else if (xbb_speed_is_slow(q, batch))
			xbb_pool_submit(&q->shared.pool, &batch->work);
		else
			xbb_run_here(q, batch);
	return (true);
}
