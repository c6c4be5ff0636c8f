/*
 * core.h - what every family's ring has, whatever it is a ring of: a connection
 * to its frontend, the shared ring, a thread that rests, grants that stay
 * mapped and the budget of these, workers, a state segment.  A family puts
 * these parts into a struct of its own and says with struct xbb_family what
 * only it knows.  Nothing here may know a family.
 *
 * Threads.  A ring has one thread, which alone touches the ring, the event
 * channel, what is kept mapped and the counters, and up to params.workers I/O
 * threads, which touch only the work that they were given.  Work goes to them
 * through the run queue and comes back by the family's own way.
 *
 * Locks.  pool.lock, for the run queue and the idle count; and one of the
 * process, for who has a budget (budget.c), under which rings are kicked.  None
 * is held across I/O, a hypervisor call or another lock.  hv/freebsd.c has one
 * of its own, for its port, inside hypervisor calls, mapping.c one for who maps
 * segments, and tick.c one for who waits.
 */
#ifndef XBB_CORE_H
#define XBB_CORE_H

#include <sys/queue.h>

#include "hv/hv.h"

#include "core/work.h"

_Static_assert(XBB_MAP_PAGES >= XBB_MAX_RING_PAGES, "a map holds a ring");

/* Indices at the head of a shared ring (ring.h). */
struct xbb_sring {
	uint32_t	req_prod;
	uint32_t	req_event;
	uint32_t	rsp_prod;
	uint32_t	rsp_event;
	uint8_t		pad[48];
};

/* A ring as its backend sees it; sizes in bytes, multiples of four. */
struct xbb_ring {
	struct xbb_sring *sring;
	uint8_t		*slots;
	uint32_t	 slot_size;	/* from one slot to the next */
	uint32_t	 rsp_size;	/* of a response */
	uint32_t	 nslots;	/* a power of two */
	uint32_t	 req_cons;	/* next request to copy out */
	uint32_t	 rsp_prod_pvt;	/* next response to fill in */
	uint32_t	 rsp_prod;	/* what the frontend was told last */
};

/* What only a family knows of its ring; self is what its connection has. */
struct xbb_family {
	const char *driver;		/* names its threads */
	/* Is there a reason not to sleep?  Cheap, asks for no event. */
	bool	(*has_work)(void *self);
	/* Ask for an event; is there such a reason after all? */
	bool	(*ask)(void *self);
	/*
	 * Milliseconds that the ring's thread may sleep, -1 for any time.
	 * Asked at most once for each sleep, and maybe for none.
	 */
	int	(*may_sleep)(void *self);
	/*
	 * Is the frontend the only one that anything is expected of?  NULL if
	 * that is never known.
	 */
	bool	(*awaits_frontend)(void *self);
	/* Do a piece of work, and hand it back.  Worker 1, 2, ... */
	void	(*work)(void *self, struct xbb_work *work, uint32_t worker);
};

/* What ends a sleep (kick.c). */
enum xbb_sleep {
	XBB_AWAKE,
	XBB_POLLS,	/* in poll(2), for the kick too */
	XBB_WAITS,	/* in read(2) of the event channel */
	XBB_DOZES,	/* in the hypervisor */
};

/* How the ring's thread dozes (doze.c); it alone. */
struct xbb_doze {
	bool		 never;		/* it cannot */
	uint32_t	 left;		/* other sleeps before the next */
	uint32_t	 retry;		/* how many they were */
	uint32_t	 unread;	/* events, that it left */
	uint64_t	 begun_ns;
	uint64_t	 most_ns;	/* that it may take */
	uint64_t	 judged_ns;	/* when others were looked at */
	uint64_t	 waited_ns;	/* how long they had waited */
	uint64_t	 away_ns;	/* of how long it kept from it, last */
	uint64_t	 until_ns;	/* and until when */
};

/* How the ring's thread sleeps, and is woken (rest.c). */
struct xbb_rest {
	/* Any thread. */
	atomic_uint	 sleeping;	/* enum xbb_sleep; it is about to */
	int		 kick;		/* what ends the poll */
	atomic_uint	 kicks;		/* under way */
	const struct xbb_hv_ops *ops;	/* with hv, what ends a doze */
	struct xbb_hv	*hv;
	_Atomic(pthread_t) thread;	/* who waits, or dozes */
	atomic_int	 waits_for;	/* in a read of that descriptor */
	atomic_bool	 ticks;		/* in the list of tick.c, with this */
	LIST_ENTRY(xbb_rest) tick;
	/* Ring thread. */
	bool		 blocks;	/* which was told to */
	bool		 notified;	/* the last sleep was ended by it */
	bool		 masked;	/* event channel awaits unmask */
	uint32_t	 idle_events;	/* in a row, that brought nothing */
	uint64_t	 poll_ns;	/* how long looking for work pays */
	uint64_t	 poll_most_ns;	/* what the tunable was */
	uint32_t	 sleeps_unpolled;	/* without looking first */
	uint32_t	 poll_retry;	/* so many, then looking is tried */
	const int32_t	*poll_max_us;	/* a tunable: most of that */
	int		 also_fd;	/* one more to poll for; -1 */
	short		 also_events;	/* and for what */
	bool		 also_ready;	/* it has something */
	bool		 also_awaited;	/* which looking around does not see */
	struct xbb_doze	 doze;
};

