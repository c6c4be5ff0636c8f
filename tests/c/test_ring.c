/*
 * test_ring.c - the shared ring as its backend uses it, on plain memory: index
 * arithmetic at the end of 32 bits, producers that lie, which bytes are
 * written, and when either side must be told.  One thread plays both sides.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define MOST_BYTES	(XBB_MAX_RING_PAGES * XBB_PAGE_SIZE)

/* Where a ring may stand when a backend comes to it. */
static const uint32_t beginnings[] = {
	0, 1, 31, 0x7ffffff0, 0x80000000, 0xfffffff0, 0xffffffff,
};

static uint8_t	*memory, *before;

/* A response, whatever it says. */
static const uint32_t answer[4];

static struct xbb_ring
ring_at(uint32_t abi, uint32_t pages, uint32_t index)
{
	struct xbb_sring *sring = (struct xbb_sring *)(void *)memory;
	const struct xbb_layout *layout = xbb_layout(abi);
	struct xbb_ring ring;

	memset(memory, 0x5a, MOST_BYTES);
	sring->req_prod = sring->rsp_prod = index;
	sring->req_event = sring->rsp_event = index + 1;
	xbb_ring_init(&ring, memory, pages, layout->slot_size,
	    layout->rsp_size);
	CHECK_EQ(ring.nslots, xbb_max_requests(abi, pages));
	return (ring);
}

static size_t
slot_offset(const struct xbb_ring *ring, uint32_t index)
{

	return (64 + (size_t)(index % ring->nslots) * ring->slot_size);
}

/* Nothing but these bytes has changed since the copy was made. */
static void
check_untouched_but(size_t from, size_t size)
{

	CHECK(memcmp(memory, before, from) == 0);
	CHECK(memcmp(memory + from + size, before + from + size,
	    MOST_BYTES - from - size) == 0);
}

/* Several times around, requests out and responses in, byte for byte. */
static void
check_around(uint32_t abi, uint32_t pages, uint32_t begin)
{
	struct xbb_ring ring = ring_at(abi, pages, begin);
	uint32_t i, n, rounds, slot[XBB_SLOT_WORDS], unread, words[4];
	uint64_t seed = begin + abi;

	for (rounds = 0; rounds < 6; rounds++) {
		n = 1 + (uint32_t)random_below(&seed, ring.nslots);
		for (i = 0; i < n; i++)
			random_bytes(&seed, memory + slot_offset(&ring,
			    ring.sring->req_prod + i), ring.slot_size);
		ring.sring->req_prod += n;
		CHECK_EQ(xbb_ring_unread(&ring, &unread), 0);
		CHECK_EQ(unread, n);
		memcpy(before, memory, MOST_BYTES);
		for (i = 0; i < n; i++) {
			xbb_ring_copy_request(&ring, slot);
			CHECK(memcmp(slot, before + slot_offset(&ring,
			    ring.req_cons - 1), ring.slot_size) == 0);
		}
		check_untouched_but(0, 0);
		CHECK_EQ(xbb_ring_unread(&ring, &unread), 0);
		CHECK_EQ(unread, 0);
		for (i = 0; i < n; i++) {
			xbb_response_encode(i, 1, XBB_RSP_ERROR, words);
			memcpy(before + slot_offset(&ring, ring.rsp_prod_pvt),
			    words, ring.rsp_size);
			xbb_ring_put(&ring, words);
		}
		check_untouched_but(0, 0);
		memcpy(before, memory, MOST_BYTES);
		xbb_ring_push_responses(&ring);
		check_untouched_but(offsetof(struct xbb_sring, rsp_prod), 4);
		CHECK_EQ(ring.sring->rsp_prod, ring.sring->req_prod);
	}
}

/*
 * Every producer index near the truth, with some responses still owed, of which
 * some are put: true is what lies between the last request read and one ring
 * beyond the last response that was published.
 */
static void
check_lies(uint32_t begin)
{
	struct xbb_ring ring;
	uint32_t owed, put, slot[XBB_SLOT_WORDS], unread;
	int64_t ahead;
	bool possible;
	int error;

	for (owed = 0; owed <= 32; owed++) {
		ring = ring_at(XBB_ABI_NATIVE, 1, begin);
		for (unread = 0; unread < owed; unread++)
			xbb_ring_copy_request(&ring, slot);
		for (put = 0; put < owed / 2; put++)
			xbb_ring_put(&ring, answer);
		for (ahead = -70; ahead <= 70; ahead++) {
			ring.sring->req_prod = begin + (uint32_t)ahead;
			possible = ahead >= owed && ahead <= 32;
			error = xbb_ring_unread(&ring, &unread);
			CHECK_EQ(error, possible ? 0 : -EPROTO);
			if (possible)
				CHECK_EQ(unread, ahead - owed);
		}
		ring.sring->req_prod = begin + 0x80000000;
		CHECK_EQ(xbb_ring_unread(&ring, &unread), -EPROTO);
	}
}

