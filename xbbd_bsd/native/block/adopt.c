/*
 * adopt.c - a ring that somebody served and died: what its guest is owed is put
 * to work again, or answered, before anything new is read.  What that is says
 * recover.c; the requests themselves are judged anew, as those off the ring
 * are, since the table lies in a file.  Opening on the caller's thread, the
 * rest on the ring's.
 */
#include <string.h>

#include "block/block.h"

/*
 * Copy the table out and see what it comes to; the ring is as it was found.
 * Nothing is changed for others.  The lists of entries are made: free ones,
 * those whose responses were published, and those that are owed.
 */
int
xbb_adopt_open(struct xbb_queue *q, uint32_t n, struct xbb_error *error)
{
	struct xbb_indices said = {
		.req_cons = XBB_GET(q->conn.rc->req_cons),
		.rsp_prod = XBB_GET(q->conn.rc->rsp_prod),
	};
	struct xbb_ring *ring = &q->own.ring;
	struct xbb_recovery found;
	uint16_t *at;
	uint32_t i;
	int e;

	/* If its guest wrote something else there, only that guest loses. */
	if (q->set.params.conn.adopt == XBB_ADOPT_ANSWERED) {
		said.req_cons = said.rsp_prod = ring->rsp_prod;
		memset(q->set.table, 0, n * sizeof(*q->set.table));
	}
	for (i = 0; i < n; i++)
		q->set.reqs[i] = q->set.table[i];
	e = xbb_recover(q->set.reqs, n, &said, ring->rsp_prod, &found);
	if (e != 0)
		return (xbb_fail(error, "recover requests", -e));
	ring->req_cons = found.req_cons;
	/* Freed with the first that are published: by then all know that. */
	at = &q->own.answered;
	for (i = 0; i < found.npublished; i++) {
		*at = found.published[i];
		at = &q->set.reqs[found.published[i]].next;
	}
	*at = XBB_NONE;
	at = &q->own.owed;
	for (i = 0; i < found.nowed; i++) {
		*at = found.owed[i];
		at = &q->set.reqs[found.owed[i]].next;
	}
	*at = XBB_NONE;
	at = &q->own.free_req;
	for (i = 0; i < n; i++)
		if (q->set.reqs[i].state == XBB_REQ_FREE) {
			*at = (uint16_t)i;
			at = &q->set.reqs[i].next;
		}
	*at = XBB_NONE;
	return (0);
}

/* As many are under way, and were answered before, as the table has. */
static void
show_counts(struct xbb_queue *q)
{
	struct xbb_counters *c = &q->set.rs->counters;
	uint32_t nowed;
	uint16_t r;

	nowed = 0;
	for (r = q->own.owed; r != XBB_NONE; r = q->set.reqs[r].next) {
		xbb_devstat_start(&q->set.rs->received, q->own.now_ns);
		nowed++;
	}
	XBB_SET(c->reqs_completed, c->reqs_received - nowed);
	XBB_SET(c->reqs_queued_for_completion, 0);
}

/*
 * The first thing that the ring's thread does: what is settled is answered, and
 * the guest is told whatever it asked for, since the dead may have published
 * and not told it.  What is left of own.owed is to be done.
 */
void
xbb_adopt_begin(struct xbb_queue *q)
{
	struct xbb_req *reqs = q->set.reqs;
	uint16_t next, r, *at;

	q->own.now_ns = xbb_now_ns();
	show_counts(q);
	at = &q->own.owed;
	for (r = q->own.owed; r != XBB_NONE; r = next) {
		next = reqs[r].next;
		if (reqs[r].state == XBB_REQ_DONE ||
		    reqs[r].state == XBB_REQ_ANSWERED) {
			xbb_answer(q, r);
			continue;
		}
		XBB_SET(q->set.rs->inflight, ++q->own.inflight);
		*at = r;
		at = &reqs[r].next;
	}
	*at = XBB_NONE;
	xbb_answer_push(q);
	xbb_conn_notify(&q->conn);
}
