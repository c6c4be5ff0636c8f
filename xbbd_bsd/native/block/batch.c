/*
 * batch.c - carry one batch out, and leave a status in each of its requests.
 * Runs on an I/O thread or on the ring's, and changes nothing of the queue but
 * the batch, its requests and the opinion about the disk's speed (speed.c).
 */
#include "block/block.h"

static struct xbb_outcome
perform_batch(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{

	if (batch->faked)
		return (XBB_WELL);
	if (batch->operation == XBB_OP_DISCARD)
		return (xbb_io_discard(q, batch));
	if (batch->nseg == 0)
		return (xbb_io_flush(q, batch, thread));
	return (xbb_data_move(q, batch, thread));
}

/*
 * What stands before the data of a barrier: what is older is durable first, or
 * there is nothing to flush.
 */
static struct xbb_outcome
flush_before(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	struct xbb_outcome done;

	batch->flushed = true;
	done = xbb_io_flush(q, batch, thread);
	return (xbb_means_cannot(done.error) ? XBB_WELL : done);
}

static int16_t
status_of_failure(const struct xbb_batch *batch, int error)
{

	/* "Cannot" is for good; the frontend should stop asking. */
	if (batch->nseg == 0 && xbb_means_cannot(error))
		return (XBB_RSP_EOPNOTSUPP);
	return (XBB_RSP_ERROR);
}

static inline void
set_status(struct xbb_queue *q, const struct xbb_batch *batch, int16_t status)
{
	uint32_t left;
	uint16_t r;

	for (left = batch->nreq, r = batch->first; left > 0;
	    left--, r = q->set.reqs[r].next) {
		q->set.reqs[r].status = status;
		xbb_may_die();
		q->set.table[r].status = status;
		xbb_req_step(q, r, XBB_REQ_DONE);
	}
}

/* Why an attempt failed. */
static struct xbb_verdict
verdict_on(const struct xbb_tally *tally, enum xbb_blame blame)
{

	return ((struct xbb_verdict){
		.blame = (uint8_t)blame,
		.errnum = tally->failed_errno,
		.operation = tally->failed_op,
		.shrunk = tally->shrunk,
		.refusal = XBB_REFUSED_GRANTS,
	});
}

/* All requests of a batch fail, for this. */
static void
set_failed(struct xbb_queue *q, const struct xbb_batch *batch, int error,
    const struct xbb_verdict *why)
{
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->set.reqs[r].next)
		q->set.verdicts[r] = *why;
	set_status(q, batch, status_of_failure(batch, error));
}

/*
 * An attempt at a batch, or at a part of it, has come to this; what is to be
 * done about an error may be something else than to tell of it.
 */
void
xbb_batch_set_outcome(struct xbb_queue *q, struct xbb_batch *whole,
    const struct xbb_batch *part, struct xbb_outcome done)
{
	struct xbb_verdict why;

	if (done.error == 0) {
		set_status(q, part, XBB_RSP_OKAY);
		return;
	}
	why = verdict_on(&part->tally, done.blame);
	if (!xbb_hold_wanted(q, whole, part, done, &why))
		set_failed(q, part, done.error, &why);
}

/*
 * So many requests of a batch, from one on; their links stay as they are.  The
 * batch's own links are the ring's thread's, which changes them at any time.
 */
struct xbb_batch
xbb_batch_part(const struct xbb_queue *q, const struct xbb_batch *whole,
    uint16_t first, uint16_t nreq)
{
	struct xbb_batch part = {
		.sector = q->set.reqs[first].sector,
		.nreq = nreq,
		.first = first,
		.operation = whole->operation,
		.secure = whole->secure,
		.faked = whole->faked,
		.flushed = whole->flushed,
		.persistent = whole->persistent,
	};
	uint16_t n, r;

	for (n = 0, r = first; n < nreq; n++, r = q->set.reqs[r].next) {
		part.nsectors += q->set.reqs[r].nsectors;
		part.nseg += q->set.reqs[r].nseg;
		part.last = r;
	}
	return (part);
}

