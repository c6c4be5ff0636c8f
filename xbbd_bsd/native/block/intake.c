/*
 * intake.c - requests from the ring into the table and onto the pending
 * batches: copied out, validated, merged; or answered at once, or left for
 * later.  Ring thread.
 */
#include <assert.h>

#include "block/block.h"

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

/*
 * Put a valid request on the pending batches, on the last one if it fits.
 * Inline for each request off the ring, though those that are owed use it too.
 */
static inline void
enqueue_request(struct xbb_queue *q, uint16_t r)
{
	struct xbb_batch *batch;

	batch = xbb_batch_of(q->own.pending.tail);
	if (batch != NULL &&
	    xbb_batch_admits(batch, &q->set.reqs[r], &q->own.merging)) {
		xbb_batch_append(batch, q->set.reqs, r);
		return;
	}
	batch = q->own.free_batch;
	assert(batch != NULL);
	q->own.free_batch = xbb_batch_of(batch->work.next);
	xbb_batch_begin(batch, q->set.reqs, r);
	xbb_work_put(&q->own.pending, &batch->work);
}

/*
 * Is the request valid, or why not?  The segments of an indirect one are
 * fetched to the place where they will stay if it is.  If the host is short
 * nobody knows.
 */
static enum xbb_refusal
examine_request(struct xbb_queue *q, struct xbb_req *req, uint16_t r,
    enum xbb_shortage *shortage)
{
	struct xbb_segment *fetched;
	enum xbb_refusal why;

	if (!req->indirect)
		return (xbb_request_validate(&q->own.limits, req, req->seg));
	why = xbb_request_admit(&q->own.limits, req);
	if (why != XBB_REFUSED_NOT)
		return (why);
	fetched = q->set.segments + (size_t)r * q->set.max_segments;
	if (xbb_pages_fetch(q, req, fetched, shortage) != 0)
		return (XBB_REFUSED_GRANTS);
	return (xbb_request_validate(&q->own.limits, req, fetched));
}

/* The host is short: the next request stays on the ring for a while. */
static void
starve_ring(struct xbb_queue *q, enum xbb_shortage shortage)
{

	if (!q->own.ring_has_starved)
		XBB_COUNT(q->conn.rc->counters.kva_shortages, 1);
	q->own.ring_starved = q->own.ring_has_starved = true;
	xbb_shortage_begin(&q->own.retry, &q->own.persist, shortage);
}

/* Nobody is short any more of what the next request wanted. */
static void
feed_ring(struct xbb_queue *q)
{

	if (q->own.ring_has_starved) {
		q->own.ring_has_starved = false;
		xbb_shortage_passed(&q->own.retry);
	}
}

/*
 * The first free entry is taken: from now on the guest is owed an answer, and
 * only then does the segment say that the request was read.
 */
static void
take_entry(struct xbb_queue *q, uint16_t r, enum xbb_refusal why)
{
	struct xbb_req *req = &q->set.reqs[r];

	q->own.free_req = req->next;
	req->state = XBB_REQ_FREE;	/* for as long as it is half there */
	req->status = xbb_refusal_status(why);
	xbb_may_die();
	q->set.table[r] = *req;
	xbb_req_step(q, r, why == XBB_REFUSED_NOT ? XBB_REQ_ACCEPTED :
	    XBB_REQ_DONE);
	xbb_may_die();
	XBB_PUT(q->conn.rc->req_cons, q->own.ring.req_cons);
}

/* Answer a request that is not carried out. */
static void
refuse_request(struct xbb_queue *q, uint16_t r, enum xbb_refusal why)
{

	XBB_COUNT(q->set.rs->counters.reqs_malformed, 1);
	xbb_faults_refuse(q, &q->set.reqs[r], why);
	xbb_answer(q, r);
}

/*
 * A request just copied out to the first free entry: it is taken, and the
 * request goes onto a batch or is answered at once.  False if it must be copied
 * out again later.
 */
