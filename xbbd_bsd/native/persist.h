/*
 * persist.h - the part of internal.h that is about grants which stay mapped,
 * how many may, and what is done when the host has none.  internal.h includes
 * it, and nothing else does.
 */
#ifndef XBB_PERSIST_H
#define XBB_PERSIST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xbb_batch;
struct xbb_queue;

/* Whom a lack of mappings or memory may be about, from nobody to everybody. */
enum xbb_shortage {
	XBB_SHORT_NONE,
	XBB_SHORT_GUEST,	/* one guest, which may have made it look so */
	XBB_SHORT_HOST
};

/* A page that stays mapped, and the pages that were mapped with it. */
struct xbb_persist_page {
	uint8_t		*base;
	uint32_t	 ref;
	uint32_t	 users;		/* segments of started batches */
	uint16_t	 next;		/* of the same hash, or free */
	uint16_t	 sibling;	/* of the same chunk */
	uint16_t	 chunk;
};

struct xbb_persist_chunk {
	uint8_t		*base;
	uint64_t	 token;
	uint64_t	 used_ns;	/* when last */
	uint32_t	 npages;
	uint32_t	 mappings;	/* as they are charged */
	uint32_t	 users;
	uint16_t	 first;		/* page */
	uint16_t	 older, newer;	/* by use; older links the free ones */
};

#define XBB_PERSIST_BUCKETS	1024

/* Grants of a ring that stay mapped (persist.c). */
struct xbb_persist {
	struct xbb_persist_page *page;		/* max of each */
	struct xbb_persist_chunk *chunk;
	uint16_t	*pinned;	/* page of each segment of each request */
	size_t		 pinned_size;	/* bytes */
	uint32_t	 max;
	uint32_t	 npages;	/* in use */
	uint32_t	 mappings;	/* for these */
	uint16_t	 free_page, free_chunk;
	uint16_t	 oldest, newest;	/* chunks */
	uint16_t	 bucket[XBB_PERSIST_BUCKETS];
};

/* What the disks of a guest may keep mapped (budget.c). */
struct xbb_budget {
	atomic_uint	 pressure;	/* changes when its rings are to look */
	atomic_uint	 hard_pressure;	/* and when the host is short */
	atomic_uint	 grants;	/* kept */
	atomic_uint	 nqueues;
	atomic_ullong	 pressed_ns, pressed_hard_ns;	/* when last */
	uint32_t	 hv, domid;
	struct xbb_budget *next;	/* the service's lock, as the next */
	struct xbb_queue *queues;	/* by next_of_guest */
};

/* A ring's part of what may be kept. */
struct xbb_part {
	uint32_t	 grants;
	uint32_t	 mappings;
};

/* persist.c - grants that stay mapped.  Ring thread, but for xbb_persist_base(). */
int	xbb_persist_open(struct xbb_queue *q, uint32_t nreqs);
void	xbb_persist_close(struct xbb_queue *q);
bool	xbb_persist_pin_batch(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_persist_unpin_batch(struct xbb_queue *q, struct xbb_batch *batch);
bool	xbb_persist_pages(struct xbb_queue *q, const uint32_t *refs, uint32_t n,
	    const uint8_t **bases);
uint8_t	*xbb_persist_base(const struct xbb_queue *q, uint16_t r, uint32_t i);
void	xbb_persist_unmap(struct xbb_queue *q, uint16_t chunk);

/* reclaim.c - when grants that stay mapped are given back.  Ring thread. */
int	xbb_persist_trim(struct xbb_queue *q);
void	xbb_persist_trim_at_work(struct xbb_queue *q);
void	xbb_persist_yield(struct xbb_queue *q, bool hard);
void	xbb_persist_drop_unused(struct xbb_queue *q);
void	xbb_persist_drop(struct xbb_queue *q);

/* budget.c - what guests and the service may keep mapped.  Any thread. */
int	xbb_budget_join(struct xbb_queue *q);
void	xbb_budget_leave(struct xbb_queue *q);
bool	xbb_budget_take(struct xbb_queue *q, uint32_t grants,
	    uint32_t mappings, bool *own);
void	xbb_budget_give(struct xbb_queue *q, uint32_t grants,
	    uint32_t mappings);
bool	xbb_budget_is_over(const struct xbb_queue *q);
uint32_t xbb_budget_most(void);
struct xbb_part xbb_budget_part(const struct xbb_queue *q);
uint32_t xbb_budget_ring_part(const struct xbb_queue *q, uint32_t n);
void	xbb_budget_press(struct xbb_queue *q, bool own);
void	xbb_budget_press_hard(struct xbb_budget *own);
void	xbb_budget_lacked(int error);

/*
 * shortage.c - what is kept back while the host is short.  Ring thread, but for
 * the first.
 */
enum xbb_shortage xbb_shortage_of(struct xbb_queue *q, int error, bool mapped);
void	xbb_shortage_begin(struct xbb_queue *q, enum xbb_shortage shortage);
bool	xbb_shortage_due(struct xbb_queue *q);
bool	xbb_shortage_lasts(struct xbb_queue *q);
void	xbb_shortage_passed(struct xbb_queue *q);
int	xbb_shortage_wait(const struct xbb_queue *q, int limit_ms);

#endif /* XBB_PERSIST_H */
