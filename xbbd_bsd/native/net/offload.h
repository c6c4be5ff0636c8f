/*
 * offload.h - what network cards do besides: where the headers of a frame are
 * (headers.c), sums of IPv4, IPv6, TCP and UDP (sums.c), what a link has to be
 * told, frames that are split (offload.c).  Pure; frames are one piece of our
 * own memory.
 */
#ifndef XBB_OFFLOAD_H
#define XBB_OFFLOAD_H

#include "net/netif.h"

#define XBB_ETHER_HEADER	14	/* bytes, least of a frame */
#define XBB_MOST_HEADERS	256	/* bytes: what is behind is no header */
#define XBB_PROTOCOL_TCP	6
#define XBB_PROTOCOL_UDP	17

/* The header before each frame of a link (virtio_net_hdr_mrg_rxbuf; le16). */
struct xbb_link_header {
	uint8_t		flags;
	uint8_t		gso_type;
	uint16_t	hdr_len;
	uint16_t	gso_size;
	uint16_t	csum_start;
	uint16_t	csum_offset;
	uint16_t	num_buffers;
};

_Static_assert(sizeof(struct xbb_link_header) == XBB_NET_LINK_HEADER,
    "virtio_net_hdr_mrg_rxbuf");

#define XBB_LINK_NEEDS_CSUM	1	/* flags */
#define XBB_LINK_DATA_VALID	2
#define XBB_LINK_GSO_NONE	0	/* gso_type */
#define XBB_LINK_GSO_TCPV4	1
#define XBB_LINK_GSO_UDP	3
#define XBB_LINK_GSO_TCPV6	4
#define XBB_LINK_GSO_ECN	0x80

/* Where what is in a frame.  Offsets in bytes. */
struct xbb_headers {
	uint16_t	l3;		/* of the IP header; 0: no IP */
	uint16_t	l4;		/* of TCP or UDP; 0: neither */
	uint16_t	payload;	/* behind them; 0: no TCP or UDP */
	uint16_t	end;		/* of what IP says there is */
	uint8_t		version;	/* of IP: 4, 6 */
	uint8_t		protocol;	/* 6 TCP, 17 UDP, or other */
	bool		fragment;	/* of a datagram: it has no sum */
};

/*
 * Find the headers, behind up to two VLAN tags and IPv6 extension headers;
 * false if there is an IP header that cannot be true.  What is in a fragment,
 * behind a header that authenticates, or on a route with stops left counts as
 * neither TCP nor UDP, and so does what does not fit between header and end.
 */
bool	xbb_headers_find(const uint8_t *frame, uint32_t size,
	    struct xbb_headers *headers);

/*
 * The sum of the Internet of some bytes, on top of another; and 16 bits of it,
 * as they lie in a frame.  Not inverted.  An odd byte may only be the last.
 */
uint32_t xbb_sum_add(uint32_t sum, const void *data, size_t bytes);
uint16_t xbb_sum_fold(uint32_t sum);

/*
 * Of the pseudo header of TCP or UDP, as the field of a sum has it that is left
 * to a card.
 */
uint16_t xbb_sum_pseudo(const uint8_t *frame, const struct xbb_headers *h);
/* Fill in the sums of TCP or UDP, and of IPv4: false if it has neither. */
bool	xbb_sum_fill(uint8_t *frame, uint32_t size,
	    const struct xbb_headers *headers);
/* Are those right that it has? */
bool	xbb_sum_right(const uint8_t *frame, uint32_t size,
	    const struct xbb_headers *headers);

/*
 * The header of the link for a frame of the guest's: flags XBB_TXF_*, gso_type
 * XBB_GSO_*.  Where sums are left to others the field has to have that of the
 * pseudo header, which is put there; to be split says that as well.  For a link
 * that is SAFE: split what has a gso_type then, and fill what NEEDS_CSUM.
 * False: it is not what the guest says.
 */
bool	xbb_offload_to_link(uint8_t *frame, uint32_t size, uint16_t flags,
	    uint8_t gso_type, uint16_t gso_size,
	    struct xbb_link_header *header);

/* What is to be done, or was, with a frame of the link. */
enum xbb_offload_verdict {
	XBB_OFFLOAD_BAD		= 0,	/* it is not what its header says */
	XBB_OFFLOAD_AS_IS	= 1,
	XBB_OFFLOAD_SUMMED	= 2,	/* its sum was filled in, or begun */
	XBB_OFFLOAD_SPLIT	= 3	/* the guest takes only its parts */
};

/*
 * The reverse, for a guest that accepts that much (bits of enum
 * xbb_net_accepts); behind VLAN tags none accepts anything.  A frame to be
 * split (by header->gso_size) is left alone, and what is made of it is what its
 * parts are.
 */
enum xbb_offload_verdict xbb_offload_from_link(uint8_t *frame, uint32_t size,
	    const struct xbb_link_header *header, uint32_t accepts,
	    struct xbb_net_frame *made);

/*
 * A frame that is split: begin, then next until it is 0, which makes the
 * headers of the next one in a place of XBB_MOST_HEADERS bytes, and says which
 * bytes of the frame come behind them: returns how many bytes they have.  Sums
 * are right.  False: it has no TCP, or the size is none.
 */
struct xbb_split {
	const uint8_t	*frame;
	struct xbb_headers headers;
	uint32_t	at;		/* next byte of the payload */
	uint32_t	sequence;	/* of the first one */
	uint16_t	id;		/* of IPv4, likewise */
	uint16_t	gso_size;
	uint32_t	n;		/* made so far */
};

bool	xbb_split_begin(struct xbb_split *split, const uint8_t *frame,
	    uint32_t size, uint16_t gso_size);
uint32_t xbb_split_next(struct xbb_split *split, uint8_t *headers,
	    uint32_t *fromp, uint32_t *lenp);

#endif /* XBB_OFFLOAD_H */
