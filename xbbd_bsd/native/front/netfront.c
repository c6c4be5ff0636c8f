/*
 * netfront.c - the guest's end of a network card's queue, for the simulated
 * guest and the tests: what both rings have, opened and closed.  It keeps to
 * the protocol as Linux's netfront does, grants a page for as long as its slot
 * is the backend's, and notices a backend that answers twice, in another order,
 * or keeps a page mapped.  Of the protocol it shares the layouts of netif.h
 * with the backend, and nothing that decides.  Opener and runner.
 */
#include <stdlib.h>
#include <string.h>

#include "front/netfront.h"

/* Responses that were not looked at yet; broken: there cannot be so many. */
uint32_t
netfront_unread(struct netfront_ring *ring, bool *brokenp)
{
	uint32_t prod;

	prod = __atomic_load_n(&ring->sring->rsp_prod, __ATOMIC_ACQUIRE);
	if (prod - ring->rsp_cons > ring->req_prod - ring->rsp_cons) {
		*brokenp = true;
		return (0);
	}
	return (prod - ring->rsp_cons);
}

/* Slots that nobody has. */
uint32_t
netfront_room(const struct netfront_ring *ring)
{

	return (NETFRONT_SLOTS - (ring->req_prod_pvt - ring->rsp_cons));
}

static uint32_t *
front_slot_at(const struct netfront_ring *ring, uint32_t index)
{

	return ((uint32_t *)(void *)(ring->slots +
	    (index & (NETFRONT_SLOTS - 1)) * ring->slot_size));
}

void
netfront_copy_response(const struct netfront_ring *ring, uint32_t index,
    uint32_t *words, size_t bytes)
{

	xbb_copy_words(words, front_slot_at(ring, index), bytes);
}

void
netfront_put_request(struct netfront_ring *ring, const uint32_t *words)
{

	xbb_copy_words(front_slot_at(ring, ring->req_prod_pvt++), words,
	    ring->slot_size);
}

/* Let the backend at a page, or take that back, where that can be done. */
void
netfront_permit(struct xbb_netfront *front, uint32_t ref, int access)
{

	if (front->ops->set_access != NULL &&
	    front->ops->set_access(front->hv, ref, access) == -EBUSY)
		XBB_COUNT(front->counters.still_mapped, 1);
}

static void
init_ring(struct xbb_netfront *front, struct netfront_ring *ring, uint32_t n,
    uint32_t slot_size)
{
	uint32_t i;

	ring->sring = (struct xbb_sring *)(void *)(front->ring_base +
	    (size_t)n * XBB_PAGE_SIZE);
	ring->slots = (uint8_t *)(ring->sring + 1);
	ring->slot_size = slot_size;
	ring->ref = front->ring_ref[n];
	ring->pages = front->page_base +
	    (size_t)n * NETFRONT_SLOTS * XBB_PAGE_SIZE;
	ring->page_ref = front->page_ref + n * NETFRONT_SLOTS;
	ring->sring->req_event = ring->sring->rsp_event = 1;
	ring->nfree = NETFRONT_SLOTS;
	for (i = 0; i < NETFRONT_SLOTS; i++)
		ring->free[i] = (uint16_t)(NETFRONT_SLOTS - 1 - i);
}

static int
grant_rings(struct xbb_netfront *front, struct xbb_error *error)
{
	const struct xbb_netfront_params *p = &front->params;
	int e;

	e = xbb_kick_open(&front->rest);
	if (e != 0)
		return (xbb_fail(error, "open pipe", -e));
	e = front->ops->open(&front->hv, p->grant_fd, p->event_fd, p->port,
	    p->backend_domid);
	if (e != 0)
		return (xbb_fail(error, "open domain", -e));
	e = front->ops->grant(front->hv, 2, &front->ring_base,
	    front->ring_ref);
	if (e != 0)
		return (xbb_fail(error, "grant rings", -e));
	e = front->ops->grant(front->hv, 2 * NETFRONT_SLOTS,
	    &front->page_base, front->page_ref);
	if (e != 0)
		return (xbb_fail(error, "grant pages", -e));
	init_ring(front, &front->tx, 0, sizeof(union xbb_tx_slot));
	init_ring(front, &front->rx, 1, sizeof(union xbb_rx_slot));
	front->ring_base[XBB_RING_ALIVE] = 1;
	return (0);
}

