/*
 * intake.c - requests from the ring into the table and onto the pending
 * batches: copied out, validated, merged; or answered at once, or left for
 * later.  Ring thread.
 */
#include <assert.h>

#include "internal.h"

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
 * Is the request valid, or why not?  The segments of an indirect one are fetched to the
 * place where they will stay if it is.  If the host is short nobody knows.
 */
static enum xbb_refusal
examine(struct xbb_queue *q, struct xbb_req *req, uint16_t r,
    enum xbb_shortage *shortage)
{
	struct xbb_segment *fetched;
	enum xbb_refusal why;

	if (!req->indirect)
		return (xbb_request_validate(&q->limits, req, req->seg));
	why = xbb_request_admit(&q->limits, req);
	if (why != XBB_REFUSED_NOT)
		return (why);
	fetched = q->segments + (size_t)r * q->max_segments;
	if (xbb_grants_fetch(q, req, fetched, shortage) != 0)
		return (XBB_REFUSED_GRANTS);
	return (xbb_request_validate(&q->limits, req, fetched));
}

/* The host is short: the next request stays on the ring for a while. */
static void
starve_ring(struct xbb_queue *q, enum xbb_shortage shortage)
{

	if (!q->ring_has_starved)
		XBB_COUNT(q->rs->counters.kva_shortages, 1);
	q->ring_starved = q->ring_has_starved = true;
	xbb_shortage_begin(q, shortage);
}

/* Answer a request that is not carried out. */
static void
refuse(struct xbb_queue *q, const struct xbb_req *req, enum xbb_refusal why)
{

	XBB_COUNT(q->rs->counters.reqs_malformed, 1);
	xbb_faults_refuse(q, req, why);
	xbb_queue_respond(q, req, xbb_refusal_status(why));
}

/*
 * A request just copied out: into the table, or answered at once.  False if it
 * must be copied out again later.
 */
static bool
accept(struct xbb_queue *q, struct xbb_req *req)
{
	enum xbb_shortage shortage = XBB_SHORT_NONE;
	const uint16_t r = q->free_req;
	enum xbb_refusal why;

	/* Never empty: a ring has no more slots than the table entries. */
	assert(r != XBB_NONE);
	why = examine(q, req, r, &shortage);
	if (shortage != XBB_SHORT_NONE) {
		starve_ring(q, shortage);
		return (false);
	}
	if (q->ring_has_starved) {
		q->ring_has_starved = false;
		xbb_shortage_passed(q);
	}
	XBB_COUNT(q->rs->counters.reqs_received, 1);
	xbb_devstat_start(&q->rs->received, req->received_ns);
	if (why != XBB_REFUSED_NOT) {
		refuse(q, req, why);
		return (true);
	}
	count_request(&q->rs->counters, req);
	q->free_req = q->reqs[r].next;
	q->reqs[r] = *req;
	q->table[r] = *req;
	xbb_req_step(q, r, XBB_REQ_ACCEPTED);
	XBB_SET(q->rs->inflight, ++q->inflight);
	enqueue(q, r);
	return (true);
}

/* The size of the disk: the segment's word, unless that cannot be. */
static uint64_t
disk_sectors(const struct xbb_queue *q)
{
	const uint64_t most = xbb_mapping_sectors(q->mapping);
	const uint64_t sectors = XBB_GET(*q->sectors);

	return (sectors < most ? sectors : most);
}

/*
 * Take every request that waits on the ring.  True if there was any.  One that
 * cannot be examined for now is left there, as are all after it: it is read,
 * and judged, anew.
 */
bool
xbb_queue_gather(struct xbb_queue *q)
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
		if (!accept(q, &req)) {
			xbb_ring_leave_request(&q->ring);
			break;
		}
	}
	XBB_SET(q->rs->req_cons, q->ring.req_cons);
	return (n != 0);
}
