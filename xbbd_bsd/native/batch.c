/*
 * batch.c - carry one batch out, leave a status in each of its requests, and
 * learn how quick the disk is.  Runs on an I/O thread or on the ring's, and
 * changes nothing of the queue but the batch, its requests and the opinion
 * about the disk's speed.
 */
#include "internal.h"

/*
 * Is the disk one to wait for?  What a thread waits SLOW_NS for counts much, a
 * stall makes it the slowest there is, and what is over sooner takes a little
 * away.  Waiting is to sleep: a thread that lost its processor in the middle,
 * or had a lot to copy, does not make a disk slow, however long it took.  That
 * is asked only where something took long, against what the thread noted when
 * it last slept for another reason.  To ask is a system call.  So once a thread
 * was awake all the time, it asks again after a few of the kind, which is until
 * what it may take unasked has shrunk, and notes nothing before.  Flushes have
 * an account of their own, which begins with the worst, since a single one may
 * take seconds.  Racing writers cost a sample, no more.
 */
#define SLOW_NS		20000
#define SLOW_WEIGHT	10
#define UNASKED_NS	160000		/* most that is taken for awake unasked */
#define STALL_NS	5000000
#define SLOW_ENOUGH	40

/* Did the thread sleep in what took so long? */
static bool
slept(struct xbb_queue *q, uint32_t thread, uint64_t took)
{
	struct xbb_sleeper *s = &q->sleeper[thread];
	const uint64_t before = s->count;

	if (took < SLOW_NS + s->extra_ns) {
		s->extra_ns -= s->extra_ns / 16;
		return (false);
	}
	s->count = xbb_thread_sleeps();
	s->relaxed = !s->stale && s->count == before;
	if (s->stale) {
		s->stale = false;
		return (false);
	}
	took += took / 4;
	s->extra_ns = !s->relaxed ? 0 : (uint32_t)((took < UNASKED_NS ? took :
	    UNASKED_NS) - SLOW_NS);
	return (!s->relaxed);
}

/* What comes now is to be judged by itself, be it the first that is slow. */
void
xbb_note_sleeps(struct xbb_queue *q, uint32_t thread)
{
	struct xbb_sleeper *s = &q->sleeper[thread];

	if (!s->stale)
		return;
	s->count = xbb_thread_sleeps();
	s->stale = false;
}

/* What the thread did just now was no work of a disk's. */
void
xbb_slept_elsewhere(struct xbb_queue *q, uint32_t thread)
{
	struct xbb_sleeper *s = &q->sleeper[thread];

	s->stale = s->relaxed;
	if (!s->relaxed)
		s->count = xbb_thread_sleeps();
}

static void
judge(atomic_uint *slowness, uint64_t took, bool waited)
{
	unsigned int old, new;

	old = atomic_load_explicit(slowness, memory_order_relaxed);
	if (!waited)
		new = old > 0 ? old - 1 : 0;
	else
		new = took < STALL_NS ? old + SLOW_WEIGHT : XBB_SLOWEST;
	if (new > XBB_SLOWEST)
		new = XBB_SLOWEST;
	if (new != old)
		atomic_store_explicit(slowness, new, memory_order_relaxed);
}

void
xbb_judge_flush(struct xbb_queue *q, uint64_t took, uint32_t thread)
{

	judge(&q->flush_slowness, took, slept(q, thread, took));
}

/* Would a flush keep a thread for long? */
static bool
flushes_are_slow(struct xbb_queue *q)
{

	return (atomic_load_explicit(&q->flush_slowness,
	    memory_order_relaxed) >= SLOW_ENOUGH);
}

