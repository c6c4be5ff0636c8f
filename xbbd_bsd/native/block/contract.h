/*
 * contract.h - the family "vbd" in the contract (xbb.h): requests for sectors
 * of a disk, the state segment of a disk, and its queues.  cffi reads it after
 * faults.h, and servers.h after it; C files get all of them through block.h.
 */

#define XBB_SECTOR_SIZE		512	/* the unit on the wire (blkif.h) */
#define XBB_SECTORS_PER_PAGE	8
/* Of a disk's segment, all but its head. */
#define XBB_TABLE_VERSION	5
#define XBB_MAX_REQUESTS	1024	/* slots of the largest ring */
/* BLKIF_MAX_SEGMENTS_PER_REQUEST */
#define XBB_MAX_SEGMENTS	11
/* BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST */
#define XBB_MAX_INDIRECT_PAGES	8
#define XBB_MAX_INDIRECT_SEGMENTS 256	/* most we offer, as Linux does */
#define XBB_MAX_BATCH_SEGMENTS	256	/* one disk operation may gather */
/* Bytes of the largest sector a disk may have. */
#define XBB_MAX_BLOCK_SIZE	65536

/* Operations of a ring request (blkif.h). */
enum xbb_op {
	XBB_OP_READ		= 0,
	XBB_OP_WRITE		= 1,
	XBB_OP_WRITE_BARRIER	= 2,
	XBB_OP_FLUSH_DISKCACHE	= 3,
	XBB_OP_DISCARD		= 5,
	/* on the ring only: says how segments are passed */
	XBB_OP_INDIRECT		= 6
};

/* Flags of a discard (blkif.h). */
enum xbb_discard_flag { XBB_DISCARD_SECURE = 1 };

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

/* What stands behind a disk descriptor. */
enum xbb_disk_kind {
	XBB_DISK_FILE		= 0,
	XBB_DISK_DEVICE		= 1,
	/* Nothing: connections to a server come by xbb_queue_connect(). */
	XBB_DISK_NBD		= 2,
	/* An image of xbb_rbd_open(), in this process. */
	XBB_DISK_RBD		= 3
};

/*
 * Life of an entry of the in-flight table: from when its request is read off
 * the ring, valid or not, until its response is published.  So whoever finds
 * the table after a crash knows of each request that is owed one.
 */
enum xbb_req_state {
	XBB_REQ_FREE		= 0,
	XBB_REQ_ACCEPTED	= 1,	/* valid, waiting */
	XBB_REQ_DISPATCHED	= 2,	/* part of a batch given to the disk */
	XBB_REQ_DONE		= 3,	/* status known, or it was refused */
	XBB_REQ_ANSWERED	= 4	/* response put, not published */
};

/* A run of sectors in one granted page. */
struct xbb_segment {
	uint32_t	gref;		/* grant reference of the page */
	uint8_t		first_sect;	/* 0 to 7 */
	uint8_t		last_sect;	/* first_sect to 7 */
	uint16_t	reserved;
};

/*
 * A private copy of one ring request: an entry of the in-flight table.  Of one
 * that was refused the fields are what the guest wrote, whatever that is.
 */
struct xbb_req {
	uint64_t	id;	/* the guest's, echoed in the response */
	uint64_t	sector;		/* first sector on the disk */
	/* sum over the segments, or to discard */
	uint64_t	nsectors;
	uint64_t	received_ns;	/* CLOCK_MONOTONIC when copied */
	uint32_t	ring_index;	/* its request index on the ring */
	uint32_t	rsp_index;	/* its response's, once ANSWERED */
	int16_t		status;		/* enum xbb_rsp, once DONE */
	uint16_t	next;		/* link of the list it is on */
	uint16_t	nseg;
	uint8_t		state;		/* enum xbb_req_state */
	/* enum xbb_op; the inner one if indirect */
	uint8_t		operation;
	uint8_t		indirect;	/* segments lie in pages of their own */
	uint8_t		flags;		/* enum xbb_discard_flag */
	uint16_t	reserved;
	union {
		struct xbb_segment seg[XBB_MAX_SEGMENTS];
		uint32_t indirect_ref[XBB_MAX_INDIRECT_PAGES];
	};
};

/* What to do when the disk fails (policy.c). */
enum xbb_policy {
	XBB_POLICY_REPORT	= 0,	/* the guest gets an error */
	XBB_POLICY_RETRY	= 1,	/* after a while, for a while */
	XBB_POLICY_PAUSE	= 2,	/* nothing is begun until resumed */
	XBB_POLICY_STOP		= 3,	/* it gets one, and no more */
	/* of a full disk: as of any error, but pause instead of retry */
	XBB_POLICY_AUTO		= 4
};

