/*
 * persist.h - the part of core.h that is about grants which stay mapped, how
 * many may, and what is done when the host has none.  core.h includes it, and
 * nothing else does.
 */
#ifndef XBB_PERSIST_H
#define XBB_PERSIST_H

/* no page, chunk; end of an index list */
#define XBB_NONE	UINT16_MAX

/* Whom a lack of mappings or memory may be about, from nobody to everybody. */
enum xbb_shortage {
	XBB_SHORT_NONE,
	XBB_SHORT_GUEST,	/* one guest, which may have made it look so */
	XBB_SHORT_HOST
};

/* What is tried again while the host is short (shortage.c).  Ring thread. */
struct xbb_retry {
	uint64_t	 at_ns;		/* when that is; 0: nothing starves */
	uint32_t	 wait_ms;	/* how long the last wait was */
	uint32_t	 long_waits;	/* of the longest kind, so far */
	/* draining: no try after; 0: not known */
	uint64_t	 give_up_ns;
};

/* What the rings of a guest may keep mapped (budget.c). */
struct xbb_budget {
	atomic_uint	 pressure;	/* changes when its rings are to look */
	atomic_uint	 hard_pressure;	/* and when the host is short */
	atomic_uint	 grants;	/* kept */
	atomic_uint	 nrings;
	atomic_ullong	 pressed_ns, pressed_hard_ns;	/* when last */
	uint32_t	 hv, domid;
	struct xbb_budget *next;	/* the service's lock, as the next */
	struct xbb_share *shares;
};

/* A ring's share in the budget of its guest. */
struct xbb_share {
	struct xbb_budget *budget;	/* NULL: it has none yet */
	struct xbb_share *next;		/* of the same guest: budget.c's */
	struct xbb_rest	*rest;		/* whom to kick */
	uint32_t	 set_aside;	/* mappings, for its threads */
	/* Ring thread: the budget's, when last looked at. */
	unsigned int	 pressure;
	unsigned int	 hard_pressure;
};

/* So much may be kept. */
struct xbb_part {
	uint32_t	 grants;
	uint32_t	 mappings;
};

/* A page that stays mapped, and the pages that were mapped with it. */
struct xbb_persist_page {
	uint8_t		*base;
	uint32_t	 ref;
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
	uint32_t	 users;		/* pinned pages, as often as they are */
	uint16_t	 first;		/* page */
	uint16_t	 older, newer;	/* by use; older links the free ones */
};

#define XBB_PERSIST_BUCKETS	1024

/* Grants of a ring that stay mapped (persist.c). */
struct xbb_persist {
	struct xbb_conn	*conn;
	struct xbb_share share;
	const int32_t	*unused_seconds;	/* a tunable: unmap then */
	const uint64_t	*now_ns;	/* when the ring was last read */
	uint64_t	 trimmed_ns;	/* when unused ones were looked for */
	struct xbb_persist_page *page;		/* max of each */
	struct xbb_persist_chunk *chunk;
	uint32_t	 max;		/* 0: not negotiated */
	uint32_t	 npages;	/* in use */
	uint32_t	 mappings;	/* for these */
	uint16_t	 free_page, free_chunk;
	uint16_t	 oldest, newest;	/* chunks */
	uint16_t	 bucket[XBB_PERSIST_BUCKETS];
};

/* The page that somebody has pinned.  Any thread of the ring's. */
static inline uint8_t *
xbb_persist_base(const struct xbb_persist *p, uint16_t page)
{

	return (p->page[page].base);
}

/* Is the ring to look what it can give back?  Ring thread. */
static inline bool
xbb_budget_presses(const struct xbb_share *share)
{

	return (atomic_load(&share->budget->pressure) != share->pressure);
}

/* persist.c - grants that stay mapped.  Ring thread. */
int	xbb_persist_open(struct xbb_persist *p, struct xbb_conn *conn);
void	xbb_persist_close(struct xbb_persist *p);
bool	xbb_persist_pin(struct xbb_persist *p, const uint32_t *refs,
	    uint32_t n, uint16_t *pinned);
void	xbb_persist_unpin(struct xbb_persist *p, const uint16_t *pinned,
	    uint32_t n);
void	xbb_persist_give_back(struct xbb_persist *p, uint64_t since_ns,
	    uint32_t pages, uint32_t mappings);
void	xbb_persist_yield(struct xbb_persist *p, bool hard);
void	xbb_persist_drop(struct xbb_persist *p);

/* reclaim.c - when grants that stay mapped are given back.  Ring thread. */
int	xbb_persist_trim(struct xbb_persist *p, bool at_rest);
void	xbb_persist_trim_at_work(struct xbb_persist *p, bool at_rest);
void	xbb_persist_drop_unused(struct xbb_persist *p);

/* budget.c - what guests and the service may keep mapped.  Any thread. */
int	xbb_budget_join(struct xbb_share *share, struct xbb_conn *conn);
void	xbb_budget_leave(struct xbb_share *share);
bool	xbb_budget_take(struct xbb_share *share, uint32_t grants,
	    uint32_t mappings, bool *own);
void	xbb_budget_give(struct xbb_share *share, uint32_t grants,
	    uint32_t mappings);
bool	xbb_budget_is_over(const struct xbb_share *share);
uint32_t xbb_budget_most(void);
struct xbb_part xbb_budget_part(const struct xbb_share *share);
uint32_t xbb_budget_ring_part(const struct xbb_share *share, uint32_t n);
void	xbb_budget_press(struct xbb_share *share, bool own);
void	xbb_budget_press_hard(struct xbb_budget *own);
void	xbb_budget_lacked(int error);

/* shortage.c - what is kept back while the host is short.  Ring thread. */
void	xbb_shortage_begin(struct xbb_retry *retry, struct xbb_persist *p,
	    enum xbb_shortage shortage);
bool	xbb_shortage_due(struct xbb_retry *retry);
bool	xbb_shortage_lasts(struct xbb_retry *retry,
	    const struct xbb_conn *conn);
void	xbb_shortage_passed(struct xbb_retry *retry);
int	xbb_shortage_wait(const struct xbb_retry *retry, int limit_ms);

#endif /* XBB_PERSIST_H */
