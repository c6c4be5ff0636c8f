/*
 * open.c - making a queue out of descriptors and numbers, giving everything
 * back, and what callers see in between.  Runs on the caller's thread; while
 * the ring thread lives it touches only what internal.h calls shared.
 */
#include <sys/mman.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

int
xbb_fail(struct xbb_error *error, const char *operation, int errnum)
{

	error->errnum = errnum;
	strncpy(error->operation, operation, sizeof(error->operation) - 1);
	error->operation[sizeof(error->operation) - 1] = '\0';
	return (-errnum);
}

static bool
is_power_of_two(uint32_t n)
{

	return (n != 0 && (n & (n - 1)) == 0);
}

static int
check_params(const struct xbb_queue_params *p, const struct xbb_mapping *mapping)
{

	if (mapping == NULL || xbb_hv_lookup(p->hv) == NULL || xbb_layout(p->abi) == NULL ||
	    p->ring >= xbb_mapping_rings(mapping) ||
	    !is_power_of_two(p->ring_pages) ||
	    p->ring_pages > XBB_MAX_RING_PAGES ||
	    !is_power_of_two(p->sector_size) ||
	    p->sector_size < XBB_SECTOR_SIZE ||
	    !is_power_of_two(p->block_size) ||
	    p->block_size < p->sector_size ||
	    p->block_size > XBB_MAX_BLOCK_SIZE ||
	    (p->block_size > p->sector_size && !p->bounce) ||
	    p->workers < 1 || p->workers > XBB_MAX_WORKERS ||
	    p->max_batch_segments < XBB_MAX_SEGMENTS ||
	    p->max_batch_segments > XBB_MAX_BATCH_SEGMENTS ||
	    (p->max_indirect_segments != 0 &&
	    p->max_indirect_segments < XBB_MAX_SEGMENTS) ||
	    p->max_indirect_segments > p->max_batch_segments ||
	    p->max_grants < p->max_batch_segments ||
	    p->max_persistent > XBB_MAX_PERSISTENT ||
	    p->transport > XBB_TRANSPORT_COPY ||
	    xbb_ring_slots(xbb_layout(p->abi), p->ring_pages) >
	    xbb_mapping_entries(mapping))
		return (-EINVAL);
	return (0);
}

/*
 * Room for the segments of indirect requests, a piece for each table entry;
 * memory is taken as it is touched.
 */
