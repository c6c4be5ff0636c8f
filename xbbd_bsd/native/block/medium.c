/*
 * medium.c - the state segment of a disk: its size and what it lost, and what
 * this process knows of that by itself, whatever becomes of the file.  Any
 * thread.
 */
#include "block/block.h"

#define MOST_ERRNO	4095	/* of Linux; FreeBSD's are fewer */

/* What we keep of each segment in our own memory. */
struct own {
	_Atomic(uint64_t) sectors;	/* most that the disk may have */
	_Atomic(uint64_t) had;		/* most it had since rings connected */
	atomic_int	 lost_errno;	/* as in the segment, if we said it */
	_Atomic(struct xbb_rate_words *) words[XBB_RATE_LEVELS]; /* shared */
};

_Static_assert(sizeof(struct own) <= XBB_MAPPING_OWN, "it has room");

static const struct xbb_segment_shape shape = {
	.family = XBB_FAMILY_BLOCK,
	.table_version = XBB_TABLE_VERSION,
	.header_size = sizeof(struct xbb_state),
	.entry_size = sizeof(struct xbb_req),
	.most_entries = XBB_MAX_REQUESTS,
};

static struct own *
own_of(struct xbb_mapping *mapping)
{

	return (xbb_mapping_own(mapping));
}

int
xbb_state_format(int fd, const struct xbb_identity *identity, uint32_t nrings,
    uint32_t table_entries)
{
	struct xbb_state header = {
		.head.identity = *identity,
		.head.nrings = nrings,
		.head.table_entries = table_entries,
		.tunables.poll_max_us = XBB_POLL_MAX_US,
		.tunables.persistent_grant_unused_seconds = XBB_UNUSED_SECONDS,
		.rates[XBB_RATE_DISK].burst_ms = XBB_BURST_MS,
	};
	uint32_t i;

	for (i = 0; i < XBB_MAX_RINGS; i++)
		header.ring[i].common.status.state = XBB_QUEUE_DRAINED;
	return (xbb_segment_format(fd, &shape, &header.head));
}

int
xbb_state_map(int fd, int writable, struct xbb_state **statep)
{
	struct own *own;
	void *segment;
	int error;

	error = xbb_segment_map(fd, writable, &shape, &segment);
	if (error != 0)
		return (error);
	own = own_of(xbb_mapping_of(segment));
	atomic_store(&own->sectors, XBB_MAX_SECTORS);
	atomic_store(&own->had, XBB_MAX_SECTORS);
	*statep = segment;
	return (0);
}

void
xbb_state_unmap(struct xbb_state *state)
{

	xbb_mapping_remove(xbb_mapping_of(state));
}

void
xbb_state_fence(struct xbb_state *state, int fd)
{

	xbb_mapping_set_fence(xbb_mapping_of(state), fd);
}

int
xbb_state_damaged(const struct xbb_state *state)
{

	return (xbb_mapping_damaged(xbb_mapping_of(state)));
}

uint32_t
xbb_state_rings(const struct xbb_state *state)
{

	return (xbb_mapping_rings(xbb_mapping_of(state)));
}

uint32_t
xbb_state_entries(const struct xbb_state *state)
{

	return (xbb_mapping_entries(xbb_mapping_of(state)));
}

struct xbb_req *
xbb_state_table(struct xbb_state *state, uint32_t ring)
{

	return (xbb_segment_table(state, &shape, ring));
}

uint64_t *
xbb_state_latency(struct xbb_state *state, uint32_t ring)
{

	return (xbb_segment_latency(state, &shape, ring));
}

/* Most sectors that the disk has: as we last said, whatever the file says. */
uint64_t
xbb_medium_sectors(struct xbb_mapping *mapping)
{

	return (atomic_load_explicit(&own_of(mapping)->sectors,
	    memory_order_relaxed));
}

/* Most that it had since a guest connected: what that may know it by. */
uint64_t
xbb_medium_had(struct xbb_mapping *mapping)
{

	return (atomic_load_explicit(&own_of(mapping)->had,
	    memory_order_relaxed));
}

/* A guest connects, and is told of the disk as it is. */
void
xbb_medium_connect(struct xbb_mapping *mapping)
{

	atomic_store_explicit(&own_of(mapping)->had,
	    xbb_medium_sectors(mapping), memory_order_relaxed);
}

/* The words that were shared at a level, NULL if none were. */
struct xbb_rate_words *
xbb_medium_words(struct xbb_mapping *mapping, uint32_t level)
{

	return (atomic_load(&own_of(mapping)->words[level]));
}

void
xbb_medium_share(struct xbb_mapping *mapping, uint32_t level,
    struct xbb_rate_words *words)
{

	atomic_store(&own_of(mapping)->words[level], words);
}

int
xbb_state_resize(struct xbb_state *state, uint64_t sectors)
{
	struct own *own = own_of(xbb_mapping_of(state));

	if (sectors > XBB_MAX_SECTORS)
		return (-EINVAL);
	if (sectors > atomic_load_explicit(&own->had, memory_order_relaxed))
		atomic_store_explicit(&own->had, sectors,
		    memory_order_relaxed);
	atomic_store_explicit(&own->sectors, sectors, memory_order_relaxed);
	XBB_SET(state->sectors, sectors);
	return (0);
}

int
xbb_state_lost(const struct xbb_state *state)
{

	return (xbb_medium_loss(xbb_mapping_of(state), state));
}

/*
 * Said by whoever has the segment mapped; what we said ourselves is known
 * here, too, and outlives the file.  Any other word than an errno is damage.
 */
int
xbb_medium_loss(struct xbb_mapping *mapping, const struct xbb_state *state)
{
	int errnum;

	errnum = atomic_load(&own_of(mapping)->lost_errno);
	if (errnum != 0)
		return (errnum);
	errnum = __atomic_load_n(&state->lost_errno, __ATOMIC_ACQUIRE);
	return (errnum >= 0 && errnum <= MOST_ERRNO ? errnum : EIO);
}

void
xbb_state_lose(struct xbb_state *state, int errnum)
{
	struct own *own = own_of(xbb_mapping_of(state));
	int32_t none = 0;
	int first = 0;

	atomic_compare_exchange_strong(&own->lost_errno, &first, errnum);
	__atomic_compare_exchange_n(&state->lost_errno, &none, errnum, false,
	    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void
xbb_state_believe(struct xbb_state *state)
{

	atomic_store(&own_of(xbb_mapping_of(state))->lost_errno, 0);
	XBB_SET(state->lost_errno, 0);
}
