/*
 * pages.c - the guest's pages that a batch is about, pinned (core/persist.c),
 * mapped or copied; and those in which a frontend lists the segments of a large
 * request.  Must not touch the ring.  Pinning, fetching and what is of a sweep
 * on the ring's thread, the rest on whichever carries the batch out.
 */
#include <assert.h>
#include <string.h>

#include "block/block.h"

_Static_assert(XBB_MAX_INDIRECT_SEGMENTS <= XBB_MAP_PAGES,
    "a map holds the largest request");

/* The references of a batch's segments, in their order. */
static uint32_t
list_refs(const struct xbb_queue *q, const struct xbb_batch *batch,
    uint32_t *refs)
{
	const struct xbb_segment *seg;
	uint32_t i, left, n;
	uint16_t r;

	n = 0;
	for (left = batch->nreq, r = batch->first; left > 0;
	    left--, r = q->set.reqs[r].next) {
		assert(n + q->set.reqs[r].nseg <= XBB_MAX_BATCH_SEGMENTS);
		seg = xbb_req_segments(q, r);
		for (i = 0; i < q->set.reqs[r].nseg; i++)
			refs[n++] = seg[i].gref;
	}
	return (n);
}

/* Pin all pages of a batch: then it is persistent, else it does without. */
void
xbb_pages_pin_kept(struct xbb_queue *q, struct xbb_batch *batch)
{
	uint16_t pinned[XBB_MAX_BATCH_SEGMENTS];
	uint32_t refs[XBB_MAX_BATCH_SEGMENTS];
	const uint32_t n = list_refs(q, batch, refs);
	const uint16_t *from;
	uint16_t r;

	/* Those of a single request are where they belong at once. */
	if (batch->nreq == 1) {
		batch->persistent = xbb_persist_pin(&q->own.persist, refs, n,
		    xbb_pages_pinned(q, batch->first));
		return;
	}
	batch->persistent = xbb_persist_pin(&q->own.persist, refs, n, pinned);
	from = pinned;
	for (r = batch->first; batch->persistent && r != XBB_NONE;
	    from += q->set.reqs[r].nseg, r = q->set.reqs[r].next)
		memcpy(xbb_pages_pinned(q, r), from,
		    q->set.reqs[r].nseg * sizeof(*from));
}

void
xbb_pages_unpin_kept(struct xbb_queue *q, struct xbb_batch *batch)
{
	uint16_t r;

	for (r = batch->first; r != XBB_NONE; r = q->set.reqs[r].next)
		xbb_persist_unpin(&q->own.persist, xbb_pages_pinned(q, r),
		    q->set.reqs[r].nseg);
	batch->persistent = false;
}

/* Only a guest's fault counts as a grant that failed. */
static struct xbb_outcome
failed_for(struct xbb_batch *batch, int error, enum xbb_shortage shortage)
{
	const bool by_guest = shortage == XBB_SHORT_NONE;

	batch->tally.shortage = shortage;
	batch->tally.grant_errors += by_guest;
	return ((struct xbb_outcome){
		error, by_guest ? XBB_BLAME_GUEST : XBB_BLAME_NOBODY
	});
}

/*
 * Map every page of the batch, in the order of its segments.  Pages that the
 * disk only reads from are mapped read-only: a frontend may have granted them
 * so.  On failure nothing stays mapped.  refs is the map's to use until it is
 * unmapped.
 */
struct xbb_outcome
xbb_pages_map(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map, uint32_t refs[XBB_MAP_PAGES])
{
	int error;

	map->npages = list_refs(q, batch, refs);
	map->refs = refs;
	error = q->conn.ops->map(q->conn.hv, map,
	    batch->operation == XBB_OP_READ);
	if (error != 0)
		return (failed_for(batch, error,
		    xbb_grants_shortage(&q->conn, error, true)));
	batch->tally.grants_mapped += map->npages;
	return (XBB_WELL);
}

void
xbb_pages_unmap(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map)
{

	if (xbb_grants_unmap(&q->conn, map))
		batch->tally.grants_unmapped += map->npages;
}

/* The pieces of a batch whose data lies in a row, in the order of segments. */
static uint32_t
pieces_of_batch(const struct xbb_queue *q, const struct xbb_batch *batch,
    uint8_t *buffer, struct xbb_copy *pieces)
{
	const struct xbb_segment *end, *seg;
	uint32_t left, n;
	uint16_t r;

	n = 0;
	for (left = batch->nreq, r = batch->first; left > 0;
	    left--, r = q->set.reqs[r].next) {
		assert(n + q->set.reqs[r].nseg <= XBB_MAX_BATCH_SEGMENTS);
		seg = xbb_req_segments(q, r);
		end = seg + q->set.reqs[r].nseg;
		for (; seg < end; seg++, n++) {
			pieces[n].local = buffer;
			pieces[n].ref = seg->gref;
			pieces[n].offset = (uint16_t)(seg->first_sect *
			    XBB_SECTOR_SIZE);
			pieces[n].len = (uint16_t)xbb_segment_bytes(seg);
			buffer += pieces[n].len;
		}
	}
	return (n);
}

