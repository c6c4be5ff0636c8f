/*
 * test_rate.c - the arithmetic of limits against exact fractions, with whatever
 * clock, rates and words; what several threads get through one word; and the
 * shares of those who take turns.  Arguments: rounds, seed.
 */
#include <stdio.h>
#include <string.h>

#include "harness.h"

#define NS	1000000000ULL
#define MS	1000000ULL

typedef __int128 wide;

static struct xbb_rate_limits
limits_of(uint32_t kind, uint64_t most, uint64_t burst_ms)
{
	struct xbb_rate_limits limits = { .burst_ms = burst_ms };

	limits.most[kind] = most;
	return (limits);
}

static struct xbb_rate_claim
claim_of(const struct xbb_rate_limits *limits, uint64_t operations,
    uint64_t bytes, bool writes)
{
	const struct xbb_rate_demand demand = { operations, bytes, writes };
	struct xbb_rate_claim claim;

	xbb_rate_reckon(&claim, limits, &demand, 1);
	return (claim);
}

/* A rate that is often small, often large, and sometimes in between. */
static uint64_t
draw_rate(uint64_t *seed, bool bytes)
{
	const uint64_t low = bytes ? 4096 : 1;

	switch (random_below(seed, 3)) {
	case 0:
		return (low + random_below(seed, 100));
	case 1:
		return (low + random_below(seed, 100000));
	default:
		return (low + random_below(seed, bytes ? 1ULL << 40 :
		    10000000));
	}
}

/*
 * One limit, random demands, a clock that goes on by random steps and may pass
 * its end: what is let through is what exact fractions would let through, to
 * half a nanosecond a time.
 */
static void
follow_model(uint64_t *seed)
{
	const uint32_t kind = (uint32_t)random_below(seed, XBB_RATE_KINDS);
	const bool bytes = kind % 2 == XBB_RATE_BYTES;
	const uint64_t most = draw_rate(seed, bytes);
	const uint64_t burst_ms = 10 + random_below(seed, 1000);
	const struct xbb_rate_limits limits = limits_of(kind, most, burst_ms);
	const bool writes = kind >= XBB_RATE_WRITE_IOPS;
	struct xbb_rate_words words = { 0 };
	struct xbb_rate_claim claim;
	uint64_t n, now, start, taken;
	wide due, error, wait;
	uint32_t i;

	start = now = random_below(seed, 2) == 0 ? random_next(seed) :
	    UINT64_MAX - random_below(seed, NS);
	words.due_ns[kind] = now;
	due = 0;	/* since start, in nanoseconds * most */
	taken = 0;
	for (i = 0; i < 300; i++) {
		n = bytes ? 512 * (1 + random_below(seed, 2048)) :
		    1 + random_below(seed, 3);
		claim = claim_of(&limits, bytes ? 1 : n, bytes ? n : 0, writes);
		if (due < (wide)(now - start) * most)
			due = (wide)(now - start) * most;
		wait = due - (wide)(now - start + burst_ms * MS) * most;
		error = (wide)most * (taken + 1);
		if (xbb_rate_wait(&words, &claim, now) > 0) {
			CHECK(wait > -error);
			CHECK(!xbb_rate_take(&words, &claim, now));
			now += (uint64_t)xbb_rate_wait(&words, &claim, now);
			CHECK(xbb_rate_wait(&words, &claim, now) == 0);
		} else {
			CHECK(wait < error);
			CHECK(xbb_rate_take(&words, &claim, now));
			if (claim.cost_ns[kind] < claim.debt_ns[kind])
				due += (wide)n * NS;
			else
				due += (wide)claim.debt_ns[kind] * most;
			taken++;
		}
		if (random_below(seed, 4) == 0)
			now += random_below(seed, NS / 2);
	}
}

/* However much is asked for, in a second no more passes than may, or less. */
static void
keep_to_rate(uint64_t *seed)
{
	const uint64_t most = 1 + random_below(seed, 200000);
	const struct xbb_rate_limits limits = limits_of(XBB_RATE_IOPS, most,
	    100);
	const struct xbb_rate_claim claim = claim_of(&limits, 1, 0, false);
	const uint64_t start = random_next(seed);
	struct xbb_rate_words words = { 0 };
	uint64_t passed, now;

	words.due_ns[XBB_RATE_IOPS] = start + 100 * MS;	/* none saved up */
	passed = 0;
	for (now = start; now - start < NS; now += 1 + random_below(seed, MS))
		while (xbb_rate_take(&words, &claim, now))
			passed++;
	CHECK(passed <= most + most / 1000 + 2);
	CHECK(passed + most / 500 + 2 >= most);
}

