/*
 * xbb.h - the contract between the data plane (C) and the control plane
 * (Python), and the layout of the state segment that both map.
 *
 * cffi reads this file as it stands, after faults.h, so it holds no #include, no
 * guard and no macro that is more than a number; C files get it through
 * internal.h.  It must not know what a hypervisor or a XenStore is: only
 * descriptors, numbers and plain structures cross here; nothing calls back.
 *
 * Functions return 0 or a negative errno and may fill a struct xbb_error.
 * They may be called from any thread; calls on one object must not overlap,
 * except where it is said that they may.
 */

#define XBB_SECTOR_SIZE		512	/* the only unit of sectors on the wire (blkif.h) */
#define XBB_PAGE_SIZE		4096	/* granularity of grants */
#define XBB_SECTORS_PER_PAGE	8
#define XBB_MAX_RING_PAGES	32	/* ring-page-order 5, as the kernel driver */
#define XBB_MAX_RING_ORDER	5
#define XBB_MAX_RINGS		8	/* rings a state segment has room for */
#define XBB_MAX_REQUESTS	1024	/* slots of the largest ring */
#define XBB_MAX_SEGMENTS	11	/* BLKIF_MAX_SEGMENTS_PER_REQUEST */
#define XBB_MAX_INDIRECT_PAGES	8	/* BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST */
#define XBB_MAX_INDIRECT_SEGMENTS 256	/* most we offer, as Linux does */
#define XBB_MAX_BATCH_SEGMENTS	256	/* segments one disk operation may gather */
#define XBB_MAX_WORKERS		64
#define XBB_STATE_MAGIC		0x58424253	/* "SBBX" in memory */
#define XBB_MAX_BLOCK_SIZE	65536	/* bytes of the largest sector a disk may have */
#define XBB_MAX_PERSISTENT	4096	/* grants that a ring may keep mapped */
#define XBB_STATE_VERSION	6
#define XBB_SERVICE_MAPPINGS	32768	/* half of what Linux lets a process have (vm.max_map_count) */
#define XBB_SERVICE_GRANTS	131072	/* half of what Xen keeps track of for a domain (gnttab_max_maptrack_frames) */
#define XBB_GUEST_GRANTS	2048	/* half of a table of 8 frames */
#define XBB_POLL_MAX_US		50	/* poll_max_us of a fresh state segment */
#define XBB_UNUSED_SECONDS	60	/* persistent_grant_unused_seconds, likewise */
#define XBB_RING_ALIVE		63	/* unused byte of a ring's head, cleared when a guarded map goes (hv.h) */
#define XBB_DEVSTAT_KINDS	4	/* enum xbb_devstat_kind */
#define XBB_FILE_SYSTEM_NAME	16	/* bytes of a file system's name, with NUL */
#define XBB_KERNEL_VALUE	256	/* likewise, of a value of the kernel's environment */
#define XBB_LATENCY_BUCKETS	320	/* 8 a power of two, from 1 ns */

/* Operations of a ring request (blkif.h). */
enum xbb_op {
	XBB_OP_READ		= 0,
	XBB_OP_WRITE		= 1,
	XBB_OP_WRITE_BARRIER	= 2,
	XBB_OP_FLUSH_DISKCACHE	= 3,
	XBB_OP_DISCARD		= 5,
	XBB_OP_INDIRECT		= 6	/* on the ring only: says how segments are passed */
};

enum xbb_discard_flag {
	XBB_DISCARD_SECURE	= 1
};

/* Status of a ring response (blkif.h). */
enum xbb_rsp {
	XBB_RSP_OKAY		= 0,
	XBB_RSP_ERROR		= -1,
	XBB_RSP_EOPNOTSUPP	= -2
};

/* Layouts of ring slots: the guest's pointer size and alignment. */
enum xbb_abi {
	XBB_ABI_NATIVE		= 0,
	XBB_ABI_X86_32		= 1,
	XBB_ABI_X86_64		= 2
};

/* Fillings of struct xbb_hv_ops (hv.h). */
enum xbb_hv_kind {
	XBB_HV_SIM		= 0,
	XBB_HV_XEN		= 1
};

/* How a request's data moves between the guest's pages and the disk. */
enum xbb_transport {
	XBB_TRANSPORT_BEST	= 0,	/* what suits the hypervisor */
	XBB_TRANSPORT_MAP	= 1,	/* the disk works on mapped pages */
	XBB_TRANSPORT_COPY	= 2	/* by a buffer, with grant copy */
};

/* What stands behind a disk descriptor. */
enum xbb_disk_kind {
	XBB_DISK_FILE		= 0,
	XBB_DISK_DEVICE		= 1
};

