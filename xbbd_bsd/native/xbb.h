/*
 * xbb.h - the contract between the data plane (C) and the control plane
 * (Python): what every family's rings have, and the head of the state segment
 * that both map.  Families have headers of their own beside it, as
 * block/contract.h and block/faults.h, and so have frontends
 * (front/contract.h).
 *
 * cffi reads these files as they stand, in the order of build.py, so they hold
 * no #include, no guard and no macro that is more than a number; C files get
 * this one through internal.h.  They must not know what a hypervisor or a
 * XenStore is: only descriptors, numbers and plain structures cross here;
 * nothing calls back.
 *
 * Functions return 0 or a negative errno and may fill a struct xbb_error.
 * They may be called from any thread; calls on one object must not overlap,
 * except where it is said that they may.
 */

#define XBB_PAGE_SIZE		4096	/* granularity of grants */
#define XBB_MAX_RING_PAGES	32	/* ring-page-order 5, as the kernel */
#define XBB_MAX_RING_ORDER	5
#define XBB_MAX_RINGS		8	/* rings a state segment has room for */
#define XBB_MAX_WORKERS		64
#define XBB_STATE_MAGIC		0x58424253	/* "SBBX" in memory */
#define XBB_STATE_VERSION	8
#define XBB_KIND_NAME		32	/* bytes of a directory's, with NUL */
#define XBB_MACHINE_NAME	64	/* of a virtual machine's, likewise */
#define XBB_MAX_PERSISTENT	4096	/* grants that a ring may keep mapped */
/* Half of what Linux lets a process have (vm.max_map_count). */
#define XBB_SERVICE_MAPPINGS	32768
/* Half of what Xen tracks for a domain (gnttab_max_maptrack_frames). */
#define XBB_SERVICE_GRANTS	131072
#define XBB_GUEST_GRANTS	2048	/* half of a table of 8 frames */
#define XBB_POLL_MAX_US		50	/* poll_max_us of a fresh segment */
/* Likewise, persistent_grant_unused_seconds. */
#define XBB_UNUSED_SECONDS	60
/* Unused byte of a ring's head, cleared when a guarded map goes (hv.h). */
#define XBB_RING_ALIVE		63
#define XBB_DEVSTAT_KINDS	4	/* enum xbb_devstat_kind */
#define XBB_FILE_SYSTEM_NAME	16	/* bytes of its name, with NUL */
/* Likewise, of a value of the kernel's environment. */
#define XBB_KERNEL_VALUE	256
#define XBB_LATENCY_BUCKETS	320	/* 8 a power of two, from 1 ns */

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

/* Life of a queue. */
enum xbb_queue_state {
	XBB_QUEUE_RUNNING	= 0,
	XBB_QUEUE_DRAINING	= 1,	/* takes no new request */
	XBB_QUEUE_DRAINED	= 2	/* all is answered, thread gone */
};

/* Why a queue stopped by itself. */
enum xbb_stop_reason {
	XBB_STOP_NONE		= 0,
	XBB_STOP_RING		= 1,	/* guest: its ring indices lie */
	XBB_STOP_MEDIUM		= 2,	/* host: gone (ENXIO, ENODEV) */
	XBB_STOP_EVENT		= 3,	/* host: the event channel fails */
	XBB_STOP_LOST		= 4,	/* host: what was acknowledged, maybe */
	XBB_STOP_SEGMENT	= 5,	/* host: its file was cut off */
	XBB_STOP_UNMAP		= 6,	/* host: pages stay mapped */
	XBB_STOP_ERROR		= 7	/* host: policy says so (policy.c) */
};

/* What failed, for the one place in Python that raises. */
struct xbb_error {
	int32_t		errnum;		/* errno, 0 for none */
	char		operation[28];	/* what was tried, e.g. "map ring" */
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
	/* by enum xbb_devstat_kind */
	uint64_t	operations[XBB_DEVSTAT_KINDS];
	uint64_t	bytes[XBB_DEVSTAT_KINDS];
	uint64_t	duration_ns[XBB_DEVSTAT_KINDS];
	uint64_t	tag_simple;
	uint64_t	tag_ordered;		/* barriers and flushes */
	uint64_t	busy_ns;	/* with a transaction under way */
	/* not yet added to busy_ns, while under way */
	uint64_t	busy_from_ns;
};

/* Did somebody serve a ring before? */
enum xbb_adopt {
	XBB_ADOPT_NOT		= 0,
	XBB_ADOPT_TABLE		= 1,	/* and died: see the segment */
	/* And had answered everything: go by the ring alone. */
	XBB_ADOPT_ANSWERED	= 2
};

/* What a ring is connected with.  Descriptors stay the caller's. */
struct xbb_conn_params {
	int32_t		grant_fd;	/* grant device of the hypervisor */
	int32_t		event_fd;	/* event channel device */
	/*
	 * Written to once DRAINED, or short of threads: 8 bytes, as an
	 * eventfd(2) wants them; non-blocking.
	 */
	int32_t		wake_fd;
	uint32_t	hv;		/* enum xbb_hv_kind */
	uint32_t	domid;		/* the frontend's domain */
	uint32_t	remote_port;	/* its event channel */
	uint32_t	unit;		/* of the device, for names */
	uint32_t	ring;		/* index in the state segment */
	uint32_t	ring_pages;	/* a power of two */
	uint32_t	ring_ref[XBB_MAX_RING_PAGES];
	uint32_t	workers;	/* most threads, 1 to XBB_MAX_WORKERS */
	uint32_t	max_persistent;	/* grants kept; 0: not negotiated */
	uint32_t	transport;	/* enum xbb_transport */
	uint32_t	adopt;		/* enum xbb_adopt */
};

