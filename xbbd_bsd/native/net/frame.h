/*
 * frame.h - how frames are laid out, and what those files of the room share
 * that look into them: headers.c, sums.c, offload.c.  Pure.
 */
#ifndef XBB_FRAME_H
#define XBB_FRAME_H

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

static inline uint16_t
read_be16(const uint8_t *from)
{

	return ((uint16_t)(from[0] << 8 | from[1]));
}

static inline uint32_t
read_be32(const uint8_t *from)
{

	return ((uint32_t)read_be16(from) << 16 | read_be16(from + 2));
}

static inline void
write_be16(uint8_t *to, uint32_t value)
{

	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static inline void
write_be32(uint8_t *to, uint32_t value)
{

	write_be16(to, value >> 16);
	write_be16(to + 2, value);
}

static inline void
sum_put(uint8_t *to, uint16_t sum)
{

	memcpy(to, &sum, sizeof(sum));
}

/* Where the field of the sum is, behind the header's beginning. */
static inline uint32_t
sum_offset(const struct xbb_headers *h)
{

	return (h->protocol == XBB_PROTOCOL_TCP ? TCP_SUM : UDP_SUM);
}

/* Bytes that the sum is of. */
static inline uint32_t
sum_length(const uint8_t *frame, const struct xbb_headers *h)
{

	return (h->protocol == XBB_PROTOCOL_UDP ?
	    read_be16(frame + h->l4 + UDP_LENGTH) : (uint32_t)(h->end - h->l4));
}

/* UDP says with 0 that there is no sum; what is 0 is the same as 0xffff. */
static inline uint16_t
sum_of_udp(uint16_t sum, bool udp)
{

	return (udp && sum == 0 ? 0xffff : sum);
}

/* sums.c - on top of which that of the data goes; and a header of IPv4's. */
uint32_t xbb_pseudo_sum(const uint8_t *frame, const struct xbb_headers *h,
	    uint32_t length);
void	xbb_ip4_sum_fill(uint8_t *header);

#endif /* XBB_FRAME_H */
