/*
 * blkif.c - the blkif protocol as data: where the fields of a slot lie in each
 * ABI, one decoder for all, and the one function that says whether a request
 * is valid.  Pure: no system call, no shared memory, no state.  What passes
 * xbb_request_validate() is only asserted afterwards.
 */
#include <assert.h>
#include <string.h>

#include "internal.h"

/* The same in every ABI (blkif.h). */
enum {
	REQ_OPERATION	= 0,
	REQ_NSEG	= 1,
	SEG_SIZE	= 8,
	SEG_GREF	= 0,
	SEG_FIRST	= 4,
	SEG_LAST	= 5,
	RSP_ID		= 0,
	RSP_OPERATION	= 8,
	RSP_STATUS	= 10,
	RING_HEADER	= sizeof(struct xbb_sring),
};

/*
 * On amd64 and arm64 the native layout is that of x86_64.  A 32-bit x86 guest
 * aligns 64-bit fields to 4 bytes, which moves everything after the first.
 */
static const struct xbb_layout layouts[] = {
	[XBB_ABI_NATIVE] = { .slot_size = 112, .rsp_size = 16,
	    .id = 8, .sector = 16, .seg = 24 },
	[XBB_ABI_X86_32] = { .slot_size = 108, .rsp_size = 12,
	    .id = 4, .sector = 12, .seg = 20 },
	[XBB_ABI_X86_64] = { .slot_size = 112, .rsp_size = 16,
	    .id = 8, .sector = 16, .seg = 24 },
};

_Static_assert(sizeof(void *) == 8, "the native ABI is laid out for LP64");
_Static_assert(sizeof(struct xbb_sring) == 64, "ring header of ring.h");
_Static_assert(sizeof(struct xbb_req) == 128, "the table is an ABI too");

const struct xbb_layout *
xbb_layout(uint32_t abi)
{

	if (abi >= sizeof(layouts) / sizeof(layouts[0]))
		return (NULL);
	return (&layouts[abi]);
}

/* Slots of a ring: the largest power of two that fits behind the header. */
uint32_t
xbb_ring_slots(const struct xbb_layout *layout, uint32_t ring_pages)
{
	uint32_t fit, slots;

	fit = (ring_pages * XBB_PAGE_SIZE - RING_HEADER) / layout->slot_size;
	for (slots = 1; slots * 2 <= fit; slots *= 2)
		continue;
	return (slots);
}

/*
 * A slot, already copied out of the ring, into a request.  Takes whatever is
 * there: nseg may exceed the array, of which only what exists is filled.
 */
void
xbb_request_decode(const struct xbb_layout *layout, const uint32_t *slot,
    struct xbb_req *req)
{
	const uint8_t *from = (const uint8_t *)slot, *seg;
	uint32_t i, nseg;

	req->operation = from[REQ_OPERATION];
	req->nseg = from[REQ_NSEG];
	memcpy(&req->id, from + layout->id, sizeof(req->id));
	memcpy(&req->sector, from + layout->sector, sizeof(req->sector));
	nseg = req->nseg <= XBB_MAX_SEGMENTS ? req->nseg : XBB_MAX_SEGMENTS;
	for (i = 0; i < nseg; i++) {
		seg = from + layout->seg + i * SEG_SIZE;
		memcpy(&req->seg[i].gref, seg + SEG_GREF,
		    sizeof(req->seg[i].gref));
		req->seg[i].first_sect = seg[SEG_FIRST];
		req->seg[i].last_sect = seg[SEG_LAST];
		req->seg[i].reserved = 0;
	}
}

/* The reverse, for frontends.  Every byte of the slot is defined. */
void
xbb_request_encode(const struct xbb_layout *layout, const struct xbb_req *req,
    uint32_t *slot)
{
	uint8_t *to = (uint8_t *)slot, *seg;
	uint32_t i;

	assert(req->nseg <= XBB_MAX_SEGMENTS);
	memset(to, 0, layout->slot_size);
	to[REQ_OPERATION] = req->operation;
	to[REQ_NSEG] = req->nseg;
	memcpy(to + layout->id, &req->id, sizeof(req->id));
	memcpy(to + layout->sector, &req->sector, sizeof(req->sector));
	for (i = 0; i < req->nseg; i++) {
		seg = to + layout->seg + i * SEG_SIZE;
		memcpy(seg + SEG_GREF, &req->seg[i].gref,
		    sizeof(req->seg[i].gref));
		seg[SEG_FIRST] = req->seg[i].first_sect;
		seg[SEG_LAST] = req->seg[i].last_sect;
	}
}

/*
 * The segments of a request: XBB_RSP_OKAY and nsectors set, or why not.
 */
static int
validate_segments(struct xbb_req *req)
{
	uint32_t i, nsectors;

	if (req->nseg > XBB_MAX_SEGMENTS)
		return (XBB_RSP_ERROR);
	nsectors = 0;
	for (i = 0; i < req->nseg; i++) {
		if (req->seg[i].last_sect >= XBB_SECTORS_PER_PAGE ||
		    req->seg[i].first_sect > req->seg[i].last_sect)
			return (XBB_RSP_ERROR);
		nsectors += req->seg[i].last_sect - req->seg[i].first_sect + 1;
	}
	req->nsectors = nsectors;
	return (XBB_RSP_OKAY);
}

/*
 * The one gate.  Returns the status to answer with: XBB_RSP_OKAY when the
 * request may be carried out, and nsectors is then set.
 *
 * An operation that was never offered gets EOPNOTSUPP, so that a frontend that
 * tried its luck stops trying; everything else that is wrong is an ERROR, as
 * in the kernel driver.  A flush or barrier without segments is complete; one
 * with segments carries data that must reach the disk like any other.
 */
int
xbb_request_validate(const struct xbb_limits *limits, struct xbb_req *req)
{
	uint32_t align;

	req->nsectors = 0;
	switch (req->operation) {
	case XBB_OP_READ:
		if (req->nseg == 0)
			return (XBB_RSP_ERROR);
		break;
	case XBB_OP_WRITE:
		if (req->nseg == 0 || limits->read_only)
			return (XBB_RSP_ERROR);
		break;
	case XBB_OP_WRITE_BARRIER:
		if (limits->read_only)
			return (XBB_RSP_ERROR);
		break;
	case XBB_OP_FLUSH_DISKCACHE:
		if (req->nseg != 0 && limits->read_only)
			return (XBB_RSP_ERROR);
		break;
	default:
		return (XBB_RSP_EOPNOTSUPP);
	}
	if (req->nseg == 0)
		return (XBB_RSP_OKAY);
	if (validate_segments(req) != XBB_RSP_OKAY)
		return (XBB_RSP_ERROR);

	align = limits->sector_size / XBB_SECTOR_SIZE;
	if (req->sector % align != 0 || req->nsectors % align != 0)
		return (XBB_RSP_ERROR);
	/* In this order nothing can wrap: nsectors is at most 88. */
	if (req->nsectors > limits->sectors ||
	    req->sector > limits->sectors - req->nsectors)
		return (XBB_RSP_ERROR);
	return (XBB_RSP_OKAY);
}

/* A response as it lies in a slot; padding is zero (XSA-216). */
void
xbb_response_encode(uint64_t id, uint8_t operation, int16_t status,
    uint32_t words[4])
{
	uint8_t *to = (uint8_t *)words;

	memset(to, 0, 4 * sizeof(words[0]));
	memcpy(to + RSP_ID, &id, sizeof(id));
	to[RSP_OPERATION] = operation;
	memcpy(to + RSP_STATUS, &status, sizeof(status));
}
