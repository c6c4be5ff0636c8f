/*
 * internal.h - the private side of the data plane: structs, then prototypes
 * file by file.  It brings along xbb.h and faults.h, hv.h, verdict.h, which has
 * why requests fail, and persist.h, which has the grants that stay mapped.  Every
 * C file includes it, those of frontends by front.h and those of the simulated
 * hypervisor by sim_memory.h; freebsd_xen.h is for hv_freebsd.c alone.
 *
 * Threads.  A queue has one ring thread, which alone touches the ring, the
 * lists of requests and batches, the event channel and the counters, and up to
 * params.workers I/O threads, which touch only the batch that they were given
 * and its requests.  Batches go to the workers through the run queue and come
 * back through the done list.
 *
 * Locks.  pool.lock, for the run queue and the idle count; one of the flushes of
 * a disk, which all its queues share (flush.c); and one of the process, for who
 * has a budget (budget.c), under which rings are kicked.  None is held across
 * I/O, a hypervisor call or another lock.  hv_freebsd.c has one of its own, for
 * its port, inside hypervisor calls, and mapping.c one for who maps segments.
 */
#ifndef XBB_INTERNAL_H
#define XBB_INTERNAL_H

#include <sys/types.h>
#include <sys/uio.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "faults.h"
#include "xbb.h"
#include "hv.h"
#include "persist.h"
#include "verdict.h"

_Static_assert(XBB_MAP_PAGES >= XBB_MAX_BATCH_SEGMENTS &&
    XBB_MAP_PAGES >= XBB_MAX_RING_PAGES, "a map holds a batch or a ring");

#define XBB_MAX_SECTORS	(INT64_MAX / XBB_SECTOR_SIZE) /* an off_t counts bytes */
#define XBB_NONE	UINT16_MAX	/* end of an index list */
#define XBB_SLOWEST	80		/* most of a slowness, see batch.c */
#define XBB_SLOT_WORDS	28		/* 32-bit words of the largest ring slot */

/* Where the fields of a ring slot lie; what all ABIs share is in blkif.c. */
struct xbb_layout {
	uint8_t		slot_size;	/* bytes from one slot to the next */
	uint8_t		rsp_size;	/* bytes of a response */
	uint8_t		id;		/* offset of the request's id */
	uint8_t		sector;		/* offset of its start sector */
	uint8_t		seg;		/* offset of its segments */
};

/* Indices at the head of a shared ring (ring.h). */
struct xbb_sring {
	uint32_t	req_prod;
	uint32_t	req_event;
	uint32_t	rsp_prod;
	uint32_t	rsp_event;
	uint8_t		pad[48];
};

/* A ring as its backend sees it. */
struct xbb_ring {
	struct xbb_sring *sring;
	uint8_t		*slots;
	const struct xbb_layout *layout;
	uint32_t	 nslots;	/* a power of two */
	uint32_t	 req_cons;	/* next request to copy out */
	uint32_t	 rsp_prod_pvt;	/* next response to fill in */
	uint32_t	 rsp_prod;	/* what the frontend was told last */
};

/* What a valid request must keep to. */
struct xbb_limits {
	uint64_t	sectors;	/* size of the disk */
	uint32_t	sector_size;	/* bytes, a power of two >= 512 */
	uint32_t	max_indirect_segments;	/* 0: not offered */
	bool		read_only;
	bool		discard;	/* offered */
	bool		secure;		/* likewise, secure ones */
};

/* How far requests may be merged. */
struct xbb_coalesce {
	uint32_t	max_segments;
	bool		disabled;	/* no_coalesce_reqs */
};

