/*
 * open.c - making a queue out of descriptors and numbers, giving everything
 * back, and what callers see in between.  Runs on the caller's thread; while
 * the ring's thread lives it touches only what block.h calls shared.
 */
#include <sys/mman.h>

#include <stdlib.h>
#include <string.h>

#include "block/block.h"

static bool
is_power_of_two(uint32_t n)
{

	return (n != 0 && (n & (n - 1)) == 0);
}

static int
check_params(const struct xbb_queue_params *p,
    const struct xbb_mapping *mapping)
{
	const struct xbb_conn_params *c = &p->conn;

	if (!xbb_conn_can_be(c, mapping) || xbb_layout(p->abi) == NULL ||
	    !is_power_of_two(p->sector_size) ||
	    p->sector_size < XBB_SECTOR_SIZE ||
	    !is_power_of_two(p->block_size) ||
	    p->block_size < p->sector_size ||
	    p->block_size > XBB_MAX_BLOCK_SIZE ||
	    (p->block_size > p->sector_size && !p->bounce) ||
	    p->max_batch_segments < XBB_MAX_SEGMENTS ||
	    p->max_batch_segments > XBB_MAX_BATCH_SEGMENTS ||
	    (p->max_indirect_segments != 0 &&
	    p->max_indirect_segments < XBB_MAX_SEGMENTS) ||
	    p->max_indirect_segments > p->max_batch_segments ||
	    p->max_grants < p->max_batch_segments ||
	    p->discard > 2 ||
	    p->disk_kind > XBB_DISK_RBD ||
	    (xbb_kind_is_away(p->disk_kind) &&
	    (p->block_size != p->sector_size || p->patience_ms == 0)) ||
	    (p->discard == 2 && (p->disk_kind != XBB_DISK_DEVICE ||
	    p->block_size != p->sector_size)) ||
	    xbb_max_requests(p->abi, c->ring_pages) >
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

	if (q->set.params.max_indirect_segments == 0)
		return (0);
	q->set.segments_size = (size_t)nreqs * q->set.max_segments *
	    sizeof(*q->set.segments);
	base = mmap(NULL, q->set.segments_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (base == MAP_FAILED)
		return (-errno);
	q->set.segments = base;
	return (0);
}

/* Grants that stay mapped, and which of them each segment has. */
static int
prepare_kept(struct xbb_queue *q, uint32_t nreqs)
{
	struct xbb_persist *p = &q->own.persist;
	void *base;

	p->now_ns = &q->own.now_ns;
	p->unused_seconds = &q->set.tunables->persistent_grant_unused_seconds;
	if (q->set.params.conn.max_persistent != 0) {
		q->set.pinned_size = (size_t)nreqs * q->set.max_segments *
		    sizeof(*q->set.pinned);
		base = mmap(NULL, q->set.pinned_size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANON, -1, 0);
		if (base == MAP_FAILED)
			return (-errno);
		q->set.pinned = base;
	}
	return (xbb_persist_open(p, &q->conn));
}

/* All entries are free. */
static void
clear_table(struct xbb_queue *q, uint32_t n)
{
	uint32_t i;

	memset(q->set.table, 0, n * sizeof(*q->set.table));
	for (i = 0; i < n; i++)
		q->set.reqs[i].next = i + 1 < n ? (uint16_t)(i + 1) : XBB_NONE;
	q->own.free_req = 0;
	q->own.answered = q->own.owed = XBB_NONE;
}

/* Lay out the lists of a queue, once nothing else can stop it. */
static int
prepare_queue(struct xbb_queue *q, struct xbb_state *state,
    struct xbb_error *error)
{
	const struct xbb_queue_params *p = &q->set.params;
	uint32_t i, n;
	int e;

	n = xbb_max_requests(p->abi, p->conn.ring_pages);
	q->set.batches = calloc(n, sizeof(*q->set.batches));
	q->set.reqs = calloc(n, sizeof(*q->set.reqs));
	q->set.verdicts = calloc(n, sizeof(*q->set.verdicts));
	e = q->set.batches == NULL || q->set.reqs == NULL ||
	    q->set.verdicts == NULL ? -ENOMEM : 0;
	if (e == 0)
		e = prepare_segments(q, n);
	if (e == 0)
		e = prepare_kept(q, n);
	if (e == 0)
		e = xbb_flushes_join(state, &q->set.flushes);
	if (e == 0)
		e = xbb_budget_join(&q->own.persist.share, &q->conn);
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "allocate queue", -e));
	xbb_medium_connect(xbb_mapping_of(state));
	q->own.limits = (struct xbb_limits){
		.sectors = XBB_GET(state->sectors),
		.sector_size = p->sector_size,
		.max_indirect_segments = p->max_indirect_segments,
		.read_only = p->read_only != 0,
		.discard = p->discard != 0,
		.secure = p->discard == 2,
	};
	for (i = 0; i < n; i++)
		q->set.batches[i].work.next = i + 1 < n ?
		    &q->set.batches[i + 1].work : NULL;
	q->own.free_batch = &q->set.batches[0];
	atomic_init(&q->shared.flush_slowness, XBB_SLOWEST);
	if (p->conn.adopt)
		return (xbb_adopt_open(q, n, error));
	clear_table(q, n);
	return (0);
}

