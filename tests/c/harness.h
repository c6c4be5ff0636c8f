/*
 * harness.h - what the C tests share, file by file: checks, a device with both
 * ends of its rings in this process, a guest that writes ring slots by hand,
 * a disk that is slow or fails on demand, and the rules of merging.  A test is
 * a program; the first check that fails ends it with status 1.
 *
 * Threads: a struct guest and a struct pair belong to the thread that made
 * them; what others may touch says so.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include "front/front.h"

/* Nothing that is waited for takes so long, even under a sanitizer. */
#define LIMIT_MS	120000	/* for what takes milliseconds when a machine is idle */

#define CHECK(condition) do { \
	if (!(condition)) \
		check_failed(__FILE__, __LINE__, #condition, 0, 0); \
} while (0)
#define CHECK_EQ(a, b) do { \
	const int64_t a_ = (int64_t)(a), b_ = (int64_t)(b); \
	if (a_ != b_) \
		check_failed(__FILE__, __LINE__, #a " == " #b, a_, b_); \
} while (0)

#define WAIT_UNTIL(condition) do { \
	const uint64_t limit_ = xbb_now_ns() + LIMIT_MS * 1000000ULL; \
	while (!(condition)) { \
		if (xbb_now_ns() > limit_) \
			check_failed(__FILE__, __LINE__, #condition, 0, 0); \
		check_pause(); \
	} \
} while (0)

#define COUNTOF(array)	(sizeof(array) / sizeof((array)[0]))

/* check.c - failing, arguments, random numbers, bytes, scratch files. */
_Noreturn void check_failed(const char *file, int line, const char *what,
	    int64_t a, int64_t b);
void	check_pause(void);
uint64_t argument(int argc, char **argv, int n, uint64_t otherwise);
uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t n);
void	random_bytes(uint64_t *state, void *to, size_t size);
bool	all_bytes(const uint8_t *from, size_t size, uint8_t value);
/* The working directory is a new empty one, until scratch_leave(). */
void	scratch_enter(void);
void	scratch_leave(void);
int	scratch_file(uint64_t size);	/* unlinked already */

/* device.c - a domain, a disk, a state segment, and rings between them. */
#define DOMAIN_PAGES	16384

struct device {
	char		 name[16];	/* directory of the domain */
	int		 domain_fd;
	int		 disk_fd;
	uint64_t	 sectors;
	struct xbb_state *state;
	int		 state_fd;	/* its file */
};

/* What a pair may differ in; 0 stands for the default. */
struct pair_options {
	uint32_t	abi;
	uint32_t	ring_pages;	/* 1 */
	uint32_t	depth;		/* the ring's slots */
	uint32_t	sector_size;	/* 512 */
	uint32_t	workers;	/* 4 */
	uint32_t	max_batch_segments;	/* 64 */
	uint32_t	max_grants;	/* 2816 */
	uint32_t	transport;	/* BEST */
	uint32_t	domid;		/* 1 */
	uint32_t	max_indirect_segments;	/* 0 */
	uint32_t	max_segments;	/* of a request the frontend makes; 11 */
	bool		read_only;
	bool		device;		/* the file counts as a disk device */
	bool		discard;
	bool		secure;		/* likewise */
	uint32_t	persistent;	/* grants that may stay mapped */
	uint32_t	block_size;	/* of the disk; by a buffer if larger */
	bool		bounce;		/* or whatever it is */
};

/* A ring: its frontend and its queue. */
struct pair {
	struct xbb_front *front;
	struct xbb_queue *queue;
	struct xbb_ring_state *rs;
	uint32_t	 abi;
	char		 port[16];	/* the frontend's address */
	int		 listen_fd;
	int		 event_fd;	/* the backend's */
	int		 wake[2];
};

/* Counters that precede a response are right once it is there; all, drained. */
#define COUNTER(pair, name)	XBB_GET((pair)->rs->counters.name)
#define COMMON(pair, name)	XBB_GET((pair)->rs->common.counters.name)

void	device_open(struct device *device, uint64_t sectors, uint32_t nrings);
void	device_close(struct device *device);
void	device_read(const struct device *device, uint64_t sector,
	    uint64_t nsectors, void *to);