static int
prepare_segments(struct xbb_queue *q, uint32_t nreqs)
{
	void *base;

	if (q->params.max_indirect_segments == 0)
		return (0);
	q->segments_size = (size_t)nreqs * q->max_segments *
	    sizeof(*q->segments);
	base = mmap(NULL, q->segments_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (base == MAP_FAILED)
		return (-errno);
	q->segments = base;
	return (0);
}

/* Lay out the lists of a fresh queue, once nothing else can stop it. */
static int
prepare(struct xbb_queue *q, struct xbb_state *state)
{
	const struct xbb_queue_params *p = &q->params;
	uint32_t i, n;
	int error;

	n = xbb_ring_slots(xbb_layout(p->abi), p->ring_pages);
	q->batches = calloc(n, sizeof(*q->batches));
	q->reqs = calloc(n, sizeof(*q->reqs));
	q->verdicts = calloc(n, sizeof(*q->verdicts));
	if (q->batches == NULL || q->reqs == NULL || q->verdicts == NULL)
		return (-ENOMEM);
	error = prepare_segments(q, n);
	if (error == 0)
		error = xbb_persist_open(q, n);
	if (error == 0)
		error = xbb_flushes_join(state, &q->flushes);
	if (error == 0)
		error = xbb_budget_join(q);
	if (error != 0)
		return (error);
	xbb_mapping_connect(xbb_mapping_of(state));
	q->sectors = &state->sectors;
	q->rs = &state->ring[p->ring];
	q->table = xbb_state_table(state, p->ring);
	q->latency = (uint64_t (*)[XBB_LATENCY_BUCKETS])(void *)
	    xbb_state_latency(state, p->ring);
	q->tunables = &state->tunables;
	q->limits = (struct xbb_limits){
		.sectors = XBB_GET(state->sectors),
		.sector_size = p->sector_size,
		.max_indirect_segments = p->max_indirect_segments,
		.read_only = p->read_only != 0,
		.discard = p->discard != 0,
	};
	memset(q->table, 0, n * sizeof(*q->table));
	for (i = 0; i < n; i++) {
		q->reqs[i].next = i + 1 < n ? (uint16_t)(i + 1) : XBB_NONE;
		q->batches[i].next = i + 1 < n ? &q->batches[i + 1] : NULL;
	}
	q->free_req = 0;
	q->free_batch = &q->batches[0];
	atomic_init(&q->flush_slowness, XBB_SLOWEST);
	return (0);
}

static void
publish(const struct xbb_queue *q)
{
	struct xbb_ring_state *rs = q->rs;

	XBB_SET(rs->abi, q->params.abi);
	XBB_SET(rs->ring_pages, q->params.ring_pages);
	XBB_SET(rs->transport, q->copies ?
	    XBB_TRANSPORT_COPY : XBB_TRANSPORT_MAP);
	XBB_SET(rs->max_requests, q->ring.nslots);
	XBB_SET(rs->max_request_segments, q->max_segments);
	XBB_SET(rs->max_request_size, q->max_segments * XBB_PAGE_SIZE);
	XBB_SET(rs->inflight, 0);
	XBB_SET(rs->grants_mapped, 0);
	XBB_SET(rs->persistent, q->persist.max != 0);
	XBB_SET(rs->grants_persistent, 0);
	/* What an earlier queue did not finish will never end. */
	XBB_SET(rs->dispatched.start_count, rs->dispatched.end_count);
	XBB_SET(rs->received.start_count, rs->received.end_count);
	XBB_SET(rs->req_cons, q->ring.req_cons);
	XBB_SET(rs->rsp_prod, q->ring.rsp_prod);
	XBB_SET(rs->connected, 1);
}

static int
open_kick(int kick[2])
{
	int i;

	if (pipe(kick) != 0)
		return (-errno);
	for (i = 0; i < 2; i++) {
		fcntl(kick[i], F_SETFD, FD_CLOEXEC);
		fcntl(kick[i], F_SETFL, O_NONBLOCK);
	}
	return (0);
}

/* Shall grants be copied? */
static int
choose_transport(struct xbb_queue *q)
{
	const struct xbb_queue_params *p = &q->params;
	const bool can_copy = q->ops->copy != NULL && q->ops->can_copy(q->hv);

	if (p->transport == XBB_TRANSPORT_COPY && !can_copy)
		return (-EOPNOTSUPP);
	q->copies = can_copy && (p->transport == XBB_TRANSPORT_COPY ||
	    (p->transport == XBB_TRANSPORT_BEST && q->ops->prefers_copy));
	return (0);
}

/*
 * The ring thread's buffer, if data goes by one; memory taken as touched.
 * Workers get theirs as they are made.
 */
static int
prepare_buffer(struct xbb_queue *q)
{
	void *base;

	if (!q->copies && !q->params.bounce)
		return (0);
	q->pool.buffer_size = xbb_data_buffer_size(&q->params);
	base = mmap(NULL, q->pool.buffer_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (base == MAP_FAILED)
		return (-errno);
	q->buffer = base;
	return (0);
}

static int
connect_ring(struct xbb_queue *q, struct xbb_error *error)
{
	const struct xbb_queue_params *p = &q->params;
	int e;

	e = q->ops->open(&q->hv, p->grant_fd, p->event_fd, p->domid);
	if (e != 0)
		return (xbb_fail(error, "open grant device", -e));
	e = choose_transport(q);
	if (e == 0)
		e = prepare_buffer(q);
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "prepare to copy grants", -e));
	q->ring_map.refs = p->ring_ref;
	q->ring_map.npages = p->ring_pages;
	e = q->ops->map(q->hv, &q->ring_map, true);
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "map ring", -e));
	xbb_ring_init(&q->ring, q->ring_map.base, p->ring_pages,
	    xbb_layout(p->abi));
	e = q->ops->bind(q->hv, p->remote_port);
	if (e != 0)
		return (xbb_fail(error, "bind event channel", -e));
	if (q->ops->guard != NULL) {
		e = q->ops->guard(q->hv, &q->ring_map, XBB_RING_ALIVE);
		if (e != 0)
			return (xbb_fail(error, "guard ring", -e));
	}
	return (0);
}