/* What is no limit, or not asked for, costs nothing; directions are apart. */
static void
tell_kinds_apart(void)
{
	struct xbb_rate_limits limits = { .burst_ms = 100 };
	struct xbb_rate_claim claim;
	uint32_t kind;

	claim = claim_of(&limits, 5, 4096, true);
	CHECK_EQ(claim.weight_ns, 0);
	for (kind = 0; kind < XBB_RATE_KINDS; kind++)
		limits.most[kind] = kind % 2 == 0 ? 1000 : 4096 * 1000;
	claim = claim_of(&limits, 3, 4096, true);
	CHECK_EQ(claim.cost_ns[XBB_RATE_IOPS], 3 * MS);
	CHECK_EQ(claim.cost_ns[XBB_RATE_BYTES], MS);
	CHECK_EQ(claim.cost_ns[XBB_RATE_READ_IOPS], 0);
	CHECK_EQ(claim.cost_ns[XBB_RATE_READ_BYTES], 0);
	CHECK_EQ(claim.cost_ns[XBB_RATE_WRITE_IOPS], 3 * MS);
	CHECK_EQ(claim.cost_ns[XBB_RATE_WRITE_BYTES], MS);
	CHECK_EQ(claim.weight_ns, 3 * MS);
	claim = claim_of(&limits, 1, 0, false);
	CHECK_EQ(claim.cost_ns[XBB_RATE_READ_IOPS], MS);
	CHECK_EQ(claim.cost_ns[XBB_RATE_BYTES], 0);
	CHECK_EQ(claim.cost_ns[XBB_RATE_WRITE_IOPS], 0);
}

/* All limits of a level, or none of them. */
static void
take_all_or_none(void)
{
	struct xbb_rate_limits limits = { .burst_ms = 100 };
	struct xbb_rate_words words = { 0 };
	struct xbb_rate_claim claim;
	const uint64_t now = 12345 * NS;

	limits.most[XBB_RATE_IOPS] = limits.most[XBB_RATE_WRITE_IOPS] = 1000;
	claim = claim_of(&limits, 1, 0, true);
	words.due_ns[XBB_RATE_IOPS] = now;
	words.due_ns[XBB_RATE_WRITE_IOPS] = now + 100 * MS + 1;
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), 1);
	CHECK(!xbb_rate_take(&words, &claim, now));
	CHECK_EQ(words.due_ns[XBB_RATE_IOPS], now);
	CHECK(xbb_rate_take(&words, &claim, now + 1));
	CHECK_EQ(words.due_ns[XBB_RATE_IOPS], now + 1 + MS);
	CHECK_EQ(words.due_ns[XBB_RATE_WRITE_IOPS], now + 101 * MS + 1);
	xbb_rate_give_back(&words, &claim);
	CHECK_EQ(words.due_ns[XBB_RATE_IOPS], now + 1);
	CHECK_EQ(words.due_ns[XBB_RATE_WRITE_IOPS], now + 100 * MS + 1);
}

/* Whatever stands there, and whatever is asked for, there is an end to it. */
static void
survive_anything(uint64_t *seed)
{
	struct xbb_rate_limits limits;
	struct xbb_rate_words words;
	struct xbb_rate_claim claim;
	const uint64_t now = random_next(seed);
	int64_t wait;
	uint32_t i;

	random_bytes(seed, &words, sizeof(words));
	random_bytes(seed, &limits, sizeof(limits));
	if (random_below(seed, 2) == 0)
		for (i = 0; i < XBB_RATE_KINDS; i++)
			limits.most[i] = draw_rate(seed, i % 2 != 0);
	if (random_below(seed, 2) == 0)
		limits.burst_ms = 10;
	claim = claim_of(&limits, random_next(seed) >> random_below(seed, 64),
	    random_next(seed) >> random_below(seed, 64), false);
	for (i = 0; i < 3; i++) {
		wait = xbb_rate_wait(&words, &claim, now);
		CHECK(wait <= (int64_t)(3600 * NS));
		if (wait <= 0)
			CHECK(xbb_rate_take(&words, &claim, now));
		else
			xbb_rate_charge(&words, &claim, now);
	}
	(void)xbb_turn_of(&words, 3);
	xbb_turn_taken(&words, XBB_RATE_SHARERS, 3, claim.weight_ns, false);
	CHECK(xbb_turn_of(&words, 3) - words.turn <= 3 * claim.weight_ns + NS);
}