/* A ring's connection to its frontend, and how that ends (conn.c). */
struct xbb_conn {
	/* Set when it is opened. */
	const struct xbb_conn_params *params;
	const struct xbb_family *family;
	void		*self;		/* the family's */
	const struct xbb_hv_ops *ops;
	struct xbb_hv	*hv;
	struct xbb_map	 ring_map;
	bool		 copies;	/* grants are copied, not mapped */
	struct xbb_mapping *mapping;	/* of the state segment */
	struct xbb_ring_common *rc;	/* in there */
	unsigned int	 shown;		/* its state there; ring thread */
	pthread_t	 thread;	/* the ring's; opener, as the next */
	bool		 has_thread;
	/* Any thread. */
	struct xbb_rest	 rest;
	atomic_bool	 draining;
	atomic_bool	 handing_over;	/* to whoever serves it next */
	atomic_uint	 state;		/* enum xbb_queue_state */
	atomic_uint	 reason;	/* enum xbb_stop_reason */
	atomic_int	 errnum;	/* that goes with it */
	atomic_int	 unmap_errnum;	/* of the first unmapping that failed */
};

/* I/O threads of a ring and what waits for them (workers.c). */
struct xbb_pool {
	struct xbb_conn	*conn;
	pthread_mutex_t	 lock;
	pthread_cond_t	 cond;
	struct xbb_work_list run;	/* lock */
	uint32_t	 idle;		/* lock: threads that nobody woke yet */
	uint32_t	 waking;	/* lock: on their way to the queue */
	uint32_t	 begun;		/* lock: threads that have begun */
	uint32_t	 tokens;	/* lock: wake-ups not yet noticed */
	uint32_t	 nthreads;	/* ring thread, or close */
	bool		 stop;		/* lock */
	bool		 short_of_threads;	/* it was told; ring thread */
	size_t		 buffer_size;	/* bytes, if data goes by one, else 0 */
	uint8_t		*buffer[XBB_MAX_WORKERS];	/* of each, as made */
	pthread_t	 thread[XBB_MAX_WORKERS];
};

#include "core/devstat.h"
#include "core/persist.h"

/* error.c - what failed, in words. */
int	xbb_fail(struct xbb_error *error, const char *operation, int errnum);

/* ring.c - shared indices, memory barriers, slot copies, when to notify. */
uint32_t xbb_ring_slots(uint32_t slot_size, uint32_t ring_pages);
void	xbb_ring_init(struct xbb_ring *ring, void *base, uint32_t ring_pages,
	    uint32_t slot_size, uint32_t rsp_size);
int	xbb_ring_unread(const struct xbb_ring *ring, uint32_t *countp);
void	xbb_ring_copy_request(struct xbb_ring *ring, uint32_t *slot);
void	xbb_ring_leave_request(struct xbb_ring *ring);
void	xbb_ring_put(struct xbb_ring *ring, const uint32_t *words);
bool	xbb_ring_push_responses(struct xbb_ring *ring);
bool	xbb_ring_want(struct xbb_ring *ring, uint32_t n);
void	xbb_copy_words(uint32_t *to, const uint32_t *from, size_t bytes);

/* conn.c - a ring's connection: opening, ending, closing it. */
int	xbb_conn_open(struct xbb_conn *conn,
	    const struct xbb_conn_params *params, struct xbb_error *error);
int	xbb_conn_bind(struct xbb_conn *conn, struct xbb_error *error);
bool	xbb_conn_can_be(const struct xbb_conn_params *params,
	    const struct xbb_mapping *mapping);
bool	xbb_conn_may_copy(const struct xbb_conn_params *params);
int	xbb_conn_start(struct xbb_conn *conn, const struct xbb_ring *ring,
	    void *(*main)(void *self));
void	xbb_conn_drain(struct xbb_conn *conn);
void	xbb_conn_hand_over(struct xbb_conn *conn);
bool	xbb_conn_ends(const struct xbb_conn *conn);
void	xbb_conn_stop(struct xbb_conn *conn, enum xbb_stop_reason reason,
	    int errnum);
void	xbb_conn_push(struct xbb_conn *conn, struct xbb_ring *ring);
void	xbb_conn_notify(struct xbb_conn *conn);
void	xbb_conn_check(struct xbb_conn *conn);
void	xbb_conn_tell(const struct xbb_conn *conn);
void	xbb_conn_drained(struct xbb_conn *conn);
void	xbb_conn_status(struct xbb_conn *conn,
	    struct xbb_queue_status *status);
