/*
 * netsend.c - frames of the guest's link go over the tx ring: each is read
 * straight into pages that are granted one by one.  What the header says of it
 * the first slot says, and an extra one; sums that the backend was not offered
 * to it are filled in here.  The runner's thread.
 */
#include <string.h>

#include "front/netfront.h"

#define MOST_PAGES	17	/* of a frame, whatever its skew */
#define MOST_SLOTS	(MOST_PAGES + 1)	/* with its extra info */

_Static_assert(MOST_PAGES <= XBB_NET_MAX_SLOTS, "pages of a frame");
_Static_assert(MOST_PAGES <= NETFRONT_SLOTS / 2, "one more fits, always");
_Static_assert(MOST_PAGES * XBB_PAGE_SIZE >=
    XBB_NET_MAX_FRAME + XBB_PAGE_SIZE / 2 + 2, "a frame fits");

/*
 * Is there room for the largest frame?  Half of all pages are enough under way:
 * those that come back soon are still in the cache.
 */
bool
netfront_may_send(const struct xbb_netfront *front)
{

	return (front->tx.nfree >= NETFRONT_SLOTS / 2 &&
	    netfront_room(&front->tx) >= MOST_SLOTS);
}

/* The sum of a piece of a frame; all but the last are even. */
static uint32_t
add_bytes(uint32_t sum, const uint8_t *data, size_t n)
{
	size_t i;

	for (i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	if (i < n)
		sum += (uint32_t)data[i] << 8;
	return ((sum & 0xffff) + (sum >> 16));
}

/* Fill in the sum that the link left to us; false: there is no such place. */
static bool
fill_front_sum(const struct iovec *pieces, uint32_t n,
    const struct xbb_link_header *header)
{
	uint8_t *first = pieces[0].iov_base;
	const size_t at = (size_t)header->csum_start + header->csum_offset;
	uint32_t i, sum;

	if (at + 2 > pieces[0].iov_len || header->csum_start % 2 != 0)
		return (false);
	sum = add_bytes(0, first + header->csum_start,
	    pieces[0].iov_len - header->csum_start);
	for (i = 1; i < n; i++)
		sum = add_bytes(sum, pieces[i].iov_base, pieces[i].iov_len);
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	sum = ~sum & 0xffff;
	/* Of UDP nothing is no sum, and this the same number. */
	if (sum == 0)
		sum = 0xffff;
	first[at] = (uint8_t)(sum >> 8);
	first[at + 1] = (uint8_t)sum;
	return (true);
}

/* Is it of IPv6, behind tags? */
static bool
is_ipv6(const uint8_t *frame, size_t len)
{
	size_t at;

	for (at = 12; at + 2 <= len && at <= 20; at += 4)
		if (!((frame[at] == 0x81 && frame[at + 1] == 0x00) ||
		    (frame[at] == 0x88 && frame[at + 1] == 0xa8)))
			return (frame[at] == 0x86 && frame[at + 1] == 0xdd);
	return (false);
}

/* What the slots say of a frame; false: it cannot be sent. */
static bool
describe_frame(struct xbb_netfront *front, const struct iovec *pieces,
    uint32_t n, const struct xbb_link_header *header, uint16_t *flagsp,
    struct xbb_extra *extra)
{
	const uint32_t offloads = front->params.offloads;
	const bool v6 = is_ipv6(pieces[0].iov_base, pieces[0].iov_len);
	const uint8_t gso = header->gso_type & (uint8_t)~XBB_LINK_GSO_ECN;

	*flagsp = 0;
	memset(extra, 0, sizeof(*extra));
	if (n > 1 && (offloads & XBB_NET_SG) == 0)
		return (false);
	if ((header->flags & XBB_LINK_NEEDS_CSUM) != 0) {
		if ((offloads & (v6 ? XBB_NET_CSUM_IPV6 :
		    XBB_NET_CSUM_IPV4)) != 0)
			*flagsp = XBB_TXF_CSUM_BLANK | XBB_TXF_DATA_VALIDATED;
		else if (gso == XBB_LINK_GSO_NONE &&
		    fill_front_sum(pieces, n, header))
			XBB_COUNT(front->counters.tx_summed, 1);
		else
			return (false);
	} else if ((header->flags & XBB_LINK_DATA_VALID) != 0)
		*flagsp = XBB_TXF_DATA_VALIDATED;
	if (gso == XBB_LINK_GSO_NONE)
		return (true);
	if (gso == XBB_LINK_GSO_TCPV4 && (offloads & XBB_NET_GSO_TCPV4) != 0)
		extra->gso_type = XBB_GSO_TCPV4;
	else if (gso == XBB_LINK_GSO_TCPV6 &&
	    (offloads & XBB_NET_GSO_TCPV6) != 0)
		extra->gso_type = XBB_GSO_TCPV6;
	else
		return (false);
	extra->type = XBB_EXTRA_GSO;
	extra->gso_size = header->gso_size;
	*flagsp |= XBB_TXF_EXTRA_INFO;
	return (true);
}

/* Slots for a frame that lies in the pages of the first free ids. */
static void
submit_frame(struct xbb_netfront *front, const struct iovec *pieces, uint32_t n,
    uint32_t size, uint16_t flags, const struct xbb_extra *extra)
{
	struct netfront_ring *ring = &front->tx;
	union xbb_tx_slot slot;
	uint32_t i;
	uint16_t id;

	for (i = 0; i < n; i++) {
		id = ring->free[--ring->nfree];
		ring->busy[id] = true;
		netfront_permit(front, ring->page_ref[id], 1);
		slot.request = (struct xbb_tx_request){
			.ref = ring->page_ref[id],
			.offset = i == 0 ? (uint16_t)front->params.skew : 0,
			.flags = i == 0 ? flags : 0,
			.id = id,
			.size = (uint16_t)(i == 0 ? size : pieces[i].iov_len),
		};
		if (i + 1 < n)
			slot.request.flags |= XBB_TXF_MORE_DATA;
		netfront_put_request(ring, slot.words);
		if (i == 0 && (flags & XBB_TXF_EXTRA_INFO) != 0) {
			memset(&slot, 0, sizeof(slot));
			slot.extra = *extra;
			netfront_put_request(ring, slot.words);
		}
	}
	XBB_COUNT(front->counters.tx_packets, 1);
	XBB_COUNT(front->counters.tx_bytes, size);
	XBB_COUNT(front->counters.tx_slots, n);
}

/* One frame; false if the link has none. */
static bool
send_one(struct xbb_netfront *front)
{
	struct netfront_ring *ring = &front->tx;
	struct xbb_link_header header = { 0 };
	struct iovec iov[1 + MOST_PAGES], *pieces = iov + 1;
	struct xbb_extra extra;
	uint32_t i, n, size;
	uint16_t flags;
	ssize_t got;

	iov[0] = (struct iovec){ &header, sizeof(header) };
	for (i = 0; i < MOST_PAGES; i++)
		pieces[i] = (struct iovec){
			ring->pages + (size_t)
			ring->free[ring->nfree - 1 - i] * XBB_PAGE_SIZE,
			XBB_PAGE_SIZE,
		};
	pieces[0].iov_base = (uint8_t *)pieces[0].iov_base +
	    front->params.skew;
	pieces[0].iov_len -= front->params.skew;
	got = readv(front->params.link_fd, iov, 1 + MOST_PAGES);
	if (got <= 0)
		return (false);
	size = got < (ssize_t)sizeof(header) ? 0 :
	    (uint32_t)(got - (ssize_t)sizeof(header));
	for (n = 0, i = size; i > 0; n++) {
		if (pieces[n].iov_len > i)
			pieces[n].iov_len = i;
		i -= (uint32_t)pieces[n].iov_len;
	}
	if (n == 0 || size > XBB_NET_MAX_FRAME ||
	    !describe_frame(front, pieces, n, &header, &flags, &extra))
		XBB_COUNT(front->counters.tx_dropped, 1);
	else
		submit_frame(front, pieces, n, size, flags, &extra);
	return (true);
}

/* As many as the link has and the ring takes, up to a batch; was there one? */
bool
netfront_send(struct xbb_netfront *front)
{
	uint32_t sent;

	for (sent = 0; sent < NETFRONT_BATCH && front->link_ready &&
	    netfront_may_send(front);)
		if (send_one(front))
			sent++;
		else
			front->link_ready = false;
	return (sent != 0);
}

/* Pages that were sent are free again. */
bool
netfront_reap_sent(struct xbb_netfront *front, bool *brokenp)
{
	struct netfront_ring *ring = &front->tx;
	union xbb_tx_slot slot;
	uint32_t i, n;
	uint16_t id;

	n = netfront_unread(ring, brokenp);
	for (i = 0; i < n; i++) {
		netfront_copy_response(ring, ring->rsp_cons++, slot.words,
		    sizeof(slot.response));
		if (slot.response.status == XBB_NETIF_NULL)
			continue;
		if (slot.response.status != XBB_NETIF_OKAY)
			XBB_COUNT(front->counters.tx_errors, 1);
		id = slot.response.id;
		if (id >= NETFRONT_SLOTS || !ring->busy[id]) {
			XBB_COUNT(front->counters.bad_responses, 1);
			continue;
		}
		netfront_permit(front, ring->page_ref[id], 0);
		ring->busy[id] = false;
		ring->free[ring->nfree++] = id;
	}
	return (n != 0);
}
