/*
 * rate.c - the arithmetic of limits.  Each is one 64-bit word, the time at
 * which all that was let through would have been due at exactly the allowed
 * rate (the generic cell rate algorithm, ITU-T I.371): what is let through
 * moves it on by its cost, and as long as it is no more than a burst ahead of
 * the clock something may be.  So a batch of any size passes at some time, and
 * leaves a debt that the next one waits for.  Words are swapped atomically, by
 * as many threads and processes as share them.
 *
 * Whose turn it is among several that wait for the same words: theirs who have
 * had least, by weight (start-time fair queueing).  Each has a place where it
 * says what it had, and whether it waits.
 *
 * Whatever stands in a word is judged: what could not have been left there
 * holds nobody back for longer than a burst, or a turn.  Pure but for the
 * words; any thread and any process.
 */
#include "block/block.h"

#define NS		1000000000ULL
#define NS_OF_MS	1000000ULL
#define MOST_BURST_MS	60000ULL
/* What a ring that drains may leave at least, beside one batch. */
#define DRAINED_NS	NS
/* Bytes of the largest request, which no limit can make smaller. */
#define LARGEST		((uint64_t)XBB_MAX_INDIRECT_SEGMENTS * XBB_PAGE_SIZE)
#define LARGEST_COST_NS	(3600 * NS)
/* How far ahead of the others one may have come, whatever its place says. */
#define MOST_AHEAD_NS	(2 * LARGEST_COST_NS)
/* And how late for a turn, that is not lost by that. */
#define LATE_NS		(NS / 4)

static bool
counts_bytes(uint32_t kind)
{

	return (kind % 2 == XBB_RATE_BYTES);
}

/* Is a demand counted there? */
static bool
concerns(uint32_t kind, bool writes)
{

	return (kind <= XBB_RATE_BYTES ||
	    writes == (kind >= XBB_RATE_WRITE_IOPS));
}

/* The time that n take of so many a second, rounded. */
static uint64_t
cost_of(uint64_t n, uint64_t most)
{
	uint64_t cost, rest;

	if (most == 0 || n == 0)
		return (0);
	if (n > UINT64_MAX / NS)
		return (LARGEST_COST_NS);
	cost = n * NS / most;
	rest = n * NS % most;
	if (rest >= most - rest)
		cost++;
	return (cost < LARGEST_COST_NS ? cost : LARGEST_COST_NS);
}

static uint64_t
burst_of(uint64_t burst_ms)
{

	return ((burst_ms < MOST_BURST_MS ? burst_ms : MOST_BURST_MS) *
	    NS_OF_MS);
}

static uint64_t
greatest(uint64_t a, uint64_t b)
{

	return (a > b ? a : b);
}

/*
 * What a demand takes of the limits of a level.  So many requests may be done
 * that no limit allows yet, by a ring that ends: all of them are a debt, or who
 * connects again and again would escape.
 */
void
xbb_rate_reckon(struct xbb_rate_claim *claim,
    const struct xbb_rate_limits *limits, const struct xbb_rate_demand *demand,
    uint32_t left)
{
	uint64_t cost, most;
	uint32_t kind;

	*claim = (struct xbb_rate_claim){
		.burst_ns = burst_of(XBB_GET(limits->burst_ms)),
	};
	for (kind = 0; kind < XBB_RATE_KINDS; kind++) {
		most = XBB_GET(limits->most[kind]);
		if (most == 0 || !concerns(kind, demand->writes))
			continue;
		cost = cost_of(counts_bytes(kind) ? demand->bytes :
		    demand->operations, most);
		claim->debt_ns[kind] = greatest(greatest(claim->burst_ns,
		    DRAINED_NS), cost_of((counts_bytes(kind) ? LARGEST : 1) *
		    left, most));
		claim->cost_ns[kind] = cost < claim->debt_ns[kind] ? cost :
		    claim->debt_ns[kind];
		claim->weight_ns = greatest(claim->weight_ns,
		    claim->cost_ns[kind]);
	}
}

/* A word as it can be: not behind the clock, nor further ahead than debts. */
static uint64_t
as_it_can_be(uint64_t due, uint64_t burst, uint64_t debt, uint64_t now)
{
	const int64_t ahead = (int64_t)(due - now);

	if (ahead <= 0)
		return (now);
	return ((uint64_t)ahead <= burst + debt ? due : now + burst);
}

/*
 * How long until the limits of a level let it through, nanoseconds; if they do
 * now, since when, as a negative number or 0.
 */
int64_t
xbb_rate_wait(const struct xbb_rate_words *words,
    const struct xbb_rate_claim *claim, uint64_t now)
{
	const uint64_t burst = claim->burst_ns;
	int64_t longest, wait;
	uint64_t due;
	uint32_t kind;

	longest = INT64_MIN;
	for (kind = 0; kind < XBB_RATE_KINDS; kind++) {
		if (claim->cost_ns[kind] == 0)
			continue;
		due = as_it_can_be(XBB_GET(words->due_ns[kind]), burst,
		    claim->debt_ns[kind], now);
		wait = (int64_t)(due - now) - (int64_t)burst;
		if (wait > longest)
			longest = wait;
	}
	return (longest);
}

