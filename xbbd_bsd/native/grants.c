/*
 * grants.c - the data pages of a batch, mapped with one hypervisor call and
 * given back with one, or copied with one; and the pages in which a frontend
 * lists the segments of a large request.  Must not touch the ring.  Runs on
 * whichever thread carries the batch out; fetching on the ring's.
 */
#include <assert.h>
#include <string.h>

#include "internal.h"

_Static_assert(XBB_MAX_INDIRECT_SEGMENTS <= XBB_MAP_PAGES,
    "a map holds the largest request");

/* Whose fault is it?  Only a guest's counts as a grant that failed. */
static void
judge(struct xbb_queue *q, struct xbb_batch *batch, int error, bool mapped)
{

	batch->tally.shortage = xbb_shortage_of(q, error, mapped);
	batch->tally.grant_errors += batch->tally.shortage == XBB_SHORT_NONE;
}

/*
 * Map every page of the batch, in the order of its segments.  Pages that the
 * disk only reads from are mapped read-only: a frontend may have granted them
 * so.  On failure nothing stays mapped.  refs is the map's to use until it is
 * unmapped.
 */
int
xbb_grants_map(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map, uint32_t refs[XBB_MAP_PAGES])
{
	struct xbb_walk walk = xbb_walk_batch(q, batch);
	uint32_t n;
	int error;

	n = 0;
	while (xbb_walk_next(&walk)) {
		assert(n < XBB_MAX_BATCH_SEGMENTS);
		refs[n++] = walk.seg->gref;
	}
	map->npages = n;
	map->refs = refs;
	error = q->ops->map(q->hv, map, batch->operation == XBB_OP_READ);
	if (error != 0) {
		judge(q, batch, error, true);
		return (error);
	}
	batch->tally.grants_mapped += n;
	return (0);
}

/*
 * Unmap pages of the guest's.  What fails stays mapped: then the ring stops,
 * which ends with its descriptors, since nobody could say any more whose a page
 * is.  False if so.  Any thread of the queue.
 */
bool
xbb_unmap(struct xbb_queue *q, struct xbb_map *map)
{
	int error, none = 0;

	error = q->ops->unmap(q->hv, map);
	if (error != 0)
		atomic_compare_exchange_strong(&q->unmap_errnum, &none, -error);
	return (error == 0);
}

void
xbb_grants_unmap(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map)
{

	if (xbb_unmap(q, map))
		batch->tally.grants_unmapped += map->npages;
}

/*
 * Copy the batch's data between the guest's pages and a buffer, where it lies
 * in a row in the order of the segments.
 */
int
xbb_grants_copy(struct xbb_queue *q, struct xbb_batch *batch,
    uint8_t *buffer, bool to_guest)
{
	struct xbb_walk walk = xbb_walk_batch(q, batch);
	struct xbb_copy pieces[XBB_MAP_PAGES];
	uint32_t n;
	int error;

	for (n = 0; xbb_walk_next(&walk); n++) {
		assert(n < XBB_MAX_BATCH_SEGMENTS);
		pieces[n].local = buffer;
		pieces[n].ref = walk.seg->gref;
		pieces[n].offset = (uint16_t)(walk.seg->first_sect *
		    XBB_SECTOR_SIZE);
		pieces[n].len = (uint16_t)xbb_segment_bytes(walk.seg);
		buffer += pieces[n].len;
	}
	error = q->ops->copy(q->hv, pieces, n, to_guest);
	if (error != 0) {
		judge(q, batch, error, false);
		return (error);
	}
	batch->tally.grants_copied += n;
	return (0);
}

/* Indirect segments: the list itself lies in pages of the frontend's. */

static uint32_t
bytes_in_page(uint32_t bytes, uint32_t page)
{

	bytes -= page * XBB_PAGE_SIZE;
	return (bytes < XBB_PAGE_SIZE ? bytes : XBB_PAGE_SIZE);
}

static void
take(struct xbb_segment *to, const uint8_t *page, uint32_t n, uint32_t bytes)
{

	xbb_copy_words((uint32_t *)(void *)((uint8_t *)to + n * XBB_PAGE_SIZE),
	    (const uint32_t *)(const void *)page, bytes_in_page(bytes, n));
}

static int
fetch_copied(struct xbb_queue *q, const struct xbb_req *req, uint8_t *to,
    uint32_t npages, uint32_t bytes)
{
	struct xbb_copy pieces[XBB_MAX_INDIRECT_PAGES];
	uint32_t i;

	for (i = 0; i < npages; i++)
		pieces[i] = (struct xbb_copy){
			.local = to + i * XBB_PAGE_SIZE,
			.ref = req->indirect_ref[i],
			.len = (uint16_t)bytes_in_page(bytes, i),
		};
	return (q->ops->copy(q->hv, pieces, npages, false));
}

static int
fetch_mapped(struct xbb_queue *q, const struct xbb_req *req,
    struct xbb_segment *to, uint32_t npages, uint32_t bytes)
{
	struct xbb_map map = { .refs = req->indirect_ref, .npages = npages };
	uint32_t i;
	int error;

	error = q->ops->map(q->hv, &map, false);
	if (error != 0)
		return (error);
	XBB_COUNT(q->rs->counters.grants_mapped_total, npages);
	for (i = 0; i < npages; i++)
		take(to, map.base + i * XBB_PAGE_SIZE, i, bytes);
	if (xbb_unmap(q, &map))
		XBB_COUNT(q->rs->counters.grants_unmapped_total, npages);
	return (0);
}

/*
 * Copy the segments of an indirect request out, once (XSA-155); their number
 * was found possible.  What they say is still the guest's word.  If the host is
 * short nothing is known of the request.
 */
int
xbb_grants_fetch(struct xbb_queue *q, const struct xbb_req *req,
    struct xbb_segment *to, enum xbb_shortage *shortage)
{
	const uint8_t *bases[XBB_MAX_INDIRECT_PAGES];
	const uint32_t bytes = req->nseg * (uint32_t)sizeof(*to);
	const uint32_t npages = xbb_indirect_pages(req->nseg);
	struct xbb_counters *c = &q->rs->counters;
	uint32_t i;
	int error;

	assert(req->nseg <= q->max_segments);
	error = 0;
	if (xbb_persist_pages(q, req->indirect_ref, npages, bases)) {
		for (i = 0; i < npages; i++)
			take(to, bases[i], i, bytes);
	} else if (q->copies) {
		error = fetch_copied(q, req, (uint8_t *)to, npages, bytes);
		XBB_COUNT(c->grants_copied_total, error == 0 ? npages : 0);
	} else
		error = fetch_mapped(q, req, to, npages, bytes);
	*shortage = xbb_shortage_of(q, error, !q->copies);
	XBB_COUNT(c->grant_errors, error != 0 && *shortage == XBB_SHORT_NONE);
	return (error);
}
