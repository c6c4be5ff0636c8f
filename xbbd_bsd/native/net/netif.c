/*
 * netif.c - the netif protocol as data: which slots are a packet, the one
 * function that says whether it is valid, and what all of them are answered
 * with.  Pure: no system call, no shared memory, no state.  What passes
 * xbb_netif_tx_packet() is not doubted afterwards, but for what its bytes are.
 */
#include <assert.h>
#include <string.h>

#include "net/net.h"

/* The GSO type that a bit of enum xbb_net_accepts is about, and back. */
static uint32_t
gso_offer(uint8_t gso_type)
{

	switch (gso_type) {
	case XBB_GSO_TCPV4:
		return (XBB_NET_GSO_TCPV4);
	case XBB_GSO_TCPV6:
		return (XBB_NET_GSO_TCPV6);
	default:
		return (0);
	}
}

/*
 * What an extra means for its packet, given the kinds that came before.
 *
 * A hash says something about the packet that nobody here wants to know: it is
 * the same one without.  All others ask for something that was not offered, or
 * for who knows what: a request to hear a multicast address is no frame at all,
 * headroom is for packets that go the other way, and kind 0 is none.
 */
static enum xbb_net_refusal
extra_admit(const struct xbb_extra *extra, uint32_t offered, uint32_t *seenp,
    struct xbb_net_packet *packet)
{

	if (extra->type != XBB_EXTRA_GSO && extra->type != XBB_EXTRA_HASH)
		return (XBB_NET_BAD_EXTRA);
	if ((*seenp & (1U << extra->type)) != 0)
		return (XBB_NET_BAD_EXTRA);
	*seenp |= 1U << extra->type;
	if (extra->type == XBB_EXTRA_HASH)
		return (XBB_NET_FINE);
	if ((gso_offer(extra->gso_type) & offered) == 0 ||
	    extra->gso_size < XBB_LEAST_SEGMENT)
		return (XBB_NET_BAD_GSO);
	packet->gso_type = extra->gso_type;
	packet->gso_size = extra->gso_size;
	return (XBB_NET_FINE);
}

/* Bytes of a page; false if they are not.  None at all is no piece. */
static bool
add_piece(struct xbb_net_packet *packet, const struct xbb_tx_request *request,
    uint32_t len)
{
	struct xbb_net_piece *piece;

	if (request->offset + len > XBB_PAGE_SIZE)
		return (false);
	if (len == 0)
		return (true);
	piece = &packet->piece[packet->npieces++];
	piece->ref = request->ref;
	piece->offset = request->offset;
	piece->len = (uint16_t)len;
	return (true);
}

/* Where the bytes of a packet of ndata slots are, all of which are there. */
static enum xbb_net_refusal
find_pieces(const union xbb_tx_slot *slots, uint32_t ndata,
    struct xbb_net_packet *packet)
{
	const struct xbb_tx_request *head = &slots[packet->first].request;
	const union xbb_tx_slot *others = &slots[packet->first + 1 +
	    packet->nextras];
	uint32_t i, rest;

	if (packet->size < XBB_ETHER_HEADER)
		return (XBB_NET_TOO_SHORT);
	rest = 0;
	for (i = 0; i < ndata - 1; i++)
		rest += others[i].request.size;
	if (rest > packet->size)
		return (XBB_NET_TOO_LONG);
	if (!add_piece(packet, head, packet->size - rest))
		return (XBB_NET_BEYOND_PAGE);
	for (i = 0; i < ndata - 1; i++)
		if (!add_piece(packet, &others[i].request,
		    others[i].request.size))
			return (XBB_NET_BEYOND_PAGE);
	return (XBB_NET_FINE);
}

