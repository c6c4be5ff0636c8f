/*
 * pause.c - a disk of which nothing is begun for a while: what the state
 * segment says of that, and how a ring follows.  The word is the segment's, so
 * that it outlives whoever serves the disk, and is the same for all its rings
 * in whatever process.  The first half any thread, the second the ring's.
 */
#include "block/block.h"

void
xbb_pause_begin(struct xbb_pause *pause, uint32_t why)
{
	uint64_t none = 0;

	xbb_may_die();
	__atomic_compare_exchange_n(&pause->since_ns, &none, xbb_wall_ns(),
	    false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	xbb_may_die();
	__atomic_fetch_or(&pause->why, why, __ATOMIC_RELEASE);
}

/* Rings look at the serial first, which says that the rest has changed. */
void
xbb_state_pause(struct xbb_state *state, uint32_t why)
{

	xbb_pause_begin(&state->pause, why);
	__atomic_fetch_add(&state->pause.serial, 1, __ATOMIC_SEQ_CST);
}

void
xbb_state_resume(struct xbb_state *state)
{

	XBB_SET(state->pause.since_ns, 0);
	__atomic_store_n(&state->pause.why, 0, __ATOMIC_RELEASE);
	__atomic_fetch_add(&state->pause.serial, 1, __ATOMIC_SEQ_CST);
}

void
xbb_state_unpause(struct xbb_state *state, uint32_t why)
{

	if (__atomic_and_fetch(&state->pause.why, ~why, __ATOMIC_RELEASE) == 0)
		XBB_SET(state->pause.since_ns, 0);
	__atomic_fetch_add(&state->pause.serial, 1, __ATOMIC_SEQ_CST);
}

int
xbb_state_followed(const struct xbb_state *state)
{
	const uint32_t serial = __atomic_load_n(&state->pause.serial,
	    __ATOMIC_ACQUIRE);
	const struct xbb_ring_state *rs;
	uint32_t i, rings;

	rings = xbb_state_rings(state);
	for (i = 0; i < rings; i++) {
		rs = &state->ring[i];
		if (XBB_GET(rs->common.connected) != 0 &&
		    __atomic_load_n(&rs->pause_seen, __ATOMIC_ACQUIRE) !=
		    serial)
			return (0);
	}
	return (1);
}

/* Of a ring. */

/* Is nothing of it at the disk, or on the way there? */
bool
xbb_pause_is_still(const struct xbb_queue *q)
{

	return (q->own.nstarted == q->own.held.count &&
	    (q->set.store->is_still == NULL || q->set.store->is_still(q)));
}

/* A ring is opened: it has followed nothing yet. */
void
xbb_pause_open(struct xbb_queue *q)
{

	q->own.pause_seen = XBB_GET(q->set.pause->serial) - 1;
	q->own.pause_heard = q->own.pause_seen;
	XBB_SET(q->set.rs->pause_seen, q->own.pause_seen);
}

/* Is there a word that it has not heard, or could follow now? */
bool
xbb_pause_has_news(const struct xbb_queue *q)
{
	const uint32_t serial = __atomic_load_n(&q->set.pause->serial,
	    __ATOMIC_ACQUIRE);

	return (serial != q->own.pause_heard || (serial != q->own.pause_seen &&
	    (!xbb_pause_is_on(q) || xbb_pause_is_still(q))));
}

/*
 * If the disk is paused, and nothing of it is under way, that has been
 * followed; as has its end, as soon as we know of it.  True if there was such a
 * word: what was left alone before it may be begun now, and the store may have
 * something to do first.
 */
bool
xbb_pause_follow(struct xbb_queue *q)
{
	const uint32_t serial = __atomic_load_n(&q->set.pause->serial,
	    __ATOMIC_ACQUIRE);

	if (serial != q->own.pause_heard) {
		q->own.pause_heard = serial;
		return (true);
	}
	if (serial == q->own.pause_seen ||
	    (xbb_pause_is_on(q) && !xbb_pause_is_still(q)))
		return (false);
	q->own.pause_seen = serial;
	__atomic_store_n(&q->set.rs->pause_seen, serial, __ATOMIC_RELEASE);
	return (true);
}
