/*
 * queue.c - the thread of a ring.  It copies requests out, has them validated
 * and merged, starts batches in order, carries out a share of them itself,
 * collects what the workers finished, and answers.  Ring, lists and event
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

/* Requests: from the ring into the table and onto the pending batches. */

static void
release_req(struct xbb_queue *q, uint16_t r)
{

	xbb_req_show(q, r, XBB_REQ_FREE);
	q->reqs[r].next = q->free_req;
	q->free_req = r;
	XBB_SET(q->rs->inflight, --q->inflight);
}

static void
respond(struct xbb_queue *q, const struct xbb_req *req, int16_t status)
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

static void
count_request(struct xbb_counters *c, const struct xbb_req *req)
{

	if (req->indirect)
		XBB_COUNT(c->indirect_req, 1);
	switch (req->operation) {
	case XBB_OP_READ:
		XBB_COUNT(c->rd_req, 1);
		XBB_COUNT(c->rd_sect, req->nsectors);
		return;
	case XBB_OP_WRITE:
		XBB_COUNT(c->wr_req, 1);
		break;
	case XBB_OP_WRITE_BARRIER:
		XBB_COUNT(c->br_req, 1);
		break;
	case XBB_OP_DISCARD:
		XBB_COUNT(c->ds_req, 1);
		XBB_COUNT(c->ds_sect, req->nsectors);
		return;
	default:
		XBB_COUNT(c->f_req, 1);
		break;
	}
	XBB_COUNT(c->wr_sect, req->nsectors);
}

/* Put a valid request on the pending batches, on the last one if it fits. */
static void
enqueue(struct xbb_queue *q, uint16_t r)
{
	struct xbb_coalesce limits = {
		.max_segments = q->params.max_batch_segments,
		.disabled = XBB_GET(q->tunables->no_coalesce_reqs) != 0,
	};
	struct xbb_batch *batch;

	if (q->pending.tail != NULL &&
	    xbb_batch_admits(q->pending.tail, &q->reqs[r], &limits)) {
		xbb_batch_append(q->pending.tail, q->reqs, r);
		return;
	}
	batch = q->free_batch;
	assert(batch != NULL);
	q->free_batch = batch->next;
	xbb_batch_begin(batch, q->reqs, r);
	xbb_batch_list_put(&q->pending, batch);
}

/*
 * Is the request valid?  The segments of an indirect one are fetched to the
 * place where they will stay if it is.
 */
static int
examine(struct xbb_queue *q, struct xbb_req *req, uint16_t r)
{
	struct xbb_segment *fetched;
	int status;

	if (!req->indirect)
		return (xbb_request_validate(&q->limits, req, req->seg));
	status = xbb_request_admit(&q->limits, req);
	if (status != XBB_RSP_OKAY)
		return (status);
	fetched = q->segments + (size_t)r * q->max_segments;
	if (xbb_grants_fetch(q, req, fetched) != 0)
		return (XBB_RSP_ERROR);
	return (xbb_request_validate(&q->limits, req, fetched));
}

/* A request just copied out: into the table, or answered at once. */
static void
accept(struct xbb_queue *q, struct xbb_req *req)
{
	const uint16_t r = q->free_req;
	int status;

	/* Never empty: a ring has no more slots than the table entries. */
	assert(r != XBB_NONE);
	xbb_devstat_start(&q->rs->received, req->received_ns);
	status = examine(q, req, r);
	if (status != XBB_RSP_OKAY) {
		XBB_COUNT(q->rs->counters.reqs_malformed, 1);
		respond(q, req, (int16_t)status);
		return;
	}
	count_request(&q->rs->counters, req);
	q->free_req = q->reqs[r].next;
	q->reqs[r] = *req;
	q->table[r] = *req;
	xbb_req_show(q, r, XBB_REQ_ACCEPTED);
	XBB_SET(q->rs->inflight, ++q->inflight);
	enqueue(q, r);
}

/* The size of the disk: the segment's word, unless that cannot be. */
static uint64_t
disk_sectors(const struct xbb_queue *q)
{
	const uint64_t most = xbb_mapping_sectors(q->mapping);
	const uint64_t sectors = XBB_GET(*q->sectors);

	return (sectors < most ? sectors : most);
}

/* Take every request that waits on the ring.  True if there was any. */
static bool
gather(struct xbb_queue *q)
{
	uint32_t slot[XBB_SLOT_WORDS], n, unread;
	struct xbb_req req = { 0 };

	if (xbb_ring_unread(&q->ring, &unread) != 0) {
		xbb_queue_stop(q, XBB_STOP_RING, EPROTO);
		return (false);
	}
	if (unread == 0)
		return (false);
	q->now_ns = req.received_ns = xbb_now_ns();
	q->limits.sectors = disk_sectors(q);
	for (n = 0; n < unread; n++) {
		req.ring_index = q->ring.req_cons;
		xbb_ring_copy_request(&q->ring, slot);
		xbb_request_decode(q->ring.layout, slot, &req);
		XBB_COUNT(q->rs->counters.reqs_received, 1);
		accept(q, &req);
	}
	XBB_SET(q->rs->req_cons, q->ring.req_cons);
	return (true);
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
		xbb_req_show(q, r, XBB_REQ_DISPATCHED);
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

/* A started batch has come back: answer its requests, free everything. */
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
	if (batch->tally.gone_errno != 0)
		xbb_queue_stop(q, XBB_STOP_DISK, batch->tally.gone_errno);
	if (batch->tally.lost_errno != 0)
		xbb_queue_stop(q, XBB_STOP_LOST, batch->tally.lost_errno);

	for (r = batch->first; r != XBB_NONE; r = next) {
		next = q->reqs[r].next;
		respond(q, &q->reqs[r], q->reqs[r].status);
		release_req(q, r);
	}
	batch->next = q->free_batch;
	q->free_batch = batch;
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
	XBB_COUNT(q->rs->counters.io_inline, 1);
	finish(q, batch);
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
		XBB_COUNT(q->rs->counters.io_handed_over, 1);
		finish(q, batch);
	}
	return (true);
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
		if (xbb_mapping_damaged(q->mapping))
			xbb_queue_stop(q, XBB_STOP_SEGMENT, EIO);
		busy = collect(q);
		if (!atomic_load(&q->draining) && gather(q)) {
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
	XBB_SET(q->rs->connected, 0);
	atomic_store(&q->state, XBB_QUEUE_DRAINED);
	do
		n = write(q->params.wake_fd, "", 1);
	while (n < 0 && errno == EINTR);
	return (NULL);
}
