/*
 * settle.c - started batches that have come back: they are counted, answered
 * and free, or wait for another try, since the host was short of something.
 * Ring thread.
 */
#include "block/block.h"

/*
 * Most batches have nothing to count but that they went by a buffer: grants
 * that stay mapped are no matter of theirs, those of a sweep are counted
 * together.
 */
static bool
is_plain(const struct xbb_tally *tally)
{

	return ((tally->grants_mapped | tally->grants_unmapped |
	    tally->grants_copied | tally->grant_errors | tally->flushes |
	    tally->io_short | tally->io_errors |
	    tally->io_read_modify_write) == 0);
}

static void
count_tally(struct xbb_queue *q, const struct xbb_tally *tally)
{
	struct xbb_common_counters *common = &q->conn.rc->counters;
	struct xbb_counters *c = &q->set.rs->counters;

	if (tally->io_bounced != 0)
		XBB_COUNT(c->io_bounced, tally->io_bounced);
	if (is_plain(tally))
		return;
	XBB_COUNT(common->grants_mapped_total, tally->grants_mapped);
	XBB_COUNT(common->grants_unmapped_total, tally->grants_unmapped);
	XBB_COUNT(common->grants_copied_total, tally->grants_copied);
	XBB_COUNT(common->grant_errors, tally->grant_errors);
	XBB_COUNT(c->flushes_done, tally->flushes);
	XBB_COUNT(c->io_short, tally->io_short);
	XBB_COUNT(c->io_read_modify_write, tally->io_read_modify_write);
	XBB_COUNT(c->io_errors, tally->io_errors);
}

/*
 * Has anything of it failed, be it that it went well in the end?  But for what
 * is nobody's fault, which only a flush can be that has no data.
 */
static bool
has_failed(const struct xbb_batch *batch)
{

	return ((batch->tally.io_errors | batch->tally.grant_errors) != 0 ||
	    batch->held);
}

/* Sectors of a batch that were really moved, if something has failed. */
static uint64_t
sectors_done(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint64_t done;
	uint16_t r;

	done = 0;
	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		if (q->set.reqs[r].status == XBB_RSP_OKAY)
			done += q->set.reqs[r].nsectors;
	return (done);
}

/*
 * The disk failed, or the guest's grants did: count whose requests that cost.
 */
static void
judge_failures(struct xbb_queue *q, const struct xbb_batch *batch)
{
	uint16_t r;

	if (batch->tally.gone_errno != 0)
		xbb_conn_stop(&q->conn, XBB_STOP_MEDIUM,
		    batch->tally.gone_errno);
	if (batch->tally.lost_errno != 0)
		xbb_conn_stop(&q->conn, XBB_STOP_LOST, batch->tally.lost_errno);
	if (batch->tally.stop_errno != 0)
		xbb_conn_stop(&q->conn, XBB_STOP_ERROR,
		    batch->tally.stop_errno);
	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		if (q->set.reqs[r].status != XBB_RSP_OKAY)
			xbb_faults_count(q, &q->set.reqs[r],
			    &q->set.verdicts[r]);
}

/* A batch is done: answer its requests, free it. */
static void
finish_batch(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_ring_state *rs = q->set.rs;
	const bool failed = has_failed(batch);
	uint16_t next, r;

	if (q->own.now_ns < batch->ended_ns)
		q->own.now_ns = batch->ended_ns;
	xbb_devstat_end(&rs->dispatched,
	    xbb_request_kind(batch->operation, batch->nsectors),
	    xbb_request_is_ordered(batch->operation),
	    (failed ? sectors_done(q, batch) : batch->nsectors) *
	    XBB_SECTOR_SIZE, batch->begun_ns, batch->ended_ns);
	xbb_pages_unpin(q, batch);
	xbb_order_ended(q, batch);
	XBB_SET(rs->grants_mapped, q->own.started_segments);
	count_tally(q, &batch->tally);
	if (failed)
		judge_failures(q, batch);

	for (r = batch->first; r != XBB_NONE; r = next) {
		next = q->set.reqs[r].next;
		xbb_answer(q, r);
	}
	q->own.inflight -= batch->nreq;
	XBB_SET(rs->inflight, q->own.inflight);
	if (batch->has_starved)
		xbb_shortage_passed(&q->own.retry);
	batch->work.next = q->own.free_batch == NULL ? NULL :
	    &q->own.free_batch->work;
	q->own.free_batch = batch;
}

/*
 * A started batch has come back: it is done, or is not for want of memory, or
 * since the disk has failed.
 */
void
xbb_settle(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (!batch->starved) {
		finish_batch(q, batch);
		return;
	}
	if (batch->held) {
		xbb_hold(q, batch);
		return;
	}
	if (!batch->has_starved)
		XBB_COUNT(q->conn.rc->counters.kva_shortages, 1);
	batch->has_starved = true;
	xbb_work_put(&q->own.starved, &batch->work);
	xbb_shortage_begin(&q->own.retry, &q->own.persist,
	    batch->tally.shortage);
}
