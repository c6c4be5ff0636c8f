/*
 * front.h - a frontend from the inside, for front.c (the ring), transfer.c,
 * exercise.c (random I/O against a model) and direct.c (the same reads without
 * a ring).  The backend's files know nothing of it.
 */
#ifndef XBB_FRONT_H
#define XBB_FRONT_H

#include "block/block.h"
#include "front/hvfront.h"

#include "front/contract.h"

struct front_transfer;

/* A request's place: its data pages, and what is in flight with them. */
struct front_slot {
	uint8_t		*data;		/* params.max_segments pages */
	const uint32_t	*refs;		/* of these pages */
	/* page for indirect segments, or NULL */
	uint32_t	*list;
	uint32_t	 list_ref;	/* of that page */
	uint64_t	 id;		/* on the ring: generation and index */
	uint64_t	 sector;
	uint64_t	 started_ns;
	uint32_t	 nsectors;
	uint16_t	 skew;		/* sectors left out before the data */
	uint16_t	 nseg;
	bool		 indirect;
	uint8_t		 operation;
	bool		 busy;
	struct front_slot *next_free;
	struct front_transfer *transfer;	/* who waits for it, or NULL */
	uint8_t		*buffer;	/* where data read goes */
};

struct xbb_front {
	struct xbb_front_params params;
	const struct xbb_hvfront_ops *ops;
	struct xbb_hvfront *hv;
	const struct xbb_layout *layout;
	uint8_t		*ring_base;
	uint32_t	 ring_ref[XBB_MAX_RING_PAGES];
	uint32_t	 nslots;	/* of the ring */
	uint8_t		*page_base;
	uint32_t	*page_ref;
	uint32_t	 npages;

	pthread_mutex_t	 lock;		/* everything below */
	pthread_cond_t	 reaped;	/* responses came, or the poller left */
	bool		 polling;	/* a thread waits for events */
	uint32_t	 req_prod_pvt;
	uint32_t	 req_prod;	/* what the backend was told last */
	uint32_t	 rsp_cons;
	uint64_t	 gone_ns;	/* since when no backend; 0: there is */
	uint32_t	 generation;	/* makes ids unique */
	uint32_t	 inflight;
	struct front_slot *slots;	/* params.depth */
	struct front_slot *free;	/* list of those not busy */
	uint64_t	 still_mapped;
	uint64_t	 bad_responses;
};

/* Most sectors of one request with data. */
static inline uint32_t
front_max_sectors(const struct xbb_front *front)
{

	return (front->params.max_segments * XBB_SECTORS_PER_PAGE);
}

/* Called for each response, with the lock if there is one. */
typedef void	front_done(struct xbb_front *front, struct front_slot *slot,
		    int16_t status, void *arg);

/*
 * Submit takes front->free, which must not be NULL; the caller fills data
 * first.
 */
void	front_submit(struct xbb_front *front, uint8_t operation,
	    uint64_t sector, uint32_t nsectors, uint16_t skew, bool indirect);
void	front_push(struct xbb_front *front);
int	front_take(struct xbb_front *front);
bool	front_reap(struct xbb_front *front, front_done *done, void *arg);
bool	front_has_responses(struct xbb_front *front);
bool	front_final_check(struct xbb_front *front);

/* exercise.c - what direct.c shares. */
uint64_t xbb_random(uint64_t *state);
bool	xbb_workload_is_sane(const struct xbb_workload *load,
	    uint32_t most_inflight, uint32_t most_sectors);

#endif /* XBB_FRONT_H */
