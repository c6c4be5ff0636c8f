/*
 * net.h - the room of network cards, from inside: its parts that are pure
 * (netif.h, offload.h) on top of what any ring has, and a queue, which is two
 * rings and a thread.
 *
 * A queue carries packets in sweeps, by turns one of the guest's to the link
 * (transmit.c) and one of the link's to the guest (receive.c).  A sweep is up
 * to XBB_NET_SWEEP packets whose pieces are moved by one call (pieces.c), and
 * ends within its turn: between two of them nothing is in flight, and no packet
 * of anybody's is kept but one that is being split for a guest.
 */
#ifndef XBB_NET_H
#define XBB_NET_H

#include "core/core.h"

#include "net/offload.h"

/* Bits of enum xbb_net_accepts: what any frontend is told that it may send. */
#define XBB_NET_OFFERED	(XBB_NET_SG | XBB_NET_GSO_TCPV4 | \
	XBB_NET_GSO_TCPV6 | XBB_NET_CSUM_IPV4 | XBB_NET_CSUM_IPV6)

#define XBB_NET_MUTE_MS	100	/* a link that fails is left alone for */
#define XBB_NET_SWEEP	64	/* packets */
#define XBB_NET_SLOTS	256	/* of a ring of a page, either */

_Static_assert(XBB_NET_SLOTS <= XBB_MAP_PAGES, "a sweep moves by one call");

/*
 * Frames of a sweep lie one behind the other, each with room for a header of
 * the link before it, and what follows its Ethernet header aligned.  Those of
 * several pages lie in ours as in the guest's, as far as can be: a piece that
 * is in two pages of ours is two for the hypervisor.  Data has no more than a
 * page a slot; and one more that is being read is as large as any.
 */
#define XBB_NET_BEFORE	(XBB_PAGE_SIZE + 32)	/* most between two frames */
#define XBB_NET_WHOLE	(XBB_NET_BEFORE + XBB_NET_MAX_FRAME + 1)
#define XBB_NET_ARENA	(XBB_NET_SLOTS * XBB_PAGE_SIZE + \
	XBB_NET_SWEEP * XBB_NET_BEFORE + XBB_NET_WHOLE)

/* Packets of the guest's: this sweep's.  Ring thread. */
struct xbb_net_transmit {
	struct xbb_ring	 ring;
	uint32_t	 partial;	/* slots without an end */
	uint32_t	 npackets;
	union xbb_tx_slot slot[XBB_NET_SLOTS];
	struct xbb_net_packet packet[XBB_NET_SWEEP];
	uint8_t		*frame[XBB_NET_SWEEP];
	int16_t		 status[XBB_NET_SWEEP];	/* of its responses */
};

/* A frame for the guest. */
struct xbb_net_arrival {
	struct xbb_net_frame frame;
	uint8_t		*data;
	uint32_t	 nslots;
};

/* Frames for the guest: this sweep's, and the one that is split.  Likewise. */
struct xbb_net_receive {
	struct xbb_ring	 ring;
	bool		 full;		/* no room for the largest frame */
	bool		 splitting;	/* held is not at its end */
	bool		 large;		/* as frames were lately: of pages */
	bool		 dry;		/* the link had no more to give */
	uint32_t	 looks;		/* for work, since the link's turn */
	uint64_t	 mute_until_ns;	/* the link fails; 0: it does not */
	uint32_t	 narrivals;
	uint32_t	 nslots;	/* that they take */
	union xbb_rx_slot slot[XBB_NET_SLOTS];
	struct xbb_net_arrival arrival[XBB_NET_SWEEP];
	struct xbb_split split;
	uint8_t		*held;		/* XBB_NET_WHOLE bytes */
};

struct xbb_net_queue {
	/* Set when it is opened. */
	struct xbb_net_params params;
	struct xbb_conn	 conn;
	struct xbb_net_ring_state *rs;
	bool		 sg;		/* frames may have several slots */
	uint32_t	 rx_room;	/* slots of the largest frame */
	uint32_t	 tx_answering;	/* as it was found in the segment */
	uint32_t	 rx_answering;
	uint8_t		*arena;		/* XBB_NET_ARENA bytes, then held */
	/* Ring thread. */
	struct xbb_persist persist;	/* nothing, but a share of the budget */
	struct xbb_retry retry;		/* the host is short */
	uint32_t	 npieces;
	struct xbb_copy	 piece[XBB_NET_SLOTS];
	struct xbb_net_transmit tx;
	struct xbb_net_receive rx;
};

extern const struct xbb_family xbb_net_family;

/* pieces.c - what goes between the guest's pages and ours.  Ring thread. */
void	xbb_net_piece(struct xbb_net_queue *q, uint32_t ref, uint32_t offset,
	    uint8_t *local, uint32_t len);
bool	xbb_net_move(struct xbb_net_queue *q, bool to_guest);
uint8_t	*xbb_net_place(const struct xbb_net_queue *q, const uint8_t *end);
uint8_t	*xbb_net_place_in_page(const struct xbb_net_queue *q,
	    const uint8_t *end, uint32_t offset);

/* transmit.c - the guest's packets to the link.  Ring thread. */
bool	xbb_net_transmit_waits(const struct xbb_net_queue *q);
bool	xbb_net_transmit(struct xbb_net_queue *q);

/* receive.c - the link's frames to the guest.  Ring thread. */
bool	xbb_net_receive_waits(struct xbb_net_queue *q);
bool	xbb_net_receive_ask(struct xbb_net_queue *q);
int	xbb_net_receive_sleep(const struct xbb_net_queue *q);
bool	xbb_net_receive(struct xbb_net_queue *q, bool sent);

/* wire.c - frames off the link and onto it.  Ring thread. */
bool	xbb_net_write(struct xbb_net_queue *q, struct iovec *iov, int n);
size_t	xbb_net_read(struct xbb_net_queue *q, uint8_t *to, size_t size);
bool	xbb_net_readable(const struct xbb_net_queue *q);

/* adopt.c - what one who died had begun to answer.  Ring thread. */
void	xbb_net_adopt(struct xbb_net_queue *q);

/* queue.c - the thread. */
void	*xbb_net_queue_main(void *arg);

#endif /* XBB_NET_H */
