/*
 * ring.c - the shared ring as its backend uses it: indices with their memory
 * barriers, slots copied out once, responses put in, and the rule when to
 * notify (ring.h of Xen's public headers).  It must not know what a request
 * means.  Ring thread only; the other side of every access is a guest that may
 * write any value at any time.
 */
#include <assert.h>

#include "core/core.h"

_Static_assert(sizeof(struct xbb_sring) == 64, "ring header of ring.h");

/* Slots of a ring: the largest power of two that fits behind the header. */
uint32_t
xbb_ring_slots(uint32_t slot_size, uint32_t ring_pages)
{
	const uint32_t header = sizeof(struct xbb_sring);
	uint32_t fit, slots;

	fit = (ring_pages * XBB_PAGE_SIZE - header) / slot_size;
	for (slots = 1; slots * 2 <= fit; slots *= 2)
		continue;
	return (slots);
}

void
xbb_ring_init(struct xbb_ring *ring, void *base, uint32_t ring_pages,
    uint32_t slot_size, uint32_t rsp_size)
{

	ring->sring = base;
	ring->slots = (uint8_t *)base + sizeof(struct xbb_sring);
	ring->slot_size = slot_size;
	ring->rsp_size = rsp_size;
	ring->nslots = xbb_ring_slots(slot_size, ring_pages);
	/*
	 * Where a drained ring was left.  After a crash there may be requests
	 * before this point that were read and never answered.
	 */
	ring->rsp_prod = XBB_GET(ring->sring->rsp_prod);
	ring->rsp_prod_pvt = ring->rsp_prod;
	ring->req_cons = ring->rsp_prod;
}

typedef uint64_t __attribute__((may_alias)) word_pair;

/*
 * Two words at once, where both lie so, and four times that a turn, since
 * callgrind counts instructions.
 */
static void
copy_pairs(word_pair *to, const word_pair *from, size_t n)
{
	size_t i;

	for (i = 0; i + 4 <= n; i += 4) {
		XBB_SET(to[i], XBB_GET(from[i]));
		XBB_SET(to[i + 1], XBB_GET(from[i + 1]));
		XBB_SET(to[i + 2], XBB_GET(from[i + 2]));
		XBB_SET(to[i + 3], XBB_GET(from[i + 3]));
	}
	for (; i < n; i++)
		XBB_SET(to[i], XBB_GET(from[i]));
}

/*
 * Four at once, seven times that a turn, which is a slot; no sanitizer of
 * threads could see that this is meant.
 */
#ifndef __SANITIZE_THREAD__
typedef uint64_t __attribute__((may_alias, vector_size(16))) four_words;

static inline void
copy_fours(volatile four_words *to, const volatile four_words *from, size_t n)
{

	for (; n >= 7; n -= 7, to += 7, from += 7) {
		to[0] = from[0];
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
		to[4] = from[4];
		to[5] = from[5];
		to[6] = from[6];
	}
	for (; n > 0; n--)
		*to++ = *from++;
}
#endif

/*
 * Move words one load each, so that no compiler may read shared memory twice
 * (XSA-155).  Slots are multiples of 4 bytes at multiples of 4; those of all
 * but 32-bit x86 guests, and whatever lies in pages, of 8.
 */
inline void
xbb_copy_words(uint32_t *to, const uint32_t *from, size_t bytes)
{
	const uintptr_t all = (uintptr_t)to | (uintptr_t)from | bytes;
	size_t i;

#ifndef __SANITIZE_THREAD__
	if ((all & 15) == 0) {
		copy_fours((volatile four_words *)(void *)to,
		    (const volatile four_words *)(const void *)from,
		    bytes / 16);
		return;
	}
#endif
	if ((all & 7) == 0) {
		copy_pairs((word_pair *)(void *)to,
		    (const word_pair *)(const void *)from, bytes / 8);
		return;
	}
	for (i = 0; i < bytes / sizeof(*to); i++)
		XBB_SET(to[i], XBB_GET(from[i]));
}

static uint32_t *
slot_at(const struct xbb_ring *ring, uint32_t index)
{

	return ((uint32_t *)(void *)(ring->slots +
	    (index & (ring->nslots - 1)) * ring->slot_size));
}

/*
 * How many requests wait.  -EPROTO when the producer index cannot be true:
 * more than a ring ahead of the last response that was published, or behind
 * what was read (XSA-39).  So no more are read and not published than there
 * are slots.
 */
int
xbb_ring_unread(const struct xbb_ring *ring, uint32_t *countp)
{
	uint32_t prod;

	prod = __atomic_load_n(&ring->sring->req_prod, __ATOMIC_ACQUIRE);
	if (prod - ring->rsp_prod > ring->nslots ||
	    prod - ring->req_cons > ring->nslots)
		return (-EPROTO);
	*countp = prod - ring->req_cons;
	return (0);
}

/* Copy the next request out; afterwards its slot belongs to a response. */
void
xbb_ring_copy_request(struct xbb_ring *ring, uint32_t *slot)
{

	xbb_copy_words(slot, slot_at(ring, ring->req_cons), ring->slot_size);
	ring->req_cons++;
}

/* Have it copied out once more: it was not accepted. */
void
xbb_ring_leave_request(struct xbb_ring *ring)
{

	ring->req_cons--;
}

/* Fill in a response; it is published with others. */
void
xbb_ring_put(struct xbb_ring *ring, const uint32_t *words)
{

	assert(ring->rsp_prod_pvt != ring->req_cons);
	xbb_copy_words(slot_at(ring, ring->rsp_prod_pvt), words,
	    ring->rsp_size);
	ring->rsp_prod_pvt++;
}

/*
 * Publish all responses put so far.  True when the frontend asked to be
 * notified of one of them: the store of rsp_prod must be visible before
 * rsp_event is read, or both sides could fall asleep.
 */
bool
xbb_ring_push_responses(struct xbb_ring *ring)
{
	uint32_t event, old;

	old = ring->rsp_prod;
	ring->rsp_prod = ring->rsp_prod_pvt;
	__atomic_store_n(&ring->sring->rsp_prod, ring->rsp_prod,
	    __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	event = XBB_GET(ring->sring->rsp_event);
	return (ring->rsp_prod - event < ring->rsp_prod - old);
}

/*
 * Ask for an event once so many more requests are there, then look once more:
 * true when they are already (or the index lies, which the next read reports).
 */
bool
xbb_ring_want(struct xbb_ring *ring, uint32_t n)
{
	uint32_t prod;

	__atomic_store_n(&ring->sring->req_event, ring->req_cons + n,
	    __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	prod = __atomic_load_n(&ring->sring->req_prod, __ATOMIC_ACQUIRE);
	return (prod - ring->req_cons >= n);
}
