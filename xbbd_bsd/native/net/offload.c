/*
 * offload.c - what network cards do besides, on frames in our own memory, each
 * in one piece: where their headers are, sums, splitting, and what the header
 * of a link has to say of that.  Pure: no system call, no state; nothing of a
 * frame is believed that was not looked at.
 *
 * Sums are carried in the order of bytes that the processor has (RFC 1071), and
 * so are put into a frame as they are.
 */
#include <assert.h>
#include <string.h>

#include "net/net.h"

/* Of Ethernet and IP, in bytes from the beginning of the header in question. */
enum {
	ETHER_TYPE	= 12,
	VLAN_TAG	= 4,
	MOST_TAGS	= 2,

	IP4_LENGTH	= 2,
	IP4_ID		= 4,
	IP4_FRAGMENT	= 6,
	IP4_PROTOCOL	= 9,
	IP4_SUM		= 10,
	IP4_SOURCE	= 12,	/* and destination */
	IP4_HEADER	= 20,

	IP6_LENGTH	= 4,
	IP6_NEXT	= 6,
	IP6_SOURCE	= 8,	/* and destination */
	IP6_HEADER	= 40,

	TCP_SEQUENCE	= 4,
	TCP_OFFSET	= 12,
	TCP_FLAGS	= 13,
	TCP_SUM		= 16,
	TCP_HEADER	= 20,

	UDP_LENGTH	= 4,
	UDP_SUM		= 6,
	UDP_HEADER	= 8,
};

enum {
	TYPE_IP4	= 0x0800,
	TYPE_IP6	= 0x86dd,
	TYPE_VLAN	= 0x8100,
	TYPE_QINQ	= 0x88a8,

	IP4_MORE_OFFSET	= 0x3fff,	/* more fragments, or not the first */
	IP6_MORE_OFFSET	= 0xfff9,

	NEXT_HOPS	= 0,
	NEXT_ROUTING	= 43,
	NEXT_FRAGMENT	= 44,
	NEXT_OPTIONS	= 60,

	TCP_FIN		= 0x01,
	TCP_PSH		= 0x08,
	TCP_CWR		= 0x80,
};

static uint16_t
read_be16(const uint8_t *from)
{

	return ((uint16_t)(from[0] << 8 | from[1]));
}

static uint32_t
read_be32(const uint8_t *from)
{

	return ((uint32_t)read_be16(from) << 16 | read_be16(from + 2));
}