/* Life of an entry of the in-flight table. */
enum xbb_req_state {
	XBB_REQ_FREE		= 0,
	XBB_REQ_ACCEPTED	= 1,	/* copied from the ring, valid, waiting */
	XBB_REQ_DISPATCHED	= 2,	/* part of a batch given to the disk */
	XBB_REQ_DONE		= 3	/* status known, not yet answered */
};

/* Life of a queue. */
enum xbb_queue_state {
	XBB_QUEUE_RUNNING	= 0,
	XBB_QUEUE_DRAINING	= 1,	/* takes no new request */
	XBB_QUEUE_DRAINED	= 2	/* every accepted request answered, thread gone */
};

/* Why a queue stopped by itself. */
enum xbb_stop_reason {
	XBB_STOP_NONE		= 0,
	XBB_STOP_RING		= 1,	/* guest: its ring indices lie */
	XBB_STOP_DISK		= 2,	/* host: the disk is gone (ENXIO, ENODEV) */
	XBB_STOP_EVENT		= 3,	/* host: the event channel fails */
	XBB_STOP_LOST		= 4,	/* host: what was acknowledged may be lost (lost_errno) */
	XBB_STOP_SEGMENT	= 5,	/* host: the file of the state segment was cut off */
	XBB_STOP_UNMAP		= 6	/* host: pages of the guest stay mapped */
};

/* What failed, for the one place in Python that raises. */
struct xbb_error {
	int32_t		errnum;		/* errno, 0 for none */
	char		operation[28];	/* what was tried, e.g. "map ring" */
};

/* A run of sectors in one granted page. */
struct xbb_segment {
	uint32_t	gref;		/* grant reference of the page */
	uint8_t		first_sect;	/* 0 to 7 */
	uint8_t		last_sect;	/* first_sect to 7 */
	uint16_t	reserved;
};

/* A private copy of one ring request: an entry of the in-flight table. */
struct xbb_req {
	uint64_t	id;		/* the guest's, echoed in the response */
	uint64_t	sector;		/* first sector on the disk */
	uint64_t	nsectors;	/* sum over the segments, or to discard */
	uint64_t	received_ns;	/* CLOCK_MONOTONIC when copied */
	uint32_t	ring_index;	/* its request index on the ring */
	int16_t		status;		/* enum xbb_rsp, once DONE */
	uint16_t	next;		/* link of the list it is on */
	uint16_t	nseg;
	uint8_t		state;		/* enum xbb_req_state */
	uint8_t		operation;	/* enum xbb_op; the inner one if indirect */
	uint8_t		indirect;	/* segments lie in pages of their own */
	uint8_t		flags;		/* enum xbb_discard_flag */
	uint16_t	reserved;
	union {
		struct xbb_segment seg[XBB_MAX_SEGMENTS];
		uint32_t indirect_ref[XBB_MAX_INDIRECT_PAGES];
	};
};

/* Written by the control plane at any time, read by the data plane at use. */
struct xbb_tunables {
	int32_t		disable_flush;		/* answer flushes without doing them */
	int32_t		flush_interval;		/* do one flush of N; 0: each */
	int32_t		no_coalesce_reqs;	/* every request a batch of its own */
	int32_t		poll_max_us;		/* most time to look for work before sleeping */
	int32_t		persistent_grant_unused_seconds; /* unmap those not used for so long; 0: never */
};

/* Counters of a ring; descriptions are in stats.py, checked by a test. */
struct xbb_counters {
	uint64_t	reqs_received;
	uint64_t	reqs_completed;
	uint64_t	reqs_queued_for_completion;
	uint64_t	reqs_completed_with_error;
	uint64_t	forced_dispatch;
	uint64_t	normal_dispatch;
	uint64_t	total_dispatch;
	uint64_t	kva_shortages;
	uint64_t	request_shortages;
	uint64_t	rd_req;
	uint64_t	wr_req;
	uint64_t	f_req;
	uint64_t	br_req;
	uint64_t	ds_req;
	uint64_t	indirect_req;
	uint64_t	rd_sect;
	uint64_t	wr_sect;
	uint64_t	ds_sect;
	uint64_t	reqs_malformed;
	uint64_t	flushes_done;
	uint64_t	io_inline;
	uint64_t	io_handed_over;
	uint64_t	io_short;
	uint64_t	io_errors;
	uint64_t	io_bounced;
	uint64_t	io_read_modify_write;
	uint64_t	grants_mapped_total;
	uint64_t	grants_unmapped_total;
	uint64_t	grants_copied_total;
	uint64_t	grant_errors;
	uint64_t	persistent_hits;
	uint64_t	persistent_misses;
	uint64_t	notifies_received;
	uint64_t	notifies_sent;
	uint64_t	ring_sleeps;
};

