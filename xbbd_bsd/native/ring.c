/*
 * ring.c - the shared ring as its backend uses it: indices with their memory
 * barriers, slots copied out once, responses put in, and the rule when to
 * notify (ring.h of Xen's public headers).  It must not know what a request
 * means.  Ring thread only; the other side of every access is a guest that may
 * write any value at any time.
 */
#include <assert.h>

#include "internal.h"

void
xbb_ring_init(struct xbb_ring *ring, void *base, uint32_t ring_pages,
    const struct xbb_layout *layout)
{

	ring->sring = base;
	ring->slots = (uint8_t *)base + sizeof(struct xbb_sring);
	ring->layout = layout;
	ring->nslots = xbb_ring_slots(layout, ring_pages);
	/*
	 * Where a drained ring was left.  After a crash there may be requests
	 * before this point that were read and never answered.
	 */
	ring->rsp_prod = XBB_GET(ring->sring->rsp_prod);
	ring->rsp_prod_pvt = ring->rsp_prod;
	ring->req_cons = ring->rsp_prod;
}

/*
 * Move words one load each, so that no compiler may read shared memory twice
 * (XSA-155).  Slots are multiples of 4 bytes at multiples of 4.  Four words a
 * turn, since callgrind counts instructions: 1936 a request rather than 1950,
 * together with publishing before working.
 */
void
xbb_copy_words(uint32_t *to, const uint32_t *from, size_t bytes)
{
	size_t i, n;

	n = bytes / sizeof(*to);
	for (i = 0; i + 4 <= n; i += 4) {
		XBB_SET(to[i], XBB_GET(from[i]));
		XBB_SET(to[i + 1], XBB_GET(from[i + 1]));
		XBB_SET(to[i + 2], XBB_GET(from[i + 2]));
		XBB_SET(to[i + 3], XBB_GET(from[i + 3]));
	}
	for (; i < n; i++)
		XBB_SET(to[i], XBB_GET(from[i]));
}

static uint32_t *
slot_at(const struct xbb_ring *ring, uint32_t index)
{

	return ((uint32_t *)(void *)(ring->slots +
	    (index & (ring->nslots - 1)) * ring->layout->slot_size));
}

/*
 * How many requests wait.  -EPROTO when the producer index cannot be true:
 * more than a ring ahead of the last response, or behind what was read
 * (XSA-39).
 */
int
xbb_ring_unread(const struct xbb_ring *ring, uint32_t *countp)
{
	uint32_t prod;

	prod = __atomic_load_n(&ring->sring->req_prod, __ATOMIC_ACQUIRE);
	if (prod - ring->rsp_prod_pvt > ring->nslots ||
	    prod - ring->req_cons > ring->nslots)
		return (-EPROTO);
	*countp = prod - ring->req_cons;
	return (0);
}

/* Copy the next request out; afterwards its slot belongs to a response. */
void
xbb_ring_copy_request(struct xbb_ring *ring, uint32_t slot[XBB_SLOT_WORDS])
{

	xbb_copy_words(slot, slot_at(ring, ring->req_cons),
	    ring->layout->slot_size);
	ring->req_cons++;
}

/* Have it copied out once more: it was not accepted. */
void
xbb_ring_leave_request(struct xbb_ring *ring)
{

	ring->req_cons--;
}

void
xbb_ring_put_response(struct xbb_ring *ring, uint64_t id, uint8_t operation,
    int16_t status)
{
	uint32_t words[4];

	assert(ring->rsp_prod_pvt != ring->req_cons);
	xbb_response_encode(id, operation, status, words);
	xbb_copy_words(slot_at(ring, ring->rsp_prod_pvt), words,
	    ring->layout->rsp_size);
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
 * Ask for an event with the next request, then look once more: true when
 * something is there already (or the index lies, which the next read reports).
 */
bool
xbb_ring_final_check(struct xbb_ring *ring)
{

	__atomic_store_n(&ring->sring->req_event, ring->req_cons + 1,
	    __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	return (__atomic_load_n(&ring->sring->req_prod, __ATOMIC_ACQUIRE) !=
	    ring->req_cons);
}
