/*
 * away.c - a batch from start to status, at a store that answers later: what it
 * asks for, one thing at a time, and what is made of the answers.  batch.c does
 * the same where a call returns when all is done.  How the store is asked is
 * not known here.  Ring thread.
 */
#include <stdlib.h>

#include "block/block.h"

/* Bytes of one discard, which no drain interrupts. */
#define DISCARD_STEP	((uint64_t)1 << 30)

static void
drop_buffer(struct xbb_away *a)
{

	free(a->buffer);
	a->buffer = NULL;
}

/* Note what the store said, as opposed to what a guest did wrong. */
static struct xbb_outcome
note_answer(struct xbb_away *a, int error)
{
	struct xbb_tally *tally = &a->part.tally;

	tally->io_errors++;
	tally->failed_errno = (int16_t)-error;
	tally->failed_op = a->operation;
	if (xbb_means_gone(error))
		tally->gone_errno = (int16_t)-error;
	return ((struct xbb_outcome){ error, XBB_BLAME_HOST });
}

/* A flush is believed as little as any other disk's (flush.c). */
static struct xbb_outcome
judge_flush(struct xbb_queue *q, struct xbb_away *a, int error)
{

	if (xbb_means_cannot(error))
		return ((struct xbb_outcome){ error, XBB_BLAME_NOBODY });
	/* Whoever shuts us out has what he has acknowledged. */
	if (error == -ESHUTDOWN)
		return (note_answer(a, error));
	if (error != 0)
		xbb_flushes_lose(q->set.flushes, -error);
	else
		a->part.tally.flushes++;
	error = -xbb_flushes_lost(q->set.flushes);
	if (error == 0)
		return (XBB_WELL);
	a->part.tally.lost_errno = (int16_t)-error;
	return (note_answer(a, error));
}

/*
 * Of a part that has begun, what is to be asked for; false if there is nothing
 * more.  What cannot be flushed is durable by itself.
 */
static bool
ask_for(struct xbb_away *a, uint8_t operation, uint8_t next_step)
{

	a->operation = operation;
	a->step = next_step;
	return (true);
}

static bool
next_of_discard(const struct xbb_queue *q, struct xbb_away *a)
{
	const uint64_t block = q->set.params.block_size;
	const uint64_t end = (a->part.sector + a->part.nsectors) *
	    XBB_SECTOR_SIZE / block * block;

	if (a->step == XBB_AWAY_BEFORE)
		a->offset = (a->part.sector * XBB_SECTOR_SIZE + block - 1) /
		    block * block;
	else
		a->offset += a->length;
	if (a->offset >= end)
		return (false);
	a->length = end - a->offset < DISCARD_STEP ? end - a->offset :
	    DISCARD_STEP;
	return (ask_for(a, XBB_DISK_OP_DISCARD, XBB_AWAY_DATA));
}

static bool
next_of_part(const struct xbb_queue *q, struct xbb_away *a,
    const struct xbb_away_store *store)
{
	const bool barrier = xbb_batch_is_barrier(&a->part);

	if (a->part.operation == XBB_OP_DISCARD)
		return (next_of_discard(q, a));
	if (a->step == XBB_AWAY_BEFORE) {
		if (a->part.nseg == 0)
			return (ask_for(a, XBB_DISK_OP_FLUSH, XBB_AWAY_OVER));
		a->step = XBB_AWAY_DATA;
		if (barrier && store->can_flush)
			return (ask_for(a, XBB_DISK_OP_FLUSH, XBB_AWAY_DATA));
	}
	if (a->step == XBB_AWAY_DATA) {
		a->durable = barrier && store->can_fua;
		return (ask_for(a, a->part.operation == XBB_OP_READ ?
		    XBB_DISK_OP_READ : XBB_DISK_OP_WRITE,
		    barrier && store->can_flush && !a->durable ?
		    XBB_AWAY_AFTER : XBB_AWAY_OVER));
	}
	if (a->step == XBB_AWAY_AFTER)
		return (ask_for(a, XBB_DISK_OP_FLUSH, XBB_AWAY_OVER));
	return (false);
}

/* What a part needs before the store is asked: its data, if it has some. */
static struct xbb_outcome
begin_part(struct xbb_queue *q, struct xbb_away *a)
{

	a->step = XBB_AWAY_BEFORE;
	a->durable = false;
	if (a->part.nseg == 0 || a->part.operation == XBB_OP_DISCARD)
		return (XBB_WELL);
	a->offset = a->part.sector * XBB_SECTOR_SIZE;
	a->length = a->part.nsectors * XBB_SECTOR_SIZE;
	a->buffer = malloc(a->length);
	if (a->buffer == NULL) {
		a->part.tally.shortage = XBB_SHORT_HOST;
		return ((struct xbb_outcome){ -ENOMEM, XBB_BLAME_NOBODY });
	}
	return (a->part.operation == XBB_OP_READ ? XBB_WELL :
	    xbb_data_exchange(q, &a->part, a->buffer, false));
}