void	device_write(const struct device *device, uint64_t sector,
	    uint64_t nsectors, const void *from);
void	pair_open(struct pair *pair, struct device *device, uint32_t ring,
	    const struct pair_options *options);
void	pair_prepare(struct pair *pair, const struct device *device,
	    uint32_t ring, const struct pair_options *options);
void	pair_connect(struct pair *pair);
void	pair_params(const struct pair *pair, const struct device *device,
	    uint32_t ring, const struct pair_options *options,
	    struct xbb_queue_params *params);
int	pair_try(struct pair *pair, struct device *device, uint32_t ring,
	    const struct pair_options *options);
void	pair_wait_drained(struct pair *pair, enum xbb_stop_reason reason);
void	pair_drain(struct pair *pair);
void	pair_close(struct pair *pair);

/*
 * guest.c - ring slots byte by byte, as no decent frontend would write them,
 * and the rig that most tests want around such a guest.
 */
struct guest_layout {
	uint8_t		slot_size, rsp_size, id, sector, seg;
};

struct guest {
	struct xbb_front *front;
	struct guest_layout layout;
	uint8_t		*ring;
	uint32_t	 nslots;
	uint32_t	 req_prod;
	uint32_t	 rsp_cons;
	uint32_t	 outstanding;
	uint32_t	 ntags;		/* requests since the last collection */
	uint64_t	 generation;
	uint64_t	 id[XBB_MAX_REQUESTS];	/* by tag */
	uint8_t		 operation[XBB_MAX_REQUESTS];
	bool		 answered[XBB_MAX_REQUESTS];
	int16_t		 status[XBB_MAX_REQUESTS];
	uint32_t	 order[XBB_MAX_REQUESTS];	/* tags, as answered */
};

void	guest_init(struct guest *guest, struct pair *pair);
uint32_t guest_put(struct guest *guest, uint8_t operation, uint64_t sector,
	    const struct xbb_segment *seg, uint8_t nseg);
void	guest_publish(struct guest *guest);
uint32_t guest_wait(struct guest *guest);
uint32_t guest_answers(struct guest *guest);	/* not yet collected */
void	guest_take(struct guest *guest);	/* what there is */
void	guest_collect(struct guest *guest);
void	guest_collect_blindly(struct guest *guest);
int16_t	guest_do(struct guest *guest, uint8_t operation, uint64_t sector,
	    const struct xbb_segment *seg, uint8_t nseg);
int16_t	guest_read_page(struct guest *guest);
void	guest_put_scattered(struct guest *guest, uint32_t n);
void	guest_check_okay(const struct guest *guest, uint32_t n);
void	guest_request(struct guest *guest, uint8_t slot[112],
	    uint8_t operation, uint64_t id, uint64_t sector,
	    const struct xbb_segment *seg, uint8_t nseg);
struct xbb_segment guest_segment(struct guest *guest, uint32_t page,
	    uint8_t first, uint8_t last);
uint8_t	*guest_slot(struct guest *guest, uint32_t index);
uint32_t guest_index(struct guest *guest, size_t offset);
void	guest_set_index(struct guest *guest, size_t offset, uint32_t value);
/* Bytes that the other side, or another thread of ours, looks at meanwhile. */
void	guest_store(uint8_t *to, const void *from, size_t size);
void	guest_load(void *to, const uint8_t *from, size_t size);

/* One device, one ring, one guest, and a disk that works. */
struct rig {
	struct device	 device;
	struct pair	 pair;
	struct guest	 guest;
};

void	rig_open(struct rig *rig, uint64_t sectors,
	    const struct pair_options *options);
void	rig_close(struct rig *rig);
void	rig_teach_slowness(struct rig *rig);

/* A disk's worth of requests that merge, of a page each, and their statuses. */
#define BATCH		8
#define BATCH_SECTORS	(BATCH * XBB_SECTORS_PER_PAGE)
#define BATCH_BYTES	(BATCH_SECTORS * XBB_SECTOR_SIZE)

void	rig_put_batch(struct rig *rig, uint8_t operation);
int16_t	batch_status(uint32_t i, uint64_t from, uint64_t to);
void	rig_check_statuses(const struct rig *rig, uint64_t from,
	    uint64_t to);