/* Kinds of transaction in a devstat record (devicestat.h). */
enum xbb_devstat_kind {
	XBB_DEVSTAT_NO_DATA	= 0,
	XBB_DEVSTAT_READ	= 1,
	XBB_DEVSTAT_WRITE	= 2,
	XBB_DEVSTAT_FREE	= 3
};

/* A record as devstat(9) keeps one, times in nanoseconds of CLOCK_MONOTONIC. */
struct xbb_devstat {
	uint64_t	start_count;		/* transactions begun */
	uint64_t	end_count;		/* and ended */
	uint64_t	operations[XBB_DEVSTAT_KINDS];	/* by enum xbb_devstat_kind */
	uint64_t	bytes[XBB_DEVSTAT_KINDS];
	uint64_t	duration_ns[XBB_DEVSTAT_KINDS];
	uint64_t	tag_simple;
	uint64_t	tag_ordered;		/* barriers and flushes */
	uint64_t	busy_ns;		/* with a transaction under way */
	uint64_t	busy_from_ns;		/* not yet added to busy_ns, while under way */
};

/* One ring: what was negotiated, where it stands, and its counters. */
struct xbb_ring_state {
	uint32_t	connected;		/* a queue serves this ring now */
	uint32_t	abi;			/* enum xbb_abi */
	uint32_t	ring_pages;
	uint32_t	transport;		/* enum xbb_transport, MAP or COPY */
	uint32_t	max_requests;		/* slots of the ring */
	uint32_t	max_request_segments;
	uint32_t	max_request_size;	/* bytes */
	uint32_t	inflight;		/* entries not FREE */
	uint32_t	grants_mapped;		/* data pages of requests at the disk now */
	uint32_t	persistent;		/* grants stay mapped */
	uint32_t	grants_persistent;	/* so many do now */
	uint32_t	req_cons;		/* next request index to read */
	uint32_t	rsp_prod;		/* last response index pushed */
	uint64_t	reqs_offset;		/* bytes from the segment's start to the table */
	uint64_t	latency_offset;		/* and to histograms, by enum xbb_devstat_kind */
	struct xbb_devstat dispatched;		/* as given to the disk (xbb) */
	struct xbb_devstat received;		/* as they came in (xbbi) */
	struct xbb_counters counters;
	struct xbb_faults faults;		/* faults.h */
};

/* Whose disk the segment is about, for whoever finds it after us. */
struct xbb_medium {
	uint64_t	device;			/* st_dev of a file, st_rdev of a disk device */
	uint64_t	inode;			/* of a file */
	uint32_t	kind;			/* enum xbb_disk_kind */
	uint32_t	known;			/* the rest of this is filled in */
	uint8_t		path[1024];		/* cut to fit, as its end is NUL */
	uint8_t		guest[64];		/* likewise, the guest's name */
};

/* The state segment of a device: this header, then a table and histograms a ring. */
struct xbb_state {
	uint32_t	magic;
	uint32_t	version;
	uint64_t	size;			/* bytes of the whole segment */
	uint32_t	nrings;
	uint32_t	table_entries;		/* entries of each ring's table */
	uint64_t	sectors;		/* size of the disk now, 512-byte sectors */
	struct xbb_tunables tunables;
	int32_t		lost_errno;		/* of the first flush that failed; EFBIG: cut off under a write */
	struct xbb_medium medium;		/* the control plane's */
	struct xbb_ring_state ring[XBB_MAX_RINGS];
};

/* Everything a queue is made of.  Descriptors stay the caller's. */
struct xbb_queue_params {
	int32_t		grant_fd;		/* grant device of the hypervisor */
	int32_t		event_fd;		/* event channel device */
	int32_t		disk_fd;
	int32_t		wake_fd;		/* gets a byte once DRAINED, or short of threads; non-blocking */
	uint32_t	hv;			/* enum xbb_hv_kind */
	uint32_t	domid;			/* the frontend's domain */
	uint32_t	remote_port;		/* its event channel */
	uint32_t	abi;			/* enum xbb_abi */
	uint32_t	ring;			/* index in the state segment */
	uint32_t	ring_pages;		/* a power of two */
	uint32_t	ring_ref[XBB_MAX_RING_PAGES];
	uint32_t	disk_kind;		/* enum xbb_disk_kind */
	uint32_t	unit;			/* of the device, for tracing */
	uint32_t	read_only;
	uint32_t	sector_size;		/* alignment the frontend must keep, bytes */
	uint32_t	block_size;		/* alignment the disk wants, bytes, >= sector_size */
	uint32_t	bounce;			/* the disk wants one aligned buffer */
	uint32_t	discard;		/* offered */
	uint32_t	workers;		/* most I/O threads, 1 to XBB_MAX_WORKERS */
	uint32_t	max_batch_segments;	/* 11 to XBB_MAX_BATCH_SEGMENTS */
	uint32_t	max_indirect_segments;	/* offered, 0 or 11 to max_batch_segments */
	uint32_t	max_grants;		/* most data pages mapped at once */
	uint32_t	max_persistent;		/* grants kept mapped; 0: not negotiated */
	uint32_t	transport;		/* enum xbb_transport */
};

