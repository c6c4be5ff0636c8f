/*
 * fuzz_offload.c - any bytes as a frame: headers found, sums filled in, told to
 * a link and taken from one, and split.  Pure, so it needs of the product only
 * a few files:
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -DXBB_LIBFUZZER \
 *	    -D_GNU_SOURCE -I../../xbbd_bsd/native fuzz_offload.c check.c \
 *	    frames.c ../../xbbd_bsd/native/net/{headers,offload,sums}.c
 *
 * Without libFuzzer it feeds itself.  Arguments: frames, seed.
 *
 * An input is 16 bytes of what is said of the frame (struct said), then it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

#define MOST_INVENTED	2000	/* bytes of a frame */

struct said {
	struct xbb_link_header header;
	uint16_t	flags;		/* of the guest's packet */
	uint8_t		gso_type;
	uint8_t		accepts;
};

int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* How often it came to what is worth looking at. */
static struct {
	uint64_t	found, summed, told, split, parts, taken;
} met;

static void
check_found(uint32_t size, const struct xbb_headers *h)
{

	if (h->l3 == 0) {
		CHECK(h->l4 == 0 && h->payload == 0 && h->end == 0);
		return;
	}
	CHECK(h->l3 >= XBB_ETHER_HEADER);
	CHECK(h->version == 4 || h->version == 6);
	CHECK(h->end <= size && h->end > h->l3);
	CHECK((h->l4 == 0) == (h->payload == 0));
	if (h->l4 == 0)
		return;
	CHECK(!h->fragment);
	CHECK(h->l4 >= h->l3 + 20 && h->payload >= h->l4 + 8);
	CHECK(h->payload <= h->end && h->payload <= XBB_MOST_HEADERS);
	CHECK(h->protocol == 6 || h->protocol == 17);
	met.found++;
}

/* What is filled in is right, and is all that was changed. */
static void
check_filled(const uint8_t *bytes, uint32_t size, const struct xbb_headers *h)
{
	uint8_t *frame = frame_of(bytes, size);
	uint32_t at;

	(void)xbb_sum_right(frame, size, h);
	if (xbb_sum_fill(frame, size, h)) {
		CHECK(xbb_sum_right(frame, size, h));
		if (h->version == 4)
			memcpy(frame + h->l3 + 10, bytes + h->l3 + 10, 2);
		if (h->l4 != 0) {
			at = h->l4 + (h->protocol == 6 ? 16 : 6);
			CHECK(h->protocol == 6 || frame[at] != 0 ||
			    frame[at + 1] != 0);
			memcpy(frame + at, bytes + at, 2);
		}
		met.summed++;
	} else
		CHECK(h->l4 == 0 && h->version != 4);
	CHECK(memcmp(frame, bytes, size) == 0);
	free(frame);
}

/* What the link is told holds, and makes the sum right that it is told of. */
static void
check_told(const uint8_t *bytes, uint32_t size, const struct said *said)
{
	uint8_t *frame = frame_of(bytes, size);
	struct xbb_link_header header;
	struct xbb_headers h;
	uint16_t sum;

	if (!xbb_offload_to_link(frame, size, said->flags, said->gso_type,
	    said->header.gso_size, &header)) {
		CHECK(said->gso_type != XBB_GSO_NONE ||
		    said->flags & XBB_TXF_CSUM_BLANK);
		free(frame);
		return;
	}
	CHECK(header.hdr_len <= size);
	CHECK((header.gso_type == XBB_LINK_GSO_NONE) == (header.gso_size == 0));
	if (header.gso_type != XBB_LINK_GSO_NONE) {
		CHECK(size - header.hdr_len > header.gso_size);
		CHECK_EQ(header.csum_offset, 16);
		CHECK_EQ(header.flags, XBB_LINK_NEEDS_CSUM);
	}
	if (header.flags == XBB_LINK_NEEDS_CSUM) {
		CHECK(header.csum_start + header.csum_offset + 2U <= size);
		CHECK(xbb_headers_find(frame, size, &h));
		sum = (uint16_t)~xbb_sum_fold(xbb_sum_add(0,
		    frame + header.csum_start, size - header.csum_start));
		if (sum == 0 && header.csum_offset == 6)
			sum = 0xffff;
		memcpy(frame + header.csum_start + header.csum_offset, &sum, 2);
		if (h.version == 4) {
			h.l4 = 0;	/* only that of IPv4 */
			CHECK(xbb_sum_fill(frame, size, &h));
			CHECK(xbb_headers_find(frame, size, &h));
		}
		CHECK(xbb_sum_right(frame, size, &h));
		met.told++;
	} else
		CHECK(header.flags == 0 || header.flags == XBB_LINK_DATA_VALID);
	free(frame);
}

static void
check_taken(const uint8_t *bytes, uint32_t size, const struct said *said)
{
	uint8_t *frame = frame_of(bytes, size);
	struct xbb_net_frame made;
	enum xbb_offload_verdict verdict;

	verdict = xbb_offload_from_link(frame, size, &said->header,
	    said->accepts, &made);
	if (verdict != XBB_OFFLOAD_SUMMED)
		CHECK(memcmp(frame, bytes, size) == 0);
	if (verdict == XBB_OFFLOAD_BAD) {
		free(frame);
		return;
	}
	CHECK_EQ(made.size, size);
	CHECK((made.flags & ~3U) == 0);
	if (verdict == XBB_OFFLOAD_SPLIT)
		CHECK(said->header.gso_size != 0 &&
		    made.gso_type == XBB_GSO_NONE);
	if (made.gso_type != XBB_GSO_NONE) {
		CHECK(said->accepts & XBB_NET_SG);
		CHECK(made.gso_size != 0 && made.gso_size < size);
		CHECK(said->accepts & (made.gso_type == XBB_GSO_TCPV4 ?
		    XBB_NET_GSO_TCPV4 : XBB_NET_GSO_TCPV6));
	}
	if (made.flags & XBB_RXF_CSUM_BLANK)
		CHECK(said->accepts & (XBB_NET_CSUM_IPV4 | XBB_NET_CSUM_IPV6));
	met.taken++;
	free(frame);
}

