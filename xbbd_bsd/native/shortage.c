/*
 * shortage.c - a host that is short: of mappings, of memory, of what the
 * hypervisor keeps track of grants with.  That is no fault of the request that
 * found it out, so what it is about is kept, in order, and tried again: batches
 * that are started as they are, and a request whose segments cannot be fetched
 * where it is, on the ring.  Meanwhile this ring gives back what it only keeps,
 * and others are pressed to (budget.c).
 *
 * While a queue drains tries are limited: what the host has no memory for then
 * is answered with an error, since somebody waits for the end.  Ring thread,
 * but for xbb_shortage_of().
 */
#include "internal.h"

/* Between tries; each wait is twice the last. */
#define FIRST_MS	4
#define LAST_MS		128

/* Others are pressed once in so many of the longest waits. */
#define PEACE		8

/* How long a queue that drains tries: less than a daemon has to end. */
#define DRAIN_NS	3000000000

/*
 * Is it the host that cannot, and not the guest who named what is none?
 * A hypervisor that can keep track of no more says so as to a bad reference
 * (Linux and FreeBSD make EINVAL of every status), and then not even a page can
 * be mapped that is: the ring's.  A guest that withdrew it only hurts itself.
 * Nor does the page of a dead guest map, so nobody waits for that to
 * pass while its queue drains.  Any thread of the queue.
 */
enum xbb_shortage
xbb_shortage_of(struct xbb_queue *q, int error, bool mapped)
{
	struct xbb_map map = { .refs = q->params.ring_ref, .npages = 1 };

	if (error == -ENOMEM || error == -ENOSPC)
		return (XBB_SHORT_HOST);
	if (error == -EAGAIN)
		return (XBB_SHORT_GUEST);
	if (error != -EINVAL || !mapped || atomic_load(&q->draining))
		return (XBB_SHORT_NONE);
	error = q->ops->map(q->hv, &map, false);
	if (error == 0)
		(void)xbb_unmap(q, &map);
	return (error == 0 ? XBB_SHORT_NONE : XBB_SHORT_GUEST);
}

/*
 * Something starves: make room, and set a time for the next try.  If what others
 * gave back is not enough more of that does not help either, or not soon: they
 * are left in peace for a while.
 */
void
xbb_shortage_begin(struct xbb_queue *q, enum xbb_shortage shortage)
{

	xbb_persist_drop_unused(q);
	if (q->retry_ns != 0)
		return;
	if (q->retry_ms < LAST_MS || ++q->long_waits % PEACE == 0)
		xbb_budget_press_hard(shortage == XBB_SHORT_HOST ? NULL :
		    q->budget);
	q->retry_ms = q->retry_ms == 0 ? FIRST_MS :
	    q->retry_ms < LAST_MS ? 2 * q->retry_ms : LAST_MS;
	q->retry_ns = xbb_now_ns() + (uint64_t)q->retry_ms * 1000000;
}

/*
 * Is it time for another try, where there is to be one?  Then whoever starves
 * again sets the next.
 */
bool
xbb_shortage_due(struct xbb_queue *q)
{

	if (xbb_now_ns() < q->retry_ns)
		return (false);
	q->retry_ns = 0;
	return (true);
}

/* Has it lasted longer than a queue that drains can wait? */
bool
xbb_shortage_lasts(struct xbb_queue *q)
{
	uint64_t now;

	if (!atomic_load(&q->draining))
		return (false);
	now = xbb_now_ns();
	if (q->give_up_ns == 0)
		q->give_up_ns = now + DRAIN_NS;
	return (now >= q->give_up_ns);
}

/* What starved has been done. */
void
xbb_shortage_passed(struct xbb_queue *q)
{

	q->retry_ms = 0;
}

/* How long the ring's thread may sleep, which otherwise would for limit_ms. */
int
xbb_shortage_wait(const struct xbb_queue *q, int limit_ms)
{
	uint64_t now;
	int ms;

	if (q->retry_ns == 0)
		return (limit_ms);
	now = xbb_now_ns();
	ms = now >= q->retry_ns ? 0 :
	    (int)((q->retry_ns - now + 999999) / 1000000);
	return (limit_ms >= 0 && limit_ms < ms ? limit_ms : ms);
}
