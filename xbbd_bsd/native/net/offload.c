/*
 * offload.c - what network cards do besides, on frames in our own memory, each
 * in one piece: what the header of a link has to say of them, and splitting.
 * Pure: no system call, no state.
 */
#include <string.h>

#include "net/frame.h"

/* The types of GSO of either side. */
static uint8_t
link_gso(uint8_t gso_type)
{

	return (gso_type == XBB_GSO_TCPV4 ? XBB_LINK_GSO_TCPV4 :
	    XBB_LINK_GSO_TCPV6);
}

/* Of headers that have TCP or UDP. */
static bool
gso_fits(const struct xbb_headers *h, uint8_t gso_type)
{

	return (h->protocol == XBB_PROTOCOL_TCP &&
	    h->version == (gso_type == XBB_GSO_TCPV4 ? 4 : 6));
}

bool
xbb_offload_to_link(uint8_t *frame, uint32_t size, uint16_t flags,
    uint8_t gso_type, uint16_t gso_size, struct xbb_link_header *header)
{
	struct xbb_headers h;

	memset(header, 0, sizeof(*header));
	if (gso_type == XBB_GSO_NONE && (flags & XBB_TXF_CSUM_BLANK) == 0) {
		if ((flags & XBB_TXF_DATA_VALIDATED) != 0)
			header->flags = XBB_LINK_DATA_VALID;
		return (true);
	}
	if (!xbb_headers_find(frame, size, &h) || h.l4 == 0)
		return (false);
	/*
	 * A card sums, and splits, all that is there.  Behind the datagram may
	 * be padding, but not of a frame that is too large.
	 */
	if (gso_type == XBB_GSO_NONE &&
	    h.l4 + sum_length(frame, &h) != size) {
		(void)xbb_sum_fill(frame, size, &h);
		header->flags = XBB_LINK_DATA_VALID;
		return (true);
	}
	if (gso_type != XBB_GSO_NONE) {
		if (!gso_fits(&h, gso_type) || gso_size == 0 || h.end != size)
			return (false);
		/* What is small enough needs no splitting. */
		if (h.end - h.payload > gso_size) {
			header->gso_type = link_gso(gso_type);
			header->gso_size = gso_size;
			if ((frame[h.l4 + TCP_FLAGS] & TCP_CWR) != 0)
				header->gso_type |= XBB_LINK_GSO_ECN;
		}
	}
	header->flags = XBB_LINK_NEEDS_CSUM;
	header->hdr_len = h.payload;
	header->csum_start = h.l4;
	header->csum_offset = (uint16_t)sum_offset(&h);
	sum_put(frame + h.l4 + sum_offset(&h), xbb_sum_pseudo(frame, &h));
	return (true);
}

/*
 * Does such a guest fill in the sum by itself?  Not behind tags: Linux looks
 * for IP where a frame has its type, and drops what it cannot place.
 */
static bool
sums_itself(const struct xbb_headers *h, uint32_t accepts)
{

	if (h->l3 != XBB_ETHER_HEADER)
		return (false);
	return ((accepts & (h->version == 4 ? XBB_NET_CSUM_IPV4 :
	    XBB_NET_CSUM_IPV6)) != 0);
}

/* Nothing is to be filled in; somebody may have looked at what there is. */
static enum xbb_offload_verdict
summed_from_link(const struct xbb_link_header *header,
    struct xbb_net_frame *made)
{

	if ((header->flags & XBB_LINK_DATA_VALID) != 0)
		made->flags = XBB_RXF_DATA_VALIDATED;
	return (XBB_OFFLOAD_AS_IS);
}

/*
 * A frame that is to be split, by the guest or for it.  If its sum is complete,
 * as of what a card joined, that is none of its parts': the guest wants the
 * pseudo header's.
 */
static enum xbb_offload_verdict
gso_from_link(uint8_t *frame, const struct xbb_headers *h, bool summed,
    uint8_t gso_type, uint16_t gso_size, uint32_t accepts,
    struct xbb_net_frame *made)
{
	uint32_t needed;

	needed = XBB_NET_SG | (gso_type == XBB_GSO_TCPV4 ? XBB_NET_GSO_TCPV4 :
	    XBB_NET_GSO_TCPV6);
	if ((accepts & needed) != needed || !sums_itself(h, accepts)) {
		made->flags = XBB_RXF_DATA_VALIDATED;
		return (XBB_OFFLOAD_SPLIT);
	}
	made->flags = XBB_RXF_CSUM_BLANK | XBB_RXF_DATA_VALIDATED;
	made->gso_type = gso_type;
	made->gso_size = gso_size;
	if (!summed)
		return (XBB_OFFLOAD_AS_IS);
	sum_put(frame + h->l4 + sum_offset(h), xbb_sum_pseudo(frame, h));
	return (XBB_OFFLOAD_SUMMED);
}

/*
 * The sum of all from some byte on, wherever the link wants it: it may be that
 * of a datagram in a tunnel, and has that of its pseudo header already.
 */
