/*
 * front.c - the guest's end of a ring: for the simulated guest, the NBD export
 * and the tests.  It keeps to the protocol as a kernel's blkfront does, grants
 * its pages for one request at a time where the hypervisor can, unless they are
 * to stay granted, and notices a backend that answers twice or keeps a page
 * mapped.  Of the protocol it shares the layouts of blkif.c with the backend,
 * and nothing that decides. The lock, if there is one, is its callers' business
 * (transfer.c).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "front/front.h"

#define EVENT_PART	3	/* see front_final_check() */

static struct xbb_sring *
front_sring(const struct xbb_front *front)
{

	return ((struct xbb_sring *)(void *)front->ring_base);
}

/* Is there no backend any more that would answer, and nobody to wait for? */
static bool
has_lost_patience(struct xbb_front *front)
{
	const uint64_t now = xbb_now_ns();

	if (front->gone_ns == 0)
		front->gone_ns = now;
	return (now - front->gone_ns >=
	    front->params.patience_ms * UINT64_C(1000000));
}

/*
 * Take an event: 1 there was one, 0 none, -EPIPE the backend has gone, and for
 * too long.  One without a guard (hv.h) goes without a word.
 */
int
front_take(struct xbb_front *front)
{
	int n;

	n = front->ops->take(front->hv);
	if (n == -EPIPE ||
	    (n > 0 && XBB_GET(front->ring_base[XBB_RING_ALIVE]) == 0) ||
	    (n == 0 && front->gone_ns != 0))
		return (has_lost_patience(front) ? -EPIPE : 0);
	front->gone_ns = 0;
	return (n);
}

static uint32_t *
ring_slot(const struct xbb_front *front, uint32_t index)
{

	return ((uint32_t *)(void *)(front->ring_base +
	    sizeof(struct xbb_sring) +
	    (index & (front->nslots - 1)) * front->layout->slot_size));
}

static void
release_front(struct xbb_front *front)
{

	if (front->page_base != NULL)
		front->ops->release(front->hv, front->page_base, front->npages,
		    front->page_ref);
	if (front->ring_base != NULL)
		front->ops->release(front->hv, front->ring_base,
		    front->params.ring_pages, front->ring_ref);
	if (front->hv != NULL)
		front->ops->close(front->hv);
	free(front->page_ref);
	free(front->slots);
	free(front);
}

static int
grant_pages(struct xbb_front *front, struct xbb_error *error)
{
	uint32_t i, lists;
	int e;

	e = front->ops->open(&front->hv, front->params.grant_fd,
	    front->params.event_fd, front->params.port,
	    front->params.backend_domid);
	if (e != 0)
		return (xbb_fail(error, "open domain", -e));
	e = front->ops->grant(front->hv, front->params.ring_pages,
	    &front->ring_base, front->ring_ref);
	if (e != 0)
		return (xbb_fail(error, "grant ring", -e));
	e = front->ops->grant(front->hv, front->npages, &front->page_base,
	    front->page_ref);
	if (e != 0)
		return (xbb_fail(error, "grant pages", -e));
	lists = front->params.depth * front->params.max_segments;
	for (i = 0; i < front->params.depth; i++) {
		front->slots[i].data = front->page_base +
		    (size_t)i * front->params.max_segments * XBB_PAGE_SIZE;
		front->slots[i].refs = front->page_ref +
		    i * front->params.max_segments;
		if (front->npages > lists) {
			front->slots[i].list = (uint32_t *)(void *)
			    (front->page_base +
			    (size_t)(lists + i) * XBB_PAGE_SIZE);
			front->slots[i].list_ref = front->page_ref[lists + i];
		}
		front->slots[i].next_free = front->free;
		front->free = &front->slots[i];
	}
	front_sring(front)->req_event = front_sring(front)->rsp_event = 1;
	front->ring_base[XBB_RING_ALIVE] = 1;
	return (0);
}

int
xbb_front_open(const struct xbb_front_params *params, struct xbb_error *error,
    struct xbb_front **frontp)
{
	struct xbb_front *front;
	int e;

