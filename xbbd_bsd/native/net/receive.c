/*
 * receive.c - frames of the link's, from there to the rx ring.  The link is
 * read only if the guest has posted room for the largest frame: what waits
 * does so in the interface, which the kernel bounds (XSA-392).  What a frontend
 * cannot do, as filling in sums or splitting, is done here.  Ring thread.
 */
#include <string.h>

#include "net/net.h"

/* The link is looked at once in so many looks for work: it takes a call. */
#define LOOKS_A_CALL	16

/*
 * How often to look for requests of a guest that does not tell of them: while
 * frames wait, and else, so that it does not look as if it posted none.
 */
#define POLL_MS		10
#define IDLE_POLL_MS	1000

/* Requests that wait; the index may lie. */
static int
count_room(const struct xbb_net_queue *q, uint32_t *roomp)
{

	return (xbb_ring_unread(&q->rx.ring, roomp));
}

/* May the link be read, as far as it is concerned? */
static bool
is_mute(struct xbb_net_receive *rx)
{

	if (rx->mute_until_ns != 0 && xbb_now_ns() >= rx->mute_until_ns)
		rx->mute_until_ns = 0;
	return (rx->mute_until_ns != 0);
}

/* Is there something to do, or is it worth a look? */
bool
xbb_net_receive_waits(struct xbb_net_queue *q)
{
	struct xbb_net_receive *rx = &q->rx;
	uint32_t room;

	if (count_room(q, &room) != 0)
		return (true);
	if (rx->full || room < q->rx_room)
		return (rx->full != (room < q->rx_room));
	if (rx->splitting)
		return (true);
	if (++rx->looks < LOOKS_A_CALL)
		return (false);
	rx->looks = 0;
	if (is_mute(rx) || !xbb_net_readable(q))
		return (false);
	rx->dry = false;
	return (true);
}

/*
 * Before the thread sleeps: have it woken by the guest if it is to post more,
 * else by the link.  One that does not tell of what it posts is looked at while
 * frames wait.  True if there is something to do after all.
 */
bool
xbb_net_receive_ask(struct xbb_net_queue *q)
{
	struct xbb_net_receive *rx = &q->rx;
	const bool mute = is_mute(rx);

	if (rx->full && xbb_ring_want(&rx->ring, q->rx_room))
		return (true);
	if (!mute && (!rx->full ||
	    (q->params.rx_polls != 0 && !xbb_net_readable(q))))
		q->conn.rest.also_fd = q->params.link_fd;
	return (false);
}

/* For how long, after that: milliseconds, -1 for any time. */
int
xbb_net_receive_sleep(const struct xbb_net_queue *q)
{
	const struct xbb_net_receive *rx = &q->rx;

	if (rx->full && q->params.rx_polls != 0)
		return (q->conn.rest.also_fd < 0 ? POLL_MS : IDLE_POLL_MS);
	return (!rx->full && rx->mute_until_ns != 0 ? XBB_NET_MUTE_MS : -1);
}

/* One that is split goes to a place of its own: that takes several sweeps. */
static bool
begin_split(struct xbb_net_receive *rx, const struct xbb_net_arrival *arrival,
    uint16_t gso_size)
{
	uint8_t *held = rx->held + 2;

	memcpy(held, arrival->data, arrival->frame.size);
	rx->splitting = xbb_split_begin(&rx->split, held, arrival->frame.size,
	    gso_size);
	return (rx->splitting);
}

/* The next part of it.  False if there is none. */
static bool
take_part(struct xbb_net_queue *q, struct xbb_net_arrival *arrival)
{
	struct xbb_net_receive *rx = &q->rx;
	uint32_t from, len, n;

	n = xbb_split_next(&rx->split, arrival->data, &from, &len);
	rx->splitting = n != 0;
	if (n == 0)
		return (false);
	memcpy(arrival->data + n, rx->split.frame + from, len);
	arrival->frame = (struct xbb_net_frame){
		.size = n + len,
		.flags = XBB_RXF_DATA_VALIDATED,
	};
	XBB_COUNT(q->rs->counters.rx_split, 1);
	return (true);
}

/*
 * What a frame of the link is for the guest.  False if it is not to be given to
 * it now: then it is lost, or its parts are.
 */