static bool
fill_anything(uint8_t *frame, uint32_t size, uint32_t start, uint32_t offset)
{
	uint16_t sum;

	if (start >= size || start + offset + sizeof(sum) > size)
		return (false);
	sum = (uint16_t)~xbb_sum_fold(xbb_sum_add(0, frame + start,
	    size - start));
	/* In TCP they are the same; it may be UDP. */
	sum_put(frame + start + offset, sum_of_udp(sum, true));
	return (true);
}

enum xbb_offload_verdict
xbb_offload_from_link(uint8_t *frame, uint32_t size,
    const struct xbb_link_header *header, uint32_t accepts,
    struct xbb_net_frame *made)
{
	const bool summed = (header->flags & XBB_LINK_NEEDS_CSUM) == 0;
	struct xbb_headers h;
	uint8_t gso_type;
	bool known;

	memset(made, 0, sizeof(*made));
	made->size = size;
	if (size < XBB_ETHER_HEADER || size > XBB_NET_MAX_FRAME)
		return (XBB_OFFLOAD_BAD);
	if (header->gso_type == XBB_LINK_GSO_NONE && summed)
		return (summed_from_link(header, made));
	known = xbb_headers_find(frame, size, &h) && h.l4 != 0;
	switch (header->gso_type & ~XBB_LINK_GSO_ECN) {
	case XBB_LINK_GSO_NONE:
		gso_type = XBB_GSO_NONE;
		break;
	case XBB_LINK_GSO_TCPV4:
		gso_type = XBB_GSO_TCPV4;
		break;
	case XBB_LINK_GSO_TCPV6:
		gso_type = XBB_GSO_TCPV6;
		break;
	default:
		return (XBB_OFFLOAD_BAD);
	}
	if (gso_type != XBB_GSO_NONE) {
		if (!known || !gso_fits(&h, gso_type) ||
		    header->gso_size == 0 || h.end != size)
			return (XBB_OFFLOAD_BAD);
		if (h.end - h.payload > header->gso_size)
			return (gso_from_link(frame, &h, summed, gso_type,
			    header->gso_size, accepts, made));
		if (summed)
			return (summed_from_link(header, made));
	}
	if (known && header->csum_start == h.l4 &&
	    header->csum_offset == sum_offset(&h) && sums_itself(&h, accepts)) {
		made->flags = XBB_RXF_CSUM_BLANK | XBB_RXF_DATA_VALIDATED;
		return (XBB_OFFLOAD_AS_IS);
	}
	if (!fill_anything(frame, size, header->csum_start,
	    header->csum_offset))
		return (XBB_OFFLOAD_BAD);
	made->flags = XBB_RXF_DATA_VALIDATED;
	return (XBB_OFFLOAD_SUMMED);
}

bool
xbb_split_begin(struct xbb_split *split, const uint8_t *frame, uint32_t size,
    uint16_t gso_size)
{
	struct xbb_headers *h = &split->headers;

	if (!xbb_headers_find(frame, size, h) || h->l4 == 0 ||
	    h->protocol != XBB_PROTOCOL_TCP || gso_size == 0)
		return (false);
	split->frame = frame;
	split->at = h->payload;
	split->sequence = read_be32(frame + h->l4 + TCP_SEQUENCE);
	split->id = h->version == 4 ? read_be16(frame + h->l3 + IP4_ID) : 0;
	split->gso_size = gso_size;
	split->n = 0;
	return (true);
}

uint32_t
xbb_split_next(struct xbb_split *split, uint8_t *headers, uint32_t *fromp,
    uint32_t *lenp)
{
	const struct xbb_headers *h = &split->headers;
	uint8_t *ip = headers + h->l3, *tcp = headers + h->l4;
	uint32_t left, len, sum;

	left = h->end - split->at;
	if (left == 0 && split->n > 0)
		return (0);
	len = left < split->gso_size ? left : split->gso_size;
	memcpy(headers, split->frame, h->payload);
	if (h->version == 4) {
		write_be16(ip + IP4_LENGTH, h->payload - h->l3 + len);
		write_be16(ip + IP4_ID, split->id + split->n);
		xbb_ip4_sum_fill(ip);
	} else
		write_be16(ip + IP6_LENGTH,
		    h->payload - h->l3 - IP6_HEADER + len);
	write_be32(tcp + TCP_SEQUENCE,
	    split->sequence + (split->at - h->payload));
	if (left > len)
		tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	if (split->n > 0)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	sum_put(tcp + TCP_SUM, 0);
	sum = xbb_pseudo_sum(headers, h, h->payload - h->l4 + len);
	sum = xbb_sum_add(sum, tcp, h->payload - h->l4);
	sum = xbb_sum_add(sum, split->frame + split->at, len);
	sum_put(tcp + TCP_SUM, (uint16_t)~xbb_sum_fold(sum));
	*fromp = split->at;
	*lenp = len;
	split->at += len;
	split->n++;
	return (h->payload);
}