/*
 * Nor may one be ahead of what was published by more than a ring, whatever
 * responses are filled in: there are no more table entries than slots.
 */
static void
check_unpublished(uint32_t begin)
{
	struct xbb_ring ring = ring_at(XBB_ABI_NATIVE, 1, begin);
	uint32_t i, slot[XBB_SLOT_WORDS], unread;

	ring.sring->req_prod = begin + 32;
	for (i = 0; i < 32; i++)
		xbb_ring_copy_request(&ring, slot);
	for (i = 0; i < 3; i++)
		xbb_ring_put(&ring, answer);
	ring.sring->req_prod = begin + 33;
	CHECK_EQ(xbb_ring_unread(&ring, &unread), -EPROTO);
	xbb_ring_push_responses(&ring);
	CHECK_EQ(xbb_ring_unread(&ring, &unread), 0);
	CHECK_EQ(unread, 1);
}

/*
 * Only our own copies of what we published count: a guest that writes rsp_prod
 * or req_event changes nothing.
 */
static void
check_own_indices(void)
{
	struct xbb_ring ring = ring_at(XBB_ABI_NATIVE, 1, 0);
	uint32_t slot[XBB_SLOT_WORDS], unread;

	ring.sring->req_prod = 3;
	ring.sring->rsp_prod = 77;
	ring.sring->req_event = 99;
	CHECK_EQ(xbb_ring_unread(&ring, &unread), 0);
	CHECK_EQ(unread, 3);
	xbb_ring_copy_request(&ring, slot);
	xbb_ring_put(&ring, answer);
	xbb_ring_push_responses(&ring);
	CHECK_EQ(ring.sring->rsp_prod, 1);
	CHECK(xbb_ring_want(&ring, 1));
	CHECK_EQ(ring.sring->req_event, 2);
}

/* Notify if the event index is one of those that this push passed. */
static void
check_notify_rule(uint32_t begin)
{
	struct xbb_ring ring;
	uint32_t i, pushed, slot[XBB_SLOT_WORDS];
	int64_t event;

	for (pushed = 0; pushed <= 5; pushed++)
		for (event = -40; event <= 40; event++) {
			ring = ring_at(XBB_ABI_NATIVE, 1, begin);
			for (i = 0; i < pushed; i++) {
				xbb_ring_copy_request(&ring, slot);
				xbb_ring_put(&ring, answer);
			}
			ring.sring->rsp_event = begin + (uint32_t)event;
			CHECK_EQ(xbb_ring_push_responses(&ring),
			    event >= 1 && event <= pushed);
		}
}

static void
check_final_check(uint32_t begin)
{
	struct xbb_ring ring = ring_at(XBB_ABI_X86_32, 1, begin);

	memcpy(before, memory, MOST_BYTES);
	CHECK(!xbb_ring_want(&ring, 1));
	check_untouched_but(offsetof(struct xbb_sring, req_event), 4);
	CHECK_EQ(ring.sring->req_event, begin + 1);
	ring.sring->req_prod++;
	CHECK(xbb_ring_want(&ring, 1));
	/* Of several, one is not enough. */
	CHECK(!xbb_ring_want(&ring, 2));
	CHECK_EQ(ring.sring->req_event, begin + 2);
	ring.sring->req_prod++;
	CHECK(xbb_ring_want(&ring, 2));
	/* A lie is something to look at, too. */
	ring.sring->req_prod = begin - 1;
	CHECK(xbb_ring_want(&ring, 1));
}

int
main(void)
{
	static const uint32_t pages[] = { 1, 2, 32 };
	uint32_t a, b, p;

	memory = aligned_alloc(XBB_PAGE_SIZE, MOST_BYTES);
	before = malloc(MOST_BYTES);
	CHECK(memory != NULL && before != NULL);
	for (b = 0; b < COUNTOF(beginnings); b++) {
		for (a = XBB_ABI_NATIVE; a <= XBB_ABI_X86_64; a++)
			for (p = 0; p < COUNTOF(pages); p++)
				check_around(a, pages[p], beginnings[b]);
		check_unpublished(beginnings[b]);
		check_lies(beginnings[b]);
		check_notify_rule(beginnings[b]);
		check_final_check(beginnings[b]);
	}
	check_own_indices();
	free(memory);
	free(before);
	printf("%zu beginnings\n", COUNTOF(beginnings));
	return (0);
}
