/*
 * grants.c - the data pages of a batch, mapped with one hypervisor call and
 * given back with one, or copied with one.  Runs on whichever thread carries
 * the batch out; must not touch the ring.
 */
#include <assert.h>

#include "internal.h"

/*
 * Map every page of the batch, in the order of its segments.  Pages that the
 * disk only reads from are mapped read-only: a frontend may have granted them
 * so.  On failure nothing stays mapped.
 */
int
xbb_grants_map(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map)
{
	const struct xbb_req *req;
	uint32_t i, n;
	uint16_t r;
	int error;

	n = 0;
	for (r = batch->first; r != XBB_NONE; r = req->next) {
		req = &q->reqs[r];
		assert(n + req->nseg <= XBB_MAX_BATCH_SEGMENTS);
		for (i = 0; i < req->nseg; i++)
			map->refs[n++] = req->seg[i].gref;
		if (r == batch->last)
			break;
	}
	map->npages = n;
	error = q->ops->map(q->hv, map, batch->operation == XBB_OP_READ);
	if (error != 0) {
		batch->tally.grant_errors++;
		return (error);
	}
	batch->tally.grants_mapped += n;
	return (0);
}

void
xbb_grants_unmap(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_map *map)
{

	batch->tally.grants_unmapped += map->npages;
	q->ops->unmap(q->hv, map);
}

/*
 * Copy the batch's data between the guest's pages and a buffer, where it lies
 * in a row in the order of the segments.
 */
int
xbb_grants_copy(struct xbb_queue *q, struct xbb_batch *batch,
    uint8_t *buffer, bool to_guest)
{
	struct xbb_copy pieces[XBB_MAP_PAGES];
	const struct xbb_segment *seg;
	const struct xbb_req *req;
	uint32_t i, n;
	uint16_t r;
	int error;

	n = 0;
	for (r = batch->first; r != XBB_NONE; r = req->next) {
		req = &q->reqs[r];
		assert(n + req->nseg <= XBB_MAX_BATCH_SEGMENTS);
		for (i = 0; i < req->nseg; i++, n++) {
			seg = &req->seg[i];
			pieces[n].local = buffer;
			pieces[n].ref = seg->gref;
			pieces[n].offset = (uint16_t)(seg->first_sect *
			    XBB_SECTOR_SIZE);
			pieces[n].len = (uint16_t)((seg->last_sect -
			    seg->first_sect + 1) * XBB_SECTOR_SIZE);
			buffer += pieces[n].len;
		}
		if (r == batch->last)
			break;
	}
	error = q->ops->copy(q->hv, pieces, n, to_guest);
	if (error != 0) {
		batch->tally.grant_errors++;
		return (error);
	}
	batch->tally.grants_copied += n;
	return (0);
}