static void
write_be16(uint8_t *to, uint32_t value)
{

	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static void
write_be32(uint8_t *to, uint32_t value)
{

	write_be16(to, value >> 16);
	write_be16(to + 2, value);
}

/* TCP or UDP at an offset, if it fits before the end of its datagram. */
static void
find_transport(const uint8_t *frame, uint32_t at, struct xbb_headers *headers)
{
	uint32_t length, room = headers->end - at;

	switch (headers->protocol) {
	case XBB_PROTOCOL_TCP:
		if (room < TCP_HEADER)
			return;
		length = (frame[at + TCP_OFFSET] >> 4) * 4U;
		if (length < TCP_HEADER || length > room)
			return;
		break;
	case XBB_PROTOCOL_UDP:
		if (room < UDP_HEADER)
			return;
		length = read_be16(frame + at + UDP_LENGTH);
		if (length < UDP_HEADER || length > room)
			return;
		length = UDP_HEADER;
		break;
	default:
		return;
	}
	if (at + length > XBB_MOST_HEADERS)
		return;
	headers->l4 = (uint16_t)at;
	headers->payload = (uint16_t)(at + length);
}

static bool
find_ip4(const uint8_t *frame, uint32_t size, uint32_t at,
    struct xbb_headers *headers)
{
	uint32_t header, length;

	if (size - at < IP4_HEADER || frame[at] >> 4 != 4)
		return (false);
	header = (frame[at] & 0xf) * 4U;
	length = read_be16(frame + at + IP4_LENGTH);
	if (header < IP4_HEADER || length < header || length > size - at)
		return (false);
	headers->l3 = (uint16_t)at;
	headers->end = (uint16_t)(at + length);
	headers->version = 4;
	headers->protocol = frame[at + IP4_PROTOCOL];
	headers->fragment = (read_be16(frame + at + IP4_FRAGMENT) &
	    IP4_MORE_OFFSET) != 0;
	if (!headers->fragment)
		find_transport(frame, at + header, headers);
	return (true);
}

static bool
find_ip6(const uint8_t *frame, uint32_t size, uint32_t at,
    struct xbb_headers *headers)
{
	uint32_t length;
	uint8_t next;

	if (size - at < IP6_HEADER || frame[at] >> 4 != 6)
		return (false);
	length = read_be16(frame + at + IP6_LENGTH);
	if (length > size - at - IP6_HEADER)
		return (false);
	headers->l3 = (uint16_t)at;
	headers->end = (uint16_t)(at + IP6_HEADER + length);
	headers->version = 6;
	next = frame[at + IP6_NEXT];
	for (at += IP6_HEADER;; at += length) {
		headers->protocol = next;
		if (next != NEXT_HOPS && next != NEXT_ROUTING &&
		    next != NEXT_FRAGMENT && next != NEXT_OPTIONS)
			break;
		if (at + 8 > headers->end || at > XBB_MOST_HEADERS)
			return (true);
		if (next == NEXT_FRAGMENT) {
			headers->fragment = (read_be16(frame + at + 2) &
			    IP6_MORE_OFFSET) != 0;
			length = 8;
		} else
			length = (frame[at + 1] + 1U) * 8;
		/* The sum is of where it goes in the end, which is in there. */
		if (next == NEXT_ROUTING && frame[at + 3] != 0)
			return (true);
		if (headers->fragment || length > headers->end - at)
			return (true);
		next = frame[at];
	}
	find_transport(frame, at, headers);
	return (true);
}

bool
xbb_headers_find(const uint8_t *frame, uint32_t size,
    struct xbb_headers *headers)
{
	uint32_t at, tags;
	uint16_t type;

	memset(headers, 0, sizeof(*headers));
	if (size > XBB_NET_MAX_FRAME)
		return (false);
	at = ETHER_TYPE;
	for (tags = 0;; tags++, at += VLAN_TAG) {
		if (at + 2 > size)
			return (true);
		type = read_be16(frame + at);
		if ((type != TYPE_VLAN && type != TYPE_QINQ) ||
		    tags == MOST_TAGS)
			break;
	}
	at += 2;
	switch (type) {
	case TYPE_IP4:
		return (find_ip4(frame, size, at, headers));
	case TYPE_IP6:
		return (find_ip6(frame, size, at, headers));
	default:
		return (true);
	}
}

/* Thirty-two bytes at once, in two sums that do not wait for each other. */
uint32_t
xbb_sum_add(uint32_t sum, const void *data, size_t bytes)
{
	const uint8_t *from = data;
	uint64_t high, low, word[4];
	uint32_t half;
	uint16_t part;

	low = sum;
	high = 0;
	for (; bytes >= sizeof(word); bytes -= sizeof(word)) {
		memcpy(word, from, sizeof(word));
		from += sizeof(word);
		low += (word[0] & UINT32_MAX) + (word[1] & UINT32_MAX);
		high += (word[0] >> 32) + (word[1] >> 32);
		low += (word[2] & UINT32_MAX) + (word[3] & UINT32_MAX);
		high += (word[2] >> 32) + (word[3] >> 32);
	}
	for (; bytes >= sizeof(half); bytes -= sizeof(half)) {
		memcpy(&half, from, sizeof(half));
		from += sizeof(half);
		low += half;
	}
	for (; bytes > 0; bytes -= bytes < sizeof(part) ? 1 : sizeof(part)) {
		part = 0;
		memcpy(&part, from, bytes < sizeof(part) ? 1 : sizeof(part));
		from += sizeof(part);
		low += part;
	}
	low = (low & UINT32_MAX) + (low >> 32) + (high & UINT32_MAX) +
	    (high >> 32);
	low = (low & UINT32_MAX) + (low >> 32);
	low = (low & UINT32_MAX) + (low >> 32);
	return ((uint32_t)low);
}

uint16_t
xbb_sum_fold(uint32_t sum)
{

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ((uint16_t)sum);
}

/* Where the field of the sum is, behind the header's beginning. */
static uint32_t
sum_offset(const struct xbb_headers *h)
{

	return (h->protocol == XBB_PROTOCOL_TCP ? TCP_SUM : UDP_SUM);
}

/* Bytes that the sum is of. */
static uint32_t
sum_length(const uint8_t *frame, const struct xbb_headers *h)
{

	return (h->protocol == XBB_PROTOCOL_UDP ?
	    read_be16(frame + h->l4 + UDP_LENGTH) : (uint32_t)(h->end - h->l4));
}

/* Of the pseudo header of so many bytes. */
static uint32_t
pseudo_of(const uint8_t *frame, const struct xbb_headers *h, uint32_t length)
{
	uint8_t rest[4] = { 0, h->protocol };
	uint32_t sum;

	sum = h->version == 4 ?
	    xbb_sum_add(0, frame + h->l3 + IP4_SOURCE, 8) :
	    xbb_sum_add(0, frame + h->l3 + IP6_SOURCE, 32);
	write_be16(rest + 2, length);
	return (xbb_sum_add(sum, rest, sizeof(rest)));
}

uint16_t
xbb_sum_pseudo(const uint8_t *frame, const struct xbb_headers *h)
{

	return (xbb_sum_fold(pseudo_of(frame, h, sum_length(frame, h))));
}

static void
sum_put(uint8_t *to, uint16_t sum)
{

	memcpy(to, &sum, sizeof(sum));
}

/* The sum of a header of IPv4, of the bytes that it has. */
static void
fill_ip4(uint8_t *header)
{

	sum_put(header + IP4_SUM, 0);
	sum_put(header + IP4_SUM, (uint16_t)~xbb_sum_fold(xbb_sum_add(0, header,
	    (header[0] & 0xf) * 4U)));
}

/* UDP says with 0 that there is no sum; what is 0 is the same as 0xffff. */
static uint16_t
sum_of_udp(uint16_t sum, bool udp)
{

	return (udp && sum == 0 ? 0xffff : sum);
}

bool
xbb_sum_fill(uint8_t *frame, uint32_t size, const struct xbb_headers *h)
{
	uint8_t *field;
	uint32_t length, sum;

	assert(h->end <= size);
	if (h->version == 4)
		fill_ip4(frame + h->l3);
	if (h->l4 == 0)
		return (h->version == 4);
	field = frame + h->l4 + sum_offset(h);
	length = sum_length(frame, h);
	sum_put(field, 0);
	sum = xbb_sum_add(pseudo_of(frame, h, length), frame + h->l4, length);
	sum_put(field, sum_of_udp((uint16_t)~xbb_sum_fold(sum),
	    h->protocol == XBB_PROTOCOL_UDP));
	return (true);
}

bool
xbb_sum_right(const uint8_t *frame, uint32_t size,
    const struct xbb_headers *h)
{
	const uint8_t *ip = frame + h->l3;
	uint32_t length;

	assert(h->end <= size);
	if (h->version == 4 && xbb_sum_fold(xbb_sum_add(0, ip,
	    (ip[0] & 0xf) * 4U)) != 0xffff)
		return (false);
	if (h->l4 == 0)
		return (true);
	if (h->protocol == XBB_PROTOCOL_UDP &&
	    read_be16(frame + h->l4 + UDP_SUM) == 0)
		return (h->version == 4);
	length = sum_length(frame, h);
	return (xbb_sum_fold(xbb_sum_add(pseudo_of(frame, h, length),
	    frame + h->l4, length)) == 0xffff);
}

/* The types of GSO of either side. */
static uint8_t
link_gso(uint8_t gso_type)
{

	return (gso_type == XBB_GSO_TCPV4 ? XBB_LINK_GSO_TCPV4 :
	    XBB_LINK_GSO_TCPV6);
}

static bool
gso_fits(const struct xbb_headers *h, uint8_t gso_type)
{

	return (h->l4 != 0 && h->protocol == XBB_PROTOCOL_TCP &&
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

/* Does such a guest fill in the sum by itself? */
static bool
sums_itself(const struct xbb_headers *h, uint32_t accepts)
{

	return ((accepts & (h->version == 4 ? XBB_NET_CSUM_IPV4 :
	    XBB_NET_CSUM_IPV6)) != 0);
}

/* A frame that is to be split, by the guest or for it. */
static enum xbb_offload_verdict
gso_from_link(const struct xbb_headers *h, uint8_t gso_type,
    uint16_t gso_size, uint32_t accepts, struct xbb_net_frame *made)
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
	return (XBB_OFFLOAD_AS_IS);
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
	struct xbb_headers h;
	uint8_t gso_type;
	bool known;

	memset(made, 0, sizeof(*made));
	made->size = size;
	if (size < XBB_ETHER_HEADER || size > XBB_NET_MAX_FRAME)
		return (XBB_OFFLOAD_BAD);
	if (header->gso_type == XBB_LINK_GSO_NONE &&
	    (header->flags & XBB_LINK_NEEDS_CSUM) == 0) {
		if ((header->flags & XBB_LINK_DATA_VALID) != 0)
			made->flags = XBB_RXF_DATA_VALIDATED;
		return (XBB_OFFLOAD_AS_IS);
	}
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
			return (gso_from_link(&h, gso_type, header->gso_size,
			    accepts, made));
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
		fill_ip4(ip);
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
	sum = pseudo_of(headers, h, h->payload - h->l4 + len);
	sum = xbb_sum_add(sum, tcp, h->payload - h->l4);
	sum = xbb_sum_add(sum, split->frame + split->at, len);
	sum_put(tcp + TCP_SUM, (uint16_t)~xbb_sum_fold(sum));
	*fromp = split->at;
	*lenp = len;
	split->at += len;
	split->n++;
	return (h->payload);
}
