/*
 * coalesce.c - which requests go to the disk together, and which batches must
 * wait for which.  Pure: arrays and lists in memory, no lock, no system call,
 * no clock; limits are parameters.  Whoever owns the batches calls it.
 *
 * Order: batches start in the order in which they came.  One that overlaps a
 * started batch waits if either writes; a flush waits for the writes before it,
 * while what comes after it goes on; a barrier waits until nothing is started,
 * and everything behind it waits for it.
 */
#include "block/block.h"

/* What only ever stands in a discard, and is 0 elsewhere (blkif.c). */
static bool
is_secure(const struct xbb_req *req)
{

	return ((req->flags & XBB_DISCARD_SECURE) != 0);
}

/* A batch of one request. */
void
xbb_batch_begin(struct xbb_batch *batch, struct xbb_req *reqs, uint16_t req)
{

	batch->tally = (struct xbb_tally){ 0 };
	batch->sector = reqs[req].sector;
	batch->nsectors = reqs[req].nsectors;
	batch->nseg = reqs[req].nseg;
	batch->nreq = 1;
	batch->first = batch->last = req;
	batch->operation = reqs[req].operation;
	batch->secure = is_secure(&reqs[req]);
	batch->faked = false;
	batch->flushed = false;
	batch->persistent = false;
	batch->starved = batch->has_starved = batch->held = false;
	batch->held_ns = 0;
	batch->begun_ns = batch->ended_ns = 0;
	batch->work.next = NULL;
	reqs[req].next = XBB_NONE;
}

/*
 * May the request join?  Reads, writes and discards that continue where the
 * batch ends, as long as the segments fit; flushes, of which one serves all
 * that wait.
 */
bool
xbb_batch_admits(const struct xbb_batch *batch, const struct xbb_req *req,
    const struct xbb_coalesce *limits)
{

	if (limits->disabled || req->operation != batch->operation)
		return (false);
	switch (req->operation) {
	case XBB_OP_READ:
	case XBB_OP_WRITE:
		return (req->sector == batch->sector + batch->nsectors &&
		    (uint32_t)batch->nseg + req->nseg <= limits->max_segments);
	case XBB_OP_DISCARD:
		return (req->sector == batch->sector + batch->nsectors &&
		    is_secure(req) == batch->secure);
	case XBB_OP_FLUSH_DISKCACHE:
		return (batch->nseg == 0 && req->nseg == 0);
	default:
		return (false);
	}
}

void
xbb_batch_append(struct xbb_batch *batch, struct xbb_req *reqs, uint16_t req)
{

	batch->nsectors += reqs[req].nsectors;
	batch->nseg += reqs[req].nseg;
	batch->nreq++;
	reqs[batch->last].next = req;
	reqs[req].next = XBB_NONE;
	batch->last = req;
}
