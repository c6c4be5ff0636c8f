/*
 * queue.c - the thread of a queue: a sweep of one way, a sweep of the other,
 * all responses published and the guest told once, and so on until there is
 * nothing to do.  Neither way can keep it from the other, nor from ending when
 * it is to.  Both rings and the event channel belong to it alone.
 */
#include "net/net.h"

/*
 * Publish what was answered on a ring; the segment says so before the guest is
 * told.  Does it want to be?
 */
static bool
publish_ring(struct xbb_ring *ring, uint32_t *req_cons, uint32_t *rsp_prod)
{
	bool wanted;

	XBB_PUT(*req_cons, ring->req_cons);
	if (ring->rsp_prod_pvt == ring->rsp_prod)
		return (false);
	xbb_may_die();
	wanted = xbb_ring_push_responses(ring);
	xbb_may_die();
	XBB_PUT(*rsp_prod, ring->rsp_prod);
	return (wanted);
}

/* Of both rings; or tell it whatever it wants. */
static void
publish_all(struct xbb_net_queue *q, bool anyway)
{
	struct xbb_ring_common *rc = q->conn.rc;
	bool wanted;

	wanted = publish_ring(&q->tx.ring, &rc->req_cons, &rc->rsp_prod);
	wanted |= publish_ring(&q->rx.ring, &q->rs->rx_req_cons,
	    &q->rs->rx_rsp_prod);
	xbb_may_die();
	if (wanted || anyway)
		xbb_conn_notify(&q->conn);
}

/* What core asks of us. */

static bool
net_has_work(void *self)
{
	struct xbb_net_queue *q = self;

	if (atomic_load(&q->conn.draining) ||
	    xbb_budget_presses(&q->persist.share))
		return (true);
	return (q->retry.at_ns == 0 && (xbb_net_transmit_waits(q) ||
	    xbb_net_receive_waits(q)));
}

static bool
net_ask(void *self)
{
	struct xbb_net_queue *q = self;

	q->conn.rest.also_fd = -1;
	if (atomic_load(&q->conn.draining) || q->retry.at_ns != 0)
		return (false);
	return (xbb_ring_want(&q->tx.ring, q->tx.partial + 1) ||
	    xbb_net_receive_ask(q));
}

static int
net_may_sleep(void *self)
{
	struct xbb_net_queue *q = self;

	return (xbb_shortage_wait(&q->retry, xbb_net_receive_sleep(q)));
}

const struct xbb_family xbb_net_family = {
	.driver = "xnb",
	.has_work = net_has_work,
	.ask = net_ask,
	.may_sleep = net_may_sleep,
};

/* Both ways.  True if there was something to do. */
static bool
sweep_both(struct xbb_net_queue *q)
{
	bool busy, sent;

	if (q->retry.at_ns != 0 && !xbb_shortage_due(&q->retry))
		return (false);
	busy = sent = xbb_net_transmit(q);
	if (q->retry.at_ns == 0)
		busy |= xbb_net_receive(q, sent);
	publish_all(q, false);
	return (busy);
}

/* The thread: until drained. */
void *
xbb_net_queue_main(void *arg)
{
	struct xbb_net_queue *q = arg;
	struct xbb_conn *conn = &q->conn;

	xbb_thread_is("%s%u ring%u", conn->family->driver, conn->params->unit,
	    conn->params->ring);
	if (conn->params->adopt) {
		xbb_net_adopt(q);
		/* The dead may have published and not told it. */
		publish_all(q, true);
	}
	for (;;) {
		xbb_conn_check(conn);
		if (atomic_load(&conn->draining))
			break;
		xbb_persist_trim_at_work(&q->persist, true);
		if (sweep_both(q))
			conn->rest.idle_events = 0;
		else
			xbb_rest_now(conn);
	}
	XBB_SET(q->rs->rx_full_since_ns, 0);
	xbb_conn_drained(conn);
	return (NULL);
}
