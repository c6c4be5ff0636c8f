/*
 * block.h - a ring of the family "vbd": requests for sectors of a disk.  core.h
 * has what every ring has.  front/ and the tests include it too, no core file
 * does.
 *
 * The lists that a batch is on, one at a time but for the last row:
 *
 *	own.free_batch -- intake --> own.pending -- order --> started
 *	                                |            ^
 *	                  a flush, with |            | those have ended
 *	                  writes before v            |
 *	                            own.waiting -----+
 *
 *	started, as local.c has it:
 *	          +-- the ring's thread itself ------------+--> finish --> free
 *	          |                                        |
 *	          +--> pool.run -- worker --> shared.done -+--> own.starved
 *	                  ^                                |       |
 *	                  |                                +--> own.held
 *	                  +---------- another try -----------------+
 *
 *	own.started[writes]: all that are started and have not finished
 *
 * Threads.  As core.h says; the ring's thread touches all of own, and a worker
 * of a started batch only that, its requests, their verdicts, the pages that
 * are pinned for them, and what is shared.
 *
 * Locks beyond core's: one of the flushes of a disk, which all its rings share
 * (flush.c), held across nothing.
 */
#ifndef XBB_BLOCK_H
#define XBB_BLOCK_H

#include "core/core.h"

#include "block/faults.h"
#include "block/contract.h"
#include "block/servers.h"
#include "block/verdict.h"
#include "block/slots.h"
#include "block/batch.h"
#include "block/store.h"
#include "block/rate.h"
#include "block/away.h"

_Static_assert(XBB_MAP_PAGES >= XBB_MAX_BATCH_SEGMENTS, "a map holds a batch");
_Static_assert(XBB_FETCH_PAGES >= XBB_MAX_INDIRECT_PAGES,
    "all segments are fetched at once");

#define XBB_MAX_SECTORS	(INT64_MAX / XBB_SECTOR_SIZE) /* an off_t is bytes */
#define XBB_SLOWEST	80		/* most of a slowness, see speed.c */

/* Started batches, by prev_started and next_started, the oldest first. */
struct xbb_started {
	struct xbb_batch *oldest, *newest;
};

struct xbb_bulk;

/* Does a thread sleep in its work?  See speed.c. */
struct xbb_sleeper {
	uint64_t	 count;		/* of its sleeps, when it last looked */
	uint32_t	 extra_ns;	/* may take so long without a look */
	bool		 relaxed;	/* was awake then: look less often */
	bool		 stale;		/* has slept elsewhere since */
};

/* What a queue is made of: set when it is opened. */
struct xbb_queue_setup {
	struct xbb_queue_params params;
	const struct xbb_store_ops *store;
	struct xbb_nbd	*nbd;		/* that store's own */
	struct xbb_rbd	*rbd;		/* or that one's */
	const struct xbb_layout *layout;
	const uint64_t	*sectors;	/* of the disk now, in the segment */
	struct xbb_ring_state *rs;	/* in there */
	const struct xbb_tunables *tunables;	/* likewise */
	struct xbb_pause *pause;	/* likewise */
	const uint32_t	*limited;	/* likewise, as the next two */
	const uint32_t	*pardons;
	const struct xbb_rate_limits *rates;	/* by level */
	struct xbb_rate_words *words[XBB_RATE_LEVELS];
	uint64_t (*latency)[XBB_LATENCY_BUCKETS]; /* by devstat kind, too */
	struct xbb_req	*table;		/* in-flight table, written only */
	struct xbb_req	*reqs;		/* what we go by, safe from others */
	struct xbb_verdict *verdicts;	/* by entry, of what failed */
	struct xbb_segment *segments;	/* of indirect requests, by entry */
	size_t		 segments_size;	/* bytes */
	uint16_t	*pinned;	/* page of each segment of each entry */
	size_t		 pinned_size;	/* bytes */
	uint32_t	 max_segments;	/* of a request */
	struct xbb_batch *batches;	/* as many as entries */
	struct xbb_flushes *flushes;	/* of the disk, with its other rings */
	uint8_t		*buffer;	/* ring thread's; workers': pool's */
};

