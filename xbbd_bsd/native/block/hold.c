/*
 * hold.c - batches that the disk has failed, and that have no answer yet, since
 * the operator wants them tried again, or all to wait for him (policy.c).  They
 * stay started: so what overlaps them waits, as does a flush for the writes
 * among them, and the table has them as dispatched, for whoever serves the ring
 * next.  A flush that failed is never among them: what it was about may be lost
 * by then, and another one would say that it is not (flush.c).
 *
 * Whether one is to be held whoever carries it out finds, on any thread; the
 * rest is the ring's.  What ends it is in resume.c.
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
