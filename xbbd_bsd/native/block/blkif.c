/*
 * blkif.c - the blkif protocol as data: where the fields of a slot lie in each
 * ABI, one decoder for all, and the one function that says whether a request
 * is valid.  Pure: no system call, no shared memory, no state.  What passes
 * xbb_request_validate() is only asserted afterwards.
 */
#include <assert.h>
#include <string.h>

#include "block/block.h"

/*
 * The same in every ABI (blkif.h).  Where others have their segments a discard
 * has its length, and an indirect request a handle and its references.
 */
enum {
	REQ_OPERATION	= 0,
	REQ_NSEG	= 1,
	REQ_FLAG	= 1,	/* discard */
	REQ_INNER	= 1,	/* indirect: the operation */
	REQ_INNER_NSEG	= 2,	/* indirect: 16 bits */
	SEG_REFS	= 4,	/* indirect: from the handle on */
	SEG_SIZE	= 8,
	SEG_GREF	= 0,
	SEG_FIRST	= 4,
	SEG_LAST	= 5,
	RSP_ID		= 0,
	RSP_OPERATION	= 8,
	RSP_STATUS	= 10,
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
_Static_assert(sizeof(struct xbb_req) == 144, "the table is an ABI too");
_Static_assert(sizeof(struct xbb_segment) == SEG_SIZE &&
    offsetof(struct xbb_segment, first_sect) == SEG_FIRST &&
    offsetof(struct xbb_segment, last_sect) == SEG_LAST, "as in a list");

const struct xbb_layout *
xbb_layout(uint32_t abi)
{

	if (abi >= sizeof(layouts) / sizeof(layouts[0]))
		return (NULL);
	return (&layouts[abi]);
}

uint32_t
xbb_max_requests(uint32_t abi, uint32_t ring_pages)
{
	const struct xbb_layout *layout = xbb_layout(abi);

	return (layout == NULL ? 0 : xbb_ring_slots(layout->slot_size,
	    ring_pages));
}

/* Pages that the segments of an indirect request take. */
uint32_t
xbb_indirect_pages(uint32_t nseg)
{

	return ((nseg * SEG_SIZE + XBB_PAGE_SIZE - 1) / XBB_PAGE_SIZE);
}

static void
decode_segments(const uint8_t *from, struct xbb_req *req)
{
	uint32_t i, nseg;

	nseg = req->nseg <= XBB_MAX_SEGMENTS ? req->nseg : XBB_MAX_SEGMENTS;
	for (i = 0; i < nseg; i++) {
		memcpy(&req->seg[i], from + i * SEG_SIZE, SEG_SIZE);
		req->seg[i].reserved = 0;
	}
}

/*
 * A slot, already copied out of the ring, into a request.  Takes whatever is
 * there: nseg may exceed what is possible, and only what exists is filled.  An
 * indirect request becomes one of the operation inside, which is also what the
 * response names: Linux frontends check that.
 */
void
xbb_request_decode(const struct xbb_layout *layout, const uint32_t *slot,
    struct xbb_req *req)
{
	const uint8_t *from = (const uint8_t *)slot;