/* The ring's thread alone. */
struct xbb_queue_own {
	struct xbb_ring	 ring;
	struct xbb_persist persist;
	struct xbb_retry retry;		/* of what starves */
	struct xbb_limits limits;
	struct xbb_coalesce merging;
	uint64_t	 now_ns;	/* when the ring was last read */
	uint16_t	 free_req;	/* list of free table entries */
	uint16_t	 answered;	/* and to free with the next push */
	uint16_t	 owed;		/* by whoever died: to take up again */
	uint32_t	 inflight;	/* valid requests, not answered */
	struct xbb_batch *free_batch;
	struct xbb_work_list pending;	/* merged, not yet started */
	struct xbb_work_list waiting;	/* flushes, for writes before them */
	struct xbb_work_list starved;	/* started, for another try */
	struct xbb_work_list held;	/* likewise, since the disk failed */
	struct xbb_started started[2];	/* by whether they write */
	uint64_t	 starts;	/* batches started so far */
	uint32_t	 longest_sweep;	/* that may be; 0: there was none */
	struct xbb_bulk	*bulk;		/* that moves one by one call */
	bool		 bulk_tried;	/* to open that */
	uint32_t	 nstarted;
	uint32_t	 started_segments;
	bool		 barrier_started;
	bool		 short_of_grants;
	bool		 ring_starved;	/* next request: for another try */
	bool		 ring_has_starved;	/* and has had one */
	uint32_t	 unpushed;	/* responses filled in, not pushed */
	uint32_t	 flush_count;	/* of the flush_interval */
	uint32_t	 pause_heard;	/* serial of what a round was for */
	uint32_t	 pause_seen;	/* and of what was followed */
	uint64_t	 throttled_ns;	/* what is next, since; 0: not */
	uint64_t	 turn_ns;	/* when to ask again; 0: never */
	uint32_t	 pardon_seen;
	uint32_t	 pardoned;	/* requests that wait for no limit */
};

struct xbb_nbd_offer;

/* Does its store answer later, with data in buffers (away.h)? */
static inline bool
xbb_kind_is_away(uint32_t disk_kind)
{

	return (disk_kind == XBB_DISK_NBD || disk_kind == XBB_DISK_RBD);
}

/* Any thread of the queue's, and whoever has it. */
struct xbb_queue_shared {
	_Atomic(struct xbb_work *) done;	/* stack, filled by workers */
	atomic_uint	 slowness;	/* of reads and writes: speed.c */
	atomic_uint	 flush_slowness;	/* of flushes and barriers */
	struct xbb_pool	 pool;
	/* A connection for the store (nbd.c). */
	_Atomic(struct xbb_nbd_offer *) offered;
	/* Each thread its own: 0 the ring's, then the workers. */
	struct xbb_sleeper sleeper[1 + XBB_MAX_WORKERS];
};

struct xbb_queue {
	struct xbb_conn	 conn;
	struct xbb_queue_setup set;
	struct xbb_queue_own own;
	struct xbb_queue_shared shared;
};

/* The segments of the request at a table entry. */
static inline const struct xbb_segment *
xbb_req_segments(const struct xbb_queue *q, uint16_t r)
{

	return (q->set.reqs[r].indirect ? q->set.segments +
	    (size_t)r * q->set.max_segments : q->set.reqs[r].seg);
}

/* The pages of its segments, if its batch is persistent. */
static inline uint16_t *
xbb_pages_pinned(const struct xbb_queue *q, uint16_t r)
{

	return (q->set.pinned + (size_t)r * q->set.max_segments);
}

/*
 * A request goes a step on, for us and for whoever reads the table, after all
 * that was said of it before.
 */
static inline void
xbb_req_step(const struct xbb_queue *q, uint16_t r, enum xbb_req_state state)
{

	q->set.reqs[r].state = (uint8_t)state;
	xbb_may_die();
	XBB_PUT(q->set.table[r].state, (uint8_t)state);
}

/* Is nothing to be begun?  Any thread. */
static inline bool
xbb_pause_is_on(const struct xbb_queue *q)
{

	return (__atomic_load_n(&q->set.pause->why, __ATOMIC_ACQUIRE) != 0);
}

