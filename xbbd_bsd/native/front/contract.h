/*
 * contract.h - frontends in the contract (xbb.h): the guest's end of a disk's
 * ring, and of a network card's two, for the simulator, tests and tools.  cffi
 * reads it behind the families' parts; C files get it through front.h and
 * netfront.h.  No backend knows of it.
 */

/* A frontend: the guest's end of a ring, for the simulator, tests and tools. */
struct xbb_front_params {
	int32_t		grant_fd;	/* own domain's memory and grants */
	int32_t		event_fd;	/* own end of the event channel */
	uint32_t	port;			/* its number, as published */
	uint32_t	hv;			/* enum xbb_hv_kind */
	uint32_t	backend_domid;
	uint32_t	abi;			/* enum xbb_abi */
	uint32_t	ring_pages;		/* a power of two */
	/* most requests in flight, up to the ring's slots */
	uint32_t	depth;
	/* of a request, 11 to XBB_MAX_INDIRECT_SEGMENTS */
	uint32_t	max_segments;
	uint32_t	persistent;		/* grants are never withdrawn */
	/* a backend that goes may be away for so long */
	uint32_t	patience_ms;
};

struct xbb_front;

/* What xbb_front_exercise() does: random I/O against a model of the disk. */
struct xbb_workload {
	uint64_t	seed;
	uint64_t	operations;	/* stop after so many; 0: no limit */
	double		seconds;	/* stop after so long; 0: no limit */
	uint64_t	first_sector;
	uint64_t	sectors;		/* range that is touched */
	uint32_t	depth;			/* requests kept in flight */
	uint32_t	read_percent;		/* the rest are writes */
	/* one flush in so many operations; 0: none */
	uint32_t	flush_every;
	/* one write in so many a barrier; 0: none */
	uint32_t	barrier_every;
	/* one operation in so many a discard; 0: none */
	uint32_t	discard_every;
	/* one small request in so many indirect; 0: none */
	uint32_t	indirect_every;
	uint32_t	min_sectors;		/* size of an operation */
	uint32_t	max_sectors;		/* at most 8 a segment */
	/* start and size are multiples of this */
	uint32_t	align_sectors;
	/* look so long for responses before sleeping */
	uint32_t	poll_us;
	/* plain copy of the range; NULL: do not verify */
	uint8_t		*model;
	/* a byte a sector: not as in the model; NULL: own */
	uint8_t		*unknown;
};

/* Filled while the exercise runs; another thread may read it and set stop. */
struct xbb_progress {
	uint32_t	stop;			/* set to end early */
	uint32_t	running;
	uint64_t	elapsed_ns;
	uint64_t	cpu_ns;			/* of the calling thread */
	uint64_t	reads;
	uint64_t	writes;
	uint64_t	flushes;
	uint64_t	barriers;
	uint64_t	discards;
	uint64_t	sectors_read;
	uint64_t	sectors_written;
	uint64_t	errors;			/* responses other than OKAY */
	uint64_t	mismatches;	/* reads that differ from the model */
	uint64_t	first_mismatch;		/* sector, if any mismatch */
	/* responses whose pages were still mapped */
	uint64_t	still_mapped;
	/* unknown id, wrong operation, answered twice */
	uint64_t	bad_responses;
	uint64_t	latency[XBB_LATENCY_BUCKETS];
};

/*
 * xbb_front_open() grants the ring and buffers; the references to publish are
 * read with xbb_front_ring_refs().  transfer() moves any number of sectors
 * between data and the disk and may be called by several threads at once;
 * exercise() wants the frontend for itself.  Both return -EIO when the backend
 * answers with an error, -ETIMEDOUT when it is silent for timeout_ms, and
 * -EPIPE when it goes away (event channel closed) and no other comes for as
 * long as the frontend's patience lasts.
 */
int	xbb_front_open(const struct xbb_front_params *params,
	    struct xbb_error *error, struct xbb_front **frontp);
void	xbb_front_ring_refs(struct xbb_front *front, uint32_t *refs);
int	xbb_front_transfer(struct xbb_front *front, uint32_t operation,
	    uint64_t sector, uint64_t nsectors, uint8_t *data, int timeout_ms);
int	xbb_front_exercise(struct xbb_front *front,
	    const struct xbb_workload *workload, struct xbb_progress *progress,
	    int timeout_ms);
void	xbb_front_close(struct xbb_front *front);

