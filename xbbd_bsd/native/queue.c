/*
 * queue.c - the thread of a ring.  It has requests taken in (intake.c), starts
 * batches in order, carries out a share of them itself, collects what the workers
 * finished, tries again what the host was short for, and answers.  Ring, lists and event
 * channel belong to it alone, so it takes no lock but the pool's.
 */
#include <assert.h>
#include <unistd.h>

#include "internal.h"

/* Responses that may gather before the frontend is told. */
#define PUSH_BATCH	16

static struct xbb_batch *
done_take(struct xbb_queue *q)
{

	return (atomic_exchange_explicit(&q->done, NULL,
	    memory_order_acquire));
}

static void
done_put(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_batch *head;

	head = atomic_load_explicit(&q->done, memory_order_relaxed);
	do
		batch->next = head;
	while (!atomic_compare_exchange_weak(&q->done, &head, batch));
}

/* A worker is through with a batch. */
void
xbb_queue_done(struct xbb_queue *q, struct xbb_batch *batch)
{

	done_put(q, batch);
	xbb_queue_kick(q);
}

void
xbb_queue_drain(struct xbb_queue *q)
{
	unsigned int running = XBB_QUEUE_RUNNING;

	atomic_store(&q->draining, true);
	atomic_compare_exchange_strong(&q->state, &running,
	    XBB_QUEUE_DRAINING);
	xbb_queue_kick(q);
}

/* Stop for good, and say why; the first reason stays (XSA-365).  Ring thread. */
void
xbb_queue_stop(struct xbb_queue *q, enum xbb_stop_reason reason, int errnum)
{

	if (atomic_load(&q->reason) == XBB_STOP_NONE) {
		atomic_store(&q->errnum, errnum);
		atomic_store(&q->reason, reason);
	}
	xbb_queue_drain(q);
}

/* Requests: out of the table and onto the ring. */

static void
release_req(struct xbb_queue *q, uint16_t r)
{

	xbb_req_step(q, r, XBB_REQ_FREE);
	q->reqs[r].next = q->free_req;
	q->free_req = r;
	XBB_SET(q->rs->inflight, --q->inflight);
}

/* Fill in a response; it is published with others. */
void
xbb_queue_respond(struct xbb_queue *q, const struct xbb_req *req, int16_t status)
{
	struct xbb_counters *c = &q->rs->counters;

	xbb_ring_put_response(&q->ring, req->id, req->operation, status);
	q->unpushed++;
	XBB_COUNT(c->reqs_queued_for_completion, 1);
	if (status != XBB_RSP_OKAY)
		XBB_COUNT(c->reqs_completed_with_error, 1);
	xbb_devstat_end(&q->rs->received, req->operation, req->nsectors,
	    status == XBB_RSP_OKAY ? req->nsectors : 0, req->received_ns,
	    q->now_ns);
	xbb_latency_add(q->latency[xbb_devstat_kind(req->operation,
	    req->nsectors)], q->now_ns > req->received_ns ?
	    q->now_ns - req->received_ns : 0);
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

	if (q->params.read_only || XBB_GET(q->tunables->disable_flush) != 0)
		return (true);
	interval = XBB_GET(q->tunables->flush_interval);
	if (interval <= 0)
		return (false);
	if (++q->flush_count < (uint32_t)interval)
		return (true);
	q->flush_count = 0;
	return (false);
}

static void
start(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_counters *c = &q->rs->counters;
	uint16_t r;

	for (r = batch->first; r != XBB_NONE; r = q->reqs[r].next)
		xbb_req_step(q, r, XBB_REQ_DISPATCHED);
	if (xbb_batch_is_flush(batch))
		batch->faked = flush_is_faked(q);
	xbb_order_started(q, batch);
	XBB_SET(q->rs->grants_mapped, q->started_segments);
	xbb_persist_pin_batch(q, batch);
	xbb_devstat_start(&q->rs->dispatched, q->now_ns);

	/* As the kernel counts: forced when something else already waits. */
	if (q->pending.head != NULL)
		XBB_COUNT(c->forced_dispatch, 1);
	else
		XBB_COUNT(c->normal_dispatch, 1);
	XBB_COUNT(c->total_dispatch, 1);
}