#include "block/data.h"

/* adopt.c - a ring that somebody served and died. */
int	xbb_adopt_open(struct xbb_queue *q, uint32_t n,
	    struct xbb_error *error);
void	xbb_adopt_begin(struct xbb_queue *q);

/*
 * medium.c - what a segment says of its disk: size, what it lost, and which
 * words it shares.
 */
uint64_t xbb_medium_sectors(struct xbb_mapping *mapping);
uint64_t xbb_medium_had(struct xbb_mapping *mapping);
void	xbb_medium_connect(struct xbb_mapping *mapping);
int	xbb_medium_loss(struct xbb_mapping *mapping,
	    const struct xbb_state *state);
struct xbb_rate_words *xbb_medium_words(struct xbb_mapping *mapping,
	    uint32_t level);
void	xbb_medium_share(struct xbb_mapping *mapping, uint32_t level,
	    struct xbb_rate_words *words);

/* allowance.c - the words of each level. */
struct xbb_rate_words *xbb_allowance_words(struct xbb_state *state,
	    uint32_t level);

/* flush.c - flushes of a disk, one at a time; what is known to be lost. */
int	xbb_flushes_join(struct xbb_state *state,
	    struct xbb_flushes **flushesp);
void	xbb_flushes_leave(struct xbb_flushes *flushes);
int	xbb_flush(struct xbb_flushes *flushes, int fd, uint32_t disk_kind,
	    bool *done);
int	xbb_flushes_lost(const struct xbb_flushes *flushes);
void	xbb_flushes_lose(struct xbb_flushes *flushes, int errnum);
bool	xbb_means_cannot(int error);
bool	xbb_means_gone(int error);

/*
 * speed.c - is the disk one to wait for?  Any thread of the queue's, which says
 * which it is: 0 the ring's, then the workers.
 */
bool	xbb_speed_waited(struct xbb_queue *q, uint32_t thread, uint64_t took);
bool	xbb_speed_stalled(uint64_t took);
void	xbb_speed_judge(struct xbb_queue *q, uint64_t took, bool waited);
bool	xbb_speed_judge_own(struct xbb_queue *q, uint32_t thread,
	    uint64_t took);
void	xbb_speed_judge_flush(struct xbb_queue *q, uint64_t took,
	    uint32_t thread);
bool	xbb_speed_flushes_slowly(const struct xbb_queue *q);
bool	xbb_speed_is_quick(const struct xbb_queue *q);
bool	xbb_speed_is_slow(const struct xbb_queue *q,
	    const struct xbb_batch *batch);
void	xbb_speed_note(struct xbb_queue *q, uint32_t thread);
void	xbb_speed_slept_elsewhere(struct xbb_queue *q, uint32_t thread);

/* batch.c - one batch from start to status; any thread, as above. */
bool	xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch,
	    uint32_t thread);
bool	xbb_batch_waited(struct xbb_queue *q, const struct xbb_batch *batch,
	    uint64_t took, uint32_t thread);
void	xbb_batch_succeed(struct xbb_queue *q, const struct xbb_batch *batch);
void	xbb_batch_fail(struct xbb_queue *q, struct xbb_batch *batch,
	    struct xbb_outcome done, uint64_t took, bool waited,
	    uint32_t thread);
struct xbb_batch xbb_batch_part(const struct xbb_queue *q,
	    const struct xbb_batch *whole, uint16_t first, uint16_t nreq);
void	xbb_batch_set_outcome(struct xbb_queue *q, struct xbb_batch *whole,
	    const struct xbb_batch *part, struct xbb_outcome done);
void	xbb_batch_add_tally(struct xbb_tally *sum,
	    const struct xbb_tally *tally);
void	xbb_batch_give_up(struct xbb_queue *q, struct xbb_batch *batch);

/* That is what the first attempt came to. */
static inline void
xbb_batch_conclude(struct xbb_queue *q, struct xbb_batch *batch,
    struct xbb_outcome done, uint64_t took, bool waited, uint32_t thread)
{