/*
 * A frontend that misbehaves: raw bytes of the ring and of the data pages,
 * references of the data pages, what they permit, and bare notifications.
 * Access: 0 none, 1 read-only, 2 read and write; withdrawing what is still
 * mapped gives -EBUSY.  wait() returns 1 when an event came, 0 on time-out.
 */
void	*xbb_front_ring(struct xbb_front *front, uint64_t *lenp);
void	*xbb_front_page(struct xbb_front *front, uint32_t page);
uint32_t xbb_front_page_ref(struct xbb_front *front, uint32_t page);
uint32_t xbb_front_pages(struct xbb_front *front);
int	xbb_front_set_access(struct xbb_front *front, uint32_t ref, int access);
int	xbb_front_notify(struct xbb_front *front);
int	xbb_front_wait(struct xbb_front *front, int timeout_ms);

/* The yardstick: the same random reads by preadv(2), one thread each. */
int	xbb_direct_reads(int disk_fd, const struct xbb_workload *workload,
	    struct xbb_progress *progress);

/*
 * The guest's end of a network card's queue.  Frames of the guest's link, with
 * the header of net/contract.h, go over the tx ring, and those of the rx ring
 * to the link.
 */
struct xbb_netfront_params {
	int32_t		grant_fd;	/* as of a disk's, as the next ones */
	int32_t		event_fd;
	uint32_t	port;
	uint32_t	hv;		/* enum xbb_hv_kind */
	uint32_t	backend_domid;
	int32_t		link_fd;	/* non-blocking */
	uint32_t	offloads;	/* enum xbb_net_accepts, both ways */
	uint32_t	rx_buffers;	/* that the backend has, at most 256 */
	/* even bytes left out in the first page of a frame, up to 2048 */
	uint32_t	skew;
	uint32_t	poll_us;	/* look so long before sleeping */
	/* a backend that goes may be away for so long */
	uint32_t	patience_ms;
};

struct xbb_netfront_counters {
	uint64_t	tx_packets;
	uint64_t	tx_bytes;
	uint64_t	tx_slots;
	uint64_t	tx_errors;	/* answered with other than OKAY */
	uint64_t	tx_dropped;	/* of the link's, too large or odd */
	uint64_t	tx_summed;	/* sums filled in by the frontend */
	uint64_t	rx_packets;
	uint64_t	rx_bytes;
	uint64_t	rx_slots;
	uint64_t	rx_errors;	/* the backend says that it failed */
	uint64_t	rx_dropped;	/* the link would not have them */
	uint64_t	rx_unwanted;	/* what offloads does not have */
	/* unknown id, answered twice, pieces that cannot be */
	uint64_t	bad_responses;
	/* responses whose pages were still mapped */
	uint64_t	still_mapped;
	uint64_t	events;
	uint64_t	backends_lost;
	uint64_t	backends_found;	/* after one was lost */
};

struct xbb_netfront;

/*
 * run() relays on the calling thread until stop(), which any thread may call at
 * any time and which holds for good; -EPIPE as of a disk's, -EPROTO if the
 * rings cannot be true.  counters() may overlap anything but close.
 */
int	xbb_netfront_open(const struct xbb_netfront_params *params,
	    struct xbb_error *error, struct xbb_netfront **frontp);
void	xbb_netfront_ring_refs(struct xbb_netfront *front, uint32_t refs[2]);
int	xbb_netfront_run(struct xbb_netfront *front);
void	xbb_netfront_stop(struct xbb_netfront *front);
void	xbb_netfront_counters(struct xbb_netfront *front,
	    struct xbb_netfront_counters *counters);
void	xbb_netfront_close(struct xbb_netfront *front);

/*
 * One that misbehaves, as of a disk's; not while run() is under way.  Rings: 0
 * is tx, 1 rx.  Of the data pages the first half is for tx.
 */
void	*xbb_netfront_ring(struct xbb_netfront *front, uint32_t ring);
void	*xbb_netfront_page(struct xbb_netfront *front, uint32_t page);
uint32_t xbb_netfront_page_ref(struct xbb_netfront *front, uint32_t page);
uint32_t xbb_netfront_pages(struct xbb_netfront *front);
int	xbb_netfront_set_access(struct xbb_netfront *front, uint32_t ref,
	    int access);
int	xbb_netfront_notify(struct xbb_netfront *front);
int	xbb_netfront_wait(struct xbb_netfront *front, int timeout_ms);

/*
 * The yardstick: frames between two links as they come, each copied twice, as
 * often as a backend and its hypervisor would.  Until stop_fd is readable.
 */
int	xbb_direct_relay(int link_fd, int other_fd, int stop_fd);
