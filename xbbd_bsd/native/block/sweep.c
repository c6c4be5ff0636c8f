/*
 * sweep.c - quick batches that are carried out one after the other, with their
 * grants mapped or copied by one call for all: without grants that stay mapped
 * such a call costs more than the disk.  Or at once, by one call for the disk
 * too, where there is one (bulk_*.c).  All or none of it: whatever goes wrong
 * with a grant, or at the disk then, is found out by doing each batch by
 * itself.  Ring thread.
 */
#include "block/block.h"

void
xbb_sweep_begin(struct xbb_sweep *sweep, bool writes)
{

	sweep->n = sweep->npages = 0;
	sweep->writes = writes;
	sweep->kept = false;
}

/* Would calls be saved that map or copy?  No page is mapped already. */
static bool
saves_calls(const struct xbb_queue *q, const struct xbb_batch *batch)
{

	return (!batch->persistent &&
	    (q->conn.copies || !q->conn.ops->maps_singly));
}

/*
 * Is a batch that is started one for a sweep?  It saves calls that map or copy,
 * or those of the disk; and it has no part of a block, for which there is more
 * to do.
 */
bool
xbb_sweep_admits(const struct xbb_queue *q, const struct xbb_batch *batch)
{

	return (batch->nseg != 0 &&
	    (saves_calls(q, batch) || q->own.bulk != NULL) &&
	    (batch->operation == XBB_OP_READ ||
	    batch->operation == XBB_OP_WRITE) &&
	    q->set.params.block_size == q->set.params.sector_size);
}

/* False if it cannot be with these: its own kind, and there must be room. */
bool
xbb_sweep_add(const struct xbb_queue *q, struct xbb_sweep *sweep,
    struct xbb_batch *batch)
{

	if (!xbb_sweep_admits(q, batch) || sweep->n == XBB_SWEEP_MOST ||
	    sweep->npages + batch->nseg > q->set.params.max_batch_segments ||
	    (sweep->n != 0 && sweep->kept != batch->persistent))
		return (false);
	sweep->kept = batch->persistent;
	sweep->part[sweep->n++] = (struct xbb_sweep_part){
		.batch = batch, .page = sweep->npages,
	};
	sweep->npages += batch->nseg;
	return (true);
}

/*
 * The disk's part; once it was to be waited for the rest is not begun.  How
 * many it had.
 */
static uint32_t
run_parts(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	struct xbb_sweep_part *part;
	uint64_t now;
	uint32_t i;

	now = xbb_now_ns();
	for (i = 0; i < sweep->n; i++) {
		part = &sweep->part[i];
		part->batch->begun_ns = now;
		xbb_probe_dispatch(q, part->batch);
		part->done = xbb_data_sweep_part(q, sweep, part);
		now = xbb_now_ns();
		part->took = now - part->batch->begun_ns;
		part->waited = xbb_batch_waited(q, part->batch, part->took, 0);
		part->ended = true;
		if (part->waited)
			return (i + 1);
	}
	return (i);
}

/*
 * The disk's part by one call.  If that was waited for it is said of one: how
 * long each took nobody knows.
 */
static uint32_t
run_at_once(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	struct xbb_bulk_piece piece[XBB_SWEEP_MOST];
	struct xbb_sweep_part *part;
	uint64_t now, took;
	uint32_t i, nmoved;
	bool moves, waited;

	now = xbb_now_ns();
	for (i = 0; i < sweep->n; i++) {
		part = &sweep->part[i];
		part->batch->begun_ns = now;
		xbb_probe_dispatch(q, part->batch);
		piece[i] = xbb_data_sweep_piece(q, part);
	}
	moves = xbb_bulk_move(q->own.bulk, sweep->writes, piece, sweep->n);
	took = xbb_now_ns() - now;
	waited = xbb_speed_waited(q, 0, took);
	nmoved = 0;
	for (i = 0; i < sweep->n; i++) {
		part = &sweep->part[i];
		part->took = took;
		part->waited = waited && i == 0;
		part->done = XBB_WELL;
		part->ended = piece[i].moved;
		nmoved += part->ended;
		xbb_speed_judge(q, took, part->waited);
	}
	if (!moves) {
		xbb_bulk_close(q->own.bulk);
		q->own.bulk = NULL;
	}
	return (nmoved);
}

/* What the disk has read, and the guest is to get. */
static void
list_read(const struct xbb_sweep *sweep, struct xbb_sweep *read)
{
	uint32_t i;

	xbb_sweep_begin(read, false);
	read->kept = sweep->kept;
	for (i = 0; i < sweep->n; i++)
		if (sweep->part[i].ended && sweep->part[i].done.error == 0) {
			read->part[read->n++] = sweep->part[i];
			read->npages += sweep->part[i].batch->nseg;
		}
}

/*
 * Carry it out.  A part that has not ended is as if nothing had been done for
 * it, and is the caller's to have done.
 */
void
xbb_sweep_run(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	const bool bounced = xbb_data_is_bounced(q);
	const bool brings = bounced && !sweep->writes;
	struct xbb_sweep read;
	struct xbb_sweep_part *part;
	uint64_t ended;
	uint32_t i, nended;

	if (xbb_data_sweep_begin(q, sweep) != 0)
		return;
	nended = q->own.bulk != NULL ? run_at_once(q, sweep) :
	    run_parts(q, sweep);
	if (bounced)
		XBB_COUNT(q->set.rs->counters.io_bounced, nended);
	if (brings)
		list_read(sweep, &read);
	if (xbb_data_sweep_end(q, sweep, brings ? &read : NULL) != 0)
		for (i = 0; i < sweep->n; i++)
			if (sweep->part[i].done.error == 0)
				sweep->part[i].ended = false;
	ended = xbb_now_ns();
	for (i = 0; i < sweep->n; i++) {
		part = &sweep->part[i];
		if (!part->ended)
			continue;
		part->batch->ended_ns = ended;
		xbb_batch_conclude(q, part->batch, part->done, part->took,
		    part->waited, 0);
	}
}