/* Counters of any ring; descriptions are in stats.py, checked by a test. */
struct xbb_common_counters {
	uint64_t	kva_shortages;
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

/* Whose state a segment has. */
enum xbb_family_kind {
	XBB_FAMILY_BLOCK	= 1,
	XBB_FAMILY_NET		= 2
};

/*
 * Whose device a segment is about, so that who finds it knows which nodes to
 * look for without asking anybody; as it was when the segment was made.
 */
struct xbb_identity {
	uint8_t		kind[XBB_KIND_NAME];	/* backend directory */
	/* The frontend's, "/vm/UUID"; "": none is known. */
	uint8_t		machine[XBB_MACHINE_NAME];
	uint32_t	domid;		/* the frontend's domain */
	uint32_t	number;		/* of the device there */
	uint32_t	unit;		/* ours, of the driver */
	uint32_t	reserved;
};

/*
 * What every segment begins with, whichever the family: enough to refuse what
 * is none, or is laid out otherwise, to find its parts, and to know whose it
 * is.  Sizes and counts are believed once, when it is mapped.
 */
struct xbb_segment_head {
	uint32_t	magic;		/* XBB_STATE_MAGIC */
	uint32_t	version;	/* XBB_STATE_VERSION: of what is here */
	uint32_t	family;		/* enum xbb_family_kind */
	uint32_t	table_version;	/* of all that is the family's */
	uint64_t	size;		/* bytes of the whole segment */
	uint32_t	nrings;
	uint32_t	table_entries;	/* entries of each ring's table */
	struct xbb_identity identity;
};

/* Where a queue is in its life, and if it stopped by itself, why. */
struct xbb_queue_status {
	uint32_t	state;			/* enum xbb_queue_state */
	uint32_t	reason;			/* enum xbb_stop_reason */
	int32_t		errnum;			/* that goes with the reason */
};

/* Any ring: what was negotiated, and where it stands. */
struct xbb_ring_common {
	uint32_t	connected;	/* a queue serves this ring now */
	uint32_t	ring_pages;
	uint32_t	transport;	/* enum xbb_transport, MAP or COPY */
	uint32_t	max_requests;	/* slots of the ring */
	uint32_t	persistent;	/* grants stay mapped */
	uint32_t	grants_persistent;	/* so many do now */
	uint32_t	req_cons;	/* next request index to read */
	uint32_t	rsp_prod;	/* last response index pushed */
	struct xbb_queue_status status;	/* of its queue */
	struct xbb_common_counters counters;
};

/*
 * Of all queues together: I/O threads beyond the first of each, their buffers.
 */
struct xbb_io_use {
	uint32_t	threads;
	uint64_t	bytes;
	uint64_t	over_bound;	/* times that one was refused */
	uint64_t	failed;		/* times that the host had none */
};

/*
 * A process as the kernel has it.  When it began is by a clock that nobody
 * sets, to tell it from another one that has its number later.
 */
struct xbb_process {
	uint64_t	rss_kb;		/* resident memory */
	uint64_t	began_ms;
	uint64_t	age_ms;		/* since then */
};

/* How much may stay mapped for guests; for the whole process, at any time. */
struct xbb_budget_limits {
	uint32_t	mappings;	/* of this process, for all guests */
	uint32_t	grants;		/* kept of all guests */
	uint32_t	guest_grants;	/* of one guest, on all its rings */
};

/*
 * What is kept beyond new limits is given back a little later.  Used: mappings
 * with those set aside for open queues, and grants that are kept.
 */
void	xbb_budget_set(const struct xbb_budget_limits *limits);
void	xbb_budget_used(uint32_t *mappingsp, uint32_t *grantsp);

/*
 * Bound what struct xbb_io_use counts, for queues to come and those that run;
 * threads that exist stay, and are told; one being made just then may be
 * missing.  There is no bound before the first call.  May overlap anything.
 */
void	xbb_io_bound(uint32_t threads, uint64_t bytes, struct xbb_io_use *use);
void	xbb_io_use(struct xbb_io_use *use);

/*
 * For a wake_fd: a descriptor that is readable once it was written to, and not
 * any more once it was read; or a negative errno.
 */
int	xbb_wake_open(void);

/* Most descriptors of a ring, without those that several can have together. */
uint32_t xbb_conn_descriptors(const struct xbb_conn_params *params);

/*
 * Questions to the operating system.  pseudo_file_system: is an open file one
 * of the kernel's answers, and no storage?  1, and the name of what it is on,
 * or 0.  kernel_environment: a variable of the loader's (FreeBSD); ENOENT if it
 * is not set, ENOSYS where there is no such thing.  peer: which process is at
 * the other end of a connected local socket, and whose; of one that listened,
 * who called listen(2) last.  process_look: what a process has; ESRCH if it has
 * ended.  host_waited: how long some thread of the system has waited for a
 * processor, since it began; or a negative errno, where it does not say.
 * thread_name: tell it what the calling thread is, for top(1); what is
 * too long for it is cut off.
 */
int	xbb_pseudo_file_system(int fd, char name[XBB_FILE_SYSTEM_NAME]);
int	xbb_kernel_environment(const char *variable,
	    char value[XBB_KERNEL_VALUE]);
int	xbb_peer(int fd, int32_t *pidp, uint32_t *uidp);
int	xbb_process_look(int32_t pid, struct xbb_process *process);
int	xbb_host_waited(uint64_t *nsp);
void	xbb_thread_name(const char *name);

/*
 * Simulated machine (hv/sim.c).  A domain is a directory; format makes its
 * memory and grant table, mapped counts grants of it that live processes have
 * mapped (all references, or one).
 */
int	xbb_sim_format(int domain_fd, uint32_t npages);
int	xbb_sim_mapped(int domain_fd, uint32_t *countp);