/* Have others see what a disk's ring has, beside what any has. */
static void
show_queue(struct xbb_queue *q)
{
	struct xbb_ring_state *rs = q->set.rs;

	rs->params = q->set.params;
	rs->params.conn.grant_fd = rs->params.conn.event_fd = -1;
	rs->params.conn.wake_fd = rs->params.disk_fd = -1;
	rs->params.conn.adopt = 0;
	XBB_SET(rs->abi, q->set.params.abi);
	XBB_SET(rs->max_request_segments, q->set.max_segments);
	XBB_SET(rs->max_request_size, q->set.max_segments * XBB_PAGE_SIZE);
	XBB_SET(rs->inflight, 0);
	XBB_SET(rs->link.state, q->set.nbd != NULL ? XBB_LINK_WANTED :
	    XBB_LINK_NONE);
	XBB_SET(rs->link.errnum, 0);
	XBB_SET(rs->link.since_ns, xbb_now_ns());
	XBB_SET(rs->link.unflushed, 0);
	XBB_SET(rs->grants_mapped, 0);
	xbb_pause_open(q);
	/* What an earlier queue did not finish will never end. */
	XBB_SET(rs->dispatched.start_count, rs->dispatched.end_count);
	XBB_SET(rs->received.start_count, rs->received.end_count);
}

/*
 * The ring thread's buffer, if data goes by one; memory taken as touched.
 * Workers get theirs as they are made.
 */
static int
prepare_buffer(struct xbb_queue *q)
{
	void *base;

	if ((!q->conn.copies && !q->set.params.bounce) ||
	    xbb_kind_is_away(q->set.params.disk_kind))
		return (0);
	q->shared.pool.buffer_size = xbb_data_buffer_size(&q->set.params);
	base = mmap(NULL, q->shared.pool.buffer_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (base == MAP_FAILED)
		return (-errno);
	q->set.buffer = base;
	return (0);
}

static int
connect_ring(struct xbb_queue *q, struct xbb_error *error)
{
	const struct xbb_layout *layout = q->set.layout;
	struct xbb_conn *conn = &q->conn;
	int e;

	e = xbb_conn_open(conn, &q->set.params.conn, error);
	if (e != 0)
		return (e);
	e = prepare_buffer(q);
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "prepare to copy grants", -e));
	e = xbb_conn_bind(conn, error);
	if (e == 0)
		xbb_ring_init(&q->own.ring, conn->ring_map.base,
		    conn->params->ring_pages, layout->slot_size,
		    layout->rsp_size);
	return (e);
}

/* Undo what was done; for every stage of opening and for closing. */
static void
release_queue(struct xbb_queue *q)
{

	if (q->set.store->close != NULL)
		q->set.store->close(q);
	xbb_persist_close(&q->own.persist);
	if (q->own.persist.share.budget != NULL)
		xbb_budget_leave(&q->own.persist.share);
	if (q->set.flushes != NULL)
		xbb_flushes_leave(q->set.flushes);
	xbb_conn_close(&q->conn);
	if (q->set.buffer != NULL)
		munmap(q->set.buffer, q->shared.pool.buffer_size);
	if (q->set.segments != NULL)
		munmap(q->set.segments, q->set.segments_size);
	if (q->set.pinned != NULL)
		munmap(q->set.pinned, q->set.pinned_size);
	free(q->set.verdicts);
	free(q->set.reqs);
	free(q->set.batches);
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
	uint64_t bytes, n, segments;

	n = xbb_max_requests(p->abi, p->conn.ring_pages);
	segments = n * most_segments(p);
	bytes = sizeof(struct xbb_queue) + n * sizeof(struct xbb_batch);
	if (p->max_indirect_segments != 0)
		bytes += segments * sizeof(struct xbb_segment);
	if (p->conn.max_persistent != 0)
		bytes += p->conn.max_persistent *
		    (sizeof(struct xbb_persist_page) +
		    sizeof(struct xbb_persist_chunk)) +
		    segments * sizeof(uint16_t);
	if (xbb_kind_is_away(p->disk_kind))
		bytes += n * sizeof(struct xbb_away) +
		    (p->disk_kind == XBB_DISK_NBD ? XBB_UNFLUSHED_MOST : 0) +
		    (uint64_t)p->max_grants * XBB_PAGE_SIZE;
	else if (p->bounce || xbb_conn_may_copy(&p->conn))
		bytes += 2 * xbb_data_buffer_size(p);
	return (bytes);
}

