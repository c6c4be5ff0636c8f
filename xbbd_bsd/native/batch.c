/*
 * batch.c - carry one batch out, leave a status in each of its requests, and
 * learn how quick the disk is.  Runs on an I/O thread or on the ring's, and
 * changes nothing of the queue but the batch, its requests and the opinion
 * about the disk's speed.
 */
#include "internal.h"

/*
 * Is the disk one to wait for?  What waits for SLOW_NS counts much, a stall
 * even more, and what is over sooner takes a little away: a thread that lost
 * its processor in the middle does not make a disk slow, a disk that is slow
 * one time in ten does.  Flushes have an account of their own, which begins
 * with the worst, since a single one may take seconds.  Racing writers cost a
 * sample, no more.
 */
#define SLOW_NS		20000
#define SLOW_WEIGHT	10
#define STALL_NS	5000000
#define STALL_WEIGHT	30
#define SLOW_ENOUGH	40

static void
judge(atomic_uint *slowness, uint64_t took, uint64_t computing)
{
	unsigned int old, new;

	old = atomic_load_explicit(slowness, memory_order_relaxed);
	if (took < SLOW_NS + computing)
		new = old > 0 ? old - 1 : 0;
	else
		new = old + (took < STALL_NS ? SLOW_WEIGHT : STALL_WEIGHT);
	if (new > XBB_SLOWEST)
		new = XBB_SLOWEST;
	if (new != old)
		atomic_store_explicit(slowness, new, memory_order_relaxed);
}

/*
 * What a batch costs in processor time, which is not waiting: one in so many
 * is measured.  A call costs about what OVERHEAD_PAGES pages do.
 */
#define SAMPLE_EVERY	64
#define OVERHEAD_PAGES	4

static uint64_t
computing_ns(struct xbb_queue *q, const struct xbb_batch *batch)
{

	return ((uint64_t)(batch->nseg + OVERHEAD_PAGES) *
	    atomic_load_explicit(&q->page_ns, memory_order_relaxed));
}

static bool
is_sample(struct xbb_queue *q)
{

	return (atomic_fetch_add_explicit(&q->runs, 1,
	    memory_order_relaxed) % SAMPLE_EVERY == 0);
}

static void
learn_cost(struct xbb_queue *q, const struct xbb_batch *batch, uint64_t cpu)
{

	atomic_store_explicit(&q->page_ns, (unsigned int)(cpu /
	    (batch->nseg + OVERHEAD_PAGES)), memory_order_relaxed);
}

void
xbb_judge_flush(struct xbb_queue *q, uint64_t took)
{

	judge(&q->flush_slowness, took, 0);
}

static int
perform(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{

	if (batch->faked)
		return (0);
	xbb_probe_dispatch(q, batch);
	if (batch->operation == XBB_OP_DISCARD)
		return (xbb_data_discard(q, batch));
	if (batch->nseg == 0)
		return (xbb_data_flush(q, batch));
	return (xbb_data_move(q, batch, thread));
}

static int16_t
status_of(const struct xbb_batch *batch, int error)
{

	if (error == 0)
		return (XBB_RSP_OKAY);
	/* "Cannot" is for good; the frontend should stop asking. */
	if (batch->nseg == 0 && (error == -EOPNOTSUPP || error == -ENOTTY))
		return (XBB_RSP_EOPNOTSUPP);
	return (XBB_RSP_ERROR);
}

/* The same again for one request of a batch that failed as a whole. */
static int16_t
perform_alone(struct xbb_queue *q, struct xbb_batch *batch, uint16_t r,
    uint32_t thread)
{
	struct xbb_batch one;
	int16_t status;
	uint16_t next;

	next = q->reqs[r].next;
	xbb_batch_begin(&one, q->reqs, r);
	one.tally = batch->tally;
	one.persistent = batch->persistent;
	status = status_of(&one, perform(q, &one, thread));
	batch->tally = one.tally;
	q->reqs[r].next = next;
	return (status);
}

/* Would carrying this batch out keep a thread for long? */
bool
xbb_batch_is_slow(struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (batch->operation == XBB_OP_DISCARD)
		return (true);
	if (xbb_batch_flushes(batch) &&
	    atomic_load_explicit(&q->flush_slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH)
		return (true);
	return (batch->nseg != 0 &&
	    atomic_load_explicit(&q->slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH);
}

/*
 * Carry the batch out.  If a merged one fails, each request is done again by
 * itself: reads and writes can be repeated, and only those that fail alone may
 * report an error.
 */
void
xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	const bool sample = is_sample(q);
	uint64_t cpu_before, took;
	uint16_t r;
	int error;

	cpu_before = sample ? xbb_thread_cpu_ns() : 0;
	batch->begun_ns = xbb_now_ns();
	error = perform(q, batch, thread);
	batch->ended_ns = xbb_now_ns();
	took = batch->ended_ns - batch->begun_ns;
	if (batch->nseg != 0 && batch->tally.flushes == 0) {
		if (sample)
			learn_cost(q, batch, xbb_thread_cpu_ns() - cpu_before);
		judge(&q->slowness, took, computing_ns(q, batch));
	}
	for (r = batch->first; r != XBB_NONE; r = q->reqs[r].next) {
		if (error != 0 && batch->nreq > 1 && batch->nsectors != 0)
			q->reqs[r].status = perform_alone(q, batch, r, thread);
		else
			q->reqs[r].status = status_of(batch, error);
		XBB_SET(q->reqs[r].state, XBB_REQ_DONE);
	}
	if (error != 0)
		batch->ended_ns = xbb_now_ns();
}
