/*
 * local.c - the store of files and disk devices: system calls that return when
 * it is done.  What will be over before another thread would be awake the
 * ring's thread does itself, alone or a sweep of such batches; what may take
 * long is for a worker.  Ring thread, but for what a worker does.
 */
#include "block/block.h"

/* Of a batch that is worth a sweep alone; and so many are, one by one. */
#define ENOUGH_SEGMENTS	8
#define ENOUGH_BATCHES	64

/* So long what is ready may wait to be published, with others like it. */
#define TURN_NS		20000

/* What a worker has done. */

static void
put_done(struct xbb_queue *q, struct xbb_work *work)
{
	struct xbb_work *head;

	head = atomic_load_explicit(&q->shared.done, memory_order_relaxed);
	do
		work->next = head;
	while (!atomic_compare_exchange_weak(&q->shared.done, &head, work));
}

void
xbb_local_work(void *self, struct xbb_work *work, uint32_t worker)
{
	struct xbb_queue *q = self;

	xbb_speed_slept_elsewhere(q, worker);
	(void)xbb_batch_run(q, xbb_batch_of(work), worker);
	put_done(q, work);
	xbb_kick(&q->conn.rest);
}

static struct xbb_work *
take_done(struct xbb_queue *q)
{

	return (atomic_exchange_explicit(&q->shared.done, NULL,
	    memory_order_acquire));
}

/* Collect what workers finished.  True if there was any. */
static bool
local_reap(struct xbb_queue *q)
{
	struct xbb_batch *batch;
	struct xbb_work *next, *work;

	work = take_done(q);
	if (work == NULL)
		return (false);
	for (; work != NULL; work = next) {
		next = work->next;
		batch = xbb_batch_of(work);
		if (!batch->starved)
			XBB_COUNT(q->set.rs->counters.io_handed_over, 1);
		xbb_settle(q, batch);
	}
	return (true);
}

/* What is begun. */

/*
 * Each worker has one to do and one to come back for; what is held is with none
 * of them.  What is started is looked at for each that is to be.
 */
static bool
local_is_full(const struct xbb_queue *q)
{

	return (q->own.nstarted - q->own.held.count >=
	    2 * q->set.params.conn.workers);
}

/* Carry a batch out on this thread.  False if the rest is a worker's. */
static bool
run_one(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (!xbb_batch_run(q, batch, 0)) {
		xbb_pool_submit(&q->shared.pool, &batch->work);
		return (false);
	}
	if (!batch->starved)
		XBB_COUNT(q->set.rs->counters.io_inline, 1);
	xbb_settle(q, batch);
	return (true);
}

/*
 * Likewise.  What is ready is published first: nobody knows how long this will
 * take.
 */
static void
run_here(struct xbb_queue *q, struct xbb_batch *batch)
{

	xbb_answer_push(q);
	(void)run_one(q, batch);
}

/* By itself: on this thread, or a worker's if the disk has turned out slow. */
static void
run_singly(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (xbb_speed_is_slow(q, batch))
		xbb_pool_submit(&q->shared.pool, &batch->work);
	else
		run_here(q, batch);
}

/*
 * Carry batches out whose grants go by one call.  Of what could not be done so
 * each is done by itself.
 */
static void
run_sweep(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	struct xbb_batch *batch;
	uint32_t i, ninline;

	if (sweep->n > 1 || (sweep->n == 1 && q->own.bulk != NULL)) {
		xbb_answer_push(q);
		xbb_sweep_run(q, sweep);
	}
	ninline = 0;
	for (i = 0; i < sweep->n; i++) {
		batch = sweep->part[i].batch;
		if (sweep->part[i].ended) {
			ninline += !batch->starved;
			xbb_settle(q, batch);
		} else
			run_singly(q, batch);
	}
	XBB_COUNT(q->set.rs->counters.io_inline, ninline);
}

/*
 * Have a call that moves all of a sweep, the first time that there is enough
 * for it to do and the disk is quick, be it that nobody knows better yet: its
 * buffer stays in memory.
 */
static void
try_bulk(struct xbb_queue *q, const struct xbb_batch *batch)
{
	const struct xbb_queue_params *p = &q->set.params;

	if (q->own.bulk_tried || !xbb_speed_is_quick(q) ||
	    (q->own.pending.head == NULL && batch->nseg < ENOUGH_SEGMENTS &&
	    q->own.starts < ENOUGH_BATCHES))
		return;
	q->own.bulk_tried = true;
	if (p->disk_kind == XBB_DISK_DEVICE && xbb_data_is_bounced(q) &&
	    p->block_size == p->sector_size)
		q->own.bulk = xbb_bulk_open(p->disk_fd, p->sector_size,
		    xbb_mapping_fence(q->conn.mapping), q->set.buffer,
		    q->shared.pool.buffer_size);
}

static void
local_leave(struct xbb_queue *q)
{

	if (q->own.bulk != NULL)
		xbb_bulk_close(q->own.bulk);
	q->own.bulk = NULL;
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
		xbb_start(q, batch);
	}
	run_sweep(q, &reads);
	run_sweep(q, &writes);
	if (batch != NULL)
		run_singly(q, batch);
}

/*
 * From this batch on, which is started, each by itself: as many as may be, and
 * as are over soon, before the first is answered, and the ring is looked at.
 * To tell a guest of each takes longer than all else that we do for it.
 */
static void
run_turn(struct xbb_queue *q, struct xbb_batch *batch)
{
	const uint64_t end = q->own.now_ns + TURN_NS;
	uint32_t left;

	left = longest_sweep(q);
	xbb_answer_push(q);
	while (run_one(q, batch) && --left != 0 && q->own.now_ns < end &&
	    !xbb_pause_is_on(q) && (batch = xbb_order_next(q)) != NULL) {
		xbb_start(q, batch);
		if (xbb_batch_flushes(batch) || xbb_speed_is_slow(q, batch)) {
			run_singly(q, batch);
			return;
		}
	}
}

/*
 * What will be over before another thread would be awake this thread does
 * itself, and comes back; in a sweep of such batches, if grants are mapped or
 * copied for each, or one call moves them all.  What may take long is handed
 * over, lest the ring waits behind the disk.
 */
static bool
local_submit(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (xbb_speed_is_slow(q, batch)) {
		xbb_pool_submit(&q->shared.pool, &batch->work);
		return (false);
	}
	try_bulk(q, batch);
	if (batch->starved)
		run_here(q, batch);
	else if (xbb_sweep_admits(q, batch))
		run_swept(q, batch);
	else
		run_turn(q, batch);
	return (true);
}

/*
 * Have what was handed over done: without a single worker by this thread, one
 * at a time.  True if it did one.
 */
static bool
local_push(struct xbb_queue *q)
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
	run_here(q, batch);
	return (true);
}

const struct xbb_store_ops xbb_store_local = {
	.is_full = local_is_full,
	.submit = local_submit,
	.push = local_push,
	.reap = local_reap,
	.leave = local_leave,
};
