/*
 * hvfront.c - the one place where a filling of struct xbb_hvfront_ops is
 * chosen.
 */
#include "front/hvfront.h"

const struct xbb_hvfront_ops *
xbb_hvfront_lookup(uint32_t kind)
{
	switch (kind) {
	case XBB_HV_SIM:
		return (&xbb_hvfront_sim);
	case XBB_HV_XEN:
		return (xbb_hvfront_xen);
	default:
		return (NULL);
	}
}