void
xbb_batch_add_tally(struct xbb_tally *sum, const struct xbb_tally *tally)
{

	sum->grants_mapped += tally->grants_mapped;
	sum->grants_unmapped += tally->grants_unmapped;
	sum->grants_copied += tally->grants_copied;
	sum->grant_errors += tally->grant_errors;
	sum->flushes += tally->flushes;
	sum->io_short += tally->io_short;
	sum->io_errors += tally->io_errors;
	sum->io_bounced += tally->io_bounced;
	sum->io_read_modify_write += tally->io_read_modify_write;
	if (tally->gone_errno != 0)
		sum->gone_errno = tally->gone_errno;
	if (tally->lost_errno != 0)
		sum->lost_errno = tally->lost_errno;
	if (tally->shortage > sum->shortage)
		sum->shortage = tally->shortage;
}

/* What goes on when a batch is repeated in parts. */
struct repetition {
	struct xbb_queue *q;
	struct xbb_batch *whole;
	uint32_t	 thread;
	bool		 given_up;
	struct xbb_verdict why;		/* then */
};

static uint16_t	do_part(struct repetition *again, uint16_t first,
		    uint16_t nreq);

/*
 * A merged batch, or a part of it, has come to this: reads and writes can be
 * repeated, and only requests that fail alone shall report an error.  A grant
 * that is none costs little to find, one by one; and a host that is short may
 * have enough for one.  If it has not, that one and all after it starve.  For a
 * disk's bad place halves are tried again, as long as that leads anywhere: a
 * disk that is gone, one that takes its time to fail, and a queue that ends
 * get no other try, lest each request waits as long as the first.
 */
static void
settle_part(struct repetition *again, const struct xbb_batch *part,
    struct xbb_outcome done, uint64_t took, bool waited)
{
	const bool by_disk = done.blame == XBB_BLAME_HOST;
	uint16_t n, nreq, r;

	if (by_disk &&
	    (xbb_conn_ends(&again->q->conn) ||
	    part->tally.gone_errno != 0 || part->tally.lost_errno != 0 ||
	    (waited && xbb_speed_stalled(took)))) {
		again->given_up = true;
		again->why = verdict_on(&part->tally, done.blame);
	}
	if (done.error == 0 || part->nreq == 1 || again->given_up) {
		if (done.error != 0 && part->tally.shortage != XBB_SHORT_NONE)
			again->whole->starved = true;
		else
			xbb_batch_set_outcome(again->q, again->whole, part,
			    done);
		return;
	}
	r = part->first;
	for (n = 0; n < part->nreq; n += nreq) {
		nreq = !by_disk ? 1 : n == 0 ? part->nreq / 2 : part->nreq - n;
		r = do_part(again, r, nreq);
	}
}

/* So many requests, from one on; which one comes after them. */
static uint16_t
do_part(struct repetition *again, uint16_t first, uint16_t nreq)
{
	struct xbb_queue *q = again->q;
	struct xbb_batch part = xbb_batch_part(q, again->whole, first, nreq);
	struct xbb_outcome done;
	uint64_t took;

	/* One that is held has all after it wait. */
	if (again->given_up && !again->whole->held)
		set_failed(q, &part, -EIO, &again->why);
	else if (!again->whole->starved) {
		took = xbb_now_ns();
		done = perform_batch(q, &part, again->thread);
		took = xbb_now_ns() - took;
		xbb_batch_add_tally(&again->whole->tally, &part.tally);
		settle_part(again, &part, done, took,
		    xbb_speed_waited(q, again->thread, took));
	}
	return (q->set.reqs[part.last].next);
}

static void
perform_again(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_outcome done, uint64_t took, bool waited, uint32_t thread)
{
	struct xbb_batch whole = xbb_batch_part(q, batch, batch->first,
	    batch->nreq);
	struct repetition again = {
		.q = q, .whole = batch, .thread = thread,
	};

	whole.tally = batch->tally;
	settle_part(&again, &whole, done, took, waited);
	batch->ended_ns = xbb_now_ns();
}

