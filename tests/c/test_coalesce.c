/*
 * test_coalesce.c - which requests become one batch and which batches overlap:
 * each rule by hand, then random sequences against a second opinion
 * (batches.c).  Arguments: sequences, seed.  Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define MOST_REQS	XBB_MAX_REQUESTS

static const struct xbb_coalesce usual = { .max_segments = 64 };

static struct xbb_req
request(uint8_t operation, uint64_t sector, uint8_t nseg)
{

	return ((struct xbb_req){
		.operation = operation,
		.sector = sector,
		.nseg = nseg,
		.nsectors = nseg * 8U,
	});
}

/* Does b join a? */
static bool
joins(struct xbb_req a, struct xbb_req b, struct xbb_coalesce limits)
{
	struct xbb_req reqs[2] = { a, b };
	struct xbb_batch batch;

	memset(&batch, 0xee, sizeof(batch));
	xbb_batch_begin(&batch, reqs, 0);
	return (xbb_batch_admits(&batch, &reqs[1], &limits));
}

static void
check_rules(void)
{
	const struct xbb_req read = request(XBB_OP_READ, 100, 2);
	const struct xbb_req write = request(XBB_OP_WRITE, 100, 2);
	const struct xbb_req flush = request(XBB_OP_FLUSH_DISKCACHE, 0, 0);
	const struct xbb_req durable = request(XBB_OP_FLUSH_DISKCACHE, 100, 2);
	const struct xbb_req barrier = request(XBB_OP_WRITE_BARRIER, 100, 2);
	const struct xbb_req discard = {
		.operation = XBB_OP_DISCARD, .sector = 100, .nsectors = 16,
	};
	struct xbb_req secure = discard, after = discard;
	struct xbb_coalesce limits = usual;

	CHECK(joins(read, request(XBB_OP_READ, 116, 1), usual));
	CHECK(joins(write, request(XBB_OP_WRITE, 116, 11), usual));
	CHECK(!joins(read, request(XBB_OP_WRITE, 116, 1), usual));
	CHECK(!joins(read, request(XBB_OP_READ, 115, 1), usual));
	CHECK(!joins(read, request(XBB_OP_READ, 117, 1), usual));
	CHECK(!joins(read, request(XBB_OP_READ, 92, 1), usual));
	CHECK(!joins(write, write, usual));

	CHECK(joins(flush, flush, usual));
	CHECK(joins(flush, request(XBB_OP_FLUSH_DISKCACHE, 7777, 0), usual));
	CHECK(!joins(flush, durable, usual));
	CHECK(!joins(durable, flush, usual));
	CHECK(!joins(durable, request(XBB_OP_FLUSH_DISKCACHE, 116, 2), usual));
	CHECK(!joins(write, flush, usual));
	CHECK(!joins(barrier, request(XBB_OP_WRITE_BARRIER, 116, 2), usual));
	CHECK(!joins(barrier, request(XBB_OP_WRITE_BARRIER, 0, 0), usual));
	CHECK(!joins(write, request(XBB_OP_WRITE_BARRIER, 116, 2), usual));

	CHECK(joins(discard, request(XBB_OP_DISCARD, 116, 0), usual));
	CHECK(!joins(discard, request(XBB_OP_DISCARD, 117, 0), usual));
	CHECK(!joins(discard, request(XBB_OP_WRITE, 116, 1), usual));
	CHECK(!joins(write, request(XBB_OP_DISCARD, 116, 0), usual));
	secure.flags = XBB_DISCARD_SECURE;
	after.sector = 116;
	CHECK(joins(discard, after, usual));
	CHECK(!joins(secure, after, usual));
	after.flags = XBB_DISCARD_SECURE;
	CHECK(!joins(discard, after, usual));
	CHECK(joins(secure, after, usual));

	limits.max_segments = 11;
	CHECK(joins(read, request(XBB_OP_READ, 116, 9), limits));
	CHECK(!joins(read, request(XBB_OP_READ, 116, 10), limits));
	limits.disabled = true;
	CHECK(!joins(read, request(XBB_OP_READ, 116, 1), limits));
	CHECK(!joins(flush, flush, limits));
}