static bool
admit_frame(struct xbb_net_queue *q, struct xbb_net_arrival *arrival,
    size_t size)
{
	struct xbb_link_header header;
	uint16_t gso_size;

	if (size < sizeof(header) + XBB_ETHER_HEADER)
		return (false);
	size -= sizeof(header);
	memcpy(&header, arrival->data - sizeof(header), sizeof(header));
	switch (xbb_offload_from_link(arrival->data, (uint32_t)size, &header,
	    q->params.accepts, &arrival->frame)) {
	case XBB_OFFLOAD_AS_IS:
		return (true);
	case XBB_OFFLOAD_SUMMED:
		XBB_COUNT(q->rs->counters.rx_summed, 1);
		return (true);
	case XBB_OFFLOAD_SPLIT:
		arrival->frame.size = (uint32_t)size;
		gso_size = header.gso_size;
		(void)begin_split(&q->rx, arrival, gso_size);
		return (false);
	default:
		return (false);
	}
}

/*
 * The next part of what is split, or frame of the link.  False if there is
 * none; fine: it is one that the guest can have, as far as we know.
 */
static bool
take_next(struct xbb_net_queue *q, struct xbb_net_arrival *arrival, bool *fine)
{
	size_t n;

	if (q->rx.splitting && take_part(q, arrival)) {
		*fine = true;
		return (true);
	}
	n = xbb_net_read(q, arrival->data - XBB_NET_LINK_HEADER,
	    XBB_NET_LINK_HEADER + XBB_NET_MAX_FRAME);
	q->rx.dry = n == 0;
	*fine = n != 0 && admit_frame(q, arrival, n);
	return (n != 0);
}

/*
 * One more for this sweep, or for the sweeps to come.  False if there is
 * nothing more to have.
 */
static bool
take_arrival(struct xbb_net_queue *q, uint8_t **endp)
{
	struct xbb_net_receive *rx = &q->rx;
	struct xbb_net_arrival *arrival = &rx->arrival[rx->narrivals];
	bool fine;

	arrival->data = rx->large ? xbb_net_place_in_page(q, *endp, 0) :
	    xbb_net_place(q, *endp);
	if (!take_next(q, arrival, &fine))
		return (false);
	if (fine)
		arrival->nslots = xbb_netif_rx_slots(&arrival->frame, q->sg);
	if (fine && arrival->nslots != 0) {
		*endp = arrival->data + arrival->frame.size;
		rx->large = arrival->frame.size > XBB_PAGE_SIZE;
		rx->nslots += arrival->nslots;
		rx->narrivals++;
	} else if (!rx->splitting || fine)
		XBB_COUNT(q->rs->counters.rx_dropped, 1);
	return (true);
}

/* As many frames as there is room for.  False if nothing was done. */
static bool
take_arrivals(struct xbb_net_queue *q, uint32_t room)
{
	struct xbb_net_receive *rx = &q->rx;
	uint32_t tries;
	uint8_t *end;

	end = q->arena;
	rx->narrivals = rx->nslots = 0;
	for (tries = 0; tries < XBB_NET_SWEEP; tries++)
		if (rx->nslots + q->rx_room > room || !take_arrival(q, &end))
			break;
	return (tries != 0);
}

/* Where data goes: the second slot is for the extra info, if there is one. */
static void
list_places(struct xbb_net_queue *q)
{
	struct xbb_net_receive *rx = &q->rx;
	const struct xbb_net_arrival *arrival;
	uint32_t extra, i, len, n, ndata, offset, slot;

	for (slot = 0; slot < rx->nslots; slot++)
		xbb_ring_copy_request(&rx->ring, rx->slot[slot].words);
	q->npieces = slot = 0;
	for (n = 0; n < rx->narrivals; n++) {
		arrival = &rx->arrival[n];
		extra = arrival->frame.gso_type != XBB_GSO_NONE;
		ndata = arrival->nslots - extra;
		for (i = 0; i < ndata; i++) {
			len = xbb_netif_rx_piece(&arrival->frame, i, &offset);
			xbb_net_piece(q, rx->slot[slot + i +
			    (i != 0 ? extra : 0)].request.ref, 0,
			    arrival->data + offset, len);
		}
		slot += arrival->nslots;
	}
}

/* The host is short: what the guest posted is there for the next sweep. */
static void
drop_arrivals(struct xbb_net_queue *q)
{

	XBB_COUNT(q->rs->counters.rx_dropped, q->rx.narrivals);
	while (q->rx.nslots-- > 0)
		xbb_ring_leave_request(&q->rx.ring);
}

