/*
 * adopt.c - rings that somebody served and died.  What he had read and not
 * answered is taken again, so that a packet may be sent twice.  But a slot is a
 * request's first and then its response's: of those that he may have begun to
 * answer only the names are certain, and they are answered by these.  If he had
 * answered everything there are none, and the segment is not asked: it may be a
 * fresh one.  Ring thread, before anything else.
 */
#include "net/net.h"

/*
 * How many slots that is, by what the segment said, which is a file: nothing is
 * answered that is not there.
 */
static uint32_t
count_begun(const struct xbb_ring *ring, uint32_t answering)
{
	const uint32_t n = answering - ring->rsp_prod;
	uint32_t unread;

	if (xbb_ring_unread(ring, &unread) != 0 || n > unread)
		return (0);
	return (n);
}

/* They were given to the link, or refused, before answering began. */
static void
settle_tx(struct xbb_net_queue *q, uint32_t nslots)
{
	struct xbb_net_transmit *tx = &q->tx;
	union xbb_tx_slot answer[XBB_NET_SLOTS];
	struct xbb_net_packet packet;
	uint32_t at, i, n;

	for (i = 0; i < nslots; i++)
		xbb_ring_copy_request(&tx->ring, tx->slot[i].words);
	for (at = 0; at < nslots; at += n) {
		n = xbb_netif_tx_packet(tx->slot, nslots, at, XBB_NET_OFFERED,
		    &packet);
		if (n == 0) {
			n = 1;	/* somebody wrote to the segment */
			packet = (struct xbb_net_packet){
				.first = at, .nslots = 1,
			};
		}
		/* That is told of what may be written over. */
		packet.refusal = XBB_NET_FINE;
		xbb_netif_tx_answer(tx->slot, &packet, XBB_NETIF_OKAY, answer);
		for (i = 0; i < n; i++)
			xbb_ring_put(&tx->ring, answer[i].words);
	}
}

/*
 * Whatever was to be told of them: the guest posts them anew.  Where the size
 * of segments was told there is no id left; a guest that is told of those has
 * to go by places anyway.
 */
static void
settle_rx(struct xbb_net_queue *q, uint32_t nslots)
{
	const struct xbb_net_frame frame = { .size = XBB_ETHER_HEADER };
	struct xbb_ring *ring = &q->rx.ring;
	union xbb_rx_slot answer, request;
	uint32_t i;

	for (i = 0; i < nslots; i++) {
		xbb_ring_copy_request(ring, request.words);
		(void)xbb_netif_rx_answer(&request, &frame, true, &answer);
		xbb_ring_put(ring, answer.words);
	}
}

void
xbb_net_adopt(struct xbb_net_queue *q)
{

	if (q->params.conn.adopt == XBB_ADOPT_ANSWERED)
		return;
	settle_tx(q, count_begun(&q->tx.ring, q->tx_answering));
	settle_rx(q, count_begun(&q->rx.ring, q->rx_answering));
}