/* Written by the control plane at any time, read by the data plane at use. */
struct xbb_tunables {
	int32_t		disable_flush;	/* answer flushes without doing them */
	int32_t		flush_interval;		/* do one flush of N; 0: each */
	/* every request a batch of its own */
	int32_t		no_coalesce_reqs;
	/* most time to look for work before sleeping */
	int32_t		poll_max_us;
	/* unmap those not used for so long; 0: never */
	int32_t		persistent_grant_unused_seconds;
	int32_t		on_error;	/* enum xbb_policy, but AUTO */
	int32_t		on_full;	/* likewise, of want of room */
	int32_t		retry_seconds;	/* of RETRY, before REPORT */
};

/*
 * What may be limited in a second: operations and bytes moved, of all that is
 * asked for, of what is read and of what is written.  Even ones are operations.
 */
enum xbb_rate_kind {
	XBB_RATE_IOPS		= 0,
	XBB_RATE_BYTES		= 1,
	XBB_RATE_READ_IOPS	= 2,
	XBB_RATE_READ_BYTES	= 3,
	XBB_RATE_WRITE_IOPS	= 4,
	XBB_RATE_WRITE_BYTES	= 5
};
#define XBB_RATE_KINDS		6

/* Whose limits those are: all of them hold. */
enum xbb_rate_level {
	XBB_RATE_DISK		= 0,
	XBB_RATE_GUEST		= 1,	/* all disks of its guest together */
	XBB_RATE_GROUP		= 2	/* all of its group */
};
#define XBB_RATE_LEVELS		3
#define XBB_BURST_MS		100	/* of a fresh segment */
#define XBB_RATE_SHARERS	64	/* with a place of their own */
#define XBB_RATE_MAGIC		0x52424253	/* "SBBR" in memory */
#define XBB_RATE_VERSION	1
#define XBB_RATE_FILE_SIZE	4096	/* of struct xbb_rate_file, and zeros */

/* Tunables, too.  Of a burst: what may be done ahead of time. */
struct xbb_rate_limits {
	uint64_t	most[XBB_RATE_KINDS];	/* 0: any amount */
	uint64_t	burst_ms;
};

/* One of those who share limits: a ring of a disk, a disk of a guest. */
struct xbb_rate_sharer {
	uint64_t	had;	/* how much it had, as rate.c counts that */
	uint64_t	waits;		/* with this turn; 0: it does not */
};

/* Where those who go by the same limits meet. */
struct xbb_rate_words {
	/* When all would have been due at the allowed rate. */
	uint64_t	due_ns[XBB_RATE_KINDS];	/* CLOCK_MONOTONIC */
	uint64_t	turn;			/* of the last one */
	struct xbb_rate_sharer sharer[XBB_RATE_SHARERS];
};

/* These words in a file, for the disks of a guest, or of a group. */
struct xbb_rate_file {
	uint32_t	magic;		/* XBB_RATE_MAGIC */
	uint32_t	version;	/* XBB_RATE_VERSION */
	struct xbb_rate_words words;
};

/* And of a disk's; descriptions are in stats.py, checked by a test. */
struct xbb_counters {
	uint64_t	reqs_received;
	uint64_t	reqs_completed;
	uint64_t	reqs_queued_for_completion;
	uint64_t	reqs_completed_with_error;
	uint64_t	forced_dispatch;
	uint64_t	normal_dispatch;
	uint64_t	total_dispatch;
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
	uint64_t	io_held;
	uint64_t	io_retries;
	uint64_t	throttled;
	uint64_t	throttled_ns;
	uint64_t	reconnects;
};

/* Everything a queue is made of.  Descriptors stay the caller's. */
struct xbb_queue_params {
	struct xbb_conn_params conn;
	int32_t		disk_fd;
	uint32_t	disk_kind;	/* enum xbb_disk_kind */
	uint32_t	abi;		/* enum xbb_abi */
	uint32_t	read_only;
	uint32_t	sector_size;	/* the frontend must keep, bytes */
	uint32_t	block_size;	/* the disk wants, >= sector_size */
	uint32_t	bounce;		/* it wants one aligned buffer */
	uint32_t	discard;	/* offered; 2: secure ones too */
	uint32_t	max_batch_segments;	/* 11 to the most */
	/* Offered, 0 or 11 to max_batch_segments. */
	uint32_t	max_indirect_segments;
	uint32_t	max_grants;	/* most data pages mapped at once */
	/* A server that does not answer for so long is left for another one. */
	uint32_t	patience_ms;
	/* So long after that what the first one was given may still be done. */
	uint32_t	late_ms;
};