/* A word that nobody could have left there holds nobody back. */
static void
judge_words(void)
{
	const struct xbb_rate_limits limits = limits_of(XBB_RATE_IOPS, 1000,
	    100);
	const struct xbb_rate_claim claim = claim_of(&limits, 1, 0, false);
	const uint64_t now = 1000 * NS;
	struct xbb_rate_words words = { 0 };
	uint64_t *due = &words.due_ns[XBB_RATE_IOPS];
	uint32_t i;

	*due = now + 2 * NS;			/* the future */
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), 0);
	CHECK(xbb_rate_take(&words, &claim, now));
	CHECK_EQ(*due, now + 101 * MS);
	*due = now + NS + 100 * MS;		/* the longest debt */
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), NS);
	*due = now - 1000 * NS;			/* the past: nothing is saved */
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), -100 * (int64_t)MS);
	CHECK(xbb_rate_take(&words, &claim, now));
	CHECK_EQ(*due, now + MS);
	*due = now + (1ULL << 63);		/* both at once */
	CHECK(xbb_rate_take(&words, &claim, now));
	CHECK_EQ(*due, now + MS);
	for (i = 0; i < XBB_RATE_KINDS; i++)
		words.due_ns[i] = now + NS;
	xbb_rate_forgive(&words, 100, now);	/* the limit was changed */
	for (i = 0; i < XBB_RATE_KINDS; i++)
		CHECK_EQ(words.due_ns[i], now + 100 * MS);
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), 0);
	*due = now + 50 * MS;
	xbb_rate_forgive(&words, 100, now);
	CHECK_EQ(*due, now + 50 * MS);
}

/* A batch that is larger than the burst passes, and is paid for afterwards. */
static void
leave_debts(void)
{
	const struct xbb_rate_limits limits = limits_of(XBB_RATE_BYTES,
	    1 << 20, 10);
	struct xbb_rate_words words = { 0 };
	struct xbb_rate_claim claim;
	const uint64_t now = 77 * NS;

	claim = claim_of(&limits, 1, 1 << 20, true);
	CHECK(xbb_rate_take(&words, &claim, now));
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), NS - 10 * MS);
	xbb_rate_charge(&words, &claim, now);
	CHECK_EQ(xbb_rate_wait(&words, &claim, now), NS);
	CHECK(!xbb_rate_is_generous(&limits, 3));
	CHECK(xbb_rate_is_generous(&limits, 2));
}

/* Threads. */

struct racer {
	struct xbb_rate_words *words;
	const struct xbb_rate_limits *limits;
	uint64_t	 until;
	uint64_t	 passed;
};

static void *
race(void *arg)
{
	struct racer *racer = arg;
	const struct xbb_rate_claim claim = claim_of(racer->limits, 1, 0, true);
	uint64_t now;

	while ((now = xbb_now_ns()) < racer->until)
		if (xbb_rate_take(racer->words, &claim, now))
			racer->passed++;
		else
			check_pause();
	return (NULL);
}

static void
share_among_threads(void)
{
	const struct xbb_rate_limits limits = limits_of(XBB_RATE_WRITE_IOPS,
	    50000, 100);
	struct xbb_rate_words words = { 0 };
	struct racer racers[4];
	pthread_t threads[4];
	uint64_t ended, passed, start;
	size_t i;

	start = xbb_now_ns();
	for (i = 0; i < COUNTOF(racers); i++) {
		racers[i] = (struct racer){ &words, &limits, start + NS / 2,
		    0 };
		CHECK_EQ(pthread_create(&threads[i], NULL, race, &racers[i]),
		    0);
	}
	passed = 0;
	for (i = 0; i < COUNTOF(racers); i++) {
		pthread_join(threads[i], NULL);
		passed += racers[i].passed;
	}
	ended = xbb_now_ns();
	/* Each of them, but what it had in a burst, moved the word on. */
	CHECK(passed <= 5000 + 1 + (ended - start) / (NS / 50000));
	CHECK(words.due_ns[XBB_RATE_WRITE_IOPS] - start >=
	    passed * (NS / 50000));
}