struct xbb_queue_status {
	uint32_t	state;			/* enum xbb_queue_state */
	uint32_t	reason;			/* enum xbb_stop_reason */
	int32_t		errnum;			/* errno that goes with the reason */
};

/* Of all queues together: I/O threads beyond the first of each, their buffers. */
struct xbb_io_use {
	uint32_t	threads;
	uint64_t	bytes;
	uint64_t	over_bound;		/* times that the bound was in the way of one */
	uint64_t	failed;			/* times that the host had none */
};

struct xbb_queue;

/*
 * State segment.  xbb_state_format() sizes and initialises a fresh file;
 * xbb_state_map() maps an existing one and refuses (EINVAL) what is not one.
 * xbb_tunable_set() changes a tunable of a mapped one as a whole, at any time;
 * xbb_state_resize() what requests may touch, before a queue opens and while
 * it runs (EINVAL: more bytes than an off_t counts).
 *
 * Others may overwrite the file, or cut it off: then what is missing reads as
 * zeros, and xbb_state_damaged() says so from then on.  So nothing in a mapped
 * segment is good for finding one's way in it: xbb_state_rings() and
 * xbb_state_entries() say what it was made for, xbb_state_table() and
 * xbb_state_latency() where the parts of a ring are (NULL: no such ring).
 * xbb_state_lose() notes that the disk has lost something, the first errno for
 * good, xbb_state_lost() reads it, and xbb_state_believe() takes it back.
 */
int	xbb_state_format(int fd, uint32_t nrings, uint32_t table_entries);
int	xbb_state_map(int fd, int writable, struct xbb_state **statep);
void	xbb_state_unmap(struct xbb_state *state);
void	xbb_tunable_set(int32_t *tunable, int32_t value);
int	xbb_state_resize(struct xbb_state *state, uint64_t sectors);
int	xbb_state_damaged(const struct xbb_state *state);
uint32_t xbb_state_rings(const struct xbb_state *state);
uint32_t xbb_state_entries(const struct xbb_state *state);
struct xbb_req *xbb_state_table(struct xbb_state *state, uint32_t ring);
uint64_t *xbb_state_latency(struct xbb_state *state, uint32_t ring);
int	xbb_state_lost(const struct xbb_state *state);
void	xbb_state_lose(struct xbb_state *state, int errnum);
void	xbb_state_believe(struct xbb_state *state);

/*
 * Queue.  xbb_queue_open() maps the ring and binds the event channel, and
 * xbb_queue_start() starts the ring's thread: before that nothing is read from
 * the ring, so that of several rings all can be had or none has begun.  A ring
 * of the segment has one queue at a time.  xbb_queue_drain() and
 * xbb_queue_status() may overlap anything but close.  xbb_queue_close() drains
 * if nobody did, joins the threads, and gives back every mapping and the event
 * channel: it waits for I/O in flight, so that who must not calls it once DRAINED.
 */
int	xbb_queue_open(const struct xbb_queue_params *params,
	    struct xbb_state *state, struct xbb_error *error,
	    struct xbb_queue **queuep);
int	xbb_queue_start(struct xbb_queue *queue, struct xbb_error *error);
void	xbb_queue_drain(struct xbb_queue *queue);
void	xbb_queue_status(struct xbb_queue *queue, struct xbb_queue_status *status);
void	xbb_queue_close(struct xbb_queue *queue);

/* How much may stay mapped for guests; for the whole process, at any time. */
struct xbb_budget_limits {
	uint32_t	mappings;		/* of this process, for all guests */
	uint32_t	grants;			/* kept of all guests */
	uint32_t	guest_grants;		/* kept of one guest, all its disks together */
};

/*
 * What is kept beyond new limits is given back a little later.  Used: mappings,
 * with those set aside for open queues, and grants that are kept.
 */
void	xbb_budget_set(const struct xbb_budget_limits *limits);
void	xbb_budget_used(uint32_t *mappingsp, uint32_t *grantsp);

