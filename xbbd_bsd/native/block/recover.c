/*
 * recover.c - what a table says that its last backend owes, now that it is
 * dead: which responses the guest has, where reading goes on, which requests
 * are to be answered or done again.  It relies on the order of stores that
 * intake.c, answer.c and conn.c keep, and on nothing else: neither the guest,
 * which has the ring's index, nor whoever had the file need be honest.  Pure.
 */
#include <stdlib.h>

#include "block/block.h"

/* An entry by how long before the next request it was read: all negative. */
struct place {
	int32_t		before;
	uint16_t	entry;
};

static int
compare_places(const void *a, const void *b)
{
	const struct place *pa = a, *pb = b;

	return ((pa->before > pb->before) - (pa->before < pb->before));
}

static bool
is_settled(uint8_t state)
{

	return (state == XBB_REQ_DONE || state == XBB_REQ_ANSWERED);
}

/*
 * Could we have written this?  A free entry still has what its last request
 * was, or its next one is: refused or not, that is the guest's word.
 */
static bool
is_possible(const struct xbb_req *req)
{

	if (req->state == XBB_REQ_FREE)
		return (true);
	if (req->state > XBB_REQ_ANSWERED)
		return (false);
	if (req->operation == XBB_OP_DISCARD && req->nseg != 0 &&
	    !is_settled(req->state))
		return (false);
	return (!is_settled(req->state) || req->status == XBB_RSP_OKAY ||
	    req->status == XBB_RSP_ERROR ||
	    req->status == XBB_RSP_EOPNOTSUPP);
}

/* Has the guest this entry's response? */
static bool
was_published(const struct xbb_req *req, uint32_t rsp_prod)
{

	return (req->state == XBB_REQ_ANSWERED &&
	    (int32_t)(req->rsp_index - rsp_prod) < 0);
}

/*
 * Those that are owed, in the order in which they were read.  False if that
 * cannot be: one was read twice, or not yet.
 */
static bool
put_in_order(const struct xbb_req *reqs, struct xbb_recovery *found)
{
	struct place places[XBB_MAX_REQUESTS];
	uint32_t i;

	for (i = 0; i < found->nowed; i++) {
		places[i].entry = found->owed[i];
		places[i].before = (int32_t)(reqs[found->owed[i]].ring_index -
		    found->req_cons);
		if (places[i].before >= 0)
			return (false);
	}
	qsort(places, found->nowed, sizeof(*places), compare_places);
	for (i = 0; i < found->nowed; i++) {
		if (i > 0 && places[i].before == places[i - 1].before)
			return (false);
		found->owed[i] = places[i].entry;
	}
	return (true);
}

/*
 * Of a copy of n entries, of what the segment said last of the indices, and of
 * the ring's index of responses.  A response that was put has a place below
 * all that were published later, and each request that was read has an entry
 * until its response is: so as many were read as were published or have one.
 * EPROTO: the ring's index is none that we have written, which is the guest's
 * doing; EINVAL: the table is none that we have left.
 */
int
xbb_recover(const struct xbb_req *reqs, uint32_t n,
    const struct xbb_indices *said, uint32_t rsp_prod,
    struct xbb_recovery *found)
{
	uint32_t answered, i;

	*found = (struct xbb_recovery){ .rsp_prod = rsp_prod };
	answered = 0;
	for (i = 0; i < n; i++) {
		if (!is_possible(&reqs[i]))
			return (-EINVAL);
		if (reqs[i].state == XBB_REQ_ANSWERED)
			answered++;
		if (was_published(&reqs[i], rsp_prod))
			found->published[found->npublished++] = (uint16_t)i;
		else if (reqs[i].state != XBB_REQ_FREE)
			found->owed[found->nowed++] = (uint16_t)i;
	}
	if (rsp_prod - said->rsp_prod > answered)
		return (-EPROTO);
	found->req_cons = rsp_prod + found->nowed;
	/* Whoever read the last one may not have come to say so. */
	if (found->req_cons - said->req_cons > 1 ||
	    !put_in_order(reqs, found))
		return (-EINVAL);
	return (0);
}