static int
perform(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{

	if (batch->faked)
		return (0);
	if (batch->operation == XBB_OP_DISCARD)
		return (xbb_data_discard(q, batch));
	if (batch->nseg == 0)
		return (xbb_data_flush(q, batch, thread));
	return (xbb_data_move(q, batch, thread));
}

/*
 * What stands before the data of a barrier: what is older is durable first, or
 * there is nothing to flush.
 */
static int
flush_before(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	int error;

	batch->flushed = true;
	error = xbb_data_flush(q, batch, thread);
	return (xbb_means_cannot(error) ? 0 : error);
}

static int16_t
status_of_failure(const struct xbb_batch *batch, int error)
{

	/* "Cannot" is for good; the frontend should stop asking. */
	if (batch->nseg == 0 && xbb_means_cannot(error))
		return (XBB_RSP_EOPNOTSUPP);
	return (XBB_RSP_ERROR);
}

/* Would carrying this batch out keep a thread for long? */
bool
xbb_batch_is_slow(struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (batch->operation == XBB_OP_DISCARD)
		return (true);
	if (xbb_batch_flushes(batch) && flushes_are_slow(q))
		return (true);
	return (batch->nseg != 0 &&
	    atomic_load_explicit(&q->slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH);
}

static void
set_status(struct xbb_queue *q, const struct xbb_batch *batch, int16_t status)
{
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->reqs[r].next) {
		q->reqs[r].status = status;
		q->table[r].status = status;
		xbb_req_step(q, r, XBB_REQ_DONE);
	}
}

/* Whose fault it was that an attempt failed. */
static struct xbb_verdict
verdict_on(const struct xbb_tally *tally)
{

	if (tally->failed_errno != 0)
		return ((struct xbb_verdict){
			.blame = XBB_BLAME_HOST,
			.errnum = tally->failed_errno,
			.operation = tally->failed_op,
			.shrunk = tally->shrunk,
		});
	if (tally->grant_errors != 0)
		return ((struct xbb_verdict){
			.blame = XBB_BLAME_GUEST,
			.refusal = XBB_REFUSED_GRANTS,
		});
	return ((struct xbb_verdict){ .blame = XBB_BLAME_NOBODY });
}

/* All requests of a batch fail, for this. */
static void
set_failed(struct xbb_queue *q, const struct xbb_batch *batch, int error,
    const struct xbb_verdict *why)
{
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->reqs[r].next)
		q->verdicts[r] = *why;
	set_status(q, batch, status_of_failure(batch, error));
}

/* An attempt has come to this. */
static void
set_outcome(struct xbb_queue *q, const struct xbb_batch *batch, int error)
{
	struct xbb_verdict why;

	if (error == 0) {
		set_status(q, batch, XBB_RSP_OKAY);
		return;
	}
	why = verdict_on(&batch->tally);
	set_failed(q, batch, error, &why);
}

/* So many requests of a batch, from one on; their links stay as they are. */
static struct xbb_batch
part_of(const struct xbb_queue *q, const struct xbb_batch *whole,
    uint16_t first, uint16_t nreq)
{
	struct xbb_batch part = *whole;
	uint16_t n, r;

	part.tally = (struct xbb_tally){ 0 };
	part.sector = q->reqs[first].sector;
	part.nsectors = part.nseg = 0;
	part.nreq = nreq;
	part.first = first;
	for (n = 0, r = first; n < nreq; n++, r = q->reqs[r].next) {
		part.nsectors += q->reqs[r].nsectors;
		part.nseg += q->reqs[r].nseg;
		part.last = r;
	}
	return (part);
}

