/*
 * throttle.c - may a batch be started yet, as far as limits go?  Those of its
 * disk, of its guest and of its group, all of which it has to keep to; and the
 * turn of others who share them.  If not, when to ask again.  What that comes
 * to is rate.c's; which batch is next, and what it must wait for otherwise,
 * order.c's.  Ring thread.
 *
 * A ring that ends is not held back, since somebody waits for its end, nor is
 * what it has when its guest begins to close; but what it does then is charged,
 * whole: of a group as far as one of its disks may keep others waiting.
 */
#include "block/block.h"

#define NS_OF_MS	1000000
/*
 * Who is held back looks again after so long at most: others change limits,
 * and damage words.
 */
#define LOOK_MS		50
/*
 * For so long whoever may go leaves it to others whose turn it is; they sleep,
 * and may be late, or be dead.  Less than any burst, so that nothing is lost.
 */
#define GRACE_NS	(4 * (int64_t)NS_OF_MS)

/* What a batch wants at one level. */
struct stake {
	struct xbb_rate_words *words;
	uint32_t	 sharer;
	uint32_t	 sharers;
	struct xbb_rate_claim claim;
	int64_t		 wait_ns;
};

static struct xbb_rate_demand
demand_of(const struct xbb_batch *batch)
{
	const bool moves = batch->operation != XBB_OP_DISCARD;

	return ((struct xbb_rate_demand){
		.operations = batch->nreq,
		.bytes = moves ? batch->nsectors * XBB_SECTOR_SIZE : 0,
		.writes = batch->operation != XBB_OP_READ,
	});
}

/*
 * Rings share what their disk may do, whichever limit that is, and disks what
 * their guest and their group may.
 */
static void
find_stakes(struct xbb_queue *q, const struct xbb_batch *batch,
    struct stake stakes[XBB_RATE_LEVELS])
{
	const struct xbb_rate_demand demand = demand_of(batch);
	const struct xbb_conn_params *params = q->conn.params;
	struct stake *s;
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		s = &stakes[level];
		s->words = q->set.words[level];
		s->sharer = (level == XBB_RATE_DISK ? params->ring :
		    params->unit) % XBB_RATE_SHARERS;
		s->sharers = level == XBB_RATE_DISK ? XBB_MAX_RINGS :
		    XBB_RATE_SHARERS;
		xbb_rate_reckon(&s->claim, &q->set.rates[level], &demand,
		    level == XBB_RATE_GROUP ? 1 : XBB_MAX_REQUESTS);
	}
}

static uint64_t
weight_of(const struct stake stakes[XBB_RATE_LEVELS])
{
	uint64_t weight;
	uint32_t level;

	weight = 0;
	for (level = 0; level < XBB_RATE_LEVELS; level++)
		if (stakes[level].claim.weight_ns > weight)
			weight = stakes[level].claim.weight_ns;
	return (weight);
}

/* The longest wait of all levels: nanoseconds, negative if there is none. */
static int64_t
longest_wait(struct stake stakes[XBB_RATE_LEVELS], uint64_t now)
{
	int64_t longest;
	uint32_t level;

	longest = INT64_MIN;
	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		stakes[level].wait_ns = xbb_rate_wait(stakes[level].words,
		    &stakes[level].claim, now);
		if (stakes[level].wait_ns > longest)
			longest = stakes[level].wait_ns;
	}
	return (longest);
}

/*
 * Say at each level that this one waits there; where something else holds it
 * back for longer it does not, as nobody needs to leave it the turn.
 */
static void
stand_in_line(const struct stake stakes[XBB_RATE_LEVELS], int64_t wait)
{
	const struct stake *s;
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		s = &stakes[level];
		if (level == XBB_RATE_DISK || (s->claim.weight_ns != 0 &&
		    (wait <= 0 || s->wait_ns >= wait)))
			xbb_turn_wait(s->words, s->sharer,
			    xbb_turn_of(s->words, s->sharer));
		else
			xbb_turn_leave(s->words, s->sharer);
	}
}

/* How long others are to be waited for, who share a level and had less. */
static int64_t
wait_for_others(const struct stake stakes[XBB_RATE_LEVELS], int64_t wait)
{
	const struct stake *s;
	int64_t left, longest;
	uint32_t level;

	longest = 0;
	for (level = 0; level < XBB_RATE_LEVELS; level++) {
		s = &stakes[level];
		if (level != XBB_RATE_DISK && s->claim.weight_ns == 0)
			continue;
		left = GRACE_NS + (level == XBB_RATE_DISK ? wait : s->wait_ns);
		if (left > longest && !xbb_turn_is_next(s->words, s->sharers,
		    xbb_turn_of(s->words, s->sharer)))
			longest = left;
	}
	return (longest);
}

static bool
take_all(struct stake stakes[XBB_RATE_LEVELS], uint64_t now)
{
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++)
		if (!xbb_rate_take(stakes[level].words, &stakes[level].claim,
		    now)) {
			while (level-- > 0)
				xbb_rate_give_back(stakes[level].words,
				    &stakes[level].claim);
			return (false);
		}
	return (true);
}