/* All parts, one after the other, are the whole; and every sum is right. */
static void
check_parts(const uint8_t *frame, uint32_t size, uint16_t gso_size)
{
	uint8_t *headers, *part;
	struct xbb_split split;
	struct xbb_headers h;
	uint32_t from, len, n, next;

	if (!xbb_split_begin(&split, frame, size, gso_size))
		return;
	headers = malloc(XBB_MOST_HEADERS);
	part = malloc(XBB_MOST_HEADERS + gso_size);
	CHECK(headers != NULL && part != NULL);
	next = split.headers.payload;
	while ((n = xbb_split_next(&split, headers, &from, &len)) != 0) {
		CHECK_EQ(n, split.headers.payload);
		CHECK_EQ(from, next);
		CHECK(len <= gso_size && from + len <= split.headers.end);
		next = from + len;
		CHECK(len == gso_size || next == split.headers.end);
		memcpy(part, headers, n);
		memcpy(part + n, frame + from, len);
		CHECK(xbb_headers_find(part, n + len, &h));
		CHECK_EQ(h.end, n + len);
		CHECK_EQ(h.payload, n);
		CHECK(xbb_sum_right(part, n + len, &h));
		met.parts++;
	}
	CHECK_EQ(next, split.headers.end);
	met.split++;
	free(headers);
	free(part);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xbb_headers h;
	struct said said;
	uint8_t *frame;
	bool found;

	if (size < sizeof(said) || size - sizeof(said) > UINT16_MAX + 1U)
		return (0);
	memcpy(&said, data, sizeof(said));
	said.gso_type %= 3;	/* what netif.c lets pass */
	size -= sizeof(said);
	frame = frame_of(data + sizeof(said), (uint32_t)size);
	found = xbb_headers_find(frame, (uint32_t)size, &h);
	if (found) {
		check_found((uint32_t)size, &h);
		check_filled(frame, (uint32_t)size, &h);
	}
	check_told(frame, (uint32_t)size, &said);
	check_taken(frame, (uint32_t)size, &said);
	check_parts(frame, (uint32_t)size, said.header.gso_size);
	free(frame);
	return (0);
}

#ifndef XBB_LIBFUZZER

/* A sample, longer and not quite right: chance alone finds no headers. */
static uint32_t
invent_frame(uint8_t *frame, uint64_t *seed)
{
	const struct sample *sample = &samples[random_below(seed, SAMPLES)];
	uint32_t changes, size;

	memcpy(frame, sample->bytes, sample->size);
	size = sample->size + (uint32_t)random_below(seed, 3) *
	    (uint32_t)random_below(seed, MOST_INVENTED - sample->size);
	if (size > MOST_INVENTED)
		size = MOST_INVENTED;
	random_bytes(seed, frame + sample->size, size - sample->size);
	if (random_below(seed, 8) != 0)
		put_be16(frame + sample->l3 + (sample->version == 4 ? 2 : 4),
		    size - sample->l3 - (sample->version == 4 ? 0 : 40));
	if (sample->protocol == 17 && random_below(seed, 8) != 0)
		put_be16(frame + sample->l4 + 4, size - sample->l4);
	for (changes = (uint32_t)random_below(seed, 4); changes > 0; changes--)
		frame[random_below(seed, sample->size)] =
		    (uint8_t)random_next(seed);
	if (random_below(seed, 16) == 0)
		size = (uint32_t)random_below(seed, size + 1);
	return (size);
}

int
main(int argc, char **argv)
{
	uint64_t amount = argument(argc, argv, 1, 100000);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint8_t data[sizeof(struct said) + MOST_INVENTED];
	struct said said;
	uint64_t n;
	uint32_t size;

	printf("%ju frames, seed %ju\n", (uintmax_t)amount, (uintmax_t)seed);
	for (n = 0; n < amount; n++) {
		random_bytes(&seed, &said, sizeof(said));
		said.header.gso_type %= 6;
		if (random_below(&seed, 8) != 0) {
			said.header.gso_size %= MOST_INVENTED;
			said.header.csum_start %= 100;
			said.header.csum_offset = said.flags & 1 ? 16 : 6;
		}
		size = invent_frame(data + sizeof(said), &seed);
		memcpy(data, &said, sizeof(said));
		LLVMFuzzerTestOneInput(data, sizeof(said) + size);
	}
	printf("found %ju, summed %ju, told %ju, split %ju in %ju, taken %ju\n",
	    (uintmax_t)met.found, (uintmax_t)met.summed, (uintmax_t)met.told,
	    (uintmax_t)met.split, (uintmax_t)met.parts, (uintmax_t)met.taken);
	CHECK(met.found > amount / 10 && met.summed > amount / 10 &&
	    met.told > amount / 10 && met.split > amount / 10 &&
	    met.parts > met.split && met.taken > amount / 10);
	return (0);
}

#endif /* !XBB_LIBFUZZER */