uint32_t
xbb_netif_tx_packet(const union xbb_tx_slot *slots, uint32_t n,
    uint32_t first, uint32_t offered, struct xbb_net_packet *packet)
{
	enum xbb_net_refusal why, refusal;
	uint32_t at, most, ndata, seen;
	bool more;

	if (first >= n)
		return (0);
	packet->first = first;
	packet->nextras = 0;
	packet->npieces = 0;
	packet->size = slots[first].request.size;
	packet->flags = slots[first].request.flags;
	packet->gso_size = 0;
	packet->gso_type = XBB_GSO_NONE;
	refusal = XBB_NET_FINE;
	at = first + 1;
	seen = 0;
	more = (packet->flags & XBB_TXF_EXTRA_INFO) != 0;
	while (more) {
		if (at == n)
			return (0);
		more = (slots[at].extra.flags & XBB_EXTRA_FLAG_MORE) != 0;
		why = extra_admit(&slots[at++].extra, offered, &seen, packet);
		if (refusal == XBB_NET_FINE)
			refusal = why;
		packet->nextras++;
	}
	ndata = 1;
	more = (packet->flags & XBB_TXF_MORE_DATA) != 0;
	while (more) {
		if (at == n)
			return (0);
		/* Flags of sums and extras are the first one's alone. */
		more = (slots[at++].request.flags & XBB_TXF_MORE_DATA) != 0;
		ndata++;
	}
	packet->nslots = at - first;
	most = (offered & XBB_NET_SG) != 0 ? XBB_NET_MAX_SLOTS : 1;
	if (refusal == XBB_NET_FINE)
		refusal = ndata > most ? XBB_NET_TOO_MANY :
		    find_pieces(slots, ndata, packet);
	packet->refusal = (uint8_t)refusal;
	return (packet->nslots);
}

void
xbb_netif_tx_answer(const union xbb_tx_slot *slots,
    const struct xbb_net_packet *packet, int16_t status,
    union xbb_tx_slot *answers)
{
	uint32_t i;
	uint16_t id;
	bool extra;

	if (packet->refusal != XBB_NET_FINE)
		status = XBB_NETIF_ERROR;
	for (i = 0; i < packet->nslots; i++) {
		extra = i > 0 && i <= packet->nextras;
		id = extra ? slots[packet->first + i].response.id :
		    slots[packet->first + i].request.id;
		memset(&answers[i], 0, sizeof(answers[i]));
		answers[i].response.id = id;
		answers[i].response.status = extra ? XBB_NETIF_NULL : status;
	}
}

/* Slots with data, of which all but the last are whole pages. */
static uint32_t
frame_pages(const struct xbb_net_frame *frame)
{

	return ((frame->size + XBB_PAGE_SIZE - 1) / XBB_PAGE_SIZE);
}

uint32_t
xbb_netif_rx_slots(const struct xbb_net_frame *frame, bool sg)
{

	if (frame->size == 0 || frame->size > XBB_NET_MAX_FRAME ||
	    (!sg && frame->size > XBB_PAGE_SIZE))
		return (0);
	return (frame_pages(frame) + (frame->gso_type != XBB_GSO_NONE));
}

uint32_t
xbb_netif_rx_piece(const struct xbb_net_frame *frame, uint32_t n,
    uint32_t *offsetp)
{
	uint32_t left;

	if (n >= frame_pages(frame))
		return (0);
	*offsetp = n * XBB_PAGE_SIZE;
	left = frame->size - *offsetp;
	return (left < XBB_PAGE_SIZE ? left : XBB_PAGE_SIZE);
}

uint32_t
xbb_netif_rx_answer(const union xbb_rx_slot *requests,
    const struct xbb_net_frame *frame, bool failed,
    union xbb_rx_slot *answers)
{
	uint32_t i, len, n, nslots, offset, pages;
	uint16_t flags, id;

	if (failed) {
		id = requests[0].request.id;
		memset(&answers[0], 0, sizeof(answers[0]));
		answers[0].response.id = id;
		answers[0].response.status = XBB_NETIF_ERROR;
		return (1);
	}
	nslots = xbb_netif_rx_slots(frame, true);
	pages = frame_pages(frame);
	n = 0;		/* of those with data */
	for (i = 0; i < nslots; i++) {
		id = requests[i].request.id;
		memset(&answers[i], 0, sizeof(answers[i]));
		if (i == 1 && frame->gso_type != XBB_GSO_NONE) {
			answers[i].extra.type = XBB_EXTRA_GSO;
			answers[i].extra.gso_type = frame->gso_type;
			answers[i].extra.gso_size = frame->gso_size;
			continue;
		}
		len = xbb_netif_rx_piece(frame, n, &offset);
		flags = n + 1 < pages ? XBB_RXF_MORE_DATA : 0;
		if (n == 0) {
			flags |= frame->flags;
			if (frame->gso_type != XBB_GSO_NONE)
				flags |= XBB_RXF_EXTRA_INFO;
		}
		answers[i].response.id = id;
		answers[i].response.flags = flags;
		answers[i].response.status = (int16_t)len;
		n++;
	}
	assert(n == pages || nslots == 0);
	return (nslots);
}
