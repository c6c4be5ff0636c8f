/*
 * policy.c - what is done about an error of the disk: which of an operator's
 * wishes applies to it, and how long to wait between tries.  Pure; any thread.
 */
#include "block/block.h"

/* Between tries: each wait is twice the last. */
#define FIRST_MS	100
#define LAST_MS		5000

/*
 * What a disk cannot do at all, and what is none of its doing: nothing becomes
 * of that by waiting.
 */
static bool
is_for_good(int32_t errnum)
{

	return (xbb_means_cannot(-errnum) || errnum == EFAULT || errnum == 0);
}

/* Anything else may stand in a segment. */
static uint32_t
known_policy(int32_t wanted)
{

	return (wanted >= XBB_POLICY_REPORT && wanted <= XBB_POLICY_STOP ?
	    (uint32_t)wanted : XBB_POLICY_REPORT);
}

/*
 * A disk that is gone ends the connection, unless it is to be paused: then
 * another one may take its place.  Of one that is full it is known that waiting
 * helps only when somebody makes room.
 */
uint32_t
xbb_policy_of(int32_t on_error, int32_t on_full, int32_t errnum, int gone)
{
	const uint32_t policy = known_policy(on_error);

	if (is_for_good(errnum))
		return (XBB_POLICY_REPORT);
	if (gone)
		return (policy == XBB_POLICY_PAUSE ? policy :
		    XBB_POLICY_REPORT);
	if (errnum != ENOSPC && errnum != EDQUOT)
		return (policy);
	if (on_full != XBB_POLICY_AUTO)
		return (known_policy(on_full));
	return (policy == XBB_POLICY_RETRY ? XBB_POLICY_PAUSE : policy);
}

uint32_t
xbb_policy_wait_ms(uint32_t tries)
{
	uint32_t ms;

	for (ms = FIRST_MS; tries > 0 && ms < LAST_MS; tries--)
		ms *= 2;
	return (ms < LAST_MS ? ms : LAST_MS);
}