/* What carrying a batch out came to; the ring thread adds it to the counters. */
struct xbb_tally {
	uint32_t	grants_mapped;
	uint32_t	grants_unmapped;
	uint32_t	grants_copied;
	uint32_t	grant_errors;
	uint32_t	flushes;
	uint32_t	io_short;
	uint32_t	io_errors;
	uint32_t	io_bounced;
	uint32_t	io_read_modify_write;
	int16_t		gone_errno;	/* the disk is gone; 0: it is not */
	int16_t		lost_errno;	/* of the disk's segment, as it was seen; 0: none */
	int16_t		failed_errno;	/* of what the disk failed at first; 0: at nothing */
	uint8_t		failed_op;	/* enum xbb_disk_op, then */
	bool		shrunk;		/* that was beyond its end */
	enum xbb_shortage shortage;	/* grants could not be had for now */
};

/* Adjacent requests of one operation that go to the disk together. */
struct xbb_batch {
	struct xbb_tally tally;		/* result */
	uint64_t	 sector;	/* first sector on the disk */
	uint64_t	 nsectors;
	uint64_t	 begun_ns;	/* when it was given to the disk */
	uint64_t	 ended_ns;	/* and was done */
	uint64_t	 order;		/* of starting; of a flush that waits: before it */
	uint16_t	 nseg;
	uint16_t	 nreq;
	uint16_t	 first, last;	/* requests, linked by xbb_req.next */
	uint8_t		 operation;
	bool		 secure;	/* a discard beyond recovery */
	bool		 faked;		/* a flush that the tunables suppress */
	bool		 flushed;	/* a barrier, whose first flush is done */
	bool		 persistent;	/* all its pages are pinned */
	bool		 starved;	/* some of it is to be tried again later */
	bool		 has_starved;	/* ever */
	struct xbb_batch *next;		/* link of the list it is on */
	struct xbb_batch *prev_started, *next_started;
};

struct xbb_batch_list {
	struct xbb_batch *head, *tail;
	uint32_t	 count;
};

/* Started batches, by prev_started and next_started, the oldest first. */
struct xbb_started {
	struct xbb_batch *oldest, *newest;
};

/* I/O threads of a queue and what waits for them. */
struct xbb_pool {
	pthread_mutex_t	 lock;
	pthread_cond_t	 cond;
	struct xbb_batch_list run;	/* lock */
	uint32_t	 idle;		/* lock: threads that nobody woke yet */
	uint32_t	 waking;	/* lock: woken or new, not yet at the queue */
	uint32_t	 begun;		/* lock: threads that have begun */
	uint32_t	 tokens;	/* lock: wake-ups not yet noticed */
	uint32_t	 nthreads;	/* ring thread, or close */
	bool		 stop;		/* lock */
	bool		 short_of_threads;	/* ring thread: it has told so */
	size_t		 buffer_size;	/* bytes, if data goes by one, else 0 */
	uint8_t		*buffer[XBB_MAX_WORKERS];	/* of each thread, as made */
	pthread_t	 thread[XBB_MAX_WORKERS];
};

/* Does a thread sleep in its work?  See batch.c. */
struct xbb_sleeper {
	uint64_t	 count;		/* of its sleeps, when it last looked */
	uint32_t	 extra_ns;	/* how long it may take without a look */
	bool		 relaxed;	/* it was awake then: look less often */
	bool		 stale;		/* it has slept elsewhere since */
};

struct xbb_queue {
	struct xbb_queue_params params;
	const struct xbb_hv_ops *ops;
	struct xbb_hv	*hv;
	const struct xbb_mapping *mapping;	/* of the state segment */
	const uint64_t	*sectors;	/* of the disk now, in the state segment */
	struct xbb_ring_state *rs;	/* in the state segment */
	struct xbb_req	*table;		/* the in-flight table there: written only */
	struct xbb_req	*reqs;		/* what we go by, which none can damage */
	struct xbb_verdict *verdicts;	/* by table entry, of requests that failed */
	uint64_t (*latency)[XBB_LATENCY_BUCKETS]; /* by enum xbb_devstat_kind, there too */
	struct xbb_segment *segments;	/* of indirect requests, by table entry */
	size_t		 segments_size;	/* bytes */
	uint32_t	 max_segments;	/* of a request */
	const struct xbb_tunables *tunables;
	struct xbb_flushes *flushes;	/* of the disk, shared with its other queues */
	struct xbb_limits limits;
	struct xbb_map	 ring_map;
	bool		 copies;	/* grants are copied, not mapped */
	uint8_t		*buffer;	/* the ring thread's; workers' are the pool's */
	struct xbb_persist persist;	/* max 0: not negotiated */
	struct xbb_budget *budget;	/* of the guest, shared with its other disks */
	struct xbb_queue *next_of_guest;	/* budget.c's */

