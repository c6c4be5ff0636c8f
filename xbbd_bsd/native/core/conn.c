/*
 * conn.c - a ring's connection to its frontend: opening it out of descriptors
 * and numbers, its life and end, closing it.  What goes over the ring is the
 * family's.  Opening and closing on the caller's thread; what else runs where
 * says so.
 */
#include <unistd.h>

#include "core/core.h"

static bool
is_possible_size(uint32_t n)
{

	return (n != 0 && (n & (n - 1)) == 0);
}

/* Can there be such a connection, for a ring of that segment? */
bool
xbb_conn_can_be(const struct xbb_conn_params *p,
    const struct xbb_mapping *mapping)
{

	return (mapping != NULL && xbb_hv_lookup(p->hv) != NULL &&
	    p->ring < xbb_mapping_rings(mapping) &&
	    is_possible_size(p->ring_pages) &&
	    p->ring_pages <= XBB_MAX_RING_PAGES &&
	    p->workers >= 1 && p->workers <= XBB_MAX_WORKERS &&
	    p->max_persistent <= XBB_MAX_PERSISTENT &&
	    p->transport <= XBB_TRANSPORT_COPY &&
	    p->adopt <= XBB_ADOPT_ANSWERED);
}

/* Shall grants be copied? */
static int
choose_transport(struct xbb_conn *conn)
{
	const uint32_t wanted = conn->params->transport;
	const struct xbb_hv_ops *ops = conn->ops;
	const bool can_copy = ops->copy != NULL && ops->can_copy(conn->hv);

	if (wanted == XBB_TRANSPORT_COPY && !can_copy)
		return (-EOPNOTSUPP);
	conn->copies = can_copy && (wanted == XBB_TRANSPORT_COPY ||
	    (wanted == XBB_TRANSPORT_BEST && ops->prefers_copy));
	return (0);
}

/* May grants come to be copied, by such a connection? */
bool
xbb_conn_may_copy(const struct xbb_conn_params *params)
{
	const struct xbb_hv_ops *ops = xbb_hv_lookup(params->hv);

	return (params->transport != XBB_TRANSPORT_MAP && ops != NULL &&
	    ops->copy != NULL);
}

/*
 * Most descriptors of a ring of such a connection, that of its event channel
 * among them; those of grants, disk and wake-up it may have in common with
 * others.
 */
uint32_t
xbb_conn_descriptors(const struct xbb_conn_params *params)
{
	const struct xbb_hv_ops *ops = xbb_hv_lookup(params->hv);

	return (2 + (ops == NULL ? 0 : ops->descriptors));
}

static int
map_ring(struct xbb_conn *conn, struct xbb_error *error)
{
	int e;

	conn->ring_map.refs = conn->params->ring_ref;
	conn->ring_map.npages = conn->params->ring_pages;
	e = conn->ops->map(conn->hv, &conn->ring_map, true);
	xbb_budget_lacked(e);
	return (e != 0 ? xbb_fail(error, "map ring", -e) : 0);
}

/*
 * Open it, but for the ring; params are read for as long as it lives.  Whatever
 * fails, xbb_conn_close() undoes the rest.  Family, self, mapping and rc are
 * the family's to set.
 */
int
xbb_conn_open(struct xbb_conn *conn, const struct xbb_conn_params *params,
    struct xbb_error *error)
{
	int e;

	conn->params = params;
	conn->ops = xbb_hv_lookup(params->hv);
	e = xbb_kick_open(&conn->rest);
	if (e != 0)
		return (xbb_fail(error, "open eventfd", -e));
	e = conn->ops->open(&conn->hv, params->grant_fd, params->event_fd,
	    params->domid);
	if (e != 0)
		return (xbb_fail(error, "open grant device", -e));
	conn->rest.ops = conn->ops;
	conn->rest.hv = conn->hv;
	e = choose_transport(conn);
	return (e != 0 ? xbb_fail(error, "prepare to copy grants", -e) : 0);
}

/* The ring's pages, and the event channel; the first event may be lost. */
int
xbb_conn_bind(struct xbb_conn *conn, struct xbb_error *error)
{
	int e;

	e = map_ring(conn, error);
	if (e != 0)
		return (e);
	e = conn->ops->bind(conn->hv, conn->params->remote_port);
	if (e != 0)
		return (xbb_fail(error, "bind event channel", -e));
	if (conn->ops->guard == NULL)
		return (0);
	XBB_SET(conn->ring_map.base[XBB_RING_ALIVE], 1);
	e = conn->ops->guard(conn->hv, &conn->ring_map, XBB_RING_ALIVE);
	return (e != 0 ? xbb_fail(error, "guard ring", -e) : 0);
}

/* Have others see how far it is, why first.  Opener, then ring thread. */
static void
show_status(struct xbb_conn *conn, enum xbb_queue_state state)
{
	struct xbb_queue_status *shown = &conn->rc->status;

	XBB_SET(shown->errnum, atomic_load(&conn->errnum));
	XBB_PUT(shown->reason, atomic_load(&conn->reason));
	XBB_PUT(shown->state, state);
	conn->shown = state;
}

/* Have others see in the segment that the ring is served, and how. */
static void
show_conn(struct xbb_conn *conn, const struct xbb_ring *ring)
{
	struct xbb_ring_common *rc = conn->rc;

	XBB_SET(rc->ring_pages, conn->params->ring_pages);
	XBB_SET(rc->transport, conn->copies ?
	    XBB_TRANSPORT_COPY : XBB_TRANSPORT_MAP);
	XBB_SET(rc->max_requests, ring->nslots);
	XBB_SET(rc->persistent, conn->params->max_persistent != 0);
	XBB_SET(rc->grants_persistent, 0);
	xbb_may_die();
	XBB_PUT(rc->req_cons, ring->req_cons);
	xbb_may_die();
	XBB_PUT(rc->rsp_prod, ring->rsp_prod);
	xbb_may_die();
	show_status(conn, atomic_load(&conn->state));
	XBB_SET(rc->connected, 1);
}