/* Did all pieces of a frame reach the guest?  They begin there. */
static bool
has_arrived(struct xbb_net_queue *q, const struct xbb_copy *piece, uint32_t n)
{
	bool arrived;
	uint32_t i;

	arrived = true;
	for (i = 0; i < n; i++) {
		arrived &= piece[i].status == 0;
		XBB_COUNT(q->conn.rc->counters.grant_errors,
		    piece[i].status == -EINVAL);
	}
	return (arrived);
}

/*
 * Responses for a frame.  Of one that did not arrive each slot says so by
 * itself: those behind it have been filled with others.
 */
static uint32_t
fill_answers(const struct xbb_net_arrival *arrival,
    const union xbb_rx_slot *requests, bool arrived, union xbb_rx_slot *answer)
{
	uint32_t i;

	if (arrived)
		return (xbb_netif_rx_answer(requests, &arrival->frame, false,
		    answer));
	for (i = 0; i < arrival->nslots; i++)
		(void)xbb_netif_rx_answer(&requests[i], &arrival->frame, true,
		    &answer[i]);
	return (i);
}

static void
count_arrival(struct xbb_net_queue *q, const struct xbb_net_arrival *arrival,
    bool arrived)
{
	struct xbb_net_counters *c = &q->rs->counters;

	XBB_COUNT(c->rx_slots, arrival->nslots);
	if (!arrived) {
		XBB_COUNT(c->rx_errors, 1);
		return;
	}
	XBB_COUNT(c->rx_packets, 1);
	XBB_COUNT(c->rx_bytes, arrival->frame.size);
}

/* See transmit.c for what the segment has to say before. */
static void
answer_arrivals(struct xbb_net_queue *q)
{
	union xbb_rx_slot answer[XBB_NET_MAX_SLOTS + 1];
	const struct xbb_net_arrival *arrival;
	struct xbb_net_receive *rx = &q->rx;
	const struct xbb_copy *piece = q->piece;
	uint32_t i, n, nanswers, npieces, slot;
	bool arrived;

	xbb_may_die();
	XBB_PUT(q->rs->rx_answering, rx->ring.req_cons);
	XBB_IN_ORDER();
	xbb_may_die();
	slot = 0;
	for (n = 0; n < rx->narrivals; n++) {
		arrival = &rx->arrival[n];
		npieces = arrival->nslots -
		    (arrival->frame.gso_type != XBB_GSO_NONE);
		arrived = has_arrived(q, piece, npieces);
		nanswers = fill_answers(arrival, &rx->slot[slot], arrived,
		    answer);
		for (i = 0; i < nanswers; i++)
			xbb_ring_put(&rx->ring, answer[i].words);
		count_arrival(q, arrival, arrived);
		piece += npieces;
		slot += arrival->nslots;
	}
}

/* Has the guest posted room for the largest frame?  Others see since when. */
static bool
check_room(struct xbb_net_queue *q, uint32_t room)
{
	const bool full = room < q->rx_room;

	if (full && !q->rx.full)
		XBB_COUNT(q->rs->counters.rx_full, 1);
	if (full != q->rx.full)
		XBB_SET(q->rs->rx_full_since_ns, full ? xbb_now_ns() : 0);
	q->rx.full = full;
	return (!full);
}

/*
 * Is the link known to have nothing?  It had none, and since then we have
 * neither sent it anything that may be answered nor slept until it had.  To ask
 * in vain takes a call, and so much sooner than asked whoever sleeps is told.
 */
static bool
is_dry(struct xbb_net_queue *q, bool sent)
{
	struct xbb_net_receive *rx = &q->rx;

	if (sent || q->conn.rest.also_ready)
		rx->dry = false;
	q->conn.rest.also_ready = false;
	return (rx->dry && !rx->splitting);
}

/* A sweep.  False if there was nothing to do.  Did we send something before? */
bool
xbb_net_receive(struct xbb_net_queue *q, bool sent)
{
	struct xbb_net_receive *rx = &q->rx;
	uint32_t room;

	if (count_room(q, &room) != 0) {
		xbb_conn_stop(&q->conn, XBB_STOP_RING, EPROTO);
		return (false);
	}
	rx->looks = 0;
	if (!check_room(q, room) || is_mute(rx) || is_dry(q, sent) ||
	    !take_arrivals(q, room))
		return (false);
	if (rx->narrivals == 0)
		return (true);
	list_places(q);
	if (!xbb_net_move(q, true)) {
		drop_arrivals(q);
		return (false);
	}
	XBB_COUNT(q->rs->counters.rx_sweeps, 1);
	answer_arrivals(q);
	return (true);
}