int
xbb_netfront_open(const struct xbb_netfront_params *params,
    struct xbb_error *error, struct xbb_netfront **frontp)
{
	struct xbb_netfront *front;
	int e;

	front = calloc(1, sizeof(*front));
	if (front == NULL)
		return (xbb_fail(error, "allocate frontend", ENOMEM));
	front->params = *params;
	front->rest.kick = -1;
	front->ops = xbb_hvfront_lookup(params->hv);
	if (front->ops == NULL || params->rx_buffers > NETFRONT_SLOTS ||
	    params->skew > XBB_PAGE_SIZE / 2 || params->skew % 2 != 0) {
		free(front);
		return (xbb_fail(error, "check parameters", EINVAL));
	}
	front->page_ref = calloc((size_t)2 * NETFRONT_SLOTS,
	    sizeof(*front->page_ref));
	e = front->page_ref == NULL ?
	    xbb_fail(error, "allocate frontend", ENOMEM) :
	    grant_rings(front, error);
	if (e != 0) {
		xbb_netfront_close(front);
		return (e);
	}
	*frontp = front;
	return (0);
}

void
xbb_netfront_close(struct xbb_netfront *front)
{

	if (front->page_base != NULL)
		front->ops->release(front->hv, front->page_base,
		    2 * NETFRONT_SLOTS, front->page_ref);
	if (front->ring_base != NULL)
		front->ops->release(front->hv, front->ring_base, 2,
		    front->ring_ref);
	if (front->hv != NULL)
		front->ops->close(front->hv);
	xbb_kick_close(&front->rest);
	free(front->page_ref);
	free(front);
}

void
xbb_netfront_ring_refs(struct xbb_netfront *front, uint32_t refs[2])
{

	memcpy(refs, front->ring_ref, sizeof(front->ring_ref));
}

/* Any thread. */
void
xbb_netfront_stop(struct xbb_netfront *front)
{

	atomic_store(&front->stop, true);
	xbb_kick(&front->rest);
}

/* Any thread: each number is whole, and of about the same moment. */
void
xbb_netfront_counters(struct xbb_netfront *front,
    struct xbb_netfront_counters *counters)
{
	const uint64_t *from = (const uint64_t *)&front->counters;
	uint64_t *to = (uint64_t *)counters;
	size_t i;

	for (i = 0; i < sizeof(*counters) / sizeof(*to); i++)
		to[i] = XBB_GET(from[i]);
}

/* What a frontend that misbehaves needs. */

void *
xbb_netfront_ring(struct xbb_netfront *front, uint32_t ring)
{

	return (ring < 2 ?
	    front->ring_base + (size_t)ring * XBB_PAGE_SIZE : NULL);
}

uint32_t
xbb_netfront_pages(struct xbb_netfront *front)
{

	(void)front;
	return (2 * NETFRONT_SLOTS);
}

void *
xbb_netfront_page(struct xbb_netfront *front, uint32_t page)
{

	return (page < 2 * NETFRONT_SLOTS ?
	    front->page_base + (size_t)page * XBB_PAGE_SIZE : NULL);
}

uint32_t
xbb_netfront_page_ref(struct xbb_netfront *front, uint32_t page)
{

	return (page < 2 * NETFRONT_SLOTS ? front->page_ref[page] : 0);
}

int
xbb_netfront_set_access(struct xbb_netfront *front, uint32_t ref, int access)
{

	return (front->ops->set_access == NULL ? -EOPNOTSUPP :
	    front->ops->set_access(front->hv, ref, access));
}

int
xbb_netfront_notify(struct xbb_netfront *front)
{

	front->ops->take(front->hv);	/* the backend may have come since */
	return (front->ops->notify(front->hv));
}

int
xbb_netfront_wait(struct xbb_netfront *front, int timeout_ms)
{
	int n;

	n = front->ops->wait(front->hv, timeout_ms);
	return (n <= 0 ? n : front->ops->take(front->hv));
}
