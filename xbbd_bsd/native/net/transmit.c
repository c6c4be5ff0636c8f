/*
 * transmit.c - packets of the guest's, from the tx ring to the link.  Slots are
 * copied out once, data too, and only these copies are looked at.  Whatever is
 * wrong with a packet is found here, costs that packet, and is counted by
 * reason.  Ring thread.
 */
#include <assert.h>
#include <string.h>

#include "net/net.h"

#define SOURCE_AT	6	/* in an Ethernet header */

/* Has the guest put something there since the last look, or lied? */
bool
xbb_net_transmit_waits(const struct xbb_net_queue *q)
{
	uint32_t unread;

	return (xbb_ring_unread(&q->tx.ring, &unread) != 0 ||
	    unread != q->tx.partial);
}

/*
 * The packets that are whole, of those that wait.  What is behind them stays on
 * the ring, to be copied out anew.
 */
static uint32_t
take_packets(struct xbb_net_queue *q, uint32_t unread)
{
	struct xbb_net_transmit *tx = &q->tx;
	uint32_t at, i, n;

	for (i = 0; i < unread; i++)
		xbb_ring_copy_request(&tx->ring, tx->slot[i].words);
	at = tx->npackets = 0;
	do {
		n = xbb_netif_tx_packet(tx->slot, unread, at, XBB_NET_OFFERED,
		    &tx->packet[tx->npackets]);
		at += n;
		tx->npackets += n != 0;
	} while (n != 0 && at < unread && tx->npackets < XBB_NET_SWEEP);
	tx->partial = n == 0 ? unread - at : 0;
	for (i = at; i < unread; i++)
		xbb_ring_leave_request(&tx->ring);
	return (at);
}

/* Have all of them read once more, later. */
static void
leave_packets(struct xbb_net_queue *q, uint32_t nslots)
{

	while (nslots-- > 0)
		xbb_ring_leave_request(&q->tx.ring);
	q->tx.partial = 0;
}

/*
 * Where a packet goes: what follows its headers, which have a slot of their
 * own, lies in pages of ours as in those of the guest.
 */
static uint8_t *
place_packet(const struct xbb_net_queue *q, const uint8_t *end,
    const struct xbb_net_packet *packet)
{
	const struct xbb_net_piece *piece = packet->piece;

	if (packet->size <= XBB_PAGE_SIZE)
		return (xbb_net_place(q, end));
	return (xbb_net_place_in_page(q, end,
	    (piece[1].offset + XBB_PAGE_SIZE - piece[0].len) % XBB_PAGE_SIZE));
}

/* Places for their data, one piece of memory each. */
static void
list_pieces(struct xbb_net_queue *q)
{
	const struct xbb_net_packet *packet;
	const struct xbb_net_piece *piece;
	uint32_t i, n;
	uint8_t *at;

	q->npieces = 0;
	at = q->arena;
	for (n = 0; n < q->tx.npackets; n++) {
		packet = &q->tx.packet[n];
		if (packet->refusal != XBB_NET_FINE)
			continue;
		q->tx.frame[n] = at = place_packet(q, at, packet);
		for (i = 0; i < packet->npieces; i++) {
			piece = &packet->piece[i];
			xbb_net_piece(q, piece->ref, piece->offset, at,
			    piece->len);
			at += piece->len;
		}
		assert(at == q->tx.frame[n] + packet->size);
	}
}

/* What came of the pieces of a packet, which begin there: 0, or an errno. */
static int32_t
status_of_pieces(const struct xbb_copy *piece, uint32_t n)
{
	int32_t status;
	uint32_t i;

	status = 0;
	for (i = 0; i < n && status != -EINVAL; i++)
		if (piece[i].status != 0)
			status = piece[i].status;
	return (status);
}

static bool
is_forged(const struct xbb_net_queue *q, const uint8_t *frame)
{

	return (q->params.filter != 0 && memcmp(frame + SOURCE_AT,
	    q->params.address, XBB_NET_ADDRESS) != 0);
}

static bool
send_frame(struct xbb_net_queue *q, const struct xbb_link_header *header,
    uint8_t *frame, uint32_t size)
{
	struct iovec iov;

	iov.iov_base = frame - sizeof(*header);
	iov.iov_len = sizeof(*header) + size;
	memcpy(iov.iov_base, header, sizeof(*header));
	return (xbb_net_write(q, &iov, 1));
}

/* As the frames of a wire.  False if one of them was lost. */
static bool
send_split(struct xbb_net_queue *q, uint8_t *frame, uint32_t size,
    uint16_t gso_size)
{
	struct xbb_link_header header = { 0 };
	uint8_t headers[XBB_MOST_HEADERS];
	struct iovec iov[3] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = headers },
	};
	struct xbb_split split;
	uint32_t from, len, n;
	bool sent;

	sent = xbb_split_begin(&split, frame, size, gso_size);
	while (sent &&
	    (n = xbb_split_next(&split, headers, &from, &len)) != 0) {
		iov[1].iov_len = n;
		iov[2].iov_base = frame + from;
		iov[2].iov_len = len;
		sent = xbb_net_write(q, iov, 3);
		XBB_COUNT(q->rs->counters.tx_split, 1);
	}
	return (sent);
}