	req->operation = from[REQ_OPERATION];
	req->indirect = req->operation == XBB_OP_INDIRECT;
	req->flags = 0;
	req->nsectors = 0;
	memcpy(&req->id, from + layout->id, sizeof(req->id));
	memcpy(&req->sector, from + layout->sector, sizeof(req->sector));
	switch (req->operation) {
	case XBB_OP_INDIRECT:
		req->operation = from[REQ_INNER];
		memcpy(&req->nseg, from + REQ_INNER_NSEG, sizeof(req->nseg));
		memcpy(req->indirect_ref, from + layout->seg + SEG_REFS,
		    sizeof(req->indirect_ref));
		break;
	case XBB_OP_DISCARD:
		req->flags = from[REQ_FLAG];
		req->nseg = 0;
		memcpy(&req->nsectors, from + layout->seg,
		    sizeof(req->nsectors));
		break;
	default:
		req->nseg = from[REQ_NSEG];
		decode_segments(from + layout->seg, req);
		break;
	}
}

/* The reverse, for frontends.  Every byte of the slot is defined. */
void
xbb_request_encode(const struct xbb_layout *layout, const struct xbb_req *req,
    uint32_t *slot)
{
	uint8_t *to = (uint8_t *)slot, *seg;
	uint32_t i;

	memset(to, 0, layout->slot_size);
	to[REQ_OPERATION] = req->indirect ? XBB_OP_INDIRECT : req->operation;
	memcpy(to + layout->id, &req->id, sizeof(req->id));
	memcpy(to + layout->sector, &req->sector, sizeof(req->sector));
	if (req->indirect) {
		to[REQ_INNER] = req->operation;
		memcpy(to + REQ_INNER_NSEG, &req->nseg, sizeof(req->nseg));
		memcpy(to + layout->seg + SEG_REFS, req->indirect_ref,
		    sizeof(req->indirect_ref));
		return;
	}
	if (req->operation == XBB_OP_DISCARD) {
		to[REQ_FLAG] = req->flags;
		memcpy(to + layout->seg, &req->nsectors,
		    sizeof(req->nsectors));
		return;
	}
	assert(req->nseg <= XBB_MAX_SEGMENTS);
	to[REQ_NSEG] = (uint8_t)req->nseg;
	for (i = 0; i < req->nseg; i++) {
		seg = to + layout->seg + i * SEG_SIZE;
		memcpy(seg + SEG_GREF, &req->seg[i].gref,
		    sizeof(req->seg[i].gref));
		seg[SEG_FIRST] = req->seg[i].first_sect;
		seg[SEG_LAST] = req->seg[i].last_sect;
	}
}

/*
 * May a request of this operation and this many segments be carried out, as
 * far as its slot tells?  To be asked before the segments of an indirect one
 * are fetched.
 *
 * A flush or barrier without segments is complete; one with segments carries
 * data that must reach the disk like any other.
 */
inline enum xbb_refusal
xbb_request_admit(const struct xbb_limits *limits, const struct xbb_req *req)
{

	if (req->indirect && limits->max_indirect_segments == 0)
		return (XBB_REFUSED_OPERATION);
	switch (req->operation) {
	case XBB_OP_READ:
		if (req->nseg == 0)
			return (XBB_REFUSED_SEGMENTS);
		break;
	case XBB_OP_WRITE:
		if (req->nseg == 0)
			return (XBB_REFUSED_SEGMENTS);
		if (limits->read_only)
			return (XBB_REFUSED_READ_ONLY);
		break;
	case XBB_OP_WRITE_BARRIER:
		if (limits->read_only)
			return (XBB_REFUSED_READ_ONLY);
		break;
	case XBB_OP_FLUSH_DISKCACHE:
		if (req->nseg != 0 && limits->read_only)
			return (XBB_REFUSED_READ_ONLY);
		break;
	case XBB_OP_DISCARD:
		if (!limits->discard ||
		    ((req->flags & XBB_DISCARD_SECURE) != 0 && !limits->secure))
			return (XBB_REFUSED_OPERATION);
		if (limits->read_only)
			return (XBB_REFUSED_READ_ONLY);
		break;
	default:
		return (XBB_REFUSED_OPERATION);
	}
	if (!req->indirect)
		return (req->nseg <= XBB_MAX_SEGMENTS ? XBB_REFUSED_NOT :
		    XBB_REFUSED_SEGMENTS);
	/* blkif.h: reads and writes; FreeBSD's frontend adds barriers. */
	return (req->operation <= XBB_OP_WRITE_BARRIER && req->nseg != 0 &&
	    req->nseg <= limits->max_indirect_segments ? XBB_REFUSED_NOT :
	    XBB_REFUSED_SEGMENTS);
}

/* Sectors of the segments, or 0 if one is impossible. */
static uint64_t
count_sectors(const struct xbb_segment *seg, uint32_t nseg)
{
	uint64_t nsectors;
	uint32_t i;

	nsectors = 0;
	for (i = 0; i < nseg; i++) {
		if (seg[i].last_sect >= XBB_SECTORS_PER_PAGE ||
		    seg[i].first_sect > seg[i].last_sect)
			return (0);
		nsectors += seg[i].last_sect - seg[i].first_sect + 1U;
	}
	return (nsectors);
}

/*
 * The one gate, given the request's segments.  Says why it is shut: not, when
 * the request may be carried out, and nsectors is then set.
 */
enum xbb_refusal
xbb_request_validate(const struct xbb_limits *limits, struct xbb_req *req,
    const struct xbb_segment *seg)
{
	enum xbb_refusal why;
	uint32_t align;

	why = xbb_request_admit(limits, req);
	if (why != XBB_REFUSED_NOT)
		return (why);
	if (req->operation != XBB_OP_DISCARD) {
		req->nsectors = count_sectors(seg, req->nseg);
		if (req->nseg == 0)
			return (XBB_REFUSED_NOT);
	}
	if (req->nsectors == 0)
		return (XBB_REFUSED_SEGMENTS);
	align = limits->sector_size / XBB_SECTOR_SIZE;
	if (((req->sector | req->nsectors) & (align - 1)) != 0)
		return (XBB_REFUSED_ALIGNMENT);
	/* In this order nothing can wrap. */
	if (req->nsectors > limits->sectors ||
	    req->sector > limits->sectors - req->nsectors)
		return (XBB_REFUSED_BEYOND_END);
	return (XBB_REFUSED_NOT);
}

/*
 * The status that a refusal is answered with.  An operation that was never
 * offered gets EOPNOTSUPP, so that a frontend that tried its luck stops trying;
 * everything else that is wrong is an ERROR, as in the kernel driver.
 */
int16_t
xbb_refusal_status(enum xbb_refusal why)
{

	switch (why) {
	case XBB_REFUSED_NOT:
		return (XBB_RSP_OKAY);
	case XBB_REFUSED_OPERATION:
		return (XBB_RSP_EOPNOTSUPP);
	default:
		return (XBB_RSP_ERROR);
	}
}

/*
 * How many sectors a request that was refused is about, as far as is known: 0
 * if it is not, or they are impossible.
 */
uint64_t
xbb_request_extent(const struct xbb_req *req)
{

	if (req->nsectors != 0 || req->operation == XBB_OP_DISCARD)
		return (req->nsectors);
	if (req->indirect || req->nseg > XBB_MAX_SEGMENTS)
		return (0);
	return (count_sectors(req->seg, req->nseg));
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