static void
add_tally(struct xbb_tally *sum, const struct xbb_tally *tally)
{

	sum->grants_mapped += tally->grants_mapped;
	sum->grants_unmapped += tally->grants_unmapped;
	sum->grants_copied += tally->grants_copied;
	sum->grant_errors += tally->grant_errors;
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
 * disk that is gone, one that takes its time to fail, and a queue that drains
 * get no other try, lest each request waits as long as the first.
 */
static void
settle(struct repetition *again, const struct xbb_batch *part, int error,
    uint64_t took, bool waited)
{
	const bool by_disk = part->tally.io_errors != 0;
	uint16_t n, nreq, r;

	if (error != 0 && by_disk &&
	    (atomic_load(&again->q->draining) || part->tally.gone_errno != 0 ||
	    part->tally.lost_errno != 0 ||
	    (waited && took >= STALL_NS))) {
		again->given_up = true;
		again->why = verdict_on(&part->tally);
	}
	if (error == 0 || part->nreq == 1 || again->given_up) {
		if (error != 0 && part->tally.shortage != XBB_SHORT_NONE)
			again->whole->starved = true;
		else
			set_outcome(again->q, part, error);
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
	struct xbb_batch part = part_of(q, again->whole, first, nreq);
	uint64_t took;
	int error;

	if (again->given_up)
		set_failed(q, &part, -EIO, &again->why);
	else if (!again->whole->starved) {
		took = xbb_now_ns();
		error = perform(q, &part, again->thread);
		took = xbb_now_ns() - took;
		add_tally(&again->whole->tally, &part.tally);
		settle(again, &part, error, took,
		    slept(q, again->thread, took));
	}
	return (q->reqs[part.last].next);
}

static void
perform_again(struct xbb_queue *q, struct xbb_batch *batch, int error,
    uint64_t took, bool waited, uint32_t thread)
{
	const struct xbb_batch whole = *batch;
	struct repetition again = {
		.q = q, .whole = batch, .thread = thread,
	};

	settle(&again, &whole, error, took, waited);
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

	batch->starved = false;
	batch->tally.shortage = XBB_SHORT_NONE;
	for (n = 0, r = batch->first; n < batch->nreq; n++)
		r = q->reqs[r].state == XBB_REQ_DONE ? q->reqs[r].next :
		    do_part(&again, r, 1);
	batch->ended_ns = xbb_now_ns();
}

/*
 * Nobody waits any longer for what starves.  Where it may be the guest that made
 * it look so, as one does that dies, the host is not blamed for it.
 */
void
xbb_batch_give_up(struct xbb_queue *q, struct xbb_batch *batch)
{
	const bool by_host = batch->tally.shortage == XBB_SHORT_HOST;
	const struct xbb_verdict why = {
		.blame = by_host ? XBB_BLAME_HOST : XBB_BLAME_GUEST,
		.errnum = ENOMEM,
		.operation = batch->operation == XBB_OP_READ ?
		    XBB_DISK_OP_READ : XBB_DISK_OP_WRITE,
		.refusal = XBB_REFUSED_GRANTS,
	};
	struct xbb_batch part;
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->reqs[r].next)
		if (q->reqs[r].state != XBB_REQ_DONE) {
			part = part_of(q, batch, r, 1);
			set_failed(q, &part, -ENOMEM, &why);
			batch->tally.grant_errors++;
		}
	batch->starved = false;
	batch->ended_ns = xbb_now_ns();
}

/*
 * Carry the batch out, or what starves of it.  False if the ring's thread has
 * learned on the way that flushes are slow: the rest is for another one.
 */
bool
xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	uint64_t took;
	bool waited;
	int error;

	if (batch->starved) {
		perform_starved(q, batch, thread);
		return (true);
	}
	error = 0;
	if (!batch->flushed) {
		batch->begun_ns = xbb_now_ns();
		if (!batch->faked)
			xbb_probe_dispatch(q, batch);
		if (batch->nseg != 0 && xbb_batch_is_barrier(batch)) {
			error = flush_before(q, batch, thread);
			if (error == 0 && thread == 0 && flushes_are_slow(q))
				return (false);
		}
	}
	if (error == 0)
		error = perform(q, batch, thread);
	batch->ended_ns = xbb_now_ns();
	took = batch->ended_ns - batch->begun_ns;
	waited = false;
	if (batch->nsectors != 0 && !xbb_batch_flushes(batch)) {
		waited = slept(q, thread, took);
		if (batch->nseg != 0)
			judge(&q->slowness, took, waited);
	}
	if (error == 0 || (batch->tally.shortage == XBB_SHORT_NONE &&
	    (batch->nreq == 1 || batch->nsectors == 0)))
		set_outcome(q, batch, error);
	else
		perform_again(q, batch, error, took, waited, thread);
	return (true);
}