	front = calloc(1, sizeof(*front));
	if (front == NULL)
		return (xbb_fail(error, "allocate frontend", ENOMEM));
	front->params = *params;
	front->ops = xbb_hvfront_lookup(params->hv);
	front->layout = xbb_layout(params->abi);
	if (front->ops == NULL || front->layout == NULL ||
	    params->ring_pages < 1 || params->ring_pages > XBB_MAX_RING_PAGES ||
	    (params->ring_pages & (params->ring_pages - 1)) != 0 ||
	    params->max_segments < XBB_MAX_SEGMENTS ||
	    params->max_segments > XBB_MAX_INDIRECT_SEGMENTS ||
	    params->depth < 1 || params->depth > (front->nslots =
	    xbb_max_requests(params->abi, params->ring_pages))) {
		free(front);
		return (xbb_fail(error, "check parameters", EINVAL));
	}
	/* Data pages, then a page a request that lists its segments. */
	front->npages = params->depth * params->max_segments;
	if (params->max_segments > XBB_MAX_SEGMENTS)
		front->npages += params->depth;
	front->slots = calloc(params->depth, sizeof(*front->slots));
	front->page_ref = calloc(front->npages, sizeof(*front->page_ref));
	if (front->slots == NULL || front->page_ref == NULL) {
		release_front(front);
		return (xbb_fail(error, "allocate frontend", ENOMEM));
	}
	e = grant_pages(front, error);
	if (e != 0) {
		release_front(front);
		return (e);
	}
	pthread_mutex_init(&front->lock, NULL);
	pthread_cond_init(&front->reaped, NULL);
	*frontp = front;
	return (0);
}

void
xbb_front_close(struct xbb_front *front)
{

	pthread_cond_destroy(&front->reaped);
	pthread_mutex_destroy(&front->lock);
	release_front(front);
}

void
xbb_front_ring_refs(struct xbb_front *front, uint32_t *refs)
{

	memcpy(refs, front->ring_ref,
	    front->params.ring_pages * sizeof(*refs));
}

/* Let the backend at a page, or take that back; the first failure stays. */
static void
permit_page(struct xbb_front *front, uint32_t ref, int access, int *errorp)
{
	int error;

	error = front->ops->set_access(front->hv, ref, access);
	if (*errorp == 0)
		*errorp = error;
}

/* The same for all pages of a request. */
static int
permit_pages(struct xbb_front *front, const struct front_slot *slot, int access)
{
	uint32_t i;
	int error;

	if (front->ops->set_access == NULL || front->params.persistent)
		return (0);
	error = 0;
	for (i = 0; i < slot->nseg; i++)
		permit_page(front, slot->refs[i], access, &error);
	if (slot->indirect)
		permit_page(front, slot->list_ref, access == 0 ? 0 : 1,
		    &error);
	return (error);
}

/* Describe the slot's sectors; how many segments that takes. */
static uint16_t
fill_segments(const struct front_slot *slot, struct xbb_segment *seg)
{
	uint32_t at, left;
	uint16_t n;

	n = 0;
	at = slot->skew;
	for (left = slot->nsectors; left > 0; n++) {
		seg[n].gref = slot->refs[n];
		seg[n].reserved = 0;
		seg[n].first_sect = (uint8_t)at;
		seg[n].last_sect = (uint8_t)(at + left < XBB_SECTORS_PER_PAGE ?
		    at + left - 1 : XBB_SECTORS_PER_PAGE - 1);
		left -= seg[n].last_sect - at + 1;
		at = 0;
	}
	return (n);
}

/*
 * Put a request on the ring, data from slot->data + skew sectors on.  What has
 * more segments than fit there goes indirect, and so does anything with data if
 * that is asked for.  The backend is told by front_push().
 */
void
front_submit(struct xbb_front *front, uint8_t operation, uint64_t sector,
    uint32_t nsectors, uint16_t skew, bool indirect)
{
	struct xbb_segment seg[XBB_MAX_INDIRECT_SEGMENTS];
	struct front_slot *slot = front->free;
	uint32_t words[XBB_SLOT_WORDS];
	struct xbb_req req = { 0 };

	assert(!slot->busy);
	front->free = slot->next_free;
	slot->id = (uint64_t)++front->generation << 32 |
	    (uint32_t)(slot - front->slots);
	slot->operation = operation;
	slot->sector = sector;
	slot->nsectors = nsectors;
	slot->skew = skew;
	slot->nseg = 0;
	slot->busy = true;
	front->inflight++;

	if (operation != XBB_OP_DISCARD) {
		assert(skew + nsectors <= front_max_sectors(front));
		slot->nseg = fill_segments(slot, seg);
	}
	slot->indirect = slot->nseg > XBB_MAX_SEGMENTS ||
	    (indirect && slot->nseg != 0 && slot->list != NULL);
	permit_pages(front, slot, operation == XBB_OP_READ ? 2 : 1);
	req.id = slot->id;
	req.operation = operation;
	req.sector = sector;
	req.nsectors = nsectors;
	req.nseg = slot->nseg;
	req.indirect = slot->indirect;
	if (slot->indirect) {
		req.indirect_ref[0] = slot->list_ref;
		xbb_copy_words(slot->list, (const uint32_t *)(void *)seg,
		    slot->nseg * sizeof(seg[0]));
	} else
		memcpy(req.seg, seg, slot->nseg * sizeof(seg[0]));
	xbb_request_encode(front->layout, &req, words);
	xbb_copy_words(ring_slot(front, front->req_prod_pvt), words,
	    front->layout->slot_size);
	front->req_prod_pvt++;
}

