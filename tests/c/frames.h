/*
 * frames.h - frames byte for byte, whose sums somebody else has reckoned, for
 * the tests of what looks into frames (frames.c).
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

#endif /* FRAMES_H */
