/*
 * batches.c - requests merged one after the other as the queue merges those
 * that wait, and a second opinion on the result: every request in one batch,
 * in order, adjacent, of one operation, within the limits, and no two batches
 * side by side that should have been one.  Pure.
 */
#include "harness.h"

/* The next request of the array, on the last batch if that admits it. */
void
batches_add(struct batches *batches, struct xbb_req *reqs)
{
	uint32_t r = batches->nreqs++;
	struct xbb_batch *last;

	if (batches->nbatches > 0) {
		last = &batches->batch[batches->nbatches - 1];
		if (xbb_batch_admits(last, &reqs[r], &batches->limits)) {
			xbb_batch_append(last, reqs, (uint16_t)r);
			return;
		}
	}
	xbb_batch_begin(&batches->batch[batches->nbatches++], reqs,
	    (uint16_t)r);
}

/* What may follow a request in its batch: the rule in other words. */
static bool
follows(const struct batches *batches, const struct xbb_req *before,
    const struct xbb_req *req, uint32_t nseg)
{

	if (batches->limits.disabled || req->operation != before->operation)
		return (false);
	if (req->operation == XBB_OP_FLUSH_DISKCACHE)
		return (nseg == 0);
	return ((req->operation == XBB_OP_READ ||
	    req->operation == XBB_OP_WRITE ||
	    req->operation == XBB_OP_DISCARD) &&
	    before->sector + before->nsectors == req->sector &&
	    nseg <= batches->limits.max_segments);
}

void
batches_check(const struct batches *batches, const struct xbb_req *reqs)
{
	const struct xbb_batch *batch;
	uint64_t nsectors;
	uint32_t b, n, nseg, r;
	uint16_t at;

	r = 0;
	nseg = 0;
	for (b = 0; b < batches->nbatches; b++) {
		batch = &batches->batch[b];
		CHECK_EQ(batch->first, r);
		CHECK_EQ(batch->sector, reqs[r].sector);
		CHECK_EQ(batch->operation, reqs[r].operation);
		CHECK(r == 0 || !follows(batches, &reqs[r - 1], &reqs[r],
		    nseg + reqs[r].nseg));
		nsectors = 0;
		n = nseg = 0;
		for (at = batch->first; at != XBB_NONE; at = reqs[at].next) {
			CHECK_EQ(at, r);
			nseg += reqs[r].nseg;
			nsectors += reqs[r].nsectors;
			CHECK(n == 0 || follows(batches, &reqs[r - 1],
			    &reqs[r], nseg));
			n++;
			r++;
		}
		CHECK_EQ(batch->last, r - 1);
		CHECK_EQ(batch->nreq, n);
		CHECK_EQ(batch->nseg, nseg);
		CHECK_EQ(batch->nsectors, nsectors);
	}
	CHECK_EQ(r, batches->nreqs);
}
