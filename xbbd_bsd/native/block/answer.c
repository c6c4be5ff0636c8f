/*
 * answer.c - requests that are done: onto the ring and out of the table, in an
 * order in which whoever comes after a death between any two stores can tell
 * which were answered.  The fields of an entry are stored before its state,
 * that it is answered before the response, that responses are published before
 * the entries are free.  Ring thread.
 */
#include "block/block.h"

/* What was answered is in the books, as the guest sees it. */
static void
count_answer(struct xbb_queue *q, const struct xbb_req *req)
{
	const enum xbb_devstat_kind kind = xbb_request_kind(req->operation,
	    req->nsectors);
	const bool okay = req->status == XBB_RSP_OKAY;
	struct xbb_ring_state *rs = q->set.rs;
	const uint64_t now = q->own.now_ns;

	XBB_COUNT(rs->counters.reqs_queued_for_completion, 1);
	if (!okay)
		XBB_COUNT(rs->counters.reqs_completed_with_error, 1);
	xbb_devstat_end(&rs->received, kind,
	    xbb_request_is_ordered(req->operation),
	    okay ? req->nsectors * XBB_SECTOR_SIZE : 0, req->received_ns, now);
	xbb_latency_add(q->set.latency[kind],
	    now > req->received_ns ? now - req->received_ns : 0);
}

/*
 * Fill in the response to a request that is DONE; it is published with others.
 * The table says so first: then the slot no longer tells of a request.
 */
void
xbb_answer(struct xbb_queue *q, uint16_t r)
{
	struct xbb_req *req = &q->set.reqs[r], *shown = &q->set.table[r];
	_Alignas(16) uint32_t words[4];

	xbb_may_die();
	XBB_SET(shown->rsp_index, q->own.ring.rsp_prod_pvt);
	xbb_may_die();
	XBB_PUT(shown->state, XBB_REQ_ANSWERED);
	XBB_IN_ORDER();
	xbb_may_die();
	xbb_response_encode(req->id, req->operation, req->status, words);
	xbb_ring_put(&q->own.ring, words);
	req->next = q->own.answered;
	q->own.answered = r;
	q->own.unpushed++;
	count_answer(q, req);
}

/* What was answered is published: its entries are free, for all to see. */
static void
release_answered(struct xbb_queue *q)
{
	uint16_t last, r;

	r = q->own.answered;
	do {
		xbb_may_die();
		XBB_PUT(q->set.table[r].state, XBB_REQ_FREE);
		last = r;
		r = q->set.reqs[r].next;
	} while (r != XBB_NONE);
	q->set.reqs[last].next = q->own.free_req;
	q->own.free_req = q->own.answered;
	q->own.answered = XBB_NONE;
}

/*
 * Publish what was answered.  Entries are freed last: should this process end
 * before the segment says what was published, the ring does.
 */
void
xbb_answer_push(struct xbb_queue *q)
{
	struct xbb_counters *c = &q->set.rs->counters;
	const uint32_t n = q->own.unpushed;

	if (q->own.answered == XBB_NONE)
		return;
	XBB_COUNT(c->reqs_completed, n);
	XBB_COUNT(c->reqs_queued_for_completion, -(uint64_t)n);
	q->own.unpushed = 0;
	xbb_conn_push(&q->conn, &q->own.ring);
	release_answered(q);
}
