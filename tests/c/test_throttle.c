/*
 * test_throttle.c - the turn of others who share limits: it is left to them at
 * each level, for a moment; and the next one is waited for by whoever has more
 * to do; whether requests may be merged; how long to sleep.  A queue that has
 * no ring, and words by hand.
 */
#include <string.h>

#include "harness.h"

#define MS	1000000ULL
#define BURST	(10 * MS)

static struct xbb_rate_words words[XBB_RATE_LEVELS];
static struct xbb_rate_limits rates[XBB_RATE_LEVELS];
static struct xbb_ring_state rs;
static const struct xbb_conn_params params = { .ring = 1, .unit = 1 };
static const uint32_t pardons;
static struct xbb_queue queue;

static void
open_queue(uint32_t limited)
{
	uint32_t level;

	memset(words, 0, sizeof(words));
	memset(rates, 0, sizeof(rates));
	queue = (struct xbb_queue){ .conn.params = &params };
	queue.set.rs = &rs;
	queue.set.pardons = &pardons;
	queue.set.rates = rates;
	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		queue.set.words[level] = &words[level];
		rates[level].burst_ms = BURST / MS;
	}
	rates[limited].most[XBB_RATE_IOPS] = 1000;
}

/* One request that may go from just now on; had: more than others. */
static bool
is_asked_to_wait(uint32_t level, uint64_t had)
{
	static const struct xbb_batch batch = {
		.operation = XBB_OP_READ, .nreq = 1, .nsectors = 8,
	};
	bool waits;

	words[level].turn = 1000;
	words[level].sharer[1].had = 1000 + had;
	words[level].due_ns[XBB_RATE_IOPS] = xbb_now_ns() + BURST;
	queue.own.turn_ns = 0;
	waits = xbb_throttle_asks(&queue, &batch);
	CHECK_EQ(queue.own.turn_ns != 0, waits);
	return (waits);
}

/*
 * Another waits: who had more leaves it the turn, unless it comes late, as it
 * may on a busy machine; who had less does not.
 */
static void
check_turns(uint32_t level)
{
	uint32_t tries;

	open_queue(level);
	CHECK(!is_asked_to_wait(level, 500));
	words[level].sharer[0].waits = 1001;
	for (tries = 0; !is_asked_to_wait(level, 500); tries++)
		CHECK(tries < 1000);
	CHECK(queue.own.turn_ns <= xbb_now_ns() + 4 * MS);
	words[level].sharer[0].waits = 2001;
	for (tries = 0; tries < 100; tries++)
		CHECK(!is_asked_to_wait(level, 500));
}

/* A disk waits for its guest's next turn if any of its rings has more to do. */
static void
check_more(bool own, bool others)
{
	struct xbb_work next = { 0 };

	open_queue(XBB_RATE_GUEST);
	if (own)
		xbb_work_put(&queue.own.pending, &next);
	if (others)
		words[XBB_RATE_DISK].sharer[0].waits = 3001;
	CHECK(!is_asked_to_wait(XBB_RATE_GUEST, 0));
	CHECK_EQ(words[XBB_RATE_GUEST].sharer[1].waits != 0, own || others);
	CHECK_EQ(words[XBB_RATE_DISK].sharer[1].waits != 0, own);
}

/* Requests go each by itself where so many together are more than a burst. */
static void
check_parts(uint32_t level)
{

	open_queue(level);
	queue.set.params.max_batch_segments = BURST / MS;
	CHECK(!xbb_throttle_parts(&queue));
	queue.set.params.max_batch_segments++;
	CHECK(xbb_throttle_parts(&queue));
}

/* The thread sleeps until it is its turn, or as long as it would, or a look. */
static void
check_wait(void)
{
	static const struct { uint64_t ahead; int limit, most; } cases[] = {
		{ 20 * MS, -1, 20 }, { 20 * MS, 1000, 20 }, { 20 * MS, 7, 7 },
		{ 10000 * MS, -1, 50 }, { 10000 * MS, 1000, 50 },
		{ 10000 * MS, 7, 7 }, { 0, -1, 0 }, { 0, 7, 0 },
	};
	uint32_t i;
	int ms;

	for (i = 0; i < COUNTOF(cases); i++) {
		queue.own.turn_ns = xbb_now_ns() + cases[i].ahead;
		ms = xbb_throttle_wait(&queue, cases[i].limit);
		CHECK(ms >= 0 && ms <= cases[i].most);
		CHECK(cases[i].ahead < 10000 * MS || ms == cases[i].most);
		CHECK_EQ(xbb_throttle_wait(&queue, cases[i].limit),
		    cases[i].limit);
	}
}

int
main(void)
{
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		check_turns(level);
		check_parts(level);
	}
	check_more(false, false);
	check_more(true, false);
	check_more(false, true);
	check_more(true, true);
	check_wait();
	return (0);
}