	/* Ring thread only. */
	struct xbb_ring	 ring;
	uint64_t	 now_ns;	/* when the ring was last read */
	uint64_t	 trimmed_ns;	/* when unused grants were last looked for */
	uint16_t	 free_req;	/* list of free table entries */
	uint32_t	 inflight;	/* entries not free */
	struct xbb_batch *batches;	/* as many as table entries */
	struct xbb_batch *free_batch;
	struct xbb_batch_list pending;	/* merged, not yet started */
	struct xbb_batch_list waiting;	/* flushes, for writes before them */
	struct xbb_started started[2];	/* by whether they write */
	uint64_t	 starts;	/* batches started so far */
	uint32_t	 nstarted;
	uint32_t	 started_segments;
	bool		 barrier_started;
	uint32_t	 unpushed;	/* responses filled in, not pushed */
	uint32_t	 flush_count;	/* of the flush_interval */
	uint64_t	 poll_ns;	/* how long looking for work pays */
	uint32_t	 sleeps_unpolled;	/* without looking first */
	uint32_t	 idle_events;	/* events in a row that brought nothing */
	bool		 masked;	/* event channel awaits unmask */
	bool		 short_of_grants;
	unsigned int	 pressure;	/* the budget's, when last looked at */
	unsigned int	 hard_pressure;
	struct xbb_batch_list starved;	/* started, for another try */
	bool		 ring_starved;	/* the next request is for another try */
	bool		 ring_has_starved;	/* and has had one */
	uint64_t	 retry_ns;	/* when that is; 0: nothing starves */
	uint32_t	 retry_ms;	/* how long the last wait was */
	uint32_t	 long_waits;	/* of the longest kind, so far */
	uint64_t	 give_up_ns;	/* draining: no try after that; 0: not known yet */

	/* Shared. */
	_Atomic(struct xbb_batch *) done;	/* stack, filled by workers */
	atomic_uint	 slowness;	/* of reads and writes, see batch.c */
	atomic_uint	 flush_slowness;	/* of flushes and barriers */
	atomic_int	 unmap_errnum;	/* of the first that failed */
	atomic_bool	 sleeping;	/* ring thread is about to poll */
	atomic_bool	 draining;
	atomic_uint	 state;		/* enum xbb_queue_state */
	atomic_uint	 reason;	/* enum xbb_stop_reason */
	atomic_int	 errnum;
	int		 kick[2];	/* pipe that ends the ring thread's poll */
	struct xbb_pool	 pool;
	pthread_t	 thread;
	bool		 has_thread;	/* opener's */

	/* Each thread its own: 0 the ring's, then the workers. */
	struct xbb_sleeper sleeper[1 + XBB_MAX_WORKERS];
};

/*
 * Words that another process may look at: whole loads and stores, no order.
 * Each counter has one writer, so adding needs no locked instruction.
 */
#define XBB_SET(word, value) \
	__atomic_store_n(&(word), (value), __ATOMIC_RELAXED)
#define XBB_GET(word) \
	__atomic_load_n(&(word), __ATOMIC_RELAXED)
#define XBB_COUNT(counter, n) \
	XBB_SET(counter, XBB_GET(counter) + (n))

/* The segments of the request at a table entry. */
static inline const struct xbb_segment *
xbb_req_segments(const struct xbb_queue *q, uint16_t r)
{

	return (q->reqs[r].indirect ?
	    q->segments + (size_t)r * q->max_segments : q->reqs[r].seg);
}

