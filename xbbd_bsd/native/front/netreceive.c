/*
 * netreceive.c - frames that come over the rx ring go to the guest's link,
 * straight from the pages they were put into.  Slots are answered in order, and
 * an extra one in place of a response has no id, so that whose it was is known
 * by its index.  What the backend was not told that it may do is counted.  The
 * runner's thread.
 */
#include <string.h>

#include "front/netfront.h"

#define TCP		6
#define UDP		17

/* Give the backend pages, as many as it may have. */
void
netfront_post(struct xbb_netfront *front)
{
	struct netfront_ring *ring = &front->rx;
	union xbb_rx_slot slot;
	uint16_t id;

	while (ring->req_prod_pvt - ring->rsp_cons < front->params.rx_buffers &&
	    ring->nfree > 0) {
		id = ring->free[--ring->nfree];
		ring->busy[id] = true;
		ring->posted[ring->req_prod_pvt & (NETFRONT_SLOTS - 1)] = id;
		netfront_permit(front, ring->page_ref[id], 2);
		slot.request = (struct xbb_rx_request){
			.id = id, .ref = ring->page_ref[id],
		};
		netfront_put_request(ring, slot.words);
	}
}

static uint32_t
big_endian16(const uint8_t *p)
{

	return ((uint32_t)p[0] << 8 | p[1]);
}

/* Behind the extension headers of IPv6: which protocol, and where. */
static uint8_t
behind_ipv6(const uint8_t *frame, size_t len, uint32_t *atp)
{
	uint32_t at = *atp;
	uint8_t next;

	next = frame[at + 6];
	at += 40;
	/* Hop by hop, routing, destination. */
	while ((next == 0 || next == 43 || next == 60) && at + 8 <= len) {
		next = frame[at];
		at += ((uint32_t)frame[at + 1] + 1) * 8;
	}
	*atp = at;
	return (next);
}

/* Find TCP or UDP; false if there is neither. */
static bool
find_headers(const uint8_t *frame, size_t len, struct netfront_headers *h)
{
	uint32_t at, type = 0;
	uint8_t protocol;

	type = 0;
	for (at = 12; at + 2 <= len && at <= 20; at += 4) {
		type = big_endian16(frame + at);
		if (type != 0x8100 && type != 0x88a8)
			break;
	}
	at += 2;
	if (at + 40 > len)
		return (false);
	if (type == 0x0800) {
		h->version = 4;
		protocol = frame[at + 9];
		at += (frame[at] & 15u) * 4;
	} else if (type == 0x86dd) {
		h->version = 6;
		protocol = behind_ipv6(frame, len, &at);
	} else
		return (false);
	if (protocol == UDP && at + 8 <= len) {
		h->sum = 6;
		h->payload = at + 8;
	} else if (protocol == TCP && at + 20 <= len) {
		h->sum = 16;
		h->payload = at + (frame[at + 12] >> 4) * 4u;
	} else
		return (false);
	h->l4 = at;
	return (h->payload <= len);
}

/* The header of the link for it; false: it is not what the backend may send. */
static bool
make_link_header(const struct xbb_netfront *front, const struct iovec *first,
    uint16_t flags, const struct xbb_extra *extra,
    struct xbb_link_header *header)
{
	const uint32_t offloads = front->params.offloads;
	struct netfront_headers h = { 0 };

	memset(header, 0, sizeof(*header));
	if ((flags & XBB_RXF_CSUM_BLANK) == 0) {
		if ((flags & XBB_RXF_DATA_VALIDATED) != 0)
			header->flags = XBB_LINK_DATA_VALID;
		return (extra->gso_type == XBB_GSO_NONE);
	}
	if (!find_headers(first->iov_base, first->iov_len, &h))
		return (false);
	if ((offloads & (h.version == 4 ? XBB_NET_CSUM_IPV4 :
	    XBB_NET_CSUM_IPV6)) == 0)
		return (false);
	header->flags = XBB_LINK_NEEDS_CSUM;
	header->csum_start = (uint16_t)h.l4;
	header->csum_offset = h.sum;
	if (extra->gso_type == XBB_GSO_NONE)
		return (true);
	if (extra->gso_type == XBB_GSO_TCPV4 && h.version == 4 && h.sum == 16 &&
	    (offloads & XBB_NET_GSO_TCPV4) != 0)
		header->gso_type = XBB_LINK_GSO_TCPV4;
	else if (extra->gso_type == XBB_GSO_TCPV6 && h.version == 6 &&
	    h.sum == 16 && (offloads & XBB_NET_GSO_TCPV6) != 0)
		header->gso_type = XBB_LINK_GSO_TCPV6;
	else
		return (false);
	header->gso_size = extra->gso_size;
	header->hdr_len = (uint16_t)h.payload;
	return (extra->gso_size != 0);
}

