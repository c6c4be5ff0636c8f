/*
 * kind.c - the families whose devices the process of a guest serves, by what
 * the daemon's number of a device says.  Any thread.
 */
#include "guest/guest.h"

const struct xbb_kind *
xbb_kind_of(uint32_t number)
{

	switch ((number >> XBB_GUEST_UNIT_BITS) + 1) {
	case XBB_FAMILY_BLOCK:
		return (&xbb_disks);
	case XBB_FAMILY_NET:
		return (&xbb_cards);
	default:
		return (NULL);
	}
}

uint32_t
xbb_unit_of(uint32_t number)
{

	return (number & ((UINT32_C(1) << XBB_GUEST_UNIT_BITS) - 1));
}