/* The connection to a store that is reached over one. */
enum xbb_link_state {
	XBB_LINK_NONE		= 0,	/* it needs none */
	XBB_LINK_WANTED		= 1,	/* whoever can is to connect it */
	XBB_LINK_BEGUN		= 2,	/* there is one, not agreed upon yet */
	XBB_LINK_READY		= 3
};

struct xbb_link {
	uint32_t	state;		/* enum xbb_link_state */
	int32_t		errnum;		/* why the last one ended, 0: none */
	uint64_t	since_ns;	/* it is so, CLOCK_MONOTONIC */
	uint64_t	unflushed;	/* bytes kept to be written again */
};

/* One ring of a disk: what was negotiated, and its counters. */
struct xbb_ring_state {
	struct xbb_ring_common common;
	/* What it was opened with, descriptors -1, for whoever comes next. */
	struct xbb_queue_params params;
	uint32_t	abi;		/* enum xbb_abi */
	uint32_t	max_request_segments;
	uint32_t	max_request_size;	/* bytes */
	uint32_t	inflight;	/* neither FREE nor ANSWERED */
	uint32_t	grants_mapped;	/* pages of requests at the disk now */
	struct xbb_devstat dispatched;	/* as given to the disk (xbb) */
	struct xbb_devstat received;	/* as they came in (xbbi) */
	struct xbb_counters counters;
	struct xbb_faults faults;	/* faults.h */
	/* of the pause that it has followed, with nothing at the disk */
	uint32_t	pause_seen;
	uint32_t	reserved;
	struct xbb_link	link;
};

/* Whose disk the segment is about, for whoever finds it after us. */
struct xbb_medium {
	uint64_t	device;	/* st_dev of a file, st_rdev of a disk device */
	uint64_t	inode;			/* of a file */
	uint32_t	kind;			/* enum xbb_disk_kind */
	uint32_t	known;	/* the rest of this is filled in */
	uint32_t	shared;		/* others may have it as well */
	uint32_t	reserved;
	uint8_t		path[1024];	/* cut to fit, as its end is NUL */
	uint8_t		guest[64];		/* likewise, the guest's name */
	/* what a cluster calls whoever serves it, and has its lock */
	uint8_t		holder[64];
};

/*
 * How often whoever served it died and another went on.  Longest: of requests
 * in flight then, the longest that one had waited by when there was another.
 */
struct xbb_takeovers {
	uint64_t	count;
	uint64_t	longest_ns;
};

/* Why nothing is begun, as bits. */
enum xbb_pause_why {
	XBB_PAUSE_ASKED		= 1,	/* an operator wants it */
	XBB_PAUSE_FAILED	= 2,	/* the disk has failed */
	/* another disk is about to take its place; ends with who does it */
	XBB_PAUSE_SWAPPED	= 4
};

/*
 * A disk that is paused: what was begun ends, and nothing is begun.  The
 * control plane pauses and ends it; a ring whose requests fail pauses only.
 */
struct xbb_pause {
	uint32_t	why;	/* of enum xbb_pause_why; 0: it is not paused */
	/* grows with each change that rings are to follow */
	uint32_t	serial;
	uint64_t	since_ns;	/* since 1970, of its beginning */
};