/* Undo what was done; for every stage of opening and for closing. */
static void
release(struct xbb_queue *q)
{

	xbb_persist_close(q);
	if (q->budget != NULL)
		xbb_budget_leave(q);
	if (q->flushes != NULL)
		xbb_flushes_leave(q->flushes);
	if (q->ring_map.base != NULL)
		(void)q->ops->unmap(q->hv, &q->ring_map); /* or by close */
	if (q->hv != NULL)
		q->ops->close(q->hv);
	if (q->kick[0] >= 0) {
		close(q->kick[0]);
		close(q->kick[1]);
	}
	if (q->buffer != NULL)
		munmap(q->buffer, q->pool.buffer_size);
	if (q->segments != NULL)
		munmap(q->segments, q->segments_size);
	free(q->verdicts);
	free(q->reqs);
	free(q->batches);
	free(q);
}

static uint32_t
most_segments(const struct xbb_queue_params *p)
{

	return (p->max_indirect_segments > XBB_MAX_SEGMENTS ?
	    p->max_indirect_segments : XBB_MAX_SEGMENTS);
}

uint64_t
xbb_queue_bytes(const struct xbb_queue_params *p)
{
	const struct xbb_hv_ops *ops = xbb_hv_lookup(p->hv);
	uint64_t bytes, n, segments;

	n = xbb_max_requests(p->abi, p->ring_pages);
	segments = n * most_segments(p);
	bytes = sizeof(struct xbb_queue) + n * sizeof(struct xbb_batch);
	if (p->max_indirect_segments != 0)
		bytes += segments * sizeof(struct xbb_segment);
	if (p->max_persistent != 0)
		bytes += p->max_persistent * (sizeof(struct xbb_persist_page) +
		    sizeof(struct xbb_persist_chunk)) +
		    segments * sizeof(uint16_t);
	if (p->bounce || (p->transport != XBB_TRANSPORT_MAP && ops != NULL &&
	    ops->copy != NULL))
		bytes += 2 * xbb_data_buffer_size(p);
	return (bytes);
}

int
xbb_queue_open(const struct xbb_queue_params *params, struct xbb_state *state,
    struct xbb_error *error, struct xbb_queue **queuep)
{
	const struct xbb_mapping *mapping;
	struct xbb_queue *q;
	int e;

	mapping = xbb_mapping_of(state);
	if (check_params(params, mapping) != 0)
		return (xbb_fail(error, "check parameters", EINVAL));
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return (xbb_fail(error, "allocate queue", ENOMEM));
	q->params = *params;
	q->mapping = mapping;
	q->max_segments = most_segments(params);
	q->ops = xbb_hv_lookup(params->hv);
	q->kick[0] = q->kick[1] = -1;
	e = open_kick(q->kick);
	if (e != 0) {
		release(q);
		return (xbb_fail(error, "open pipe", -e));
	}
	e = connect_ring(q, error);
	if (e != 0) {
		release(q);
		return (e);
	}
	e = prepare(q, state);
	xbb_budget_lacked(e);
	if (e != 0) {
		release(q);
		return (xbb_fail(error, "allocate queue", -e));
	}
	e = xbb_pool_init(&q->pool);
	if (e != 0) {
		release(q);
		return (xbb_fail(error, "start threads", -e));
	}
	*queuep = q;
	return (0);
}

int
xbb_queue_start(struct xbb_queue *q, struct xbb_error *error)
{
	int e;

	publish(q);
	e = xbb_thread_start(&q->thread, xbb_queue_main, q);
	xbb_budget_lacked(e);
	if (e != 0) {
		XBB_SET(q->rs->connected, 0);
		return (xbb_fail(error, "start threads", -e));
	}
	q->has_thread = true;
	return (0);
}

void
xbb_queue_status(struct xbb_queue *q, struct xbb_queue_status *status)
{

	status->state = atomic_load(&q->state);
	status->reason = atomic_load(&q->reason);
	status->errnum = atomic_load(&q->errnum);
}

void
xbb_queue_close(struct xbb_queue *q)
{

	xbb_queue_drain(q);
	if (q->has_thread)
		pthread_join(q->thread, NULL);
	xbb_pool_stop(&q->pool);
	release(q);
}
