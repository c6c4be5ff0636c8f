/*
 * queue.c - the thread of a ring.  It has requests taken in (intake.c), starts
 * batches in order, carries out a share of them itself, collects what the
 * workers finished, tries again what the host was short for, and answers. 
 * Ring, lists and event channel belong to it alone, so it takes no lock but the
 * pool's.
 */
#include "block/block.h"

/* Responses that may gather before the frontend is told. */
#define PUSH_BATCH	16

static struct xbb_work *
take_done(struct xbb_queue *q)
{

	return (atomic_exchange_explicit(&q->shared.done, NULL,
	    memory_order_acquire));
}

static void
put_done(struct xbb_queue *q, struct xbb_work *work)
{
	struct xbb_work *head;

	head = atomic_load_explicit(&q->shared.done, memory_order_relaxed);
	do
		work->next = head;
	while (!atomic_compare_exchange_weak(&q->shared.done, &head, work));
}

/* Batches: from pending to started. */

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

static void
count_tally(struct xbb_queue *q, const struct xbb_tally *tally)
{
	struct xbb_common_counters *common = &q->conn.rc->counters;
	struct xbb_counters *c = &q->set.rs->counters;

	XBB_COUNT(common->grants_mapped_total, tally->grants_mapped);
	XBB_COUNT(common->grants_unmapped_total, tally->grants_unmapped);
	XBB_COUNT(common->grants_copied_total, tally->grants_copied);
	XBB_COUNT(common->grant_errors, tally->grant_errors);
	XBB_COUNT(c->flushes_done, tally->flushes);
	XBB_COUNT(c->io_short, tally->io_short);
	XBB_COUNT(c->io_bounced, tally->io_bounced);
	XBB_COUNT(c->io_read_modify_write, tally->io_read_modify_write);
	XBB_COUNT(c->io_errors, tally->io_errors);
}

/* Sectors of a batch that were really moved. */
static uint64_t
sectors_done(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint64_t done;
	uint16_t r;

	done = 0;
	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		if (q->set.reqs[r].status == XBB_RSP_OKAY)
			done += q->set.reqs[r].nsectors;
	return (done);
}

/*
 * The disk failed, or the guest's grants did: count whose requests that cost.
 */
static void
judge_failures(struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint16_t r;

	if (batch->tally.gone_errno != 0)
		xbb_conn_stop(&q->conn, XBB_STOP_DISK, batch->tally.gone_errno);
	if (batch->tally.lost_errno != 0)
		xbb_conn_stop(&q->conn, XBB_STOP_LOST, batch->tally.lost_errno);
	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		if (q->set.reqs[r].status != XBB_RSP_OKAY)
			xbb_faults_count(q, &q->set.reqs[r],
			    &q->set.verdicts[r]);
}

/* A batch is done: answer its requests, free it. */
static void
finish_batch(struct xbb_queue *q, struct xbb_batch *batch)
{
	uint16_t next, r;

	if (q->own.now_ns < batch->ended_ns)
		q->own.now_ns = batch->ended_ns;
	xbb_devstat_end(&q->set.rs->dispatched,
	    xbb_request_kind(batch->operation, batch->nsectors),
	    xbb_request_is_ordered(batch->operation),
	    sectors_done(q, batch) * XBB_SECTOR_SIZE, batch->begun_ns,
	    batch->ended_ns);
	xbb_pages_unpin(q, batch);
	xbb_order_ended(q, batch);
	XBB_SET(q->set.rs->grants_mapped, q->own.started_segments);
	count_tally(q, &batch->tally);
	if ((batch->tally.io_errors | batch->tally.grant_errors) != 0)
		judge_failures(q, batch);

	for (r = batch->first; r != XBB_NONE; r = next) {
		next = q->set.reqs[r].next;
		xbb_answer(q, r);
	}
	q->own.inflight -= batch->nreq;
	XBB_SET(q->set.rs->inflight, q->own.inflight);
	if (batch->has_starved)
		xbb_shortage_passed(&q->own.retry);
	batch->work.next = q->own.free_batch == NULL ? NULL :
	    &q->own.free_batch->work;
	q->own.free_batch = batch;
}

/* A started batch has come back: it is done, or for want of memory is not. */
static void
settle_batch(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (!batch->starved) {
		finish_batch(q, batch);
		return;
	}
	if (!batch->has_starved)
		XBB_COUNT(q->conn.rc->counters.kva_shortages, 1);
	batch->has_starved = true;
	xbb_work_put(&q->own.starved, &batch->work);
	xbb_shortage_begin(&q->own.retry, &q->own.persist,
	    batch->tally.shortage);
}

