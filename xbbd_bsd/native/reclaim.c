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
#include "internal.h"

/* How often to look for what is not used any more. */
#define TRIM_MS		1000

/*
 * A ring rests if nothing came for so long, and then keeps its part of so many
 * grants of its guest.  Half a second is what a guest can wait; one that only
 * pauses maps again what it had beyond that, with a call a batch.
 */
#define REST_MS		500
#define REST_GRANTS	1024

/* What was used since then is in use, and not for whoever presses. */
#define IN_USE_NS	1000000000

/*
 * Give back, the oldest first, what nobody uses and was not used since a time,
 * or is more than so many pages or mappings.
 */
static void
give_back(struct xbb_queue *q, uint64_t since_ns, uint32_t pages,
    uint32_t mappings)
{
	struct xbb_persist *p = &q->persist;
	uint16_t c, newer;

	for (c = p->max == 0 ? XBB_NONE : p->oldest; c != XBB_NONE; c = newer) {
		newer = p->chunk[c].newer;
		if (p->chunk[c].users != 0)
			continue;
		if (p->npages <= pages && p->mappings <= mappings &&
		    p->chunk[c].used_ns >= since_ns)
			break;
		xbb_persist_unmap(q, c);
	}
}

/* A quarter less of what is more than a part. */
static uint32_t
nearer_to(uint32_t part, uint32_t kept)
{

	return (kept <= part ? kept : kept - (kept - part + 3) / 4);
}

/*
 * Somebody else lacks what is kept here.  What is not in use goes, and a
 * quarter of what is more than our part, all of that if more is kept than may
 * be; half of everything if it is the host that is short.
 */
void
xbb_persist_yield(struct xbb_queue *q, bool hard)
{
	const struct xbb_part part = xbb_budget_part(q);
	const uint64_t now = xbb_now_ns();
	const uint64_t since = now > IN_USE_NS ? now - IN_USE_NS : 0;
	const struct xbb_persist *p = &q->persist;

	if (hard)
		give_back(q, since, p->npages / 2, p->mappings / 2);
	else if (xbb_budget_is_over(q))
		give_back(q, since, part.grants, part.mappings);
	else
		give_back(q, since, nearer_to(part.grants, p->npages),
		    nearer_to(part.mappings, p->mappings));
}

/* Everything that nobody uses: it is this ring that lacks something. */
void
xbb_persist_drop_unused(struct xbb_queue *q)
{

	give_back(q, UINT64_MAX, 0, 0);
}

/* A ring at rest gives back; milliseconds until it is worth looking again. */
static int
rest(struct xbb_queue *q)
{
	const uint32_t part = xbb_budget_ring_part(q, REST_GRANTS);
	uint64_t rested_ms;

	if (q->inflight != 0 || q->persist.npages <= part)
		return (TRIM_MS);
	rested_ms = (q->trimmed_ns - q->now_ns) / 1000000;
	if (rested_ms < REST_MS)
		return ((int)(REST_MS - rested_ms));
	give_back(q, 0, part, UINT32_MAX);
	return (TRIM_MS);
}

/*
 * Unmap what is not to stay.  Milliseconds until it is worth looking again, -1
 * for never; the tunable may change meanwhile.
 */
int
xbb_persist_trim(struct xbb_queue *q)
{
	int32_t seconds;
	uint64_t limit;
	int ms;

	if (q->persist.npages == 0)
		return (-1);
	q->trimmed_ns = xbb_now_ns();
	if (xbb_budget_is_over(q))
		xbb_persist_yield(q, false);
	ms = rest(q);
	seconds = XBB_GET(q->tunables->persistent_grant_unused_seconds);
	limit = (uint64_t)seconds * 1000000000;
	if (seconds > 0 && q->trimmed_ns > limit)
		give_back(q, q->trimmed_ns - limit + 1, UINT32_MAX, UINT32_MAX);
	return (q->persist.npages == 0 ? -1 : ms);
}

/* For a ring that does not rest; and whoever presses is heard. */
void
xbb_persist_trim_at_work(struct xbb_queue *q)
{
	unsigned int hard;

	if (xbb_budget_presses(q)) {
		q->pressure = atomic_load(&q->budget->pressure);
		hard = atomic_load(&q->budget->hard_pressure);
		xbb_persist_yield(q, hard != q->hard_pressure);
		q->hard_pressure = hard;
	}
	if (q->persist.npages != 0 &&
	    q->now_ns - q->trimmed_ns > (uint64_t)TRIM_MS * 1000000)
		xbb_persist_trim(q);
}

/*
 * Unmap everything; no batch is under way.  By the ring thread at its end:
 * there may be thousands of chunks, and the control plane has other guests.
 */
void
xbb_persist_drop(struct xbb_queue *q)
{
	const struct xbb_persist *p = &q->persist;

	while (p->max != 0 && p->oldest != XBB_NONE)
		xbb_persist_unmap(q, p->oldest);
}