/* A request goes a step on in its life, for us and for whoever reads the table. */
static inline void
xbb_req_step(const struct xbb_queue *q, uint16_t r, enum xbb_req_state state)
{

	q->reqs[r].state = (uint8_t)state;
	XBB_SET(q->table[r].state, (uint8_t)state);
}

/* Goes through the segments of a batch, in the order of its data. */
struct xbb_walk {
	const struct xbb_queue *q;
	const struct xbb_segment *seg;	/* the current one */
	uint16_t	 r, last;	/* its request, and the batch's last */
	uint32_t	 i;		/* its number in the request */
};

static inline struct xbb_walk
xbb_walk_batch(const struct xbb_queue *q, const struct xbb_batch *batch)
{

	return ((struct xbb_walk){ .q = q, .r = batch->first,
	    .last = batch->last });
}

static inline bool
xbb_walk_next(struct xbb_walk *walk)
{

	if (walk->seg != NULL)
		walk->i++;
	while (walk->i == walk->q->reqs[walk->r].nseg) {
		if (walk->r == walk->last)
			return (false);
		walk->r = walk->q->reqs[walk->r].next;
		walk->i = 0;
	}
	walk->seg = &xbb_req_segments(walk->q, walk->r)[walk->i];
	return (true);
}

/* Bytes of a segment. */
static inline uint32_t
xbb_segment_bytes(const struct xbb_segment *seg)
{

	return (XBB_SECTOR_SIZE * (seg->last_sect - seg->first_sect + 1U));
}

/* Tell the processor that this is a loop which waits. */
static inline void
xbb_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* blkif.c - layouts of the ABIs; requests and responses; what is valid.  Pure. */
const struct xbb_layout *xbb_layout(uint32_t abi);
uint32_t xbb_ring_slots(const struct xbb_layout *layout, uint32_t ring_pages);
void	xbb_request_decode(const struct xbb_layout *layout,
	    const uint32_t *slot, struct xbb_req *req);
void	xbb_request_encode(const struct xbb_layout *layout,
	    const struct xbb_req *req, uint32_t *slot);
enum xbb_refusal xbb_request_admit(const struct xbb_limits *limits,
	    const struct xbb_req *req);
enum xbb_refusal xbb_request_validate(const struct xbb_limits *limits,
	    struct xbb_req *req, const struct xbb_segment *seg);
int16_t	xbb_refusal_status(enum xbb_refusal why);
uint64_t xbb_request_extent(const struct xbb_req *req);
uint32_t xbb_indirect_pages(uint32_t nseg);
void	xbb_response_encode(uint64_t id, uint8_t operation, int16_t status,
	    uint32_t words[4]);

/* ring.c - shared indices, memory barriers, slot copies, when to notify. */
void	xbb_ring_init(struct xbb_ring *ring, void *base, uint32_t ring_pages,
	    const struct xbb_layout *layout);
int	xbb_ring_unread(const struct xbb_ring *ring, uint32_t *countp);
void	xbb_ring_copy_request(struct xbb_ring *ring,
	    uint32_t slot[XBB_SLOT_WORDS]);
void	xbb_ring_leave_request(struct xbb_ring *ring);
void	xbb_ring_put_response(struct xbb_ring *ring, uint64_t id,
	    uint8_t operation, int16_t status);
bool	xbb_ring_push_responses(struct xbb_ring *ring);
bool	xbb_ring_final_check(struct xbb_ring *ring);
void	xbb_copy_words(uint32_t *to, const uint32_t *from, size_t bytes);

/* mapping.c - the state segments of this process, whatever befalls the files. */
int	xbb_mapping_add(void *base, size_t size, uint32_t nrings,
	    uint32_t table_entries);
