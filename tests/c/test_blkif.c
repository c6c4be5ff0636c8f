/*
 * test_blkif.c - slots of the three ABIs as literal bytes, written down from
 * Xen's blkif.h, not from our table.  What a valid request is, is in
 * test_validate.c.  Pure.
 */
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
			CHECK_EQ(xbb_ring_slots(layout->slot_size, 1U << order),
			    abis[a].slots[order]);
	}
	for (order = 0; order <= XBB_MAX_RING_ORDER; order++)
		CHECK_EQ(xbb_max_requests(XBB_ABI_X86_32, 1U << order),
		    abis[XBB_ABI_X86_32].slots[order]);
	CHECK_EQ(xbb_max_requests(3, 1), 0);
	/* One that fits exactly: 64 bytes and 32 slots of 126. */
	CHECK_EQ(xbb_ring_slots(126, 1), 32);
	CHECK_EQ(xbb_ring_slots(127, 1), 16);
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

static void
check_responses(void)
{
	static const struct {
		uint8_t		operation;
		int16_t		status;
		uint8_t		bytes[16];
	} responses[] = {
		{ XBB_OP_READ, XBB_RSP_OKAY, { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		    0, 0, 0, 0, 0, 0, 0, 0 } },
		{ XBB_OP_WRITE_BARRIER, XBB_RSP_ERROR, { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
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
	check_responses();
	return (0);
}
