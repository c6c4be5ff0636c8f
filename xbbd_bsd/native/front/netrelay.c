/*
 * netrelay.c - the loop of a network card's frontend, between the guest's link
 * and both rings: a sweep over all three for as long as there is something,
 * requests published and the backend told once for each, then sleep.  It
 * notices a backend that goes, and has patience.  The runner's thread.
 */
#include <poll.h>
#include <unistd.h>

#include "front/netfront.h"

#define GONE_MS		20	/* how often to look whether one has come */

/* Publish what was put; does the backend want to be told? */
static bool
push_requests(struct netfront_ring *ring)
{
	uint32_t event, old;

	old = ring->req_prod;
	if (ring->req_prod_pvt == old)
		return (false);
	ring->req_prod = ring->req_prod_pvt;
	__atomic_store_n(&ring->sring->req_prod, ring->req_prod,
	    __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	event = XBB_GET(ring->sring->req_event);
	return (ring->req_prod - event < ring->req_prod - old);
}

static void
push_front(struct xbb_netfront *front)
{
	const bool tx = push_requests(&front->tx);

	if (push_requests(&front->rx) || tx)
		front->ops->notify(front->hv);
}

/* Ask for an event once so many more are answered; true: they are already. */
static bool
ask_front(struct netfront_ring *ring, uint32_t more)
{
	const uint32_t event = ring->rsp_cons + more;

	XBB_SET(ring->sring->rsp_event, event);
	atomic_thread_fence(memory_order_seq_cst);
	return ((int32_t)(__atomic_load_n(&ring->sring->rsp_prod,
	    __ATOMIC_ACQUIRE) - event) >= 0);
}

/*
 * Take an event, and notice a backend that has gone, as front.c does: -EPIPE
 * once no other has come for too long.
 */
static int
take_front_event(struct xbb_netfront *front)
{
	const uint64_t now = xbb_now_ns();
	int n;

	n = front->ops->take(front->hv);
	if (n < 0 && n != -EPIPE)
		return (n);
	if (n == -EPIPE ||
	    (n > 0 && XBB_GET(front->ring_base[XBB_RING_ALIVE]) == 0) ||
	    (n == 0 && front->gone_ns != 0)) {
		if (front->gone_ns == 0) {
			XBB_COUNT(front->counters.backends_lost, 1);
			front->gone_ns = now;
		}
		return (now - front->gone_ns >=
		    front->params.patience_ms * UINT64_C(1000000) ? -EPIPE : 0);
	}
	if (front->gone_ns != 0)
		XBB_COUNT(front->counters.backends_found, 1);
	front->gone_ns = 0;
	XBB_COUNT(front->counters.events, (uint64_t)n);
	return (0);
}

/* A sweep over both rings and the link; was there anything? */
static bool
sweep_front(struct xbb_netfront *front, bool *brokenp)
{
	bool any;

	any = netfront_reap_sent(front, brokenp);
	any |= netfront_receive(front, brokenp);
	netfront_post(front);
	any |= netfront_send(front);
	push_front(front);
	return (any);
}

/* Look around for a while before sleeping, if that is wished. */
static bool
look_at_all(struct xbb_netfront *front, bool *brokenp)
{
	uint64_t end;

	if (front->params.poll_us == 0)
		return (false);
	end = xbb_now_ns() + front->params.poll_us * UINT64_C(1000);
	do {
		front->link_ready = true;
		if (sweep_front(front, brokenp))
			return (true);
		xbb_relax();
	} while (xbb_now_ns() < end && !*brokenp);
	return (false);
}

/*
 * Sleep until there may be something; 0 or a negative errno.  Answers to what
 * was sent are waited for only if there is no room.
 */
static int
sleep_until_news(struct xbb_netfront *front)
{
	const uint32_t sent = front->tx.req_prod - front->tx.rsp_cons;
	const bool may_send = netfront_may_send(front);
	struct pollfd pfd[4];
	uint64_t drop;
	int error, fds[2], i, n;

	atomic_store(&front->rest.sleeping, XBB_POLLS);
	if (atomic_load(&front->stop) || ask_front(&front->rx, 1) ||
	    ask_front(&front->tx, may_send ? sent + 1 : sent / 2 + 1)) {
		atomic_store(&front->rest.sleeping, XBB_AWAKE);
		return (0);
	}
	pfd[0] = (struct pollfd){ .fd = front->rest.kick, .events = POLLIN };
	pfd[1] = (struct pollfd){
		.fd = may_send ? front->params.link_fd : -1,
		.events = POLLIN,
	};
	n = front->ops->descriptors(front->hv, fds);
	for (i = 0; i < n; i++)
		pfd[2 + i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	error = poll(pfd, 2 + (nfds_t)n, front->gone_ns != 0 ? GONE_MS : -1);
	atomic_store(&front->rest.sleeping, XBB_AWAKE);
	if (error < 0)
		return (errno == EINTR ? 0 : -errno);
	if (pfd[0].revents != 0)
		(void)!read(front->rest.kick, &drop, sizeof(drop));
	front->link_ready = pfd[1].revents != 0;
	return (take_front_event(front));
}

int
xbb_netfront_run(struct xbb_netfront *front)
{
	bool broken;
	int error;

	broken = false;
	error = 0;
	front->link_ready = true;
	while (error == 0 && !broken && !atomic_load(&front->stop))
		if (!sweep_front(front, &broken) &&
		    !look_at_all(front, &broken))
			error = sleep_until_news(front);
	return (broken ? -EPROTO : error);
}