static bool
accept_request(struct xbb_queue *q, uint16_t r)
{
	enum xbb_shortage shortage = XBB_SHORT_NONE;
	struct xbb_req *req = &q->set.reqs[r];
	struct xbb_ring_state *rs = q->set.rs;
	enum xbb_refusal why;

	why = examine_request(q, req, r, &shortage);
	if (shortage != XBB_SHORT_NONE) {
		starve_ring(q, shortage);
		return (false);
	}
	feed_ring(q);
	XBB_COUNT(rs->counters.reqs_received, 1);
	xbb_devstat_start(&rs->received, req->received_ns);
	take_entry(q, r, why);
	if (why != XBB_REFUSED_NOT) {
		refuse_request(q, r, why);
		return (true);
	}
	count_request(&rs->counters, req);
	XBB_SET(rs->inflight, ++q->own.inflight);
	enqueue_request(q, r);
	return (true);
}

/* The size of the disk: the segment's word, unless that cannot be. */
static uint64_t
disk_sectors(const struct xbb_queue *q)
{
	const uint64_t most = xbb_medium_sectors(q->conn.mapping);
	const uint64_t sectors = XBB_GET(*q->set.sectors);

	return (sectors < most ? sectors : most);
}

/* Before requests are taken: what is the same for all of them. */
static void
prepare_intake(struct xbb_queue *q)
{

	q->own.now_ns = xbb_now_ns();
	q->own.limits.sectors = disk_sectors(q);
	q->own.merging = (struct xbb_coalesce){
		.max_segments = q->set.params.max_batch_segments,
		.disabled = XBB_GET(q->set.tunables->no_coalesce_reqs) != 0 ||
		    (XBB_GET(*q->set.limited) != 0 && xbb_throttle_parts(q)),
	};
}

/*
 * Take every request that waits on the ring.  True if there was any.  One that
 * cannot be examined for now is left there, as are all after it: it is read,
 * and judged, anew.
 */
bool
xbb_queue_gather(struct xbb_queue *q)
{
	_Alignas(16) uint32_t slot[XBB_SLOT_WORDS];
	struct xbb_req *req;
	uint32_t n, unread;

	if (xbb_ring_unread(&q->own.ring, &unread) != 0) {
		xbb_conn_stop(&q->conn, XBB_STOP_RING, EPROTO);
		return (false);
	}
	if (unread == 0)
		return (false);
	prepare_intake(q);
	for (n = 0; n < unread; n++) {
		/*
		 * Never empty: no more requests are read than a ring has slots
		 * before their responses are published (ring.c), and as many
		 * are the entries.
		 */
		assert(q->own.free_req != XBB_NONE);
		req = &q->set.reqs[q->own.free_req];
		req->received_ns = q->own.now_ns;
		req->ring_index = q->own.ring.req_cons;
		xbb_ring_copy_request(&q->own.ring, slot);
		xbb_request_decode(q->set.layout, slot, req);
		if (!accept_request(q, q->own.free_req)) {
			xbb_ring_leave_request(&q->own.ring);
			break;
		}
	}
	return (n != 0);
}

/*
 * A request that was in flight when its last server died: as one off the ring,
 * but that it has its entry.  If it must wait, false.
 */
static bool
readmit_request(struct xbb_queue *q, uint16_t r)
{
	enum xbb_shortage shortage = XBB_SHORT_NONE;
	struct xbb_req *req = &q->set.reqs[r];
	enum xbb_refusal why;

	why = examine_request(q, req, r, &shortage);
	if (shortage != XBB_SHORT_NONE &&
	    !xbb_shortage_lasts(&q->own.retry, &q->conn)) {
		starve_ring(q, shortage);
		return (false);
	}
	feed_ring(q);
	q->own.owed = req->next;
	if (why == XBB_REFUSED_NOT) {
		xbb_req_step(q, r, XBB_REQ_ACCEPTED);
		enqueue_request(q, r);
		return (true);
	}
	req->status = xbb_refusal_status(why);
	XBB_SET(q->set.table[r].status, req->status);
	xbb_req_step(q, r, XBB_REQ_DONE);
	XBB_SET(q->set.rs->inflight, --q->own.inflight);
	refuse_request(q, r, why);
	return (true);
}

/*
 * Take up what whoever served the ring before us owes, in its order.  True if
 * there was any that could be.
 */
bool
xbb_queue_readmit(struct xbb_queue *q)
{
	bool any;

	prepare_intake(q);
	for (any = false; q->own.owed != XBB_NONE; any = true)
		if (!readmit_request(q, q->own.owed))
			break;
	return (any);
}
