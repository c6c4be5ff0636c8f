/*
 * shortage.c - a host that is short: of mappings, of memory, of what the
 * hypervisor keeps track of grants with.  That is no fault of the request that
 * found it out, so the family keeps what it is about, in order, and tries again
 * when it is time to.  Meanwhile its ring gives back what it only keeps, and
 * others are pressed to (budget.c).
 *
 * While a ring drains tries are limited: what the host has no memory for then
 * is answered with an error, since somebody waits for the end.  Ring thread.
 */
#include "core/core.h"

/* Between tries; each wait is twice the last. */
#define FIRST_MS	4
#define LAST_MS		128

/* Others are pressed once in so many of the longest waits. */
#define PEACE		8

/* How long a ring that drains tries: less than a daemon has to end. */
#define DRAIN_NS	3000000000

/*
 * Something starves: make room, and set a time for the next try.  If what
 * others gave back is not enough more of that does not help either, or not
 * soon: they are left in peace for a while.
 */
void
xbb_shortage_begin(struct xbb_retry *retry, struct xbb_persist *p,
    enum xbb_shortage shortage)
{

	xbb_persist_drop_unused(p);
	if (retry->at_ns != 0)
		return;
	if (retry->wait_ms < LAST_MS || ++retry->long_waits % PEACE == 0)
		xbb_budget_press_hard(shortage == XBB_SHORT_HOST ? NULL :
		    p->share.budget);
	retry->wait_ms = retry->wait_ms == 0 ? FIRST_MS :
	    retry->wait_ms < LAST_MS ? 2 * retry->wait_ms : LAST_MS;
	retry->at_ns = xbb_now_ns() + (uint64_t)retry->wait_ms * 1000000;
}

/*
 * Is it time for another try, where there is to be one?  Then whoever starves
 * again sets the next.
 */
bool
xbb_shortage_due(struct xbb_retry *retry)
{

	if (xbb_now_ns() < retry->at_ns)
		return (false);
	retry->at_ns = 0;
	return (true);
}

/* Has it lasted longer than a ring that ends can wait? */
bool
xbb_shortage_lasts(struct xbb_retry *retry, const struct xbb_conn *conn)
{
	uint64_t now;

	if (!xbb_conn_ends(conn))
		return (false);
	now = xbb_now_ns();
	if (retry->give_up_ns == 0)
		retry->give_up_ns = now + DRAIN_NS;
	return (now >= retry->give_up_ns);
}

/* What starved has been done. */
void
xbb_shortage_passed(struct xbb_retry *retry)
{

	retry->wait_ms = 0;
}

/* How long the ring's thread may sleep, which otherwise would for limit_ms. */
int
xbb_shortage_wait(const struct xbb_retry *retry, int limit_ms)
{
	uint64_t now;
	int ms;

	if (retry->at_ns == 0)
		return (limit_ms);
	now = xbb_now_ns();
	ms = now >= retry->at_ns ? 0 :
	    (int)((retry->at_ns - now + 999999) / 1000000);
	return (limit_ms >= 0 && limit_ms < ms ? limit_ms : ms);
}