void	xbb_mapping_remove(struct xbb_mapping *mapping);
struct xbb_mapping *xbb_mapping_of(const struct xbb_state *state);
uint32_t xbb_mapping_rings(const struct xbb_mapping *mapping);
uint32_t xbb_mapping_entries(const struct xbb_mapping *mapping);
uint64_t xbb_mapping_sectors(const struct xbb_mapping *mapping);
void	xbb_mapping_resize(struct xbb_mapping *mapping, uint64_t sectors);
void	xbb_mapping_connect(struct xbb_mapping *mapping);
uint64_t xbb_mapping_had(const struct xbb_mapping *mapping);
bool	xbb_mapping_damaged(const struct xbb_mapping *mapping);
int	xbb_mapping_lost(const struct xbb_mapping *mapping);
void	xbb_mapping_lose(struct xbb_mapping *mapping, int errnum);

/* state.c - where things lie in a segment; a loss, as whoever reads often asks. */
int	xbb_state_loss(const struct xbb_mapping *mapping,
	    const struct xbb_state *state);

/* coalesce.c - requests into batches, which batches must wait.  Pure. */
void	xbb_batch_begin(struct xbb_batch *batch, struct xbb_req *reqs,
	    uint16_t req);
bool	xbb_batch_admits(const struct xbb_batch *batch,
	    const struct xbb_req *req, const struct xbb_coalesce *limits);
void	xbb_batch_append(struct xbb_batch *batch, struct xbb_req *reqs,
	    uint16_t req);
bool	xbb_batch_overlaps(const struct xbb_batch *a,
	    const struct xbb_batch *b, uint32_t block_size);
bool	xbb_batch_writes(const struct xbb_batch *batch);
bool	xbb_batch_flushes(const struct xbb_batch *batch);
bool	xbb_batch_is_barrier(const struct xbb_batch *batch);
bool	xbb_batch_is_flush(const struct xbb_batch *batch);
void	xbb_batch_list_put(struct xbb_batch_list *list, struct xbb_batch *batch);
struct xbb_batch *xbb_batch_list_take(struct xbb_batch_list *list);

/* grants.c - the pages of a batch in one call; pages of indirect segments. */
int	xbb_grants_map(struct xbb_queue *q, struct xbb_batch *batch,
	    struct xbb_map *map, uint32_t refs[XBB_MAP_PAGES]);
bool	xbb_unmap(struct xbb_queue *q, struct xbb_map *map);
void	xbb_grants_unmap(struct xbb_queue *q, struct xbb_batch *batch,
	    struct xbb_map *map);
int	xbb_grants_copy(struct xbb_queue *q, struct xbb_batch *batch,
	    uint8_t *buffer, bool to_guest);
int	xbb_grants_fetch(struct xbb_queue *q, const struct xbb_req *req,
	    struct xbb_segment *to, enum xbb_shortage *shortage);

/* Is the ring to look what it can give back?  Ring thread. */
static inline bool
xbb_budget_presses(const struct xbb_queue *q)
{

	return (atomic_load(&q->budget->pressure) != q->pressure);
}

/* data.c - a batch's data between the guest's pages and the disk. */
int	xbb_data_move(struct xbb_queue *q, struct xbb_batch *batch,
	    uint32_t thread);
int	xbb_data_flush(struct xbb_queue *q, struct xbb_batch *batch,
	    uint32_t thread);
int	xbb_data_discard(struct xbb_queue *q, struct xbb_batch *batch);
int	xbb_transfer(int fd, bool write, struct iovec *iov, int niov,
	    off_t offset, bool *was_short);
size_t	xbb_data_buffer_size(const struct xbb_queue_params *params);

/* flush.c - flushes of a disk, one at a time; what is known to be lost. */
int	xbb_flushes_join(struct xbb_state *state, struct xbb_flushes **flushesp);
void	xbb_flushes_leave(struct xbb_flushes *flushes);
int	xbb_flush(struct xbb_flushes *flushes, int fd, uint32_t disk_kind,
	    bool *done);