static void
count_tally(struct xbb_counters *c, const struct xbb_tally *tally)
{

	XBB_COUNT(c->grants_mapped_total, tally->grants_mapped);
	XBB_COUNT(c->grants_unmapped_total, tally->grants_unmapped);
	XBB_COUNT(c->grants_copied_total, tally->grants_copied);
	XBB_COUNT(c->grant_errors, tally->grant_errors);
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
	for (r = batch->first; r != XBB_NONE; r = q->reqs[r].next)
		if (q->reqs[r].status == XBB_RSP_OKAY)
			done += q->reqs[r].nsectors;
	return (done);
}

/* The disk failed, or the guest's grants did: count whose requests that cost. */
static void
judge(struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint16_t r;

	if (batch->tally.gone_errno != 0)
		xbb_queue_stop(q, XBB_STOP_DISK, batch->tally.gone_errno);
	if (batch->tally.lost_errno != 0)
		xbb_queue_stop(q, XBB_STOP_LOST, batch->tally.lost_errno);
	for (r = batch->first; r != XBB_NONE; r = q->reqs[r].next)
		if (q->reqs[r].status != XBB_RSP_OKAY)
			xbb_faults_count(q, &q->reqs[r], &q->verdicts[r]);
}

/* A batch is done: answer its requests, free everything. */
static void
finish(struct xbb_queue *q, struct xbb_batch *batch)
{
	uint16_t next, r;

	if (q->now_ns < batch->ended_ns)
		q->now_ns = batch->ended_ns;
	xbb_devstat_end(&q->rs->dispatched, batch->operation, batch->nsectors,
	    sectors_done(q, batch), batch->begun_ns, batch->ended_ns);
	xbb_persist_unpin_batch(q, batch);
	xbb_order_ended(q, batch);
	XBB_SET(q->rs->grants_mapped, q->started_segments);
	count_tally(&q->rs->counters, &batch->tally);
	if ((batch->tally.io_errors | batch->tally.grant_errors) != 0)
		judge(q, batch);

	for (r = batch->first; r != XBB_NONE; r = next) {
		next = q->reqs[r].next;
		xbb_queue_respond(q, &q->reqs[r], q->reqs[r].status);
		release_req(q, r);
	}
	if (batch->has_starved)
		xbb_shortage_passed(q);
	batch->next = q->free_batch;
	q->free_batch = batch;
}

/* A started batch has come back: it is done, or for want of memory is not. */
static void
settle(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (!batch->starved) {
		finish(q, batch);
		return;
	}
	if (!batch->has_starved)
		XBB_COUNT(q->rs->counters.kva_shortages, 1);
	batch->has_starved = true;
	xbb_batch_list_put(&q->starved, batch);
	xbb_shortage_begin(q, batch->tally.shortage);
}

static void
push(struct xbb_queue *q)
{
	struct xbb_counters *c = &q->rs->counters;
	bool notify;
	int error;

	if (q->unpushed == 0)
		return;
	notify = xbb_ring_push_responses(&q->ring);
	XBB_COUNT(c->reqs_completed, q->unpushed);
	XBB_COUNT(c->reqs_queued_for_completion, -(uint64_t)q->unpushed);
	XBB_SET(q->rs->rsp_prod, q->ring.rsp_prod);
	q->unpushed = 0;
	if (notify) {
		XBB_COUNT(c->notifies_sent, 1);
		error = q->ops->notify(q->hv);
		if (error != 0)
			xbb_queue_stop(q, XBB_STOP_EVENT, -error);
	}
}

/*
 * Carry a batch out on this thread.  What is ready is published first: nobody
 * knows how long this will take.
 */
static void
run_here(struct xbb_queue *q, struct xbb_batch *batch)
{

	push(q);
	if (!xbb_batch_run(q, batch, 0)) {
		xbb_pool_submit(q, batch);
		return;
	}
	if (!batch->starved)
		XBB_COUNT(q->rs->counters.io_inline, 1);
	settle(q, batch);
}