/*
 * hypervisor.c - the simulated one, whose event channels fail on demand, and
 * which is short on demand.  Any thread.
 */
struct hypervisor {
	atomic_int	 notify_errnum;	/* of each call; 0: it works */
	atomic_int	 unmask_errnum;
	atomic_int	 take_errnum;
	atomic_int	 map_errnum;
	atomic_int	 copy_errnum;
	atomic_uint	 most_mappings;	/* of the process; 0: any */
	atomic_uint	 most_pages;	/* of one of them; 0: any */
	atomic_bool	 hold_notify;	/* calls begin and stay */
	atomic_bool	 hold_map;
	/* Of the host: for how long others waited, or that it says nothing. */
	_Atomic(uint64_t) host_waited_ns;
	atomic_int	 host_errnum;
	/* What has happened. */
	atomic_uint	 held;		/* calls that stay now */
	atomic_uint	 mappings;	/* there are now */
	atomic_uint	 map_calls;
	atomic_uint	 copy_calls;
	atomic_int	 unmap_errnum;
};

extern struct hypervisor hypervisor;

void	hypervisor_reset(void);		/* it works, and is not short */
void	hypervisor_map_singly(bool singly);	/* while no ring is open */
void	threads_forbid(bool forbid);	/* none can be made */

/*
 * disk.c, discards_*.c - preadv(2), pwritev(2), fdatasync(2) of the program, and
 * what its system discards by: the real ones, unless told otherwise.  Any thread.
 */
struct disk {
	atomic_uint	 delay_us;	/* each call takes longer, by up to */
	atomic_uint	 spin_us;	/* and at work, without sleeping, by */
	atomic_uint	 failure_us;	/* transfers that fail, asleep, by */
	atomic_uint	 sync_us;	/* fdatasync, likewise */
	atomic_uint	 chunk;		/* most bytes a call moves; 0: any */
	atomic_uint	 interrupted;	/* one call in so many: EINTR */
	atomic_int	 errnum;	/* of transfers that touch the range */
	atomic_ullong	 from, to;	/* bytes */
	atomic_uint	 failing;	/* one transfer in so many: EIO */
	atomic_bool	 sync_nothing;	/* fdatasync is a word, and quick */
	atomic_int	 sync_errnum;	/* of fdatasync */
	atomic_int	 erase_errnum;	/* of a secure discard */
	atomic_int	 sync_errnum_once;	/* of the next one to end */
	atomic_int	 discard_errnum;	/* of each discard */
	/* What has happened. */
	atomic_uint	 transfers;
	atomic_uint	 straddling;	/* that did not begin at a page */
	atomic_uint	 inflight;
	atomic_uint	 most_inflight;
	atomic_uint	 syncs;
	atomic_uint	 discards;
	atomic_uint	 erasures;	/* secure ones, of which nothing is done */
	atomic_ullong	 erased;	/* bytes */
	atomic_uint	 syncs_amid;	/* with a transfer in flight */
};

extern struct disk disk;

void	disk_reset(void);
void	disk_hold(void);		/* transfers and discards begin and stay */
void	disk_hold_range(uint64_t from, uint64_t to);	/* only these bytes' */
void	disk_hold_syncs(void);		/* fdatasync */
void	disk_wait_held(uint32_t n);	/* until n are */
void	disk_release(void);		/* all, and hold no more */
/* For discards_*.c: bytes that a call is about; the errno it fails with. */
int	disk_discards(uint64_t at, uint64_t size);
int	disk_erases(uint64_t at, uint64_t size);

/*
 * crash.c - this process dies before a store that whoever comes next goes by.
 * The counts are shared with processes that are forked.
 */
struct crash {
	atomic_long	 left;		/* such stores until then; < 0: never */
	atomic_long	 passed;	/* so far */
};

extern struct crash *crash;

void	crash_prepare(void);

/* batches.c - requests merged as the queue does it, and what must hold then. */
struct batches {
	struct xbb_coalesce limits;
	struct xbb_batch *batch;	/* one for each request */
	uint32_t	 nbatches;
	uint32_t	 nreqs;
};

void	batches_add(struct batches *batches, struct xbb_req *reqs);
void	batches_check(const struct batches *batches,
	    const struct xbb_req *reqs);

#endif /* HARNESS_H */
