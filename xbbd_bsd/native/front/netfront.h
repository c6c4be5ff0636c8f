/*
 * netfront.h - the guest's end of a network card's queue from the inside, for
 * netfront.c (both rings), netsend.c (from the link to tx), netreceive.c (from
 * rx to the link) and netrelay.c (the loop).  The backend's files know nothing
 * of it.
 */
#ifndef XBB_NETFRONT_H
#define XBB_NETFRONT_H

#include "front/front.h"
#include "net/net.h"

#define NETFRONT_SLOTS	256	/* of either ring, a page each */
#define NETFRONT_BATCH	64	/* frames at a time */

/* One ring, and who has its slots. */
struct netfront_ring {
	struct xbb_sring *sring;
	uint8_t		*slots;
	uint32_t	 slot_size;
	uint32_t	 ref;
	uint32_t	 req_prod_pvt;
	uint32_t	 req_prod;	/* what the backend was told last */
	uint32_t	 rsp_cons;
	const uint32_t	*page_ref;	/* of the data pages, by id */
	uint8_t		*pages;
	bool		 busy[NETFRONT_SLOTS];	/* by id */
	uint16_t	 posted[NETFRONT_SLOTS];	/* id, by index */
	uint16_t	 free[NETFRONT_SLOTS];	/* ids, a stack */
	uint32_t	 nfree;
};

struct xbb_netfront {
	struct xbb_netfront_params params;
	const struct xbb_hvfront_ops *ops;
	struct xbb_hvfront *hv;
	uint8_t		*ring_base;	/* the page of tx, then that of rx */
	uint32_t	 ring_ref[2];
	uint8_t		*page_base;
	uint32_t	*page_ref;
	struct netfront_ring tx, rx;
	uint64_t	 gone_ns;	/* since when no backend; 0: there is */
	bool		 link_ready;	/* it may have a frame */
	struct xbb_rest	 rest;		/* to be woken by stop() */
	atomic_bool	 stop;
	struct xbb_netfront_counters counters;	/* the runner's */
};

/* Where TCP or UDP begin in a frame, and where behind; 0: neither is there. */
struct netfront_headers {
	uint32_t	l4;
	uint32_t	payload;
	uint16_t	sum;		/* offset of its field from l4 */
	uint8_t		version;	/* of IP */
};

/* netfront.c */
uint32_t netfront_unread(struct netfront_ring *ring, bool *brokenp);
uint32_t netfront_room(const struct netfront_ring *ring);
void	netfront_copy_response(const struct netfront_ring *ring, uint32_t index,
	    uint32_t *words, size_t bytes);
void	netfront_put_request(struct netfront_ring *ring, const uint32_t *words);
void	netfront_permit(struct xbb_netfront *front, uint32_t ref, int access);

/* netsend.c */
bool	netfront_send(struct xbb_netfront *front);
bool	netfront_reap_sent(struct xbb_netfront *front, bool *brokenp);
bool	netfront_may_send(const struct xbb_netfront *front);

/* netreceive.c */
void	netfront_post(struct xbb_netfront *front);
bool	netfront_receive(struct xbb_netfront *front, bool *brokenp);

#endif /* XBB_NETFRONT_H */
