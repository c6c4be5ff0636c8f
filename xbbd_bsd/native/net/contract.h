/*
 * contract.h - the family of network cards in the contract (xbb.h): what a
 * queue of one is made of, what its state segment says, and its link, which is
 * a tap(4) with a virtio-net header.  cffi reads it after xbb.h; C files get it
 * through net/net.h.  What goes over the rings is in netif.h of Xen's public
 * headers; "tx" and "rx" are the guest's, as there.
 */

#define XBB_NET_TABLE_VERSION	1
#define XBB_NET_MAX_FRAME	65535	/* bytes that a packet may have */
#define XBB_NET_MAX_SLOTS	18	/* with data, of a packet */
#define XBB_NET_NAME		16	/* of an interface, with NUL */
#define XBB_NET_ADDRESS		6	/* bytes of an Ethernet address */
#define XBB_NET_LINK_HEADER	12	/* bytes before each frame of a link */

/* What a frontend can receive: bits of params.accepts. */
enum xbb_net_accepts {
	XBB_NET_SG		= 1,	/* packets of several slots */
	XBB_NET_GSO_TCPV4	= 2,
	XBB_NET_GSO_TCPV6	= 4,
	XBB_NET_CSUM_IPV4	= 8,	/* sums that are left to it */
	XBB_NET_CSUM_IPV6	= 16
};

/* What whoever reads the link understands. */
enum xbb_net_offload {
	XBB_NET_OFFLOAD_FULL	= 0,	/* sums to fill in, frames to split */
	XBB_NET_OFFLOAD_SAFE	= 1	/* only frames as a wire has them */
};

/* Why a packet of the guest's came to nothing. */
enum xbb_net_refusal {
	XBB_NET_FINE		= 0,
	XBB_NET_TOO_SHORT	= 1,	/* for an Ethernet header */
	XBB_NET_TOO_LONG	= 2,	/* pieces are more than the whole */
	XBB_NET_BEYOND_PAGE	= 3,	/* a piece leaves its page */
	XBB_NET_TOO_MANY	= 4,	/* slots */
	XBB_NET_BAD_EXTRA	= 5,	/* unknown, or two of a kind */
	XBB_NET_BAD_GSO		= 6,	/* not offered, or no segment size */
	XBB_NET_BAD_HEADERS	= 7,	/* sums, splitting: of no TCP, UDP */
	XBB_NET_BAD_GRANT	= 8,
	XBB_NET_BAD_SOURCE	= 9,	/* not its own address (mac_filter) */
	XBB_NET_REFUSALS	= 10
};

/* Everything a queue is made of.  Descriptors stay the caller's. */
struct xbb_net_params {
	/*
	 * ring_ref[0] is the tx ring's page and ring_ref[1] the rx ring's,
	 * ring_pages 2, one event channel for both.
	 */
	struct xbb_conn_params conn;
	int32_t		link_fd;	/* non-blocking, frames with a header */
	uint32_t	accepts;	/* bits of enum xbb_net_accepts */
	uint32_t	offload;	/* enum xbb_net_offload, of the link */
	/* It does not tell of rx requests it posts: we look by ourselves. */
	uint32_t	rx_polls;
	uint32_t	filter;		/* only frames from that address */
	uint8_t		address[XBB_NET_ADDRESS];	/* the guest's */
	uint8_t		reserved[2];
};

/* Counters of a queue; descriptions are in net/oids.py, checked by a test. */
struct xbb_net_counters {
	uint64_t	tx_packets;	/* of the guest's, given to the link */
	uint64_t	tx_bytes;
	uint64_t	tx_slots;
	uint64_t	tx_errors;	/* refused, the sum of refusals */
	uint64_t	tx_dropped;	/* the link would not have them */
	uint64_t	tx_split;	/* frames made of larger ones, by us */
	uint64_t	tx_summed;	/* sums filled in by us */
	uint64_t	tx_sweeps;
	uint64_t	rx_packets;	/* of the link's, given to the guest */
	uint64_t	rx_bytes;
	uint64_t	rx_slots;
	uint64_t	rx_errors;	/* the guest's pages could not be had */
	uint64_t	rx_dropped;	/* too large for it, or nonsense */
	uint64_t	rx_split;
	uint64_t	rx_summed;
	uint64_t	rx_sweeps;
	uint64_t	rx_full;	/* times that it had no room */
	uint64_t	refused[XBB_NET_REFUSALS];	/* by reason */
};

/* Both rings of a queue, as they are at this moment. */
struct xbb_net_ring_indices {
	uint32_t	req_cons;
	uint32_t	nr_ents;
	uint32_t	rsp_prod_pvt;
	uint32_t	req_prod;	/* the shared ones, from here on */
	uint32_t	req_event;
	uint32_t	rsp_prod;
	uint32_t	rsp_event;
};

