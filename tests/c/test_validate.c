/*
 * test_validate.c - what a valid request is, why any other is refused, and what
 * a refusal is answered with.  Pure.
 */
#include <stdio.h>
#include <string.h>

#include "harness.h"

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

/* Each row is one rule; the segments are all alike. */
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

int
main(void)
{

	check_rules();
	check_other_rules();
	check_secure();
	check_each_segment();
	check_refusals();
	printf("%zu rules\n", COUNTOF(rules));
	return (0);
}