/* Move a word on, in any case or only if there is room: has it been? */
static bool
move_on(uint64_t *word, const struct xbb_rate_claim *claim, uint32_t kind,
    uint64_t now, bool anyhow)
{
	const uint64_t burst = claim->burst_ns;
	uint64_t due, seen;

	seen = XBB_GET(*word);
	do {
		due = as_it_can_be(seen, burst, claim->debt_ns[kind], now);
		if (due - now > burst && !anyhow)
			return (false);
		due += claim->cost_ns[kind];
		if (due - now > burst + claim->debt_ns[kind])
			due = now + burst + claim->debt_ns[kind];
	} while (!__atomic_compare_exchange_n(word, &seen, due, true,
	    __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return (true);
}

static void
give_back_some(struct xbb_rate_words *words, const struct xbb_rate_claim *claim,
    uint32_t kinds)
{
	uint32_t kind;

	for (kind = 0; kind < kinds; kind++)
		if (claim->cost_ns[kind] != 0)
			__atomic_fetch_sub(&words->due_ns[kind],
			    claim->cost_ns[kind], __ATOMIC_RELAXED);
}

/* Take it of all limits of a level, or of none: false, somebody was first. */
bool
xbb_rate_take(struct xbb_rate_words *words, const struct xbb_rate_claim *claim,
    uint64_t now)
{
	uint32_t kind;

	for (kind = 0; kind < XBB_RATE_KINDS; kind++)
		if (claim->cost_ns[kind] != 0 && !move_on(&words->due_ns[kind],
		    claim, kind, now, false)) {
			give_back_some(words, claim, kind);
			return (false);
		}
	return (true);
}

/* What was taken was not used. */
void
xbb_rate_give_back(struct xbb_rate_words *words,
    const struct xbb_rate_claim *claim)
{

	give_back_some(words, claim, XBB_RATE_KINDS);
}

/* It happens whether it may or not: a debt, as far as one can be. */
void
xbb_rate_charge(struct xbb_rate_words *words,
    const struct xbb_rate_claim *claim, uint64_t now)
{
	uint32_t kind;

	for (kind = 0; kind < XBB_RATE_KINDS; kind++)
		if (claim->cost_ns[kind] != 0)
			(void)move_on(&words->due_ns[kind], claim, kind, now,
			    true);
}

/* Limits have changed: nobody waits for debts of the former. */
void
xbb_rate_forgive(struct xbb_rate_words *words, uint64_t burst_ms, uint64_t now)
{
	const uint64_t burst = burst_of(burst_ms);
	uint64_t due, seen;
	uint32_t kind;

	for (kind = 0; kind < XBB_RATE_KINDS; kind++) {
		seen = XBB_GET(words->due_ns[kind]);
		do
			due = as_it_can_be(seen, burst, 0, now);
		while (!__atomic_compare_exchange_n(&words->due_ns[kind],
		    &seen, due, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	}
}

/*
 * May requests be merged to batches of so many pages, and none of these is more
 * than a burst?  Else each goes by itself, and nothing is let through in lumps.
 */
bool
xbb_rate_is_generous(const struct xbb_rate_limits *limits, uint32_t pages)
{
	const uint64_t burst = burst_of(XBB_GET(limits->burst_ms));
	uint32_t kind;

	for (kind = 0; kind < XBB_RATE_KINDS; kind++)
		if (cost_of(counts_bytes(kind) ? (uint64_t)pages *
		    XBB_PAGE_SIZE : pages, XBB_GET(limits->most[kind])) > burst)
			return (false);
	return (true);
}

/*
 * Where a sharer stands among the others: where it came to, but never behind
 * what was let through last, since nobody saves up for later.
 */
uint64_t
xbb_turn_of(const struct xbb_rate_words *words, uint32_t sharer)
{
	const uint64_t last = XBB_GET(words->turn);
	const uint64_t had = XBB_GET(words->sharer[sharer].had);
	const int64_t ahead = (int64_t)(had - last);

	return (ahead > 0 && ahead < (int64_t)MOST_AHEAD_NS ? had : last);
}

/* Is nobody who waits before it? */
bool
xbb_turn_is_next(const struct xbb_rate_words *words, uint32_t sharers,
    uint64_t turn)
{
	uint64_t waits;
	uint32_t i;

	for (i = 0; i < sharers; i++) {
		waits = XBB_GET(words->sharer[i].waits);
		if (waits != 0 && (int64_t)(waits - (turn | 1)) < 0)
			return (false);
	}
	return (true);
}

/* It waits, for all to see; an even number would be none. */
void
xbb_turn_wait(struct xbb_rate_words *words, uint32_t sharer, uint64_t turn)
{

	XBB_SET(words->sharer[sharer].waits, turn | 1);
}

void
xbb_turn_leave(struct xbb_rate_words *words, uint32_t sharer)
{

	if (XBB_GET(words->sharer[sharer].waits) != 0)
		XBB_SET(words->sharer[sharer].waits, 0);
}

/*
 * How far the last turn is, if one was let through with this: not beyond those
 * that wait, who would lose what is theirs if they were only late; unless they
 * are so late that they may be dead.
 */
static uint64_t
last_turn(const struct xbb_rate_words *words, uint32_t sharers, uint64_t turn,
    uint64_t weight)
{
	int64_t behind, most;
	uint64_t waits;
	uint32_t i;

	most = 0;
	for (i = 0; i < sharers; i++) {
		waits = XBB_GET(words->sharer[i].waits);
		behind = (int64_t)(turn - waits);
		if (waits != 0 && behind > most)
			most = behind;
	}
	if ((uint64_t)most > LATE_NS + 2 * weight)
		most = (int64_t)(LATE_NS + 2 * weight);
	return (turn - (uint64_t)most);
}

/*
 * It has had its turn, which weighed so much, and waits for its next one if
 * there is more to do.
 */
void
xbb_turn_taken(struct xbb_rate_words *words, uint32_t sharers, uint32_t sharer,
    uint64_t weight, bool more)
{
	const uint64_t turn = xbb_turn_of(words, sharer);

	if (more)
		xbb_turn_wait(words, sharer, turn + weight);
	else
		xbb_turn_leave(words, sharer);
	XBB_SET(words->turn, last_turn(words, sharers, turn, weight));
	XBB_SET(words->sharer[sharer].had, turn + weight);
}
