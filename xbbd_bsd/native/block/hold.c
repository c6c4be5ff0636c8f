/*
 * hold.c - batches that the disk has failed, and that have no answer yet, since
 * the operator wants them tried again, or all to wait for him (policy.c).  They
 * stay started: so what overlaps them waits, as does a flush for the writes
 * among them, and the table has them as dispatched, for whoever serves the ring
 * next.  A flush that failed is never among them: what it was about may be lost
 * by then, and another one would say that it is not (flush.c).
 *
 * Whether one is to be held whoever carries it out finds, on any thread; the
 * rest is the ring's.
 */
#include "block/block.h"

/* What a part of a batch has come to: what becomes of it, enum xbb_policy? */
static uint32_t
policy_for(const struct xbb_queue *q, const struct xbb_batch *whole,
    const struct xbb_tally *tally, struct xbb_outcome done)
{
	const struct xbb_tunables *t = q->set.tunables;
	uint64_t seconds;
	uint32_t policy;

	if (done.blame != XBB_BLAME_HOST || tally->failed_errno == 0 ||
	    tally->lost_errno != 0 || tally->shrunk ||
	    xbb_conn_ends(&q->conn) || xbb_flushes_lost(q->set.flushes) != 0)
		return (XBB_POLICY_REPORT);
	policy = xbb_policy_of(XBB_GET(t->on_error), XBB_GET(t->on_full),
	    tally->failed_errno, tally->gone_errno != 0);
	if (policy != XBB_POLICY_RETRY)
		return (policy);
	seconds = XBB_GET(t->retry_seconds) < 0 ? 0 :
	    (uint64_t)XBB_GET(t->retry_seconds);
	if (seconds == 0 || (whole->held_ns != 0 &&
	    xbb_now_ns() - whole->held_ns >= seconds * 1000000000))
		return (XBB_POLICY_REPORT);
	return (policy);
}

/*
 * A part of a batch has failed, for this: is the batch to be held, rather than
 * this part to be answered?
 */
bool
xbb_hold_wanted(const struct xbb_queue *q, struct xbb_batch *whole,
    const struct xbb_batch *part, struct xbb_outcome done,
    const struct xbb_verdict *why)
{
	const uint32_t policy = policy_for(q, whole, &part->tally, done);

	if (policy == XBB_POLICY_STOP)
		whole->tally.stop_errno = part->tally.failed_errno;
	if (policy != XBB_POLICY_RETRY && policy != XBB_POLICY_PAUSE)
		return (false);
	whole->starved = whole->held = true;
	whole->until_resumed = policy == XBB_POLICY_PAUSE;
	whole->held_req = part->first;
	whole->held_why = *why;
	return (true);
}

/* A batch has come back that is to be held. */
void
xbb_hold(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_counters *c = &q->set.rs->counters;
	const uint64_t now = xbb_now_ns();

	if (batch->held_ns == 0) {
		XBB_COUNT(c->io_held, 1);
		batch->held_ns = now;
		batch->tries = 0;
	}
	xbb_faults_hold(q, &q->set.reqs[batch->held_req], &batch->held_why);
	batch->again_ns = now +
	    (uint64_t)xbb_policy_wait_ms(batch->tries) * 1000000;
	if (batch->tries < UINT8_MAX)
		batch->tries++;
	/* The next try says anew what the disk is like. */
	batch->tally.failed_errno = batch->tally.gone_errno = 0;
	batch->tally.shrunk = false;
	/* It may be long: its pages are not kept from being given back. */
	xbb_pages_unpin(q, batch);
	xbb_work_put(&q->own.held, &batch->work);
	if (batch->until_resumed) {
		xbb_pause_begin(q->set.pause, XBB_PAUSE_FAILED);
		xbb_conn_tell(&q->conn);
	}
}

/* Carry it out once more; of one that waited for an operator time begins anew. */
static void
try_again(struct xbb_queue *q, struct xbb_batch *batch)
{

	XBB_COUNT(q->set.rs->counters.io_retries, 1);
	if (batch->until_resumed)
		batch->held_ns = xbb_now_ns();
	batch->held = batch->until_resumed = false;
	xbb_pages_pin(q, batch);
	(void)q->set.store->submit(q, batch);
}

/*
 * Try again what is due, unless the disk is paused; or give it up, since nobody
 * waits for it any longer.  True if there was any of that.
 */
bool
xbb_hold_release(struct xbb_queue *q)
{
	const bool ends = xbb_conn_ends(&q->conn);
	struct xbb_work_list held;
	struct xbb_batch *batch;
	uint64_t now;
	bool any;

	if (q->own.held.head == NULL || (xbb_pause_is_on(q) && !ends))
		return (false);
	now = xbb_now_ns();
	held = q->own.held;
	q->own.held = (struct xbb_work_list){ 0 };
	any = false;
	while ((batch = xbb_batch_of(xbb_work_take(&held))) != NULL)
		if (ends) {
			xbb_batch_give_up(q, batch);
			xbb_settle(q, batch);
			any = true;
		} else if (xbb_pause_is_on(q) ||
		    (!batch->until_resumed && now < batch->again_ns))
			xbb_work_put(&q->own.held, &batch->work);
		else {
			try_again(q, batch);
			any = true;
		}
	return (any);
}

static uint64_t
earlier(uint64_t at_ns, const struct xbb_work *work)
{
	const struct xbb_batch *batch = (const void *)work;

	return (batch->again_ns < at_ns ? batch->again_ns : at_ns);
}

/* How long the ring's thread may sleep, which otherwise would for limit_ms. */
int
xbb_hold_wait(const struct xbb_queue *q, int limit_ms)
{
	const struct xbb_work *work;
	uint64_t at, now;
	int ms;

	if (q->own.held.head == NULL || xbb_pause_is_on(q))
		return (limit_ms);
	at = UINT64_MAX;
	for (work = q->own.held.head; work != NULL; work = work->next)
		at = earlier(at, work);
	now = xbb_now_ns();
	ms = at <= now ? 0 : (int)((at - now + 999999) / 1000000);
	return (limit_ms >= 0 && limit_ms < ms ? limit_ms : ms);
}

/*
 * A batch that nobody has begun, of a disk that is paused, and of a ring that
 * ends: it fails, and the disk is left alone.
 */
void
xbb_hold_refuse(struct xbb_queue *q, struct xbb_batch *batch)
{

	batch->held = true;
	batch->held_why = (struct xbb_verdict){
		.blame = XBB_BLAME_HOST,
		.errnum = ECANCELED,
		.operation = xbb_batch_is_flush(batch) ? XBB_DISK_OP_FLUSH :
		    batch->operation == XBB_OP_DISCARD ? XBB_DISK_OP_DISCARD :
		    batch->operation == XBB_OP_READ ? XBB_DISK_OP_READ :
		    XBB_DISK_OP_WRITE,
	};
	batch->begun_ns = xbb_now_ns();
	xbb_batch_give_up(q, batch);
	xbb_settle(q, batch);
}