/*
 * A part has come to this.  A merged batch is repeated, request by request, so
 * that only those that fail alone report an error; unless nobody waits for it
 * any more.
 */
static void
settle_away(struct xbb_queue *q, struct xbb_away *a, struct xbb_outcome done)
{

	drop_buffer(a);
	xbb_batch_add_tally(&a->batch->tally, &a->part.tally);
	if (done.error != 0 && (xbb_conn_ends(&q->conn) ||
	    a->part.tally.lost_errno != 0 ||
	    a->part.tally.gone_errno != 0) && done.blame == XBB_BLAME_HOST)
		a->given_up = true;
	if (done.error != 0 && a->part.nreq > 1 && !a->given_up)
		return;
	if (done.error != 0 && a->part.tally.shortage != XBB_SHORT_NONE)
		a->batch->starved = true;
	else
		xbb_batch_set_outcome(q, a->batch, &a->part, done);
}

/* The first request that has come to nothing yet. */
static uint16_t
next_request(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint32_t n;
	uint16_t r;

	for (n = 0, r = batch->first; n < batch->nreq;
	    n++, r = q->set.reqs[r].next)
		if (q->set.reqs[r].state != XBB_REQ_DONE)
			return (r);
	return (XBB_NONE);
}

/*
 * Go on: a part has begun, or has ended, with this.  If it is given up what is
 * left fails as the last one did.
 */
static bool
go_on(struct xbb_queue *q, struct xbb_away *a, struct xbb_outcome done,
    const struct xbb_away_store *store)
{
	struct xbb_batch *batch = a->batch;
	struct xbb_tally failed;
	uint16_t r;

	while (done.error != 0 || !next_of_part(q, a, store)) {
		settle_away(q, a, done);
		r = next_request(q, batch);
		if (r == XBB_NONE || batch->starved) {
			batch->ended_ns = xbb_now_ns();
			xbb_settle(q, batch);
			return (false);
		}
		failed = a->part.tally;
		a->alone = true;
		a->part = xbb_batch_part(q, batch, r, 1);
		if (!a->given_up) {
			done = begin_part(q, a);
			continue;
		}
		a->part.tally.failed_errno = failed.failed_errno;
		a->part.tally.failed_op = failed.failed_op;
	}
	return (true);
}

bool
xbb_away_begin(struct xbb_queue *q, struct xbb_away *a,
    struct xbb_batch *batch, const struct xbb_away_store *store)
{

	*a = (struct xbb_away){ .batch = batch, .alone = batch->starved };
	if (batch->starved) {
		batch->starved = batch->held = false;
		batch->tally.shortage = XBB_SHORT_NONE;
		a->part = xbb_batch_part(q, batch, next_request(q, batch), 1);
	} else {
		batch->begun_ns = xbb_now_ns();
		if (!batch->faked)
			xbb_probe_dispatch(q, batch);
		a->part = xbb_batch_part(q, batch, batch->first, batch->nreq);
	}
	if (!batch->faked)
		return (go_on(q, a, begin_part(q, a), store));
	a->step = XBB_AWAY_OVER;
	return (go_on(q, a, XBB_WELL, store));
}

/*
 * The disk is paused, and the store has not done it: what of it is done stays
 * so, the rest is begun anew.
 */
void
xbb_away_give_back(struct xbb_queue *q, struct xbb_away *a)
{

	drop_buffer(a);
	xbb_batch_add_tally(&a->batch->tally, &a->part.tally);
	xbb_hold_back(q, a->batch);
}

/* The store was asked, and says this. */
bool
xbb_away_end(struct xbb_queue *q, struct xbb_away *a, int error,
    const struct xbb_away_store *store)
{
	struct xbb_outcome done;

	if (a->operation == XBB_DISK_OP_FLUSH) {
		done = judge_flush(q, a, error);
		/* Of a barrier: there is nothing to flush. */
		if (a->part.nseg != 0 && xbb_means_cannot(done.error))
			done = XBB_WELL;
	} else if (error != 0)
		done = note_answer(a, error);
	else
		done = a->operation == XBB_DISK_OP_READ ? xbb_data_exchange(q,
		    &a->part, a->buffer, true) : XBB_WELL;
	if (done.error == 0 && a->part.operation == XBB_OP_DISCARD &&
	    atomic_load(&q->conn.draining))
		a->step = XBB_AWAY_OVER;	/* it is only advice */
	return (go_on(q, a, done, store));
}