/*
 * Start what may start.  What will be over before another thread would be awake
 * this thread does itself, one at a time, and comes back.  What may take long
 * is handed over, lest the ring waits behind the disk.  True if something was
 * started.
 */
static bool
dispatch(struct xbb_queue *q)
{
	struct xbb_batch *batch;
	bool started;

	for (started = false; (batch = xbb_order_next(q)) != NULL; started = true) {
		start(q, batch);
		if (!xbb_batch_is_slow(q, batch)) {
			run_here(q, batch);
			return (true);
		}
		xbb_pool_submit(q, batch);
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

	if (q->nstarted == 0)
		return (false);
	xbb_pool_wake(q);
	if (q->pool.nthreads != 0)
		return (false);
	batch = xbb_pool_take(&q->pool);
	if (batch == NULL)
		return (false);
	run_here(q, batch);
	return (true);
}

/* Collect what workers finished.  True if there was any. */
static bool
collect(struct xbb_queue *q)
{
	struct xbb_batch *batch, *next;

	batch = done_take(q);
	if (batch == NULL)
		return (false);
	for (; batch != NULL; batch = next) {
		next = batch->next;
		if (!batch->starved)
			XBB_COUNT(q->rs->counters.io_handed_over, 1);
		settle(q, batch);
	}
	return (true);
}

/*
 * Try again what starved, until something does once more, or give it up.  True
 * if it was time to.
 */
static bool
retry(struct xbb_queue *q)
{
	struct xbb_batch_list starved;
	struct xbb_batch *batch;
	bool lasts;

	if (q->retry_ns == 0 || !xbb_shortage_due(q))
		return (false);
	starved = q->starved;
	lasts = xbb_shortage_lasts(q);
	q->ring_starved = false;
	q->starved = (struct xbb_batch_list){ 0 };
	while ((batch = xbb_batch_list_take(&starved)) != NULL)
		if (lasts) {
			xbb_batch_give_up(q, batch);
			finish(q, batch);
		} else if (q->retry_ns != 0)
			xbb_batch_list_put(&q->starved, batch);
		else if (xbb_batch_is_slow(q, batch))
			xbb_pool_submit(q, batch);
		else
			run_here(q, batch);
	return (true);
}

/* Stop if memory that is shared with others is not what it should be. */
static void
check_memory(struct xbb_queue *q)
{
	int errnum;

	if (xbb_mapping_damaged(q->mapping))
		xbb_queue_stop(q, XBB_STOP_SEGMENT, EIO);
	errnum = atomic_load_explicit(&q->unmap_errnum, memory_order_relaxed);
	if (errnum != 0)
		xbb_queue_stop(q, XBB_STOP_UNMAP, errnum);
}

/* The thread: until drained. */
void *
xbb_queue_main(void *arg)
{
	struct xbb_queue *q = arg;
	ssize_t n;
	bool busy;

	xbb_thread_name("xbb ring");
	for (;;) {
		check_memory(q);
		busy = collect(q);
		busy |= retry(q);
		if (!q->ring_starved && !atomic_load(&q->draining) &&
		    xbb_queue_gather(q)) {
			q->idle_events = 0;
			busy = true;
		}
		busy |= dispatch(q);
		xbb_persist_trim_at_work(q);
		busy |= hand_over(q);
		if (q->unpushed >= PUSH_BATCH || !busy)
			push(q);
		if (busy)
			continue;
		if (atomic_load(&q->draining) && q->nstarted == 0 &&
		    q->pending.head == NULL && q->waiting.head == NULL)
			break;
		xbb_queue_idle(q);
	}
	xbb_persist_drop(q);
	check_memory(q);
	XBB_SET(q->rs->connected, 0);
	atomic_store(&q->state, XBB_QUEUE_DRAINED);
	do
		n = write(q->params.wake_fd, "", 1);
	while (n < 0 && errno == EINTR);
	return (NULL);
}