/* Turns. */

/*
 * Sharers that always want something, of different weights, and one that rests
 * now and then: each has as much by weight, to one batch.
 */
static void
take_turns(uint64_t *seed)
{
	const uint32_t n = 2 + (uint32_t)random_below(seed, 6);
	struct xbb_rate_words words = { 0 };
	uint64_t had[8] = { 0 }, greatest, most, least, turn, weight[8];
	uint32_t i, left, rounds;

	words.turn = random_below(seed, 2) == 0 ? UINT64_MAX - 1000 : 0;
	greatest = 0;
	for (i = 0; i < n; i++) {
		weight[i] = 1 + random_below(seed, 10000);
		if (weight[i] > greatest)
			greatest = weight[i];
		words.sharer[i].had = words.turn;
		xbb_turn_wait(&words, i, words.turn);
	}
	for (rounds = 0; rounds < 2000; rounds++) {
		left = 0;
		for (i = 0; i < n; i++) {
			turn = xbb_turn_of(&words, i);
			if (!xbb_turn_is_next(&words, n, turn))
				continue;
			xbb_turn_taken(&words, n, i, weight[i], true);
			had[i] += weight[i];
			left++;
			break;
		}
		CHECK_EQ(left, 1);		/* somebody always is */
	}
	most = 0;
	least = UINT64_MAX;
	for (i = 0; i < n; i++) {
		most = had[i] > most ? had[i] : most;
		least = had[i] < least ? had[i] : least;
	}
	CHECK(most - least <= 2 * (greatest + 1) + rounds / 100);
}

/* Nobody saves turns up by wanting nothing. */
static void
save_no_turns(void)
{
	struct xbb_rate_words words = { 0 };
	uint32_t i;

	for (i = 0; i < 100; i++)
		xbb_turn_taken(&words, 8, 0, 10, true);
	CHECK_EQ(words.turn, 990);
	CHECK_EQ(xbb_turn_of(&words, 1), 990);
	xbb_turn_wait(&words, 1, xbb_turn_of(&words, 1));
	CHECK(!xbb_turn_is_next(&words, 8, xbb_turn_of(&words, 0)));
	CHECK(xbb_turn_is_next(&words, 8, xbb_turn_of(&words, 1)));
	/* Who is late for a turn has it all the same; unless it is dead. */
	for (i = 0; i < 100; i++)
		xbb_turn_taken(&words, 8, 0, 10, true);
	CHECK_EQ(xbb_turn_of(&words, 1), 991);
	xbb_turn_taken(&words, 8, 1, 10, false);
	CHECK_EQ(words.turn, 991);
	for (i = 0; i < 100; i++)
		xbb_turn_taken(&words, 8, 0, NS, true);
	CHECK_EQ(words.turn, 2000 + 99 * NS);
	xbb_turn_wait(&words, 1, xbb_turn_of(&words, 1));
	for (i = 0; i < 100; i++)
		xbb_turn_taken(&words, 8, 0, NS, true);
	CHECK(xbb_turn_of(&words, 0) - words.turn <= 4 * NS);
	xbb_turn_leave(&words, 1);
	CHECK(xbb_turn_is_next(&words, 8, xbb_turn_of(&words, 0)));
}

/* A place that says what nobody can have had is where the others are. */
static void
judge_places(void)
{
	const uint64_t turn = UINT64_MAX - 5, most = 2 * 3600 * NS;
	struct xbb_rate_words words = { .turn = turn };

	words.sharer[2].had = turn + most - 1;
	CHECK_EQ(xbb_turn_of(&words, 2), turn + most - 1);
	words.sharer[2].had = turn + most;
	CHECK_EQ(xbb_turn_of(&words, 2), turn);
	words.sharer[2].had = turn - 1;
	CHECK_EQ(xbb_turn_of(&words, 2), turn);
}

int
main(int argc, char **argv)
{
	const uint64_t rounds = argument(argc, argv, 1, 100);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint64_t i;

	tell_kinds_apart();
	take_all_or_none();
	judge_words();
	leave_debts();
	save_no_turns();
	judge_places();
	share_among_threads();
	for (i = 0; i < rounds; i++) {
		follow_model(&seed);
		survive_anything(&seed);
		take_turns(&seed);
		if (i % 10 == 0)
			keep_to_rate(&seed);
	}
	return (0);
}