/* Batches are used again: nothing of the last use is left, nor anything added. */
static void
check_begin(void)
{
	const struct xbb_tally none = { 0 };
	struct xbb_req reqs[2] = {
		request(XBB_OP_READ, 100, 2), request(XBB_OP_WRITE, 300, 3),
	};
	struct xbb_batch batch;

	memset(&batch, 0xee, sizeof(batch));
	xbb_batch_begin(&batch, reqs, 1);
	CHECK(memcmp(&batch.tally, &none, sizeof(none)) == 0);
	CHECK_EQ(batch.sector, 300);
	CHECK_EQ(batch.nsectors, 24);
	CHECK_EQ(batch.nseg, 3);
	CHECK_EQ(batch.nreq, 1);
	CHECK_EQ(batch.first, 1);
	CHECK_EQ(batch.last, 1);
	CHECK_EQ(batch.operation, XBB_OP_WRITE);
	CHECK(!batch.faked);
	CHECK(!batch.flushed);
	CHECK(!batch.persistent);
	CHECK_EQ(batch.begun_ns, 0);
	CHECK_EQ(batch.ended_ns, 0);
	CHECK(batch.work.next == NULL);
	CHECK_EQ(reqs[1].next, XBB_NONE);
}

/* Any of the four sectors from here on? */
static bool
touches(const struct xbb_batch *batch, uint64_t sector)
{

	return (batch->sector < sector + 4 &&
	    batch->sector + batch->nsectors > sector);
}

/* Sector ranges small enough to be compared sector by sector. */
static void
check_overlap(void)
{
	struct xbb_batch a = { .sector = 0 }, b = { .sector = 0 };
	uint64_t s;
	bool common;

	for (a.sector = 0; a.sector < 6; a.sector++)
	for (a.nsectors = 1; a.nsectors < 6; a.nsectors++)
	for (b.sector = 0; b.sector < 6; b.sector++)
	for (b.nsectors = 1; b.nsectors < 6; b.nsectors++) {
		common = false;
		for (s = 0; s < 12; s++)
			common |= s >= a.sector && s < a.sector + a.nsectors &&
			    s >= b.sector && s < b.sector + b.nsectors;
		CHECK_EQ(xbb_batch_overlaps(&a, &b, 512), common);
		/* A larger block is shared by more. */
		common = false;
		for (s = 0; s < 3; s++)
			common |= touches(&a, s * 4) && touches(&b, s * 4);
		CHECK_EQ(xbb_batch_overlaps(&a, &b, 2048), common);
	}
	/* What has no sectors overlaps nothing, wherever it is said to be. */
	for (a.sector = 0; a.sector < 6; a.sector++)
	for (b.sector = 0; b.sector < 6; b.sector++)
	for (b.nsectors = 0; b.nsectors < 6; b.nsectors++) {
		a.nsectors = 0;
		CHECK(!xbb_batch_overlaps(&a, &b, 512));
		CHECK(!xbb_batch_overlaps(&b, &a, 512));
		CHECK(!xbb_batch_overlaps(&a, &b, 4096));
		CHECK(!xbb_batch_overlaps(&b, &a, 4096));
	}
}

static void
check_kinds(void)
{
	static const struct {
		uint8_t		operation, nseg;
		bool		writes, barrier, flush, flushes;
	} kinds[] = {
		{ XBB_OP_READ, 1, false, false, false, false },
		{ XBB_OP_WRITE, 1, true, false, false, false },
		{ XBB_OP_WRITE, 0, false, false, false, false },
		{ XBB_OP_WRITE_BARRIER, 1, true, true, false, true },
		{ XBB_OP_WRITE_BARRIER, 0, false, true, false, true },
		{ XBB_OP_FLUSH_DISKCACHE, 1, true, true, false, true },
		{ XBB_OP_FLUSH_DISKCACHE, 0, false, false, true, true },
		{ XBB_OP_DISCARD, 1, true, false, false, false },
	};
	struct xbb_batch batch;
	struct xbb_req req;
	uint32_t i;

	for (i = 0; i < COUNTOF(kinds); i++) {
		req = request(kinds[i].operation, 8, kinds[i].nseg);
		xbb_batch_begin(&batch, &req, 0);
		CHECK_EQ(xbb_batch_writes(&batch), kinds[i].writes);
		CHECK_EQ(xbb_batch_is_barrier(&batch), kinds[i].barrier);
		CHECK_EQ(xbb_batch_is_flush(&batch), kinds[i].flush);
		CHECK_EQ(xbb_batch_flushes(&batch), kinds[i].flushes);
		batch.faked = true;
		CHECK(!xbb_batch_flushes(&batch));
	}
}