/*
 * Copy the batch's data between the guest's pages and a buffer, where it lies
 * in a row in the order of the segments.
 */
struct xbb_outcome
xbb_pages_copy(struct xbb_queue *q, struct xbb_batch *batch,
    uint8_t *buffer, bool to_guest)
{
	struct xbb_copy pieces[XBB_MAP_PAGES];
	enum xbb_shortage shortage;
	uint32_t n;
	int error;

	n = pieces_of_batch(q, batch, buffer, pieces);
	error = xbb_grants_copy(&q->conn, pieces, n, to_guest, &shortage);
	if (error != 0)
		return (failed_for(batch, error, shortage));
	batch->tally.grants_copied += n;
	return (XBB_WELL);
}

/*
 * The same for all batches of a sweep with one call.  If it fails nothing is
 * known of whose fault that is, and nothing is counted: each is to be done by
 * itself.
 */
int
xbb_pages_map_all(struct xbb_queue *q, struct xbb_sweep *sweep,
    struct xbb_map *map, uint32_t refs[XBB_MAP_PAGES])
{
	uint32_t i, n;
	int error;

	n = 0;
	for (i = 0; i < sweep->n; i++)
		n += list_refs(q, sweep->part[i].batch, refs + n);
	assert(n == sweep->npages && n <= XBB_MAP_PAGES);
	map->npages = n;
	map->refs = refs;
	error = q->conn.ops->map(q->conn.hv, map, !sweep->writes);
	if (error == 0)
		XBB_COUNT(q->conn.rc->counters.grants_mapped_total, n);
	return (error);
}

void
xbb_pages_unmap_all(struct xbb_queue *q, struct xbb_map *map)
{
	const uint32_t n = map->npages;

	if (xbb_grants_unmap(&q->conn, map))
		XBB_COUNT(q->conn.rc->counters.grants_unmapped_total, n);
}

/* In the buffer each batch begins at its page. */
int
xbb_pages_copy_all(struct xbb_queue *q, struct xbb_sweep *sweep,
    uint8_t *buffer)
{
	struct xbb_copy pieces[XBB_MAP_PAGES];
	enum xbb_shortage shortage;
	uint32_t i, n;
	int error;

	n = 0;
	for (i = 0; i < sweep->n; i++)
		n += pieces_of_batch(q, sweep->part[i].batch, buffer +
		    (size_t)sweep->part[i].page * XBB_PAGE_SIZE, pieces + n);
	error = xbb_grants_copy(&q->conn, pieces, n, !sweep->writes, &shortage);
	if (error == 0)
		XBB_COUNT(q->conn.rc->counters.grants_copied_total, n);
	return (error);
}

/* The pages of a list of segments are kept as others are. */
static bool
fetch_kept(struct xbb_queue *q, const struct xbb_req *req, uint32_t npages,
    struct xbb_segment *to, size_t bytes)
{
	struct xbb_persist *p = &q->own.persist;
	uint16_t pinned[XBB_MAX_INDIRECT_PAGES];
	uint32_t i;

	if (p->max == 0)
		return (false);
	if (!xbb_persist_pin(p, req->indirect_ref, npages, pinned))
		return (false);
	for (i = 0; i < npages; i++)
		xbb_grants_take_page(to, xbb_persist_base(p, pinned[i]), i,
		    bytes);
	xbb_persist_unpin(p, pinned, npages);
	return (true);
}

/*
 * Copy the segments of an indirect request out, once (XSA-155); their number
 * was found possible.  What they say is still the guest's word.  If the host is
 * short nothing is known of the request.
 */
int
xbb_pages_fetch(struct xbb_queue *q, const struct xbb_req *req,
    struct xbb_segment *to, enum xbb_shortage *shortage)
{
	const size_t bytes = req->nseg * sizeof(*to);
	const uint32_t npages = xbb_indirect_pages(req->nseg);

	assert(req->nseg <= q->set.max_segments);
	*shortage = XBB_SHORT_NONE;
	if (fetch_kept(q, req, npages, to, bytes))
		return (0);
	return (xbb_grants_fetch(&q->conn, req->indirect_ref, npages, to, bytes,
	    shortage));
}
