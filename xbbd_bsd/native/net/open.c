/*
 * open.c - making a queue of a card out of descriptors and numbers, giving
 * everything back, and what callers see in between.  Runs on the caller's
 * thread; while the ring's thread lives it touches only what is atomic, and
 * what that thread shows in the segment.
 */
#include <sys/mman.h>

#include <stdlib.h>

#include "net/net.h"

#define MEMORY	(XBB_NET_ARENA + XBB_NET_WHOLE)

static bool
can_be(const struct xbb_net_params *p, const struct xbb_mapping *mapping)
{

	return (xbb_conn_can_be(&p->conn, mapping) &&
	    p->conn.ring_pages == 2 && p->conn.max_persistent == 0 &&
	    p->link_fd >= 0 && (p->accepts & ~XBB_NET_OFFERED) == 0 &&
	    p->offload <= XBB_NET_OFFLOAD_SAFE);
}

/* What is to be known of its frontend. */
static void
learn_frontend(struct xbb_net_queue *q)
{
	const uint32_t gso = XBB_NET_GSO_TCPV4 | XBB_NET_GSO_TCPV6;
	const struct xbb_net_frame largest = {
		.size = XBB_NET_MAX_FRAME,
		.gso_type = (q->params.accepts & gso) != 0 ? XBB_GSO_TCPV4 :
		    XBB_GSO_NONE,
	};

	q->sg = (q->params.accepts & XBB_NET_SG) != 0;
	q->rx_room = q->sg ? xbb_netif_rx_slots(&largest, true) : 1;
}

/* Taken as it is touched. */
static int
prepare_arena(struct xbb_net_queue *q)
{
	void *base;

	base = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (base == MAP_FAILED)
		return (-errno);
	q->arena = base;
	q->rx.held = q->arena + XBB_NET_ARENA;
	return (0);
}

static int
open_card(struct xbb_net_queue *q, struct xbb_error *error)
{
	int e;

	e = xbb_conn_open(&q->conn, &q->params.conn, error);
	if (e != 0)
		return (e);
	/* Data is copied either way: by the hypervisor, where it can. */
	if (q->params.conn.transport == XBB_TRANSPORT_BEST)
		q->conn.copies = q->conn.ops->copy != NULL &&
		    q->conn.ops->can_copy(q->conn.hv);
	e = prepare_arena(q);
	if (e == 0)
		e = xbb_persist_open(&q->persist, &q->conn);
	if (e == 0)
		e = xbb_budget_join(&q->persist.share, &q->conn);
	xbb_budget_lacked(e);
	if (e != 0)
		return (xbb_fail(error, "allocate queue", -e));
	e = xbb_conn_bind(&q->conn, error);
	if (e != 0)
		return (e);
	xbb_ring_init(&q->tx.ring, q->conn.ring_map.base, 1,
	    sizeof(union xbb_tx_slot), sizeof(struct xbb_tx_response));
	xbb_ring_init(&q->rx.ring, q->conn.ring_map.base + XBB_PAGE_SIZE, 1,
	    sizeof(union xbb_rx_slot), sizeof(struct xbb_rx_response));
	return (0);
}

/* Undo what was done; for every stage of opening and for closing. */
static void
release_card(struct xbb_net_queue *q)
{

	xbb_persist_close(&q->persist);
	if (q->persist.share.budget != NULL)
		xbb_budget_leave(&q->persist.share);
	xbb_conn_close(&q->conn);
	if (q->arena != NULL)
		munmap(q->arena, MEMORY);
	free(q);
}

int
xbb_net_queue_open(const struct xbb_net_params *params,
    struct xbb_net_state *state, struct xbb_error *error,
    struct xbb_net_queue **queuep)
{
	struct xbb_mapping *mapping;
	struct xbb_net_queue *q;
	int e;

	mapping = xbb_mapping_of(state);
	if (!can_be(params, mapping))
		return (xbb_fail(error, "check parameters", EINVAL));
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		return (xbb_fail(error, "allocate queue", ENOMEM));
	q->params = *params;
	q->rs = &state->ring[params->conn.ring];
	q->tx_answering = XBB_GET(q->rs->tx_answering);
	q->rx_answering = XBB_GET(q->rs->rx_answering);
	q->conn.family = &xbb_net_family;
	q->conn.self = q;
	q->conn.mapping = mapping;
	q->conn.rc = &q->rs->common;
	q->conn.rest.poll_max_us = &state->tunables.poll_max_us;
	learn_frontend(q);
	e = open_card(q, error);
	if (e != 0) {
		release_card(q);
		return (e);
	}
	*queuep = q;
	return (0);
}

/* Have others see what it is made of, and where it begins. */
static void
show_card(struct xbb_net_queue *q)
{
	struct xbb_net_ring_state *rs = q->rs;

	rs->params = q->params;
	rs->params.conn.grant_fd = rs->params.conn.event_fd = -1;
	rs->params.conn.wake_fd = rs->params.link_fd = -1;
	rs->params.conn.adopt = 0;
	XBB_SET(rs->rx_full_since_ns, 0);
	if (q->params.conn.adopt != XBB_ADOPT_TABLE) {
		XBB_SET(rs->tx_answering, q->tx.ring.rsp_prod);
		XBB_SET(rs->rx_answering, q->rx.ring.rsp_prod);
	}
	XBB_PUT(rs->rx_req_cons, q->rx.ring.req_cons);
	XBB_PUT(rs->rx_rsp_prod, q->rx.ring.rsp_prod);
}

int
xbb_net_queue_start(struct xbb_net_queue *q, struct xbb_error *error)
{
	int e;

	show_card(q);
	e = xbb_conn_start(&q->conn, &q->tx.ring, xbb_net_queue_main);
	return (e != 0 ? xbb_fail(error, "start threads", -e) : 0);
}

void
xbb_net_queue_drain(struct xbb_net_queue *q)
{

	xbb_conn_drain(&q->conn);
}

void
xbb_net_queue_hand_over(struct xbb_net_queue *q)
{

	xbb_conn_hand_over(&q->conn);
}

void
xbb_net_queue_status(struct xbb_net_queue *q, struct xbb_queue_status *status)
{

	xbb_conn_status(&q->conn, status);
}

/* Ours by what the ring's thread shows, the rest as the guest sees it. */
static struct xbb_net_ring_indices
indices_of(const struct xbb_ring *ring, uint32_t req_cons, uint32_t answering)
{

	return ((struct xbb_net_ring_indices){
		.req_cons = req_cons,
		.nr_ents = ring->nslots,
		.rsp_prod_pvt = answering,
		.req_prod = XBB_GET(ring->sring->req_prod),
		.req_event = XBB_GET(ring->sring->req_event),
		.rsp_prod = XBB_GET(ring->sring->rsp_prod),
		.rsp_event = XBB_GET(ring->sring->rsp_event),
	});
}

void
xbb_net_queue_indices(struct xbb_net_queue *q, struct xbb_net_indices *indices)
{

	indices->tx = indices_of(&q->tx.ring, XBB_GET(q->conn.rc->req_cons),
	    XBB_GET(q->rs->tx_answering));
	indices->rx = indices_of(&q->rx.ring, XBB_GET(q->rs->rx_req_cons),
	    XBB_GET(q->rs->rx_answering));
}

void
xbb_net_queue_close(struct xbb_net_queue *q)
{

	xbb_conn_join(&q->conn);
	release_card(q);
}

uint64_t
xbb_net_queue_bytes(void)
{

	return (sizeof(struct xbb_net_queue) + MEMORY);
}
