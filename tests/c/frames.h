/*
 * frames.h - frames for the tests of what looks into them and of cards: byte for
 * byte, with sums that somebody else has reckoned, and made to measure
 * (frames.c).
 */
#ifndef FRAMES_H
#define FRAMES_H

#include "harness.h"
#include "net/net.h"

#define BLANK	(XBB_TXF_CSUM_BLANK | XBB_TXF_DATA_VALIDATED)
#define ANYTHING	31	/* that a guest may accept */

/* With where it has what; sum4 is that of IPv4, and sum the other. */
struct sample {
	const char	*name;
	const uint8_t	*bytes;
	uint32_t	 size;
	uint16_t	 l3, l4, payload, sum4, sum;
	uint8_t		 version, protocol;
};

enum {
	TCP4_OPTIONS, UDP4_VLAN, TCP6_TAGS, UDP6_ATOMIC, UDP4_ZERO, SAMPLES
};

extern const struct sample samples[SAMPLES];

/* In memory that ends where the frame does, which is the caller's. */
uint8_t	*frame_of(const void *bytes, uint32_t size);
uint16_t be16_at(const uint8_t *bytes);
uint32_t be32_at(const uint8_t *bytes);
void	put_be16(uint8_t *bytes, uint32_t value);

/* A frame as it comes out at either end. */
struct frame {
	struct xbb_link_header header;	/* of the link */
	int32_t		size;		/* bytes; < 0: a status, of the guest's */
	uint16_t	flags;		/* XBB_RXF_*, of the guest's */
	uint16_t	gso_size;
	uint8_t		gso_type;
	uint32_t	nslots;
	uint8_t		data[XBB_NET_MAX_FRAME + 1];
};

/* Frames: Ethernet, IP, TCP, a payload that a seed repeats, right sums. */
extern const uint8_t frame_source[XBB_NET_ADDRESS];

#define FRAME_TCP4	(14 + 20 + 20)
#define FRAME_TCP6	(14 + 40 + 20)

void	frame_raw(struct frame *frame, uint32_t size, uint64_t seed);
void	frame_tcp(struct frame *frame, int version, uint32_t payload,
	    uint64_t seed);
void	frame_check_same(const struct frame *a, const struct frame *b);
bool	frame_is_right(const struct frame *frame);	/* its sums */

#endif /* FRAMES_H */