/* Where a queue's things are in its segment. */
static void
find_places(struct xbb_queue *q, struct xbb_state *state)
{
	const uint32_t ring = q->set.params.conn.ring;
	uint32_t level;

	q->set.sectors = &state->sectors;
	q->set.rs = &state->ring[ring];
	q->set.table = xbb_state_table(state, ring);
	q->set.latency = (uint64_t (*)[XBB_LATENCY_BUCKETS])(void *)
	    xbb_state_latency(state, ring);
	q->set.tunables = &state->tunables;
	q->set.pause = &state->pause;
	q->set.limited = &state->limited;
	q->set.pardons = &state->pardons;
	q->own.pardon_seen = XBB_GET(state->pardons);
	q->set.rates = state->rates;
	for (level = 0; level < XBB_RATE_LEVELS; level++)
		q->set.words[level] = xbb_allowance_words(state, level);
	q->conn.rc = &q->set.rs->common;
	q->conn.rest.poll_max_us = &state->tunables.poll_max_us;
}

static int
open_queue(struct xbb_queue *q, struct xbb_state *state,
    struct xbb_error *error)
{
	int e;

	e = connect_ring(q, error);
	if (e != 0)
		return (e);
	e = prepare_queue(q, state, error);
	if (e != 0)
		return (e);
	e = q->set.store->open != NULL ? q->set.store->open(q) : 0;
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "prepare its store", -e));
	e = xbb_pool_init(&q->shared.pool, &q->conn);
	return (e != 0 ? xbb_fail(error, "start threads", -e) : 0);
}

static const struct xbb_store_ops *
store_of(uint32_t disk_kind)
{

	switch (disk_kind) {
	case XBB_DISK_NBD:
		return (&xbb_store_nbd);
	case XBB_DISK_RBD:
		return (&xbb_store_rbd);
	default:
		return (&xbb_store_local);
	}
}

int
xbb_queue_open(const struct xbb_queue_params *params, struct xbb_state *state,
    struct xbb_error *error, struct xbb_queue **queuep)
{
	struct xbb_mapping *mapping;
	struct xbb_queue *q;
	int e;

	mapping = xbb_mapping_of(state);
	if (check_params(params, mapping) != 0)
		return (xbb_fail(error, "check parameters", EINVAL));
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return (xbb_fail(error, "allocate queue", ENOMEM));
	q->set.params = *params;
	q->set.layout = xbb_layout(params->abi);
	q->set.max_segments = most_segments(params);
	q->set.store = store_of(params->disk_kind);
	q->conn.family = &xbb_block_family;
	q->conn.self = q;
	q->conn.mapping = mapping;
	find_places(q, state);
	e = open_queue(q, state, error);
	if (e != 0) {
		release_queue(q);
		return (e);
	}
	*queuep = q;
	return (0);
}

int
xbb_queue_start(struct xbb_queue *q, struct xbb_error *error)
{
	int e;

	show_queue(q);
	e = xbb_conn_start(&q->conn, &q->own.ring, xbb_queue_main);
	return (e != 0 ? xbb_fail(error, "start threads", -e) : 0);
}

void
xbb_queue_drain(struct xbb_queue *q)
{

	xbb_conn_drain(&q->conn);
}

void
xbb_queue_hand_over(struct xbb_queue *q)
{

	xbb_conn_hand_over(&q->conn);
}

void
xbb_queue_look(struct xbb_queue *q)
{

	xbb_kick(&q->conn.rest);
}

int
xbb_queue_owes(const struct xbb_queue *q)
{

	return (q->own.inflight != 0 || q->own.owed != XBB_NONE);
}

void
xbb_queue_status(struct xbb_queue *q, struct xbb_queue_status *status)
{

	xbb_conn_status(&q->conn, status);
}

void
xbb_queue_close(struct xbb_queue *q)
{

	xbb_conn_join(&q->conn);
	xbb_pool_stop(&q->shared.pool);
	release_queue(q);
}
