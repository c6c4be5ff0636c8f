/*
 * test_blkif.c - slots of the three ABIs as literal bytes, and what a valid
 * request is.  The bytes are written down from Xen's blkif.h, not from our
 * table.  Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static const uint8_t slot64[112] = {
	0x01, 0x02,				/* write, 2 segments */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00,	/* handle, padding */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0xa4, 0xa3, 0xa2, 0xa1, 0x01, 0x07, 0x00, 0x00,	/* segments */
	0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

static const uint8_t slot32[108] = {
	0x01, 0x02,				/* write, 2 segments */
	0x00, 0x00,				/* handle */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0xa4, 0xa3, 0xa2, 0xa1, 0x01, 0x07, 0x00, 0x00,	/* segments */
	0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

/* The same ids and sectors: a discard, and 3 segments written indirectly. */
static const uint8_t discard64[112] = {
	0x05, 0x01,				/* discard, secure */
	0x00, 0x00, 0x00, 0x00, 0x00, 0x00,	/* handle, padding */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0x18, 0x17, 0x16, 0x15, 0x14, 0x00, 0x00, 0x00,	/* sectors */
};

static const uint8_t discard32[108] = {
	0x05, 0x01,				/* discard, secure */
	0x00, 0x00,				/* handle */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0x18, 0x17, 0x16, 0x15, 0x14, 0x00, 0x00, 0x00,	/* sectors */
};

static const uint8_t indirect64[112] = {
	0x06, 0x01, 0x03, 0x01,			/* indirect, write, 259 */
	0x00, 0x00, 0x00, 0x00,			/* padding */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0x00, 0x00, 0x00, 0x00,			/* handle, padding */
	0xa4, 0xa3, 0xa2, 0xa1, 0x09, 0x00, 0x00, 0x00,	/* references */
	0x03, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00,
	0x05, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00,
	0x07, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x80,
};

static const uint8_t indirect32[108] = {
	0x06, 0x01, 0x03, 0x01,			/* indirect, write, 259 */
	0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,	/* id */
	0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x00, 0x00,	/* sector */
	0x00, 0x00, 0x00, 0x00,			/* handle, padding */
	0xa4, 0xa3, 0xa2, 0xa1, 0x09, 0x00, 0x00, 0x00,	/* references */
	0x03, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00,
	0x05, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00,
	0x07, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x80,
};

static const struct {
	uint32_t	abi;
	const uint8_t	*slot, *discard, *indirect;
	uint32_t	slot_size, rsp_size;
	uint32_t	handle;		/* offset */
	uint32_t	slots[XBB_MAX_RING_ORDER + 1];
} abis[] = {
	{ XBB_ABI_NATIVE, slot64, discard64, indirect64, 112, 16, 2, { 32, 64, 128, 256, 512, 1024 } },
	{ XBB_ABI_X86_32, slot32, discard32, indirect32, 108, 12, 2, { 32, 64, 128, 256, 512, 1024 } },
	{ XBB_ABI_X86_64, slot64, discard64, indirect64, 112, 16, 2, { 32, 64, 128, 256, 512, 1024 } },
};

/* A slot in memory that ends where it ends, for the sanitizer. */
static uint32_t *
slot_copy(const uint8_t *from, size_t size)
{
	uint32_t *slot = malloc(size);

	CHECK(slot != NULL);
	memcpy(slot, from, size);
	return (slot);
}

static void
check_layouts(void)
{
	const struct xbb_layout *layout;
	uint32_t a, order;

	for (a = 0; a < COUNTOF(abis); a++) {
		layout = xbb_layout(abis[a].abi);
		CHECK_EQ(layout->slot_size, abis[a].slot_size);
		CHECK_EQ(layout->rsp_size, abis[a].rsp_size);
		for (order = 0; order <= XBB_MAX_RING_ORDER; order++)
			CHECK_EQ(xbb_ring_slots(layout, 1U << order),
			    abis[a].slots[order]);
	}
	for (order = 0; order <= XBB_MAX_RING_ORDER; order++)
		CHECK_EQ(xbb_max_requests(XBB_ABI_X86_32, 1U << order),
		    abis[XBB_ABI_X86_32].slots[order]);
	CHECK_EQ(xbb_max_requests(3, 1), 0);
	/* One that fits exactly: 64 bytes and 32 slots of 126. */
	CHECK_EQ(xbb_ring_slots(&(struct xbb_layout){ .slot_size = 126 }, 1),
	    32);
	CHECK_EQ(xbb_ring_slots(&(struct xbb_layout){ .slot_size = 127 }, 1),
	    16);
	CHECK(xbb_layout(3) == NULL);
	CHECK(xbb_layout(UINT32_MAX) == NULL);
}

static void
check_decode_and_encode(void)
{
	const struct xbb_layout *layout;
	struct xbb_req req;
	uint32_t *slot;
	uint32_t a;

	for (a = 0; a < COUNTOF(abis); a++) {
		layout = xbb_layout(abis[a].abi);
		slot = slot_copy(abis[a].slot, abis[a].slot_size);
		/* A frontend names its device here; nothing depends on it. */
		memset((uint8_t *)slot + abis[a].handle, 0xca, 2);
		memset(&req, 0xee, sizeof(req));
		xbb_request_decode(layout, slot, &req);
		CHECK_EQ(req.operation, XBB_OP_WRITE);
		CHECK_EQ(req.indirect, 0);
		CHECK_EQ(req.flags, 0);
		CHECK_EQ(req.nsectors, 0);
		CHECK_EQ(req.nseg, 2);
		CHECK_EQ(req.id, 0x1122334455667788);
		CHECK_EQ(req.sector, 0x0102030405);
		CHECK_EQ(req.seg[0].gref, 0xa1a2a3a4);
		CHECK_EQ(req.seg[0].first_sect, 1);
		CHECK_EQ(req.seg[0].last_sect, 7);
		CHECK_EQ(req.seg[1].gref, 9);
		CHECK_EQ(req.seg[1].first_sect, 0);
		CHECK_EQ(req.seg[1].last_sect, 0);
		CHECK(all_bytes((const uint8_t *)&req.seg[2],
		    9 * sizeof(req.seg[2]), 0xee));

		memset(slot, 0xee, abis[a].slot_size);
		xbb_request_encode(layout, &req, slot);
		CHECK(memcmp(slot, abis[a].slot, abis[a].slot_size) == 0);
		free(slot);
	}
}

/* What is not made of segments in the slot. */
static void
check_other_requests(void)
{
	static const uint32_t refs[] =
	    { 0xa1a2a3a4, 9, 3, 4, 5, 6, 7, 0x80000008 };
	const struct xbb_layout *layout;
	struct xbb_req req;
	uint32_t *slot;
	uint32_t a;

	for (a = 0; a < COUNTOF(abis); a++) {
		layout = xbb_layout(abis[a].abi);
		slot = slot_copy(abis[a].discard, abis[a].slot_size);
		memset(&req, 0xee, sizeof(req));
		xbb_request_decode(layout, slot, &req);
		CHECK_EQ(req.operation, XBB_OP_DISCARD);
		CHECK_EQ(req.indirect, 0);
		CHECK_EQ(req.flags, XBB_DISCARD_SECURE);
		CHECK_EQ(req.nseg, 0);
		CHECK_EQ(req.id, 0x1122334455667788);
		CHECK_EQ(req.sector, 0x0102030405);
		CHECK_EQ(req.nsectors, 0x1415161718);
		memset(slot, 0xee, abis[a].slot_size);
		xbb_request_encode(layout, &req, slot);
		CHECK(memcmp(slot, abis[a].discard, abis[a].slot_size) == 0);
		free(slot);

		slot = slot_copy(abis[a].indirect, abis[a].slot_size);
		memset(&req, 0xee, sizeof(req));
		xbb_request_decode(layout, slot, &req);
		CHECK_EQ(req.operation, XBB_OP_WRITE);
		CHECK(req.indirect);
		CHECK_EQ(req.nseg, 259);
		CHECK_EQ(req.id, 0x1122334455667788);
		CHECK_EQ(req.sector, 0x0102030405);
		CHECK(memcmp(req.indirect_ref, refs, sizeof(refs)) == 0);
		memset(slot, 0xee, abis[a].slot_size);
		xbb_request_encode(layout, &req, slot);
		CHECK(memcmp(slot, abis[a].indirect, abis[a].slot_size) == 0);
		free(slot);
	}
	CHECK_EQ(xbb_indirect_pages(0), 0);
	CHECK_EQ(xbb_indirect_pages(1), 1);
	CHECK_EQ(xbb_indirect_pages(512), 1);
	CHECK_EQ(xbb_indirect_pages(513), 2);
}

/* More segments than there can be: what exists is read, nothing beyond. */
static void
check_decode_of_lies(void)
{
	static const uint8_t counts[] = { 11, 12, 255 };
	const struct xbb_layout *layout;
	struct xbb_req *req;
	uint32_t *slot;
	uint32_t a, c;

	req = malloc(sizeof(*req));
	CHECK(req != NULL);
	for (a = 0; a < COUNTOF(abis); a++)
		for (c = 0; c < COUNTOF(counts); c++) {
			layout = xbb_layout(abis[a].abi);
			slot = slot_copy(abis[a].slot, abis[a].slot_size);
			memset((uint8_t *)slot + layout->seg, 0x5a,
			    XBB_MAX_SEGMENTS * sizeof(req->seg[0]));
			((uint8_t *)slot)[1] = counts[c];
			memset(req, 0xee, sizeof(*req));
			xbb_request_decode(layout, slot, req);
			CHECK_EQ(req->nseg, counts[c]);
			CHECK_EQ(req->seg[10].gref, 0x5a5a5a5a);
			CHECK_EQ(req->seg[10].last_sect, 0x5a);
			CHECK_EQ(req->seg[10].reserved, 0);
			free(slot);
		}
	free(req);
}

/* Validation.  Each row is one rule; the segments are all alike. */

#define OK	XBB_REFUSED_NOT
#define RO	XBB_REFUSED_READ_ONLY
#define END	XBB_REFUSED_BEYOND_END
#define NEVER	XBB_REFUSED_OPERATION
#define SEG	XBB_REFUSED_SEGMENTS
#define PART	XBB_REFUSED_ALIGNMENT
#define RD	XBB_OP_READ
#define WR	XBB_OP_WRITE
#define BAR	XBB_OP_WRITE_BARRIER
#define FL	XBB_OP_FLUSH_DISKCACHE
#define TOP	UINT64_MAX

static const struct rule {
	const char	*what;
	uint8_t		operation, nseg, first, last;
	uint64_t	sector;
	uint64_t	sectors;	/* of the disk */
	uint32_t	sector_size;
	bool		read_only;
	enum xbb_refusal why;
	uint32_t	nsectors;	/* if OK */
} rules[] = {
	{ "one sector", RD, 1, 0, 0, 0, 100, 512, false, OK, 1 },
	{ "one page", WR, 1, 0, 7, 92, 100, 512, false, OK, 8 },
	{ "most segments", RD, 11, 0, 7, 12, 100, 512, false, OK, 88 },
	{ "within a page", WR, 3, 2, 5, 0, 100, 512, false, OK, 12 },

	{ "read of nothing", RD, 0, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "write of nothing", WR, 0, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "bare barrier", BAR, 0, 0, 0, 0, 100, 512, false, OK, 0 },
	{ "bare flush", FL, 0, 0, 0, 0, 100, 512, false, OK, 0 },
	{ "bare flush anywhere", FL, 0, 0, 0, TOP, 100, 512, false, OK, 0 },
	{ "bare flush unaligned", FL, 0, 0, 0, 1, 100, 4096, false, OK, 0 },
	{ "barrier with data", BAR, 1, 0, 7, 0, 100, 512, false, OK, 8 },
	{ "flush with data", FL, 1, 0, 7, 0, 100, 512, false, OK, 8 },
	{ "flush beyond", FL, 1, 0, 7, 93, 100, 512, false, END, 0 },
	{ "barrier beyond", BAR, 1, 0, 7, 93, 100, 512, false, END, 0 },

	{ "12 segments", RD, 12, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "255 segments", WR, 255, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "barrier, 12", BAR, 12, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "flush, 255", FL, 255, 0, 0, 0, 100, 512, false, SEG, 0 },
	{ "first > last", RD, 1, 5, 4, 0, 100, 512, false, SEG, 0 },
	{ "first > last by far", RD, 1, 255, 0, 0, 100, 512, false, SEG, 0 },
	{ "last 8", WR, 1, 0, 8, 0, 100, 512, false, SEG, 0 },
	{ "last 255", WR, 1, 0, 255, 0, 1000, 512, false, SEG, 0 },
	{ "both 8", RD, 1, 8, 8, 0, 100, 512, false, SEG, 0 },
	{ "both 7", RD, 1, 7, 7, 0, 100, 512, false, OK, 1 },

	{ "read of read-only", RD, 1, 0, 7, 0, 100, 512, true, OK, 8 },
	{ "flush of read-only", FL, 0, 0, 0, 0, 100, 512, true, OK, 0 },
	{ "write to read-only", WR, 1, 0, 7, 0, 100, 512, true, RO, 0 },
	{ "barrier to read-only", BAR, 1, 0, 7, 0, 100, 512, true, RO, 0 },
	{ "bare barrier, the same", BAR, 0, 0, 0, 0, 100, 512, true, RO, 0 },
	{ "flush with data to it", FL, 1, 0, 7, 0, 100, 512, true, RO, 0 },

	{ "operation 4", 4, 1, 0, 7, 0, 100, 512, false, NEVER, 0 },
	{ "discard", 5, 0, 0, 0, 0, 100, 512, false, NEVER, 0 },
	{ "indirect inside", 6, 1, 0, 0, 0, 100, 512, false, NEVER, 0 },
	{ "operation 255", 255, 255, 9, 0, TOP, 100, 512, true, NEVER, 0 },

	{ "last sector", RD, 1, 0, 0, 99, 100, 512, false, OK, 1 },
	{ "one beyond", RD, 1, 0, 0, 100, 100, 512, false, END, 0 },
	{ "end beyond", RD, 2, 0, 7, 85, 100, 512, false, END, 0 },
	{ "whole disk", RD, 1, 0, 7, 0, 8, 512, false, OK, 8 },
	{ "disk too small", RD, 1, 0, 7, 0, 7, 512, false, END, 0 },
	{ "disk of nothing", RD, 1, 0, 0, 0, 0, 512, false, END, 0 },
	{ "sum wraps to 0", RD, 1, 0, 0, TOP, 100, 512, false, END, 0 },
	{ "sum wraps to 7", WR, 1, 0, 7, TOP, 100, 512, false, END, 0 },
	{ "most of it wraps", WR, 11, 0, 7, TOP - 87, 100, 512, false, END, 0 },
	{ "no wrap by one", WR, 11, 0, 7, TOP - 88, 100, 512, false, END, 0 },
	{ "bytes wrap", WR, 1, 0, 7, 1ULL << 55, 100, 512, false, END, 0 },
	{ "end of the largest", RD, 1, 0, 0, TOP - 1, TOP, 512, false, OK, 1 },
	{ "beyond the largest", RD, 1, 0, 1, TOP - 1, TOP, 512, false, END, 0 },

	{ "4096: a page", RD, 1, 0, 7, 8, 800, 4096, false, OK, 8 },
	{ "4096: start", RD, 1, 0, 7, 4, 800, 4096, false, PART, 0 },
	{ "4096: length", WR, 1, 0, 3, 0, 800, 4096, false, PART, 0 },
	{ "4096: two halves", WR, 2, 4, 7, 16, 800, 4096, false, OK, 8 },
	{ "4096: barrier", BAR, 1, 0, 6, 0, 800, 4096, false, PART, 0 },
	{ "1024: start", RD, 1, 0, 1, 1, 800, 1024, false, PART, 0 },
	{ "1024: fits", RD, 1, 3, 4, 2, 800, 1024, false, OK, 2 },
};

static void
check_rules(void)
{
	const struct rule *rule;
	struct xbb_limits limits;
	struct xbb_req req;
	uint32_t i, r;

	for (r = 0; r < COUNTOF(rules); r++) {
		rule = &rules[r];
		memset(&req, 0xee, sizeof(req));
		req.operation = rule->operation;
		req.indirect = 0;
		req.flags = 0;
		req.nseg = rule->nseg;
		req.sector = rule->sector;
		for (i = 0; i < XBB_MAX_SEGMENTS; i++) {
			req.seg[i].first_sect = rule->first;
			req.seg[i].last_sect = rule->last;
		}
		limits = (struct xbb_limits){
			.sectors = rule->sectors,
			.sector_size = rule->sector_size,
			.read_only = rule->read_only,
		};
		if (xbb_request_validate(&limits, &req, req.seg) !=
		    rule->why)
			check_failed(__FILE__, __LINE__, rule->what, 0, 0);
		if (rule->why == OK && req.nsectors != rule->nsectors)
			check_failed(__FILE__, __LINE__, rule->what,
			    req.nsectors, rule->nsectors);
	}
}

/* What is not made of segments in the slot, or not in the slot at all. */
static void
check_other_rules(void)
{
	static const struct {
		const char	*what;
		uint8_t		operation;
		bool		indirect;
		uint16_t	nseg;
		uint8_t		flags;
		uint64_t	nsectors;
		bool		discard, read_only;	/* of the disk */
		uint32_t	most;	/* segments, 0: not offered */
		enum xbb_refusal why;
	} others[] = {
		{ "discard", 5, false, 0, 0, 8, true, false, 0, OK },
		{ "not offered", 5, false, 0, 0, 8, false, false, 0, NEVER },
		{ "not offered, read-only", 5, false, 0, 0, 8, false, true, 0,
		    NEVER },
		{ "secure", 5, false, 0, 1, 8, true, false, 0, NEVER },
		{ "secure and more", 5, false, 0, 0xff, 8, true, false, 0,
		    NEVER },
		{ "other flags", 5, false, 0, 0xfe, 8, true, false, 0, OK },
		{ "of nothing", 5, false, 0, 0, 0, true, false, 0, SEG },
		{ "of all", 5, false, 0, 0, 100, true, false, 0, OK },
		{ "of more", 5, false, 0, 0, 101, true, false, 0, END },
		{ "of too much", 5, false, 0, 0, TOP, true, false, 0, END },
		{ "of read-only", 5, false, 0, 0, 8, true, true, 0, RO },

		{ "indirect read", RD, true, 12, 0, 0, false, false, 12, OK },
		{ "write", WR, true, 1, 0, 0, false, false, 12, OK },
		{ "barrier", BAR, true, 12, 0, 0, false, false, 12, OK },
		{ "one too many", RD, true, 13, 0, 0, false, false, 12, SEG },
		{ "of nothing", RD, true, 0, 0, 0, false, false, 12, SEG },
		{ "barrier of nothing", BAR, true, 0, 0, 0, false, false, 12,
		    SEG },
		{ "flush", FL, true, 1, 0, 0, false, false, 12, SEG },
		{ "bare flush", FL, true, 0, 0, 0, false, false, 12, SEG },
		{ "discard inside", 5, true, 1, 0, 8, true, false, 12, SEG },
		{ "not offered", RD, true, 1, 0, 0, false, false, 0, NEVER },
		{ "nothing, not offered", WR, true, 0, 0, 0, false, true, 0,
		    NEVER },
		{ "to read-only", WR, true, 1, 0, 0, false, true, 12, RO },
		{ "indirect inside", 6, true, 1, 0, 0, false, false, 12,
		    NEVER },
	};
	struct xbb_segment seg[16];
	struct xbb_limits limits;
	struct xbb_req req;
	enum xbb_refusal why;
	uint32_t i;

	for (i = 0; i < COUNTOF(seg); i++)
		seg[i] = (struct xbb_segment){ .last_sect = 0 };
	for (i = 0; i < COUNTOF(others); i++) {
		req = (struct xbb_req){
			.operation = others[i].operation,
			.indirect = others[i].indirect,
			.nseg = others[i].nseg,
			.flags = others[i].flags,
			.nsectors = others[i].nsectors,
		};
		limits = (struct xbb_limits){
			.sectors = 100,
			.sector_size = 512,
			.discard = others[i].discard,
			.read_only = others[i].read_only,
			.max_indirect_segments = others[i].most,
		};
		why = xbb_request_validate(&limits, &req, seg);
		if (why != others[i].why)
			check_failed(__FILE__, __LINE__, others[i].what,
			    why, others[i].why);
		if (why == OK)
			CHECK_EQ(req.nsectors, others[i].nseg != 0 ?
			    others[i].nseg : others[i].nsectors);
	}
}

/* Secure discards, where they are offered; else see above. */
static void
check_secure(void)
{
	struct xbb_limits limits = {
		.sectors = 100, .sector_size = 512, .discard = true,
		.secure = true,
	};
	struct xbb_req req = {
		.operation = XBB_OP_DISCARD, .flags = XBB_DISCARD_SECURE,
		.nsectors = 100,
	};

	CHECK_EQ(xbb_request_validate(&limits, &req, NULL), OK);
	req.sector = 1;
	CHECK_EQ(xbb_request_validate(&limits, &req, NULL), END);
	req.sector = 0;
	limits.read_only = true;
	CHECK_EQ(xbb_request_validate(&limits, &req, NULL),
	    XBB_REFUSED_READ_ONLY);
	limits.discard = false;
	CHECK_EQ(xbb_request_validate(&limits, &req, NULL), NEVER);
}

/* The last of many segments counts as much as the first. */
static void
check_each_segment(void)
{
	struct xbb_limits limits = { .sectors = 1000, .sector_size = 512 };
	struct xbb_req req;
	uint32_t i, bad;

	for (bad = 0; bad <= XBB_MAX_SEGMENTS; bad++) {
		memset(&req, 0, sizeof(req));
		req.operation = XBB_OP_READ;
		req.nseg = XBB_MAX_SEGMENTS;
		for (i = 0; i < XBB_MAX_SEGMENTS; i++)
			req.seg[i].last_sect = i == bad ? 8 : 7;
		CHECK_EQ(xbb_request_validate(&limits, &req, req.seg),
		    bad < XBB_MAX_SEGMENTS ? SEG : OK);
	}
}

/* What a refusal is answered with, and how much it is about as far as is known. */
static void
check_refusals(void)
{
	struct xbb_req req = { .operation = WR, .nseg = 2 };

	CHECK_EQ(xbb_refusal_status(OK), XBB_RSP_OKAY);
	CHECK_EQ(xbb_refusal_status(NEVER), XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(xbb_refusal_status(RO), XBB_RSP_ERROR);
	CHECK_EQ(xbb_refusal_status(XBB_REFUSED_GRANTS), XBB_RSP_ERROR);
	CHECK_EQ(xbb_refusal_status(PART), XBB_RSP_ERROR);

	req.seg[0].last_sect = 7;
	req.seg[1].last_sect = 3;
	CHECK_EQ(xbb_request_extent(&req), 12);
	req.seg[1].last_sect = 8;
	CHECK_EQ(xbb_request_extent(&req), 0);
	req.nseg = XBB_MAX_SEGMENTS + 1;
	CHECK_EQ(xbb_request_extent(&req), 0);
	req.nseg = 1;
	req.indirect = 1;	/* what looks like segments are references */
	CHECK_EQ(xbb_request_extent(&req), 0);
	req.nsectors = 40;	/* as was found out in the end */
	CHECK_EQ(xbb_request_extent(&req), 40);
	req = (struct xbb_req){ .operation = XBB_OP_DISCARD, .nsectors = TOP };
	CHECK_EQ(xbb_request_extent(&req), TOP);
	req.nsectors = 0;
	CHECK_EQ(xbb_request_extent(&req), 0);
}

static void
check_responses(void)
{
	static const struct {
		uint8_t		operation;
		int16_t		status;
		uint8_t		bytes[16];
	} responses[] = {
		{ RD, XBB_RSP_OKAY, { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		    0, 0, 0, 0, 0, 0, 0, 0 } },
		{ BAR, XBB_RSP_ERROR, { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		    2, 0, 0xff, 0xff, 0, 0, 0, 0 } },
		{ 255, XBB_RSP_EOPNOTSUPP, { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		    0xff, 0, 0xfe, 0xff, 0, 0, 0, 0 } },
	};
	uint32_t i, words[5];

	for (i = 0; i < COUNTOF(responses); i++) {
		memset(words, 0xee, sizeof(words));
		xbb_response_encode(0x1122334455667788,
		    responses[i].operation, responses[i].status, words);
		CHECK(memcmp(words, responses[i].bytes, 16) == 0);
		CHECK_EQ(words[4], 0xeeeeeeee);
	}
}

int
main(void)
{

	check_layouts();
	check_decode_and_encode();
	check_other_requests();
	check_decode_of_lies();
	check_rules();
	check_other_rules();
	check_secure();
	check_each_segment();
	check_refusals();
	check_responses();
	printf("%zu rules\n", COUNTOF(rules));
	return (0);
}