/* Most memory of a queue with one I/O thread, bytes; no grants, no descriptors. */
uint64_t xbb_queue_bytes(const struct xbb_queue_params *params);

/*
 * Bound what struct xbb_io_use counts, for queues to come and those that run;
 * threads that exist stay, and are told; one being made just then may be missing.
 * There is no bound before the first call.  May overlap anything.
 */
void	xbb_io_bound(uint32_t threads, uint64_t bytes, struct xbb_io_use *use);
void	xbb_io_use(struct xbb_io_use *use);

/* Can holes be made in this file?  Its first page is lost by that. */
int	xbb_file_can_punch(int fd);

/* Can this disk, open for writing, be flushed?  It is; 1, 0 or a negative errno. */
int	xbb_can_flush(int fd, uint32_t disk_kind);

/*
 * Questions to the operating system.  pseudo_file_system: is an open file one of
 * the kernel's answers, and no storage?  1, and the name of what it is on, or 0.
 * kernel_environment: a variable of the loader's (FreeBSD); ENOENT if it is not
 * set, ENOSYS where there is no such thing.
 */
int	xbb_pseudo_file_system(int fd, char name[XBB_FILE_SYSTEM_NAME]);
int	xbb_kernel_environment(const char *variable,
	    char value[XBB_KERNEL_VALUE]);

/* Most requests a ring of so many pages holds; 0 for an ABI that is none. */
uint32_t xbb_max_requests(uint32_t abi, uint32_t ring_pages);

/*
 * Simulated machine (hv_sim.c).  A domain is a directory; format makes its
 * memory and grant table, mapped counts grants of it that live processes have
 * mapped (all references, or one).
 */
int	xbb_sim_format(int domain_fd, uint32_t npages);
int	xbb_sim_mapped(int domain_fd, uint32_t *countp);

/* A frontend: the guest's end of a ring, for the simulator, tests and tools. */
struct xbb_front_params {
	int32_t		grant_fd;		/* own domain's memory and grants */
	int32_t		event_fd;		/* own end of the event channel */
	uint32_t	port;			/* its number, as published */
	uint32_t	hv;			/* enum xbb_hv_kind */
	uint32_t	backend_domid;
	uint32_t	abi;			/* enum xbb_abi */
	uint32_t	ring_pages;		/* a power of two */
	uint32_t	depth;			/* most requests in flight, up to the ring's slots */
	uint32_t	max_segments;		/* of a request, 11 to XBB_MAX_INDIRECT_SEGMENTS */
	uint32_t	persistent;		/* grants are never withdrawn */
};

struct xbb_front;

/* What xbb_front_exercise() does: random I/O against a model of the disk. */
struct xbb_workload {
	uint64_t	seed;
	uint64_t	operations;		/* stop after so many; 0: no limit */
	double		seconds;		/* stop after so long; 0: no limit */
	uint64_t	first_sector;
	uint64_t	sectors;		/* range that is touched */
	uint32_t	depth;			/* requests kept in flight */
	uint32_t	read_percent;		/* the rest are writes */
	uint32_t	flush_every;		/* one flush in so many operations; 0: none */
	uint32_t	barrier_every;		/* one write in so many a barrier; 0: none */
	uint32_t	discard_every;		/* one operation in so many a discard; 0: none */
	uint32_t	indirect_every;		/* one small request in so many indirect; 0: none */
	uint32_t	min_sectors;		/* size of an operation */
	uint32_t	max_sectors;		/* at most 8 a segment */
	uint32_t	align_sectors;		/* start and size are multiples of this */
	uint32_t	poll_us;		/* look so long for responses before sleeping */
	uint8_t		*model;			/* plain copy of the range; NULL: do not verify */
	uint8_t		*unknown;		/* a byte a sector: not as in the model; NULL: own */
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
	uint64_t	mismatches;		/* reads that differ from the model */
	uint64_t	first_mismatch;		/* sector, if any mismatch */
	uint64_t	still_mapped;		/* responses whose pages were still mapped */
	uint64_t	bad_responses;		/* unknown id, wrong operation, answered twice */
	uint64_t	latency[XBB_LATENCY_BUCKETS];
};

/*
 * xbb_front_open() grants the ring and buffers; the references to publish are
 * read with xbb_front_ring_refs().  transfer() moves any number of sectors
 * between data and the disk and may be called by several threads at once;
 * exercise() wants the frontend for itself.  Both return -EIO when the backend
 * answers with an error, -ETIMEDOUT when it is silent for timeout_ms, and
 * -EPIPE when it goes away (event channel closed).
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
