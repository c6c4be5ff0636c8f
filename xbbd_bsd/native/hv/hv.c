/*
 * hv.c - the one place where a filling of struct xbb_hv_ops is chosen.
 */
#include "hv/hv.h"

const struct xbb_hv_ops *
xbb_hv_lookup(uint32_t kind)
{
	switch (kind) {
	case XBB_HV_SIM:
		return (&xbb_hv_sim);
	case XBB_HV_XEN:
		return (xbb_hv_xen);
	default:
		return (NULL);
	}
}