static void
charge_all(struct stake stakes[XBB_RATE_LEVELS], uint64_t now)
{
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++)
		xbb_rate_charge(stakes[level].words, &stakes[level].claim, now);
}

/* Is there anything else that this ring will want to start? */
static bool
has_more(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	const struct xbb_work *first = q->own.pending.head;

	return (first != NULL && (first != &batch->work ||
	    first->next != NULL));
}

/* Does another ring of the disk wait? */
static bool
others_wait(const struct stake *disk)
{
	uint32_t i;

	for (i = 0; i < disk->sharers; i++)
		if (i != disk->sharer &&
		    XBB_GET(disk->words->sharer[i].waits) != 0)
			return (true);
	return (false);
}

/* It goes: the next turn is another's. */
static void
pass_on(const struct xbb_queue *q, const struct xbb_batch *batch,
    const struct stake stakes[XBB_RATE_LEVELS])
{
	const struct stake *s = &stakes[XBB_RATE_DISK];
	uint32_t level;
	bool more;

	more = has_more(q, batch);
	xbb_turn_taken(s->words, s->sharers, s->sharer, weight_of(stakes),
	    more);
	more |= others_wait(s);
	for (level = XBB_RATE_GUEST; level < XBB_RATE_LEVELS; level++) {
		s = &stakes[level];
		if (s->claim.weight_ns != 0)
			xbb_turn_taken(s->words, s->sharers, s->sharer,
			    s->claim.weight_ns, more);
		else
			xbb_turn_leave(s->words, s->sharer);
	}
}

/* Count for how long the next batch has been held back, as far as it has. */
static void
count_hold(struct xbb_queue *q, bool held, uint64_t now)
{
	struct xbb_counters *c = &q->set.rs->counters;

	if (q->own.throttled_ns != 0)
		XBB_COUNT(c->throttled_ns, now - q->own.throttled_ns);
	else if (held)
		XBB_COUNT(c->throttled, 1);
	q->own.throttled_ns = held ? now : 0;
}

/*
 * Is it among those that were accepted when its guest began to close?  They are
 * at most a ring's worth.
 */
static bool
is_pardoned(struct xbb_queue *q, const struct xbb_batch *batch)
{
	const uint32_t pardons = XBB_GET(*q->set.pardons);

	if (pardons != q->own.pardon_seen) {
		q->own.pardon_seen = pardons;
		q->own.pardoned = q->own.inflight;
	}
	if (q->own.pardoned == 0)
		return (false);
	q->own.pardoned -= batch->nreq < q->own.pardoned ? batch->nreq :
	    q->own.pardoned;
	return (true);
}

/* How long until it may be started; 0: it is charged, and to be started now. */
static int64_t
wait_or_take(struct xbb_queue *q, const struct xbb_batch *batch,
    struct stake stakes[XBB_RATE_LEVELS], uint64_t now)
{
	int64_t wait;

	if (atomic_load(&q->conn.draining) || is_pardoned(q, batch)) {
		charge_all(stakes, now);
		return (0);
	}
	do {
		wait = longest_wait(stakes, now);
		if (wait <= 0)
			wait = wait_for_others(stakes, wait);
		if (wait > 0)
			return (wait);
		/* Somebody else took it: so it has to be waited for now. */
	} while (!take_all(stakes, now));
	return (0);
}

/*
 * Must a batch that is next wait for a limit, or for its turn?  If not it is
 * charged and has to be started.  Only asked if there are limits, or something
 * is held back (xbb_throttle_holds()).
 */
bool
xbb_throttle_asks(struct xbb_queue *q, const struct xbb_batch *batch)
{
	struct stake stakes[XBB_RATE_LEVELS];
	const uint64_t now = xbb_now_ns();
	int64_t wait;

	find_stakes(q, batch, stakes);
	wait = 0;
	if (weight_of(stakes) != 0)
		wait = wait_or_take(q, batch, stakes, now);
	count_hold(q, wait > 0, now);
	if (wait > 0) {
		stand_in_line(stakes, longest_wait(stakes, now));
		q->own.turn_ns = now + (uint64_t)wait;
	} else
		pass_on(q, batch, stakes);
	return (wait > 0);
}

/* Are limits so close that merged requests would go in lumps? */
bool
xbb_throttle_parts(const struct xbb_queue *q)
{
	uint32_t level;

	for (level = 0; level < XBB_RATE_LEVELS; level++)
		if (!xbb_rate_is_generous(&q->set.rates[level],
		    q->set.params.max_batch_segments))
			return (true);
	return (false);
}

/*
 * How long the ring's thread may sleep, which otherwise would for limit_ms.
 * Whoever is held back says so anew each time.
 */
int
xbb_throttle_wait(struct xbb_queue *q, int limit_ms)
{
	const uint64_t until = q->own.turn_ns;
	uint64_t ms, now;

	if (until == 0)
		return (limit_ms);
	q->own.turn_ns = 0;
	now = xbb_now_ns();
	ms = now >= until ? 0 : (until - now + NS_OF_MS - 1) / NS_OF_MS;
	if (ms > LOOK_MS)
		ms = LOOK_MS;
	return (limit_ms >= 0 && limit_ms < (int)ms ? limit_ms : (int)ms);
}