static void
check_list(void)
{
	struct xbb_batch batch[3];
	struct xbb_work_list list = { 0 };
	uint32_t i, round;

	memset(batch, 0xee, sizeof(batch));
	for (round = 0; round < 2; round++) {
		CHECK(xbb_work_take(&list) == NULL);
		for (i = 0; i < 3; i++)
			xbb_work_put(&list, &batch[i].work);
		CHECK_EQ(list.count, 3);
		for (i = 0; i < 3; i++) {
			CHECK(list.tail == &batch[2].work);
			CHECK(list.tail->next == NULL);
			CHECK(xbb_batch_of(xbb_work_take(&list)) == &batch[i]);
			CHECK(batch[i].work.next == NULL);
			CHECK_EQ(list.count, 2 - i);
		}
		CHECK_EQ(list.count, 0);
		CHECK(list.head == NULL && list.tail == NULL);
	}
}

/* Mostly what goes on where the last request ended, as real guests do. */
static void
check_random(struct batches *batches, struct xbb_req *reqs, uint64_t *seed)
{
	static const uint8_t operations[] = {
		XBB_OP_READ, XBB_OP_READ, XBB_OP_READ, XBB_OP_WRITE,
		XBB_OP_WRITE, XBB_OP_WRITE_BARRIER, XBB_OP_FLUSH_DISKCACHE,
		XBB_OP_DISCARD,
	};
	uint64_t sector = 0;
	uint32_t i, n, same;
	uint8_t nseg, operation = 0;

	n = 1 + (uint32_t)random_below(seed, MOST_REQS);
	same = 1 + (uint32_t)random_below(seed, 20);
	batches->limits = (struct xbb_coalesce){
		.max_segments = XBB_MAX_SEGMENTS + (uint32_t)random_below(seed,
		    XBB_MAX_BATCH_SEGMENTS - XBB_MAX_SEGMENTS + 1),
		.disabled = random_below(seed, 10) == 0,
	};
	batches->nbatches = batches->nreqs = 0;
	for (i = 0; i < n; i++) {
		if (random_below(seed, same) == 0)
			operation = operations[random_below(seed,
			    COUNTOF(operations))];
		if (random_below(seed, same) == 0)
			sector = random_below(seed, 500);
		nseg = (uint8_t)(1 + random_below(seed, XBB_MAX_SEGMENTS));
		if (operation >= XBB_OP_WRITE_BARRIER &&
		    random_below(seed, 4) != 0)
			nseg = 0;
		reqs[i] = request(operation, sector, nseg);
		if (operation == XBB_OP_DISCARD) {
			reqs[i].nseg = 0;
			reqs[i].nsectors = 1 + random_below(seed, 1 << 20);
		}
		reqs[i].next = (uint16_t)random_next(seed);
		sector += reqs[i].nsectors;
		batches_add(batches, reqs);
	}
	batches_check(batches, reqs);
}

int
main(int argc, char **argv)
{
	uint64_t n = argument(argc, argv, 1, 300);
	uint64_t seed = argument(argc, argv, 2, 1);
	struct batches batches;
	struct xbb_req *reqs;
	uint64_t i;

	printf("%ju sequences, seed %ju\n", (uintmax_t)n, (uintmax_t)seed);
	check_begin();
	check_rules();
	check_overlap();
	check_kinds();
	check_list();
	batches.batch = calloc(MOST_REQS, sizeof(*batches.batch));
	reqs = calloc(MOST_REQS, sizeof(*reqs));
	CHECK(batches.batch != NULL && reqs != NULL);
	for (i = 0; i < n; i++)
		check_random(&batches, reqs, &seed);
	free(batches.batch);
	free(reqs);
	return (0);
}
