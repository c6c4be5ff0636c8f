/*
 * rate.h - how much a disk may do in a second, and who of several goes first:
 * the arithmetic, which knows no ring and no clock.  block.h includes it, after
 * the contract.  All of it is pure; the words lie in memory that other
 * processes have, too, and may hold anything.
 */
#ifndef XBB_BLOCK_RATE_H
#define XBB_BLOCK_RATE_H

/* What somebody wants to do, all of it at once. */
struct xbb_rate_demand {
	uint64_t	operations;
	uint64_t	bytes;		/* that are moved */
	bool		writes;
};

/* What that takes of the limits of a level, in time: 0 where it is no limit. */
struct xbb_rate_claim {
	uint64_t	burst_ns;
	uint64_t	cost_ns[XBB_RATE_KINDS];
	uint64_t	debt_ns[XBB_RATE_KINDS]; /* most that one leaves */
	uint64_t	weight_ns;	/* the greatest cost, 0: no limit */
};

/* rate.c - what it takes, when there is enough, whose turn it is.  Pure. */
void	xbb_rate_reckon(struct xbb_rate_claim *claim,
	    const struct xbb_rate_limits *limits,
	    const struct xbb_rate_demand *demand,
	    uint32_t left);
int64_t	xbb_rate_wait(const struct xbb_rate_words *words,
	    const struct xbb_rate_claim *claim, uint64_t now_ns);
bool	xbb_rate_take(struct xbb_rate_words *words,
	    const struct xbb_rate_claim *claim, uint64_t now_ns);
void	xbb_rate_give_back(struct xbb_rate_words *words,
	    const struct xbb_rate_claim *claim);
void	xbb_rate_charge(struct xbb_rate_words *words,
	    const struct xbb_rate_claim *claim, uint64_t now_ns);
void	xbb_rate_forgive(struct xbb_rate_words *words, uint64_t burst_ms,
	    uint64_t now_ns);
bool	xbb_rate_is_generous(const struct xbb_rate_limits *limits,
	    uint32_t pages);
uint64_t xbb_turn_of(const struct xbb_rate_words *words, uint32_t sharer);
bool	xbb_turn_is_next(const struct xbb_rate_words *words, uint32_t sharers,
	    uint64_t turn);
void	xbb_turn_wait(struct xbb_rate_words *words, uint32_t sharer,
	    uint64_t turn);
void	xbb_turn_leave(struct xbb_rate_words *words, uint32_t sharer);
void	xbb_turn_taken(struct xbb_rate_words *words, uint32_t sharers,
	    uint32_t sharer, uint64_t weight_ns, bool more);

#endif /* XBB_BLOCK_RATE_H */