/* Publish what was submitted; notify if the backend asked for it. */
void
front_push(struct xbb_front *front)
{
	uint32_t event, old;

	old = front->req_prod;
	if (front->req_prod_pvt == old)
		return;
	front->req_prod = front->req_prod_pvt;
	__atomic_store_n(&front_sring(front)->req_prod, front->req_prod,
	    __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	event = XBB_GET(front_sring(front)->req_event);
	if (front->req_prod - event < front->req_prod - old)
		front->ops->notify(front->hv);
}

bool
front_has_responses(struct xbb_front *front)
{

	return (__atomic_load_n(&front_sring(front)->rsp_prod,
	    __ATOMIC_ACQUIRE) != front->rsp_cons);
}

/*
 * Ask for an event once a part of what is in flight is answered, the next
 * response if little is; true if that much is there already.
 */
bool
front_final_check(struct xbb_front *front)
{
	uint32_t event;

	event = front->rsp_cons + 1 + front->inflight / EVENT_PART;
	XBB_SET(front_sring(front)->rsp_event, event);
	atomic_thread_fence(memory_order_seq_cst);
	return ((int32_t)(__atomic_load_n(&front_sring(front)->rsp_prod,
	    __ATOMIC_ACQUIRE) - event) >= 0);
}

static struct front_slot *
slot_of(struct xbb_front *front, const uint32_t words[4], int16_t *statusp)
{
	struct front_slot *slot;
	uint8_t operation;
	uint64_t id;

	memcpy(&id, words, sizeof(id));
	operation = ((const uint8_t *)words)[8];
	memcpy(statusp, (const uint8_t *)words + 10, sizeof(*statusp));
	if ((uint32_t)id >= front->params.depth)
		return (NULL);
	slot = &front->slots[(uint32_t)id];
	if (!slot->busy || slot->id != id || slot->operation != operation)
		return (NULL);
	return (slot);
}

/* Take all responses; true if there was one. */
bool
front_reap(struct xbb_front *front, front_done *done, void *arg)
{
	struct front_slot *slot;
	uint32_t prod, words[4];
	int16_t status;

	prod = __atomic_load_n(&front_sring(front)->rsp_prod, __ATOMIC_ACQUIRE);
	if (prod - front->rsp_cons > front->nslots) {
		front->bad_responses++;
		return (false);
	}
	if (prod == front->rsp_cons)
		return (false);
	for (; front->rsp_cons != prod; front->rsp_cons++) {
		memset(words, 0, sizeof(words));
		xbb_copy_words(words, ring_slot(front, front->rsp_cons),
		    front->layout->rsp_size);
		slot = slot_of(front, words, &status);
		if (slot == NULL) {
			front->bad_responses++;
			continue;
		}
		if (permit_pages(front, slot, 0) == -EBUSY)
			front->still_mapped++;
		done(front, slot, status, arg);
		slot->busy = false;
		slot->next_free = front->free;
		front->free = slot;
		front->inflight--;
	}
	return (true);
}

/* What a frontend that misbehaves needs. */

void *
xbb_front_ring(struct xbb_front *front, uint64_t *lenp)
{

	*lenp = (uint64_t)front->params.ring_pages * XBB_PAGE_SIZE;
	return (front->ring_base);
}

uint32_t
xbb_front_pages(struct xbb_front *front)
{

	return (front->npages);
}

void *
xbb_front_page(struct xbb_front *front, uint32_t page)
{

	return (page < front->npages ?
	    front->page_base + (size_t)page * XBB_PAGE_SIZE : NULL);
}

uint32_t
xbb_front_page_ref(struct xbb_front *front, uint32_t page)
{

	return (page < front->npages ? front->page_ref[page] : 0);
}

int
xbb_front_set_access(struct xbb_front *front, uint32_t ref, int access)
{

	return (front->ops->set_access == NULL ? -EOPNOTSUPP :
	    front->ops->set_access(front->hv, ref, access));
}

int
xbb_front_notify(struct xbb_front *front)
{
	int error;

	pthread_mutex_lock(&front->lock);
	/*
	 * The backend may have come since; but who waits takes its events
	 * itself.
	 */
	if (!front->polling)
		front->ops->take(front->hv);
	error = front->ops->notify(front->hv);
	pthread_mutex_unlock(&front->lock);
	return (error);
}

int
xbb_front_wait(struct xbb_front *front, int timeout_ms)
{
	int n;

	n = front->ops->wait(front->hv, timeout_ms);
	if (n <= 0)
		return (n);
	pthread_mutex_lock(&front->lock);
	n = front_take(front);
	pthread_mutex_unlock(&front->lock);
	return (n);
}