/* The state segment of a disk: this, then a table and histograms a ring. */
struct xbb_state {
	struct xbb_segment_head head;
	/* size of the disk now, 512-byte sectors */
	uint64_t	sectors;
	struct xbb_tunables tunables;
	/* of the first flush that failed; EFBIG: cut off under a write */
	int32_t		lost_errno;
	uint32_t	limited;	/* by which levels, a bit each */
	/* grows: what is accepted by then waits for no limit */
	uint32_t	pardons;
	struct xbb_rate_limits rates[XBB_RATE_LEVELS];
	/* its own, and others' where these have no file that is shared */
	struct xbb_rate_words words[XBB_RATE_LEVELS];
	struct xbb_medium medium;		/* the control plane's */
	struct xbb_takeovers takeovers;		/* likewise */
	/* likewise: so many rings its guest connected */
	uint32_t	connection_rings;
	uint32_t	reserved;
	struct xbb_pause pause;
	struct xbb_ring_state ring[XBB_MAX_RINGS];
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
 * xbb_state_fence() says by which descriptor of the file its lock is held; it
 * must be open for as long as rings work on it.
 * xbb_state_lose() notes that the disk has lost something, the first errno for
 * good, xbb_state_lost() reads it, and xbb_state_believe() takes it back.
 */
int	xbb_state_format(int fd, const struct xbb_identity *identity,
	    uint32_t nrings, uint32_t table_entries);
int	xbb_state_map(int fd, int writable, struct xbb_state **statep);
void	xbb_state_unmap(struct xbb_state *state);
void	xbb_state_fence(struct xbb_state *state, int fd);
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
 * xbb_state_pause() has nothing begun any more, for a reason of enum
 * xbb_pause_why, and xbb_state_resume() all of it again, whatever the reason
 * was; xbb_state_unpause(), unless there is another.  Rings follow once
 * xbb_queue_look() was called on them; xbb_state_followed() says whether all
 * have that are served: then nothing is at the disk, or nothing is held back.
 */
void	xbb_state_pause(struct xbb_state *state, uint32_t why);
void	xbb_state_resume(struct xbb_state *state);
void	xbb_state_unpause(struct xbb_state *state, uint32_t why);
int	xbb_state_followed(const struct xbb_state *state);

/*
 * What to do about an errno of the disk's, by what the tunables say; gone: all
 * of it is.  And how long to wait for the next try, milliseconds.
 */
uint32_t xbb_policy_of(int32_t on_error, int32_t on_full, int32_t errnum,
	    int gone);
uint32_t xbb_policy_wait_ms(uint32_t tries);

/*
 * Limits.  xbb_rate_set() changes one of a level, or the burst of all of them,
 * at any time (EINVAL: no such level or kind; XBB_RATE_KINDS is the burst);
 * whoever is held back goes by it within a twentieth of a second.
 * xbb_rate_pardon() has all that is accepted by then held back no longer, as
 * its guest is about to close; it counts, and what comes later waits for it.
 * xbb_rate_format() makes a fresh file of words, xbb_rate_map() maps one, and
 * refuses what is none (EINVAL); they stay until xbb_rate_unmap().
 * xbb_rate_share() has the disk of a segment go by these words at a level, from
 * when its queues are opened on, and until the segment is unmapped; NULL: by
 * its own.
 */
int	xbb_rate_set(struct xbb_state *state, uint32_t level, uint32_t kind,
	    uint64_t value);
void	xbb_rate_pardon(struct xbb_state *state);
int	xbb_rate_format(int fd);
int	xbb_rate_map(int fd, struct xbb_rate_words **wordsp);
void	xbb_rate_unmap(struct xbb_rate_words *words);
int	xbb_rate_share(struct xbb_state *state, uint32_t level,
	    struct xbb_rate_words *words);

/*
 * Queue.  xbb_queue_open() maps the ring and binds the event channel, and
 * xbb_queue_start() starts the ring's thread: before that nothing is read from
 * the ring, so that of several rings all can be had or none has begun.  A ring
 * of the segment has one queue at a time.  xbb_queue_hand_over() drains too,
 * but has the segment say that the ring is served, for whoever adopts it, who
 * finds nothing unanswered but what is held back.  xbb_queue_look() has it look
 * at what the segment says; xbb_queue_owes(), once DRAINED, says whether
 * anything was held back.  All these and xbb_queue_status() may overlap
 * anything but close.  xbb_queue_close() drains if nobody did, joins the
 * threads, and gives back every mapping and the event channel: it waits for I/O
 * in flight, so that who must not calls it once DRAINED.
 */
int	xbb_queue_open(const struct xbb_queue_params *params,
	    struct xbb_state *state, struct xbb_error *error,
	    struct xbb_queue **queuep);
int	xbb_queue_start(struct xbb_queue *queue, struct xbb_error *error);
void	xbb_queue_drain(struct xbb_queue *queue);
void	xbb_queue_hand_over(struct xbb_queue *queue);
void	xbb_queue_look(struct xbb_queue *queue);
int	xbb_queue_owes(const struct xbb_queue *queue);
void	xbb_queue_status(struct xbb_queue *queue,
	    struct xbb_queue_status *status);
void	xbb_queue_close(struct xbb_queue *queue);

/*
 * Most memory of a queue with one I/O thread, bytes; no grants, no descriptors.
 */
uint64_t xbb_queue_bytes(const struct xbb_queue_params *params);

/* Can holes be made in this file?  Its first page is lost by that. */
int	xbb_file_can_punch(int fd);

/* Can this disk, open for writing, be flushed?  It is; 1, 0 or an errno. */
int	xbb_can_flush(int fd, uint32_t disk_kind);

/* Most requests a ring of so many pages holds; 0 for an ABI that is none. */
uint32_t xbb_max_requests(uint32_t abi, uint32_t ring_pages);