/*
 * To a link that takes only what a wire has, whatever its header would have to
 * say.  Likewise.
 */
static bool
send_plain(struct xbb_net_queue *q, uint8_t *frame, uint32_t size,
    const struct xbb_link_header *header)
{
	const struct xbb_link_header none = { 0 };
	struct xbb_headers headers;

	if (header->gso_type != XBB_LINK_GSO_NONE)
		return (send_split(q, frame, size, header->gso_size));
	if ((header->flags & XBB_LINK_NEEDS_CSUM) != 0) {
		(void)xbb_headers_find(frame, size, &headers);
		(void)xbb_sum_fill(frame, size, &headers);
		XBB_COUNT(q->rs->counters.tx_summed, 1);
	}
	return (send_frame(q, &none, frame, size));
}

/* Give it to the link, or say why not; *sent: that has it. */
static enum xbb_net_refusal
send_packet(struct xbb_net_queue *q, const struct xbb_net_packet *packet,
    uint8_t *frame, bool *sent)
{
	struct xbb_link_header header;

	if (is_forged(q, frame))
		return (XBB_NET_BAD_SOURCE);
	if (!xbb_offload_to_link(frame, packet->size, packet->flags,
	    packet->gso_type, packet->gso_size, &header))
		return (XBB_NET_BAD_HEADERS);
	*sent = q->params.offload == XBB_NET_OFFLOAD_FULL ?
	    send_frame(q, &header, frame, packet->size) :
	    send_plain(q, frame, packet->size, &header);
	return (XBB_NET_FINE);
}

/* One of them, whose pieces begin there: what its responses say. */
static int16_t
carry_packet(struct xbb_net_queue *q, uint32_t n, const struct xbb_copy *piece)
{
	struct xbb_net_packet *packet = &q->tx.packet[n];
	struct xbb_net_counters *c = &q->rs->counters;
	int32_t status;
	bool sent;

	status = 0;
	sent = false;
	if (packet->refusal == XBB_NET_FINE) {
		status = status_of_pieces(piece, packet->npieces);
		if (status == -EINVAL)
			packet->refusal = XBB_NET_BAD_GRANT;
		else if (status == 0)
			packet->refusal = send_packet(q, packet,
			    q->tx.frame[n], &sent);
	}
	XBB_COUNT(c->tx_slots, packet->nslots);
	if (packet->refusal != XBB_NET_FINE) {
		XBB_COUNT(c->tx_errors, 1);
		XBB_COUNT(c->refused[packet->refusal], 1);
		XBB_COUNT(q->conn.rc->counters.grant_errors,
		    packet->refusal == XBB_NET_BAD_GRANT);
		return (XBB_NETIF_ERROR);
	}
	if (sent) {
		XBB_COUNT(c->tx_packets, 1);
		XBB_COUNT(c->tx_bytes, packet->size);
	} else
		XBB_COUNT(c->tx_dropped, 1);
	/* What is lost on a wire no card tells of. */
	return (status == 0 ? XBB_NETIF_OKAY : XBB_NETIF_DROPPED);
}

/*
 * A response for each slot.  Whoever comes after a death must not take one for
 * a request, so the segment says before that there may be some.
 */
static void
answer_packets(struct xbb_net_queue *q)
{
	union xbb_tx_slot answer[XBB_NET_SLOTS];
	struct xbb_net_transmit *tx = &q->tx;
	uint32_t i, n;

	xbb_may_die();
	XBB_PUT(q->rs->tx_answering, tx->ring.req_cons);
	XBB_IN_ORDER();
	xbb_may_die();
	for (n = 0; n < tx->npackets; n++) {
		xbb_netif_tx_answer(tx->slot, &tx->packet[n], tx->status[n],
		    answer);
		for (i = 0; i < tx->packet[n].nslots; i++)
			xbb_ring_put(&tx->ring, answer[i].words);
	}
}

/*
 * A sweep.  False if there was nothing to do.  A ring that is full and yet has
 * no whole packet will never have one.
 */
bool
xbb_net_transmit(struct xbb_net_queue *q)
{
	struct xbb_net_transmit *tx = &q->tx;
	const struct xbb_copy *piece = q->piece;
	uint32_t n, npieces, nslots, unread;

	if (xbb_ring_unread(&tx->ring, &unread) != 0) {
		xbb_conn_stop(&q->conn, XBB_STOP_RING, EPROTO);
		return (false);
	}
	if (unread == tx->partial)
		return (false);
	nslots = take_packets(q, unread);
	if (nslots == 0) {
		if (unread == tx->ring.nslots)
			xbb_conn_stop(&q->conn, XBB_STOP_RING, EPROTO);
		return (false);
	}
	list_pieces(q);
	if (!xbb_net_move(q, false)) {
		leave_packets(q, nslots);
		return (false);
	}
	for (n = 0; n < tx->npackets; n++) {
		npieces = tx->packet[n].refusal == XBB_NET_FINE ?
		    tx->packet[n].npieces : 0;
		tx->status[n] = carry_packet(q, n, piece);
		piece += npieces;
	}
	XBB_COUNT(q->rs->counters.tx_sweeps, 1);
	answer_packets(q);
	return (true);
}
