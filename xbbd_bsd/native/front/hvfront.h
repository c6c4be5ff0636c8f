/*
 * hvfront.h - what a frontend needs of a hypervisor: the other half of hv/hv.h.
 * Which filling is used is decided once, from params.hv (hvfront.c).
 *
 * An object belongs to one frontend.  wait() may overlap anything; calls of the
 * others must not overlap each other.  All functions return 0 (or what is said)
 * or a negative errno.
 */
#ifndef XBB_HVFRONT_H
#define XBB_HVFRONT_H

#include "internal.h"

struct xbb_hvfront;

struct xbb_hvfront_ops {
	/* grant_fd, event_fd, port: see xbb_front_params in xbb.h. */
	int	(*open)(struct xbb_hvfront **hvp, int grant_fd, int event_fd,
		    uint32_t port, uint32_t backend_domid);
	void	(*close)(struct xbb_hvfront *hv);

	/* Contiguous zeroed pages, granted for reading and writing. */
	int	(*grant)(struct xbb_hvfront *hv, uint32_t npages,
		    uint8_t **basep, uint32_t *refs);
	/* Withdraw and give back; pages still mapped are given up for lost. */
	void	(*release)(struct xbb_hvfront *hv, uint8_t *base,
		    uint32_t npages, const uint32_t *refs);
	/*
	 * Change what a reference permits: 0 nothing, 1 reading, 2 both.
	 * -EBUSY: withdrawn while mapped, and left as it was.
	 * NULL where the hypervisor has no such call.
	 */
	int	(*set_access)(struct xbb_hvfront *hv, uint32_t ref, int access);

	/* Which get readable once there is something to take: how many. */
	int	(*descriptors)(struct xbb_hvfront *hv, int fds[2]);
	/* Wait until there is something to take: 1, or 0 after timeout_ms. */
	int	(*wait)(struct xbb_hvfront *hv, int timeout_ms);
	/* Take it: 1 event, 0 none, -EPIPE the backend has gone. */
	int	(*take)(struct xbb_hvfront *hv);
	int	(*notify)(struct xbb_hvfront *hv);
};

const struct xbb_hvfront_ops *xbb_hvfront_lookup(uint32_t kind);

extern const struct xbb_hvfront_ops xbb_hvfront_sim;

/* Real Xen, from the platform's file; NULL where that has none. */
extern const struct xbb_hvfront_ops *const xbb_hvfront_xen;

#endif /* XBB_HVFRONT_H */