/* Those requests once more that have come to nothing yet. */
static void
perform_starved(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	struct repetition again = {
		.q = q, .whole = batch, .thread = thread,
	};
	uint32_t n;
	uint16_t r;

	batch->starved = batch->held = false;
	batch->tally.shortage = XBB_SHORT_NONE;
	for (n = 0, r = batch->first; n < batch->nreq; n++)
		r = q->set.reqs[r].state == XBB_REQ_DONE ? q->set.reqs[r].next :
		    do_part(&again, r, 1);
	batch->ended_ns = xbb_now_ns();
}

/*
 * Why a batch starves.  Where it may be the guest that made it look so, as one
 * does that dies, the host is not blamed for it.
 */
static struct xbb_verdict
verdict_on_starving(const struct xbb_batch *batch)
{
	const bool by_host = batch->tally.shortage == XBB_SHORT_HOST;

	return ((struct xbb_verdict){
		.blame = by_host ? XBB_BLAME_HOST : XBB_BLAME_GUEST,
		.errnum = ENOMEM,
		.operation = batch->operation == XBB_OP_READ ?
		    XBB_DISK_OP_READ : XBB_DISK_OP_WRITE,
		.refusal = XBB_REFUSED_GRANTS,
	});
}

/* Nobody waits any longer for what starves, or is held. */
void
xbb_batch_give_up(struct xbb_queue *q, struct xbb_batch *batch)
{
	const struct xbb_verdict why = batch->held ? batch->held_why :
	    verdict_on_starving(batch);
	struct xbb_batch part;
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->set.reqs[r].next)
		if (q->set.reqs[r].state != XBB_REQ_DONE) {
			part = xbb_batch_part(q, batch, r, 1);
			set_failed(q, &part, -why.errnum, &why);
			batch->tally.grant_errors += !batch->held;
		}
	batch->starved = false;
	batch->ended_ns = xbb_now_ns();
}

/* It took so long: did the thread wait for the disk?  An opinion is formed. */
bool
xbb_batch_waited(struct xbb_queue *q, const struct xbb_batch *batch,
    uint64_t took, uint32_t thread)
{

	if (batch->nsectors == 0 || xbb_batch_flushes(batch))
		return (false);
	if (batch->nseg == 0)
		return (xbb_speed_waited(q, thread, took));
	return (xbb_speed_judge_own(q, thread, took));
}

/* It went well. */
void
xbb_batch_succeed(struct xbb_queue *q, const struct xbb_batch *batch)
{

	set_status(q, batch, XBB_RSP_OKAY);
}

/* It did not: that is what the first attempt came to. */
void
xbb_batch_fail(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_outcome done, uint64_t took, bool waited, uint32_t thread)
{

	if (batch->tally.shortage == XBB_SHORT_NONE &&
	    (batch->nreq == 1 || batch->nsectors == 0))
		xbb_batch_set_outcome(q, batch, batch, done);
	else
		perform_again(q, batch, done, took, waited, thread);
}

/*
 * Carry the batch out, or what starves of it.  False if the ring's thread has
 * learned on the way that flushes are slow: the rest is for another one.
 */
bool
xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	struct xbb_outcome done;
	uint64_t took;
	bool waited;

	if (batch->starved) {
		perform_starved(q, batch, thread);
		return (true);
	}
	done = XBB_WELL;
	if (!batch->flushed) {
		batch->begun_ns = xbb_now_ns();
		if (!batch->faked)
			xbb_probe_dispatch(q, batch);
		if (batch->nseg != 0 && xbb_batch_is_barrier(batch)) {
			done = flush_before(q, batch, thread);
			if (done.error == 0 && thread == 0 &&
			    xbb_speed_flushes_slowly(q))
				return (false);
		}
	}
	if (done.error == 0)
		done = perform_batch(q, batch, thread);
	batch->ended_ns = xbb_now_ns();
	took = batch->ended_ns - batch->begun_ns;
	waited = xbb_batch_waited(q, batch, took, thread);
	xbb_batch_conclude(q, batch, done, took, waited, thread);
	return (true);
}
