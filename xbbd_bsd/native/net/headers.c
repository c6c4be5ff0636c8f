/*
 * headers.c - where the headers of a frame are.  Pure: no system call, no
 * state; nothing of a frame is believed that was not looked at, and nothing is
 * looked at behind its end.
 */
#include <string.h>

#include "net/frame.h"

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