	if (done.error == 0)
		xbb_batch_succeed(q, batch);
	else
		xbb_batch_fail(q, batch, done, took, waited, thread);
}

/*
 * hold.c - what the disk has failed, and is not answered for that: whether any
 * thread finds, the rest is the ring's.
 */
bool	xbb_hold_wanted(const struct xbb_queue *q, struct xbb_batch *whole,
	    const struct xbb_batch *part, struct xbb_outcome done,
	    const struct xbb_verdict *why);
void	xbb_hold(struct xbb_queue *q, struct xbb_batch *batch);

/* resume.c - likewise, tried again or given up.  Ring thread. */
bool	xbb_hold_release(struct xbb_queue *q);
int	xbb_hold_wait(const struct xbb_queue *q, int limit_ms);
void	xbb_hold_back(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_hold_refuse(struct xbb_queue *q, struct xbb_batch *batch);

/* pause.c - a disk of which nothing is begun, as a ring has it.  Its thread. */
void	xbb_pause_begin(struct xbb_pause *pause, uint32_t why);
void	xbb_pause_open(struct xbb_queue *q);
bool	xbb_pause_is_still(const struct xbb_queue *q);
bool	xbb_pause_has_news(const struct xbb_queue *q);
bool	xbb_pause_follow(struct xbb_queue *q);

/* probes.c - what a tracer may hook. */
void	xbb_probe_dispatch(const struct xbb_queue *q,
	    const struct xbb_batch *batch);

/* throttle.c - whether a limit holds it back.  Ring thread. */
bool	xbb_throttle_asks(struct xbb_queue *q, const struct xbb_batch *batch);
bool	xbb_throttle_parts(const struct xbb_queue *q);
int	xbb_throttle_wait(struct xbb_queue *q, int limit_ms);

/* All that it costs where there are no limits. */
static inline bool
xbb_throttle_holds(struct xbb_queue *q, const struct xbb_batch *batch)
{

	return ((XBB_GET(*q->set.limited) | q->own.throttled_ns) != 0 &&
	    xbb_throttle_asks(q, batch));
}

/* order.c - which batch is started next.  Ring thread. */
struct xbb_batch *xbb_order_next(struct xbb_queue *q);
void	xbb_order_started(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_order_ended(struct xbb_queue *q, struct xbb_batch *batch);

/* intake.c - requests taken from the ring.  Ring thread. */
bool	xbb_queue_gather(struct xbb_queue *q);
bool	xbb_queue_readmit(struct xbb_queue *q);

/* answer.c - requests out of the table and onto the ring.  Ring thread. */
void	xbb_answer(struct xbb_queue *q, uint16_t r);
void	xbb_answer_push(struct xbb_queue *q);

/* dispatch.c - what may start is, by the store.  Ring thread. */
void	xbb_start(struct xbb_queue *q, struct xbb_batch *batch);
bool	xbb_dispatch(struct xbb_queue *q);
bool	xbb_retry_starved(struct xbb_queue *q);

/* settle.c - what has come back.  Ring thread. */
void	xbb_settle(struct xbb_queue *q, struct xbb_batch *batch);

/* local.c - a store, of files and devices; and what a worker does for it. */
void	xbb_local_work(void *queue, struct xbb_work *work, uint32_t worker);

/* queue.c - the ring's thread, and what core asks of it. */
extern const struct xbb_family xbb_block_family;
void	*xbb_queue_main(void *queue);

/* disk_linux.c, disk_freebsd.c - what the platform names differently. */
/* Its requests of ioctl(2), ended by 0, for who confines a process. */
extern const unsigned long xbb_disk_ioctls[];
int	xbb_disk_flush(int fd, uint32_t disk_kind);
int	xbb_disk_discard(int fd, uint32_t disk_kind, off_t offset, off_t len);
int	xbb_disk_erase(int fd, off_t offset, off_t len);
bool	xbb_disk_is_gone(int fd, uint32_t disk_kind);
int	xbb_file_size(int fd, uint64_t *sizep);
int	xbb_disk_size(int fd, uint32_t disk_kind, uint64_t *sizep);

#endif /* XBB_BLOCK_H */