/*
 * Carry a batch out on this thread.  What is ready is published first: nobody
 * knows how long this will take.
 */
static void
run_here(struct xbb_queue *q, struct xbb_batch *batch)
{

	xbb_answer_push(q);
	if (!xbb_batch_run(q, batch, 0)) {
		xbb_pool_submit(&q->shared.pool, &batch->work);
		return;
	}
	if (!batch->starved)
		XBB_COUNT(q->set.rs->counters.io_inline, 1);
	settle_batch(q, batch);
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
			settle_batch(q, batch);
		} else if (xbb_speed_is_slow(q, batch))
			xbb_pool_submit(&q->shared.pool, &batch->work);
		else
			run_here(q, batch);
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
		run_here(q, batch);
}

/*
 * Start what may start.  What will be over before another thread would be awake
 * this thread does itself, one at a time, and comes back; or a sweep of such
 * batches, if grants are mapped or copied for each.  What may take long is
 * handed over, lest the ring waits behind the disk.  True if something was
 * started.
 */
static bool
dispatch_batches(struct xbb_queue *q)
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
				run_here(q, batch);
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
static bool
hand_over(struct xbb_queue *q)
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

/* Collect what workers finished.  True if there was any. */
static bool
collect_done(struct xbb_queue *q)
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
		settle_batch(q, batch);
	}
	return (true);
}

/*
 * Try again what starved, until something does once more, or give it up.  True
 * if it was time to.
 */
static bool
retry_starved(struct xbb_queue *q)
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
			finish_batch(q, batch);
		} else if (retry->at_ns != 0)
			xbb_work_put(&q->own.starved, &batch->work);
		else if (xbb_speed_is_slow(q, batch))
			xbb_pool_submit(&q->shared.pool, &batch->work);
		else
			run_here(q, batch);
	return (true);
}

/* What core asks of us. */

static bool
block_has_work(void *self)
{
	struct xbb_queue *q = self;
	uint32_t unread;

	if (atomic_load(&q->shared.done) != NULL ||
	    xbb_budget_presses(&q->own.persist.share))
		return (true);
	if (atomic_load(&q->conn.draining))
		return (q->own.nstarted == 0 &&
		    (q->own.owed == XBB_NONE || !q->own.ring_starved));
	if (q->own.ring_starved)
		return (false);
	return (xbb_ring_unread(&q->own.ring, &unread) != 0 || unread != 0);
}

static bool
block_ask(void *self)
{
	struct xbb_queue *q = self;

	return (!atomic_load(&q->conn.draining) && !q->own.ring_starved &&
	    xbb_ring_want(&q->own.ring, 1));
}

static int
block_may_sleep(void *self)
{
	struct xbb_queue *q = self;

	return (xbb_shortage_wait(&q->own.retry,
	    xbb_persist_trim(&q->own.persist, q->own.inflight == 0)));
}

static void
block_work(void *self, struct xbb_work *work, uint32_t worker)
{
	struct xbb_queue *q = self;

	xbb_speed_slept_elsewhere(q, worker);
	(void)xbb_batch_run(q, xbb_batch_of(work), worker);
	put_done(q, work);
	xbb_kick(&q->conn.rest);
}

const struct xbb_family xbb_block_family = {
	.driver = "xbbd",
	.has_work = block_has_work,
	.ask = block_ask,
	.may_sleep = block_may_sleep,
	.work = block_work,
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

	if (q->own.ring_starved)
		return (false);
	if (q->own.owed != XBB_NONE)
		return (xbb_queue_readmit(q));
	if (atomic_load(&q->conn.draining) || !xbb_queue_gather(q))
		return (false);
	q->conn.rest.idle_events = 0;
	return (true);
}

/* Is everything answered that was taken? */
static bool
has_drained(const struct xbb_queue *q)
{

	return (atomic_load(&q->conn.draining) && q->own.nstarted == 0 &&
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
		busy = collect_done(q);
		busy |= retry_starved(q);
		busy |= take_in(q);
		busy |= dispatch_batches(q);
		xbb_persist_trim_at_work(&q->own.persist,
		    q->own.inflight == 0);
		busy |= hand_over(q);
		if (q->own.unpushed >= PUSH_BATCH || !busy)
			xbb_answer_push(q);
		if (busy)
			continue;
		if (has_drained(q))
			break;
		rest_queue(q);
	}
	xbb_persist_drop(&q->own.persist);
	xbb_conn_drained(conn);
	return (NULL);
}