void	xbb_conn_join(struct xbb_conn *conn);
void	xbb_conn_close(struct xbb_conn *conn);

/* kick.c - how one who sleeps is woken.  Any thread. */
void	xbb_wake(int fd);
int	xbb_kick_open(struct xbb_rest *rest);
void	xbb_kick_close(struct xbb_rest *rest);
void	xbb_kick(struct xbb_rest *rest);
void	xbb_kick_settle(struct xbb_rest *rest);
void	xbb_kick_set_blocking(int fd, bool blocks);
#define XBB_WAIT_SIGNAL	SIGURG	/* which does nothing where it is not caught */

/* tick.c - ends waits, in which a ring's thread has no time, within a while. */
#define XBB_TICK_MS	1000
bool	xbb_tick_ask(struct xbb_rest *rest);
void	xbb_tick_leave(struct xbb_rest *rest);

/* doze.c - waits for the frontend in the hypervisor. */
bool	xbb_doze_wanted(struct xbb_conn *conn, uint64_t look_ns);
bool	xbb_doze_now(struct xbb_conn *conn);
bool	xbb_doze_overflows(struct xbb_conn *conn);

/* rest.c - the ring's thread with nothing to do. */
bool	xbb_rest_now(struct xbb_conn *conn);

/*
 * grants.c - pages of the guest's that are mapped or copied for a moment.  Any
 * thread of the ring's.
 */
enum xbb_shortage xbb_grants_shortage(struct xbb_conn *conn, int error,
	    bool mapped);
bool	xbb_grants_unmap(struct xbb_conn *conn, struct xbb_map *map);
int	xbb_grants_copy(struct xbb_conn *conn, struct xbb_copy *pieces,
	    uint32_t n, bool to_guest, enum xbb_shortage *shortage);
#define XBB_FETCH_PAGES	8	/* most that are fetched at once */
int	xbb_grants_fetch(struct xbb_conn *conn, const uint32_t *refs,
	    uint32_t npages, void *to, size_t bytes,
	    enum xbb_shortage *shortage);
void	xbb_grants_take_page(void *to, const uint8_t *page, uint32_t n,
	    size_t bytes);

/* workers.c - the pool of I/O threads, their buffers, the bound of all. */
int	xbb_pool_init(struct xbb_pool *pool, struct xbb_conn *conn);
void	xbb_pool_submit(struct xbb_pool *pool, struct xbb_work *work);
void	xbb_pool_wake(struct xbb_pool *pool);
struct xbb_work *xbb_pool_take(struct xbb_pool *pool);
void	xbb_pool_stop(struct xbb_pool *pool);

/* segment.c - the files of state segments. */
struct xbb_segment_shape {
	uint32_t	family;		/* enum xbb_family_kind */
	uint32_t	table_version;	/* of the family's part, and tables */
	uint32_t	header_size;	/* bytes, that begin with the head */
	uint32_t	entry_size;	/* of a table, a multiple of eight */
	uint32_t	most_entries;	/* a table may have */
};

int	xbb_segment_format(int fd, const struct xbb_segment_shape *shape,
	    struct xbb_segment_head *head);
int	xbb_segment_map(int fd, bool writable,
	    const struct xbb_segment_shape *shape, void **segmentp);
void	*xbb_segment_table(void *segment,
	    const struct xbb_segment_shape *shape, uint32_t ring);
uint64_t *xbb_segment_latency(void *segment,
	    const struct xbb_segment_shape *shape, uint32_t ring);

/* mapping.c - the state segments of this process, whatever befalls files. */
#define XBB_MAPPING_OWN	64	/* bytes that a family has of each */
int	xbb_mapping_add(void *base, size_t size, uint32_t nrings,
	    uint32_t table_entries);
void	xbb_mapping_remove(struct xbb_mapping *mapping);
struct xbb_mapping *xbb_mapping_of(const void *segment);
uint32_t xbb_mapping_rings(const struct xbb_mapping *mapping);
uint32_t xbb_mapping_entries(const struct xbb_mapping *mapping);
bool	xbb_mapping_damaged(const struct xbb_mapping *mapping);
void	xbb_mapping_set_fence(struct xbb_mapping *mapping, int fd);
int	xbb_mapping_fence(const struct xbb_mapping *mapping);
void	*xbb_mapping_own(struct xbb_mapping *mapping);

/* latency.c - histograms of latencies. */
void	xbb_latency_add(uint64_t histogram[XBB_LATENCY_BUCKETS], uint64_t ns);

/* thread.c - the clocks, and threads as the data plane wants them. */
uint64_t xbb_now_ns(void);
uint64_t xbb_wall_ns(void);
uint64_t xbb_thread_cpu_ns(void);
uint64_t xbb_thread_sleeps(void);
int	xbb_thread_start(pthread_t *thread, void *(*main)(void *), void *arg);
void	xbb_thread_is(const char *format, ...)
	    __attribute__((format(printf, 1, 2)));

#endif /* XBB_CORE_H */