/* And that it is not any more. */
static void
hide_conn(struct xbb_conn *conn)
{

	show_status(conn, XBB_QUEUE_DRAINED);
	XBB_SET(conn->rc->connected, 0);
}

/* Begin to serve: have others see that, and make the ring's thread. */
int
xbb_conn_start(struct xbb_conn *conn, const struct xbb_ring *ring,
    void *(*main)(void *self))
{
	int e;

	show_conn(conn, ring);
	e = xbb_thread_start(&conn->thread, main, conn->self);
	xbb_budget_lacked(e);
	conn->has_thread = e == 0;
	if (e != 0)
		hide_conn(conn);
	return (e);
}

/* Take nothing new.  Any thread. */
void
xbb_conn_drain(struct xbb_conn *conn)
{
	unsigned int running = XBB_QUEUE_RUNNING;

	atomic_store(&conn->draining, true);
	atomic_compare_exchange_strong(&conn->state, &running,
	    XBB_QUEUE_DRAINING);
	xbb_kick(&conn->rest);
}

/*
 * Take nothing new, and leave the segment as it is: whoever serves the ring
 * next finds it served, and nothing unanswered.  Any thread.
 */
void
xbb_conn_hand_over(struct xbb_conn *conn)
{

	atomic_store(&conn->handing_over, true);
	xbb_conn_drain(conn);
}

/* Is there a next one, for whom the ring is kept? */
static bool
is_kept(const struct xbb_conn *conn)
{

	return (atomic_load(&conn->handing_over) &&
	    atomic_load(&conn->reason) == XBB_STOP_NONE);
}

/*
 * Is it over with the ring, so that what takes long or cannot be done just now
 * is not to be waited for?  Any thread.
 */
bool
xbb_conn_ends(const struct xbb_conn *conn)
{

	return (atomic_load(&conn->draining) && !is_kept(conn));
}

/*
 * Stop for good, and say why; the first reason stays (XSA-365).  Ring thread.
 */
void
xbb_conn_stop(struct xbb_conn *conn, enum xbb_stop_reason reason, int errnum)
{

	if (atomic_load(&conn->reason) == XBB_STOP_NONE) {
		atomic_store(&conn->errnum, errnum);
		atomic_store(&conn->reason, reason);
	}
	xbb_conn_drain(conn);
}

/* Tell the frontend to look.  Ring thread. */
void
xbb_conn_notify(struct xbb_conn *conn)
{
	int error;

	XBB_COUNT(conn->rc->counters.notifies_sent, 1);
	error = conn->ops->notify(conn->hv);
	if (error != 0)
		xbb_conn_stop(conn, XBB_STOP_EVENT, -error);
}

/*
 * Publish the responses that were put; the segment says so before the frontend
 * is told, if it wants to be.  Ring thread.
 */
void
xbb_conn_push(struct xbb_conn *conn, struct xbb_ring *ring)
{
	bool wanted;

	xbb_may_die();
	wanted = xbb_ring_push_responses(ring);
	xbb_may_die();
	XBB_PUT(conn->rc->rsp_prod, ring->rsp_prod);
	xbb_may_die();
	if (wanted)
		xbb_conn_notify(conn);
}

/*
 * Stop if memory that is shared with others is not what it should be, and have
 * them see that it drains, if it does for good.  Ring thread.
 */
void
xbb_conn_check(struct xbb_conn *conn)
{
	int errnum;

	if (atomic_load_explicit(&conn->state, memory_order_relaxed) !=
	    conn->shown && !is_kept(conn))
		show_status(conn, XBB_QUEUE_DRAINING);
	if (xbb_mapping_damaged(conn->mapping))
		xbb_conn_stop(conn, XBB_STOP_SEGMENT, EIO);
	errnum = atomic_load_explicit(&conn->unmap_errnum,
	    memory_order_relaxed);
	if (errnum != 0)
		xbb_conn_stop(conn, XBB_STOP_UNMAP, errnum);
}

/* Have whoever looks after the ring look at it.  Ring thread. */
void
xbb_conn_tell(const struct xbb_conn *conn)
{

	xbb_wake(conn->params->wake_fd);
}

/* All that was taken is answered, and the thread is about to end. */
void
xbb_conn_drained(struct xbb_conn *conn)
{

	xbb_conn_check(conn);
	xbb_kick_settle(&conn->rest);
	if (!is_kept(conn))
		hide_conn(conn);
	atomic_store(&conn->state, XBB_QUEUE_DRAINED);
	xbb_conn_tell(conn);
}

/* Any thread. */
void
xbb_conn_status(struct xbb_conn *conn, struct xbb_queue_status *status)
{

	status->state = atomic_load(&conn->state);
	status->reason = atomic_load(&conn->reason);
	status->errnum = atomic_load(&conn->errnum);
}

/* Drain, and wait until the ring's thread has ended, if there is one. */
void
xbb_conn_join(struct xbb_conn *conn)
{

	xbb_conn_drain(conn);
	if (conn->has_thread)
		pthread_join(conn->thread, NULL);
}

/* Give everything back, however far opening came; no thread is left. */
void
xbb_conn_close(struct xbb_conn *conn)
{

	xbb_tick_leave(&conn->rest);
	if (conn->ring_map.base != NULL)
		/* What cannot be unmapped goes with close. */
		(void)conn->ops->unmap(conn->hv, &conn->ring_map);
	if (conn->hv != NULL)
		conn->ops->close(conn->hv);
	xbb_kick_close(&conn->rest);
}
