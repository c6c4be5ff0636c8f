/*
 * hv.h - what a backend's ring needs of a hypervisor, as a table of function
 * pointers.  Which filling is used is decided once, from params.hv (hv.c);
 * nothing above may ask which one it has.  A frontend's table is in
 * front/hvfront.h.
 *
 * An object belongs to one ring.  map(), unmap() and copy() may overlap
 * anything; calls of the others must not overlap each other.  All functions
 * return 0 (or what is said) or a negative errno.
 */
#ifndef XBB_HV_H
#define XBB_HV_H

#include "internal.h"

#define XBB_MAP_PAGES	256	/* room of a struct xbb_map */

/* Bytes of one granted page, and where they go to or come from. */
struct xbb_copy {
	uint8_t		*local;
	uint32_t	 ref;
	uint16_t	 offset;	/* in the page */
	uint16_t	 len;		/* offset + len: at most a page */
	int32_t		 status;	/* 0 or a negative errno, by copy() */
};

/* Granted pages, contiguous in our address space. */
struct xbb_map {
	uint8_t		*base;		/* NULL while not mapped */
	uint64_t	 token;		/* the filling's own */
	uint32_t	 npages;
	/* of our process that it takes (map()) */
	uint32_t	 mappings;
	const uint32_t	*refs;		/* the caller's */
};

struct xbb_hv;

struct xbb_hv_ops {
	/* grant_fd, event_fd: see xbb.h; domid: the frontend's domain. */
	int	(*open)(struct xbb_hv **hvp, int grant_fd, int event_fd,
		    uint32_t domid);
	void	(*close)(struct xbb_hv *hv);
	uint32_t descriptors;		/* that an object opens by itself */

	/*
	 * Connect to the frontend's event channel; the first event may be lost.
	 */
	int	(*bind)(struct xbb_hv *hv, uint32_t remote_port);
	/* Descriptor for poll(2), -1 once no event can ever come. */
	int	(*event_fd)(struct xbb_hv *hv);
	/*
	 * Take all that is pending: 1 if there was an event.  The channel is
	 * masked after it.
	 */
	int	(*take)(struct xbb_hv *hv);
	/* If the descriptor blocks take() waits, until a signal ends that. */
	bool	take_waits;
	int	(*unmask)(struct xbb_hv *hv);
	/*
	 * Let other domains have this processor until an event is pending, or
	 * something else comes up in the host, as the next tick of its clock,
	 * where there is one; or until end_doze() was called, by any thread,
	 * and a signal sent.  NULL where nobody can.
	 */
	int	(*doze)(struct xbb_hv *hv);
	void	(*end_doze)(struct xbb_hv *hv);
	int	(*notify)(struct xbb_hv *hv);

	/*
	 * Map map->refs[0 .. npages - 1].  One bad reference fails them all,
	 * with EINVAL, and so may a hypervisor that is short; ENOMEM, ENOSPC
	 * and EAGAIN say that the host is, and nothing of the guest.
	 */
	int	(*map)(struct xbb_hv *hv, struct xbb_map *map, bool writable);
	bool	maps_singly;		/* may take a mapping for each page */
	/* What fails stays mapped, maybe until close(). */
	int	(*unmap)(struct xbb_hv *hv, struct xbb_map *map);

	/*
	 * Copy up to XBB_MAP_PAGES pieces, to the guest or from it, without
	 * mapping anything.  Each gets a status of its own: EINVAL for a bad
	 * reference; of a host that is short as map().  If that cannot be done
	 * at all nothing is known of any.  NULL where the hypervisor has no
	 * such call.
	 */
	int	(*copy)(struct xbb_hv *hv, struct xbb_copy *pieces,
		    uint32_t n, bool to_guest);
	bool	(*can_copy)(struct xbb_hv *hv);
	bool	prefers_copy;		/* where it can */

	/*
	 * Have that byte of a map cleared and the frontend told when the map
	 * goes, even if our process dies.  NULL where a frontend learns of that
	 * by itself (the simulator's socket), and where nobody tells it
	 * (FreeBSD): then it learns from XenStore, once a daemon is back.
	 */
	int	(*guard)(struct xbb_hv *hv, const struct xbb_map *map,
		    uint32_t byte);

	/*
	 * What a process that is confined must be left for it: requests of
	 * ioctl(2) for either device, ended by 0, or NULL; and whether it opens
	 * files below its grant_fd, at any time (the simulator).
	 */
	const unsigned long *grant_ioctls;
	const unsigned long *event_ioctls;
	bool	opens_files;
};

const struct xbb_hv_ops	*xbb_hv_lookup(uint32_t kind);

extern const struct xbb_hv_ops xbb_hv_sim;

/* Real Xen, from the platform's file. */
extern const struct xbb_hv_ops *const xbb_hv_xen;

#endif /* XBB_HV_H */