/* A packet as it is gathered from responses. */
struct gathered {
	struct iovec	iov[1 + XBB_NET_MAX_SLOTS];	/* the header's first */
	uint32_t	npieces;
	uint32_t	size;
	uint16_t	flags;
	struct xbb_extra extra;
	bool		failed;		/* the backend says so */
	bool		bad;
};

/* Take the page of the slot at an index back. */
static uint16_t
take_back(struct xbb_netfront *front, uint32_t index)
{
	struct netfront_ring *ring = &front->rx;
	const uint16_t id = ring->posted[index & (NETFRONT_SLOTS - 1)];

	netfront_permit(front, ring->page_ref[id], 0);
	ring->busy[id] = false;
	ring->free[ring->nfree++] = id;
	return (id);
}

/* Add what a response says; the extra info was seen by then. */
static void
gather_piece(struct xbb_netfront *front, const struct xbb_rx_response *response,
    uint16_t id, struct gathered *packet)
{

	if (response->id != id)
		packet->bad = true;
	if (response->status < 0) {
		packet->failed = true;
		return;
	}
	if (response->status == 0 || packet->npieces == XBB_NET_MAX_SLOTS ||
	    (uint32_t)response->offset + (uint32_t)response->status >
	    XBB_PAGE_SIZE) {
		packet->bad = true;
		return;
	}
	packet->iov[1 + packet->npieces++] = (struct iovec){
		front->rx.pages + (size_t)id * XBB_PAGE_SIZE + response->offset,
		(size_t)response->status,
	};
	packet->size += (uint32_t)response->status;
}

static void
deliver_frame(struct xbb_netfront *front, struct gathered *packet)
{
	struct xbb_link_header header;
	ssize_t n;

	if (packet->failed)
		XBB_COUNT(front->counters.rx_errors, 1);
	if (packet->bad)
		XBB_COUNT(front->counters.bad_responses, 1);
	if (packet->failed || packet->bad)
		return;
	if (!make_link_header(front, &packet->iov[1], packet->flags,
	    &packet->extra, &header) || (packet->npieces > 1 &&
	    (front->params.offloads & XBB_NET_SG) == 0)) {
		XBB_COUNT(front->counters.rx_unwanted, 1);
		return;
	}
	packet->iov[0] = (struct iovec){ &header, sizeof(header) };
	n = writev(front->params.link_fd, packet->iov,
	    1 + (int)packet->npieces);
	if (n < 0) {
		XBB_COUNT(front->counters.rx_dropped, 1);
		return;
	}
	XBB_COUNT(front->counters.rx_packets, 1);
	XBB_COUNT(front->counters.rx_bytes, packet->size);
	XBB_COUNT(front->counters.rx_slots, packet->npieces);
}

/*
 * One packet out of the first of so many responses; how many it took.  A
 * packet is published whole, so that one without an end is bad.
 */
static uint32_t
receive_one(struct xbb_netfront *front, uint32_t unread)
{
	struct netfront_ring *ring = &front->rx;
	struct gathered packet;
	union xbb_rx_slot slot;
	uint32_t taken;
	uint16_t flags;

	packet.npieces = packet.size = packet.flags = 0;
	memset(&packet.extra, 0, sizeof(packet.extra));
	packet.failed = packet.bad = false;
	for (taken = 0;;) {
		netfront_copy_response(ring, ring->rsp_cons, slot.words,
		    sizeof(slot.response));
		flags = slot.response.flags;
		gather_piece(front, &slot.response,
		    take_back(front, ring->rsp_cons), &packet);
		ring->rsp_cons++;
		if (++taken == 1)
			packet.flags = flags;
		if (slot.response.status < 0)
			break;		/* nothing is behind it */
		if (taken == 1 && (flags & XBB_RXF_EXTRA_INFO) != 0 &&
		    unread > 1) {
			netfront_copy_response(ring, ring->rsp_cons,
			    slot.words, sizeof(slot.extra));
			take_back(front, ring->rsp_cons++);
			taken++;
			packet.extra = slot.extra;
			if (slot.extra.type != XBB_EXTRA_GSO ||
			    slot.extra.flags != 0 ||
			    slot.extra.gso_type == XBB_GSO_NONE)
				packet.bad = true;
		} else if ((flags & XBB_RXF_EXTRA_INFO) != 0)
			packet.bad = true;
		if ((flags & XBB_RXF_MORE_DATA) == 0)
			break;
		if (taken == unread) {
			packet.bad = true;
			break;
		}
	}
	deliver_frame(front, &packet);
	return (taken);
}

/* All that has come; was there anything? */
bool
netfront_receive(struct xbb_netfront *front, bool *brokenp)
{
	const uint32_t unread = netfront_unread(&front->rx, brokenp);
	uint32_t left;

	for (left = unread; left > 0;)
		left -= receive_one(front, left);
	return (unread != 0);
}