struct xbb_net_indices {
	struct xbb_net_ring_indices tx;
	struct xbb_net_ring_indices rx;
};

/* One queue of a card: what was negotiated, and its counters. */
struct xbb_net_ring_state {
	struct xbb_ring_common common;	/* req_cons, rsp_prod: of the tx ring */
	/* What it was opened with, descriptors -1, for whoever comes next. */
	struct xbb_net_params params;
	uint32_t	rx_req_cons;
	uint32_t	rx_rsp_prod;
	/*
	 * Slots before these may have been made responses that nobody has
	 * published: what whoever adopts the rings cannot read any more.
	 */
	uint32_t	tx_answering;
	uint32_t	rx_answering;
	/* CLOCK_MONOTONIC; 0: there is room for the largest frame */
	uint64_t	rx_full_since_ns;
	struct xbb_net_counters counters;
};

/* Written by the control plane at any time, read by the data plane at use. */
struct xbb_net_tunables {
	int32_t		poll_max_us;	/* as of a disk */
	int32_t		reserved;
};

/* The state segment of a card; it has no table. */
struct xbb_net_state {
	struct xbb_segment_head head;
	struct xbb_net_tunables tunables;
	/* The control plane's, as far as the queues. */
	uint8_t		interface[XBB_NET_NAME];
	uint8_t		guest[64];	/* the guest's name */
	uint32_t	connection_rings;	/* as its guest connected */
	uint32_t	reserved;
	uint64_t	takeovers;
	struct xbb_net_ring_state ring[XBB_MAX_RINGS];
};

struct xbb_net_queue;

/*
 * State segment: as xbb_state_format() and so on of a disk's.
 */
int	xbb_net_state_format(int fd, const struct xbb_identity *identity,
	    uint32_t nqueues);
int	xbb_net_state_map(int fd, int writable, struct xbb_net_state **statep);
void	xbb_net_state_unmap(struct xbb_net_state *state);
int	xbb_net_state_damaged(const struct xbb_net_state *state);
uint32_t xbb_net_state_rings(const struct xbb_net_state *state);

/*
 * Queue: as xbb_queue_open() and so on of a disk's, whichever thread may call
 * what.  A packet of the guest's that was taken when its server died may be
 * sent twice by whoever adopts the queue (params.conn.adopt), and one for the
 * guest be lost, as on any wire; nothing else of it is in the segment.
 * xbb_net_queue_indices() may overlap anything but close.
 */
int	xbb_net_queue_open(const struct xbb_net_params *params,
	    struct xbb_net_state *state, struct xbb_error *error,
	    struct xbb_net_queue **queuep);
int	xbb_net_queue_start(struct xbb_net_queue *queue,
	    struct xbb_error *error);
void	xbb_net_queue_drain(struct xbb_net_queue *queue);
void	xbb_net_queue_hand_over(struct xbb_net_queue *queue);
void	xbb_net_queue_status(struct xbb_net_queue *queue,
	    struct xbb_queue_status *status);
void	xbb_net_queue_indices(struct xbb_net_queue *queue,
	    struct xbb_net_indices *indices);
void	xbb_net_queue_close(struct xbb_net_queue *queue);

/* Most memory of a queue, bytes. */
uint64_t xbb_net_queue_bytes(void);

/*
 * The self-test: the cases of what goes over the rings, by number from 0 on.
 * 1 if it holds, 0 if not, -ENOENT if there is no such; its name either way.
 */
int	xbb_net_self_test(uint32_t number, const char **namep);

/*
 * Link.  xbb_link_open() gives a queue of an interface of that name, which is
 * made if it is not there; several if multi, where the system can (EOPNOTSUPP).
 * Its cable is in as long as one is open.  It outlives them, and stays as it
 * is: up, and in its bridge.  xbb_link_remove() removes it (ENXIO: it is not
 * there, EINVAL: it is none of ours, EBUSY: it is open, where that matters).
 * xbb_link_up() marks it as up, as an administrator would; xbb_link_is_up(): 1
 * if it is, 0 if not, or -ENXIO.  xbb_link_mtu() sets, in bytes.  All of an
 * interface in the network name space of the caller.
 */
int	xbb_link_open(const char *name, int multi, int *fdp,
	    struct xbb_error *error);
int	xbb_link_remove(const char *name, struct xbb_error *error);
int	xbb_link_up(const char *name, struct xbb_error *error);
int	xbb_link_is_up(const char *name);
int	xbb_link_mtu(const char *name, uint32_t mtu, struct xbb_error *error);
