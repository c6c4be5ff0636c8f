/*
 * reclaim.c - when grants that stay mapped are given back: those that were not
 * used for long, those that others have a better claim to, and most of a ring
 * at rest.  It knows how much is kept and since when, not for what.  Ring
 * thread.
 *
 * A ring at rest keeps little: what stays mapped stays granted, and a frontend
 * with no grant left for one ring waits without a word, which looks like rest.
 * It must get back what its other rings do not need now.
 */
#include "core/core.h"

/* How often to look for what is not used any more. */
#define TRIM_MS		1000

/*
 * A ring rests if nothing came for so long, and then keeps its part of so many
 * grants of its guest.  Half a second is what a guest can wait; one that only
 * pauses maps again what it had beyond that, with a call a batch.
 */
#define REST_MS		500
#define REST_GRANTS	1024

/* Everything that nobody uses: it is this ring that lacks something. */
void
xbb_persist_drop_unused(struct xbb_persist *p)
{

	xbb_persist_give_back(p, UINT64_MAX, 0, 0);
}

/* A ring at rest gives back; milliseconds until it is worth looking again. */
static int
give_at_rest(struct xbb_persist *p)
{
	const uint32_t part = xbb_budget_ring_part(&p->share, REST_GRANTS);
	uint64_t rested_ms;

	if (p->npages <= part)
		return (TRIM_MS);
	rested_ms = (p->trimmed_ns - *p->now_ns) / 1000000;
	if (rested_ms < REST_MS)
		return ((int)(REST_MS - rested_ms));
	xbb_persist_give_back(p, 0, part, UINT32_MAX);
	return (TRIM_MS);
}

/*
 * Unmap what is not to stay; at_rest: the ring has nothing to do.  Milliseconds
 * until it is worth looking again, -1 for never; the tunable may change
 * meanwhile.
 */
int
xbb_persist_trim(struct xbb_persist *p, bool at_rest)
{
	int32_t seconds;
	uint64_t limit;
	int ms;

	if (p->npages == 0)
		return (-1);
	p->trimmed_ns = xbb_now_ns();
	if (xbb_budget_is_over(&p->share))
		xbb_persist_yield(p, false);
	ms = at_rest ? give_at_rest(p) : TRIM_MS;
	seconds = XBB_GET(*p->unused_seconds);
	limit = (uint64_t)seconds * 1000000000;
	if (seconds > 0 && p->trimmed_ns > limit)
		xbb_persist_give_back(p, p->trimmed_ns - limit + 1,
		    UINT32_MAX, UINT32_MAX);
	return (p->npages == 0 ? -1 : ms);
}

/* For a ring that does not rest; and whoever presses is heard. */
void
xbb_persist_trim_at_work(struct xbb_persist *p, bool at_rest)
{
	struct xbb_share *share = &p->share;
	unsigned int hard;

	if (xbb_budget_presses(share)) {
		share->pressure = atomic_load(&share->budget->pressure);
		hard = atomic_load(&share->budget->hard_pressure);
		xbb_persist_yield(p, hard != share->hard_pressure);
		share->hard_pressure = hard;
	}
	if (p->npages != 0 &&
	    *p->now_ns - p->trimmed_ns > (uint64_t)TRIM_MS * 1000000)
		xbb_persist_trim(p, at_rest);
}