int	xbb_flushes_lost(const struct xbb_flushes *flushes);
void	xbb_flushes_lose(struct xbb_flushes *flushes, int errnum);
bool	xbb_means_cannot(int error);
bool	xbb_means_gone(int error);

/*
 * batch.c - one batch from start to status; any thread of the queue, which
 * says which it is: 0 the ring's, then the workers.
 */
bool	xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch,
	    uint32_t thread);
void	xbb_batch_give_up(struct xbb_queue *q, struct xbb_batch *batch);
bool	xbb_batch_is_slow(struct xbb_queue *q, const struct xbb_batch *batch);
void	xbb_note_sleeps(struct xbb_queue *q, uint32_t thread);
void	xbb_slept_elsewhere(struct xbb_queue *q, uint32_t thread);
void	xbb_judge_flush(struct xbb_queue *q, uint64_t took, uint32_t thread);

/* devstat.c - the records of devstat(9).  Ring thread. */
enum xbb_devstat_kind xbb_devstat_kind(uint8_t operation, uint64_t nsectors);
void	xbb_devstat_start(struct xbb_devstat *stat, uint64_t now_ns);
void	xbb_devstat_end(struct xbb_devstat *stat, uint8_t operation,
	    uint64_t nsectors, uint64_t moved, uint64_t begun_ns,
	    uint64_t now_ns);

/* probes.c - what a tracer may hook. */
void	xbb_probe_dispatch(const struct xbb_queue *q,
	    const struct xbb_batch *batch);

/* workers.c - the pool of I/O threads, their buffers, the bound of all. */
int	xbb_pool_init(struct xbb_pool *pool);
void	xbb_pool_submit(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_pool_wake(struct xbb_queue *q);
struct xbb_batch *xbb_pool_take(struct xbb_pool *pool);
void	xbb_pool_stop(struct xbb_pool *pool);

/* order.c - which batch is started next.  Ring thread. */
struct xbb_batch *xbb_order_next(struct xbb_queue *q);
void	xbb_order_started(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_order_ended(struct xbb_queue *q, struct xbb_batch *batch);

/* intake.c - requests taken from the ring.  Ring thread. */
bool	xbb_queue_gather(struct xbb_queue *q);

/* queue.c - the ring thread. */
void	*xbb_queue_main(void *queue);
void	xbb_queue_respond(struct xbb_queue *q, const struct xbb_req *req,
	    int16_t status);
void	xbb_queue_done(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_queue_stop(struct xbb_queue *q, enum xbb_stop_reason reason,
	    int errnum);

/* idle.c - the ring thread asleep, and how it is woken. */
void	xbb_queue_idle(struct xbb_queue *q);
void	xbb_queue_kick(struct xbb_queue *q);

/* open.c - making and closing a queue; what failed, in words. */
int	xbb_fail(struct xbb_error *error, const char *operation, int errnum);

/* thread.c - the clock, and threads as the data plane wants them. */
uint64_t xbb_now_ns(void);
uint64_t xbb_wall_ns(void);
uint64_t xbb_thread_cpu_ns(void);
uint64_t xbb_thread_sleeps(void);
int	xbb_thread_start(pthread_t *thread, void *(*main)(void *), void *arg);
void	xbb_thread_is(const char *format, ...)
	    __attribute__((format(printf, 1, 2)));

/* disk_linux.c, disk_freebsd.c - what the platform names differently. */
int	xbb_disk_flush(int fd, uint32_t disk_kind);
int	xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len);
int	xbb_disk_erase(int fd, off_t offset, off_t len);
bool	xbb_disk_is_gone(int fd, uint32_t disk_kind);
int	xbb_file_size(int fd, uint64_t *sizep);
int	xbb_disk_size(int fd, uint32_t disk_kind, uint64_t *sizep);

/* exercise.c - the frontend's side of figures. */
void	xbb_latency_add(uint64_t histogram[XBB_LATENCY_BUCKETS], uint64_t ns);

#endif /* XBB_INTERNAL_H */
