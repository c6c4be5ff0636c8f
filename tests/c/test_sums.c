/*
 * test_sums.c - where the headers of a frame are, whatever a guest has put
 * there, and its sums, filled in by us or by whoever is behind the link.  Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

/* What a card does that is told to. */
static void
card_sums(uint8_t *frame, uint32_t size, const struct xbb_link_header *header)
{
	uint16_t sum;

	CHECK_EQ(header->flags, XBB_LINK_NEEDS_CSUM);
	CHECK(header->csum_start + header->csum_offset + 2U <= size);
	sum = (uint16_t)~xbb_sum_fold(xbb_sum_add(0,
	    frame + header->csum_start, size - header->csum_start));
	if (sum == 0 && header->csum_offset == 6)
		sum = 0xffff;
	memcpy(frame + header->csum_start + header->csum_offset, &sum, 2);
}

static void
check_sample(const struct sample *sample)
{
	uint8_t *frame = frame_of(sample->bytes, sample->size);
	struct xbb_link_header header;
	struct xbb_headers h;

	CHECK(xbb_headers_find(frame, sample->size, &h));
	CHECK_EQ(h.l3, sample->l3);
	CHECK_EQ(h.l4, sample->l4);
	CHECK_EQ(h.payload, sample->payload);
	CHECK_EQ(h.end, sample->size);
	CHECK_EQ(h.version, sample->version);
	CHECK_EQ(h.protocol, sample->protocol);
	CHECK(!h.fragment);
	CHECK(xbb_sum_right(frame, sample->size, &h));
	frame[sample->size - 1] ^= 0x40;
	CHECK(!xbb_sum_right(frame, sample->size, &h));
	frame[sample->size - 1] ^= 0x40;
	if (sample->sum4 != 0) {
		frame[sample->sum4] ^= 1;
		CHECK(!xbb_sum_right(frame, sample->size, &h));
		put_be16(frame + sample->sum4, 0xdead);
	}
	put_be16(frame + sample->sum, 0xbeef);
	CHECK(!xbb_sum_right(frame, sample->size, &h));
	CHECK(xbb_sum_fill(frame, sample->size, &h));
	CHECK(memcmp(frame, sample->bytes, sample->size) == 0);

	/* By the link, whatever was in the field. */
	put_be16(frame + sample->sum, 0xbeef);
	CHECK(xbb_offload_to_link(frame, sample->size, BLANK, XBB_GSO_NONE, 0,
	    &header));
	CHECK_EQ(header.gso_type, XBB_LINK_GSO_NONE);
	CHECK_EQ(header.gso_size, 0);
	CHECK_EQ(header.hdr_len, sample->payload);
	CHECK_EQ(header.csum_start, sample->l4);
	CHECK_EQ(header.csum_offset, sample->sum - sample->l4);
	CHECK_EQ(header.num_buffers, 0);
	CHECK(memcmp(frame + sample->sum,
	    (uint16_t[]){ xbb_sum_pseudo(frame, &h) }, 2) == 0);
	card_sums(frame, sample->size, &header);
	CHECK(memcmp(frame, sample->bytes, sample->size) == 0);
	free(frame);
}

/* Nothing is read behind the end, wherever that is. */
static void
check_cut(const struct sample *sample)
{
	struct xbb_link_header header;
	struct xbb_headers h;
	uint32_t size;
	uint8_t *frame;

	for (size = 0; size < sample->size; size++) {
		frame = frame_of(sample->bytes, size);
		/* The datagram is longer than the frame. */
		CHECK_EQ(xbb_headers_find(frame, size, &h),
		    size < sample->l3);
		CHECK(!xbb_offload_to_link(frame, size, BLANK, XBB_GSO_NONE,
		    0, &header));
		CHECK(!xbb_offload_to_link(frame, size, 0, XBB_GSO_TCPV4,
		    1000, &header));
		CHECK(xbb_offload_to_link(frame, size, 0, XBB_GSO_NONE, 0,
		    &header));
		free(frame);
	}
}

/* Behind the datagram is what no card must sum. */
static void
check_padded(const struct sample *sample)
{
	struct xbb_link_header header;
	uint8_t frame[200];
	uint32_t size = sample->size + 7;

	memset(frame, 0xa5, sizeof(frame));
	memcpy(frame, sample->bytes, sample->size);
	put_be16(frame + sample->sum, 0xbeef);
	CHECK(xbb_offload_to_link(frame, size, BLANK, XBB_GSO_NONE, 0,
	    &header));
	CHECK_EQ(header.flags, XBB_LINK_DATA_VALID);
	CHECK(memcmp(frame, sample->bytes, sample->size) == 0);
	CHECK(all_bytes(frame + sample->size, 7, 0xa5));
	CHECK(!xbb_offload_to_link(frame, size, BLANK,
	    sample->version == 4 ? XBB_GSO_TCPV4 : XBB_GSO_TCPV6, 2, &header));
}

/* A byte of a sample that makes something else of it. */
static void
check_other_headers(void)
{
	static const struct {
		const char	*what;
		uint32_t	sample;
		uint16_t	at, value;	/* 16 bits */
		bool		found, transport, fragment;
	} others[] = {
		{ "version 5", 0, 14, 0x5600, false, false, false },
		{ "header of 16", 0, 14, 0x4400, false, false, false },
		{ "more than there is", 0, 16, 62, false, false, false },
		{ "less than the header", 0, 16, 23, false, false, false },
		{ "just the header", 0, 16, 24, true, false, false },
		{ "all but TCP's end", 0, 16, 55, true, false, false },
		{ "just TCP", 0, 16, 56, true, true, false },
		{ "first fragment", 0, 20, 0x2000, true, false, true },
		{ "last fragment", 0, 20, 0x0001, true, false, true },
		{ "evil bit", 0, 20, 0x8000, true, true, false },
		{ "ICMP", 0, 22, 0x4001, true, false, false },
		{ "TCP header of 16", 0, 50, 0x4018, true, false, false },
		{ "TCP header too long", 0, 50, 0xa018, true, false, false },
		{ "TCP without options", 0, 50, 0x5018, true, true, false },
		{ "UDP of 7", 1, 42, 7, true, false, false },
		{ "UDP of 8", 1, 42, 8, true, true, false },
		{ "UDP that is longer", 1, 42, 12, true, false, false },
		{ "another tag", 1, 16, 0x8100, true, false, false },
		{ "no tag", 1, 12, 0x88b5, true, false, false },
		{ "IPv6 of version 4", 2, 22, 0x4001, false, false, false },
		{ "IPv6 too long", 2, 26, 57, false, false, false },
		{ "options only", 2, 26, 20, true, false, false },
		{ "options cut off", 2, 26, 7, true, false, false },
		{ "no next header", 2, 28, 0x3b40, true, false, false },
		{ "authenticated", 2, 28, 0x3340, true, false, false },
		{ "options too long", 2, 62, 0x3c07, true, false, false },
		{ "on its way", 2, 64, 0x0104, true, true, false },
		{ "first fragment of 6", 3, 56, 0x0001, true, false, true },
		{ "last fragment of 6", 3, 56, 0x0008, true, false, true },
		{ "reserved bits of 6", 3, 56, 0x0006, true, true, false },
	};
	const struct sample *sample;
	struct xbb_headers h;
	uint8_t *frame;
	uint32_t i;
	bool found;

	for (i = 0; i < COUNTOF(others); i++) {
		sample = &samples[others[i].sample];
		frame = frame_of(sample->bytes, sample->size);
		put_be16(frame + others[i].at, others[i].value);
		found = xbb_headers_find(frame, sample->size, &h);
		if (found != others[i].found ||
		    (h.l4 != 0) != others[i].transport ||
		    h.fragment != others[i].fragment)
			check_failed(__FILE__, __LINE__, others[i].what,
			    found, h.l4);
		CHECK((h.l4 != 0) == (h.payload != 0));
		if (found && h.l4 == 0 && h.version == 4) {
			/* IP's own sum is all that there is to be filled. */
			CHECK(xbb_sum_fill(frame, sample->size, &h));
			CHECK(xbb_sum_right(frame, sample->size, &h));
			CHECK(memcmp(frame + h.l3 + 12, sample->bytes +
			    h.l3 + 12, 8) == 0);
		} else if (found && h.l4 == 0)
			CHECK(!xbb_sum_fill(frame, sample->size, &h));
		free(frame);
	}
}

/* A routing header with stops left is where the address in the sum is not. */
static void
check_routes(void)
{
	const struct sample *sample = &samples[TCP6_TAGS];
	uint8_t *frame = frame_of(sample->bytes, sample->size);
	struct xbb_headers h;

	frame[28] = 43;		/* as what follows is laid out, but for kind */
	CHECK(xbb_headers_find(frame, sample->size, &h));
	CHECK(h.l4 == 0);
	frame[65] = 0;
	CHECK(xbb_headers_find(frame, sample->size, &h));
	CHECK_EQ(h.l4, 86);
	free(frame);
}

/* Of IPv6 with n bytes of options in headers of eight, and then TCP. */
static uint8_t *
with_options(uint32_t n, uint32_t *sizep)
{
	const struct sample *sample = &samples[TCP6_TAGS];
	uint8_t bytes[1024] = { 0 };
	uint32_t i;

	memcpy(bytes, sample->bytes, 62);
	for (i = 0; i < n; i += 8)
		bytes[62 + i] = i + 8 < n ? 60 : XBB_PROTOCOL_TCP;
	memcpy(bytes + 62 + n, sample->bytes + sample->l4,
	    sample->size - sample->l4);
	bytes[28] = 60;
	*sizep = 62 + n + sample->size - sample->l4;
	put_be16(bytes + 26, *sizep - 62);
	return (frame_of(bytes, *sizep));
}

/* Headers that just fit, and those that just do not. */
static void
check_edges(void)
{
	uint8_t *frame;
	struct xbb_headers h;
	uint32_t i, size;

	/* IP that ends with its header, and so does the frame. */
	frame = frame_of(samples[UDP4_ZERO].bytes, 34);
	put_be16(frame + 16, 20);
	CHECK(xbb_headers_find(frame, 34, &h));
	CHECK_EQ(h.end, 34);
	CHECK_EQ(h.l4, 0);
	free(frame);
	frame = frame_of(samples[TCP6_TAGS].bytes, 62);
	put_be16(frame + 26, 0);
	CHECK(xbb_headers_find(frame, 62, &h));
	CHECK_EQ(h.protocol, 0);
	CHECK_EQ(h.l4, 0);
	free(frame);

	/* Two tags are all that a frame may have. */
	frame = frame_of(samples[TCP6_TAGS].bytes, samples[TCP6_TAGS].size);
	memmove(frame + 16, frame + 12, samples[TCP6_TAGS].size - 16);
	CHECK(xbb_headers_find(frame, samples[TCP6_TAGS].size, &h));
	CHECK_EQ(h.l3, 0);
	free(frame);

	/* TCP that is cut off where datagram and frame are, byte by byte. */
	for (size = 38; size <= 75; size++) {
		frame = frame_of(samples[TCP4_OPTIONS].bytes, size);
		put_be16(frame + 16, size - 14);
		CHECK(xbb_headers_find(frame, size, &h));
		CHECK_EQ(h.l4, size < 70 ? 0 : 38);
		free(frame);
	}
	for (size = 62; size <= 106; size++) {
		frame = frame_of(samples[TCP6_TAGS].bytes, size);
		put_be16(frame + 26, size - 62);
		CHECK(xbb_headers_find(frame, size, &h));
		CHECK_EQ(h.protocol, size < 70 ? 0 : size < 86 ? 60 : 6);
		CHECK_EQ(h.l4, size < 106 ? 0 : 86);
		free(frame);
	}

	/* Headers that go on and on: what is behind is not looked at. */
	for (i = 8; i < 800; i += 8) {
		frame = with_options(i, &size);
		CHECK(xbb_headers_find(frame, size, &h));
		CHECK_EQ(h.l4, 62 + i + 20 <= XBB_MOST_HEADERS ? 62 + i : 0);
		CHECK_EQ(h.protocol, 62 + i - 8 <= XBB_MOST_HEADERS ? 6 : 60);
		free(frame);
	}

	frame = calloc(1, 65536);
	CHECK(frame != NULL);
	CHECK(xbb_headers_find(frame, 65535, &h));
	CHECK(!xbb_headers_find(frame, 65536, &h));
	free(frame);
}

/* UDP may say that there is no sum, but not in IPv6. */
static void
check_no_sum(uint32_t i, bool right)
{
	uint8_t *frame = frame_of(samples[i].bytes, samples[i].size);
	struct xbb_headers h;

	put_be16(frame + samples[i].sum, 0);
	CHECK(xbb_headers_find(frame, samples[i].size, &h));
	CHECK_EQ(xbb_sum_right(frame, samples[i].size, &h), right);
	free(frame);
}

/* Sums of any length from any byte on, against adding two by two. */
static void
check_adding(void)
{
	uint8_t bytes[300];
	uint64_t seed = 1, plain;
	uint32_t at, i, size, sum;

	random_bytes(&seed, bytes, sizeof(bytes));
	for (at = 0; at < 9; at++)
		for (size = 0; size < 280; size++) {
			plain = 0;
			for (i = 0; i < size; i++)
				plain += i % 2 == 0 ? bytes[at + i] * 256U :
				    bytes[at + i];
			while (plain > 0xffff)
				plain = (plain & 0xffff) + (plain >> 16);
			sum = xbb_sum_fold(xbb_sum_add(0, bytes + at, size));
			CHECK_EQ(be16_at((uint8_t *)&(uint16_t){
			    (uint16_t)sum }), plain);
			/* In two steps, the first of an even number. */
			sum = xbb_sum_add(0, bytes + at, size / 4 * 2);
			sum = xbb_sum_add(sum, bytes + at + size / 4 * 2,
			    size - size / 4 * 2);
			CHECK_EQ(be16_at((uint8_t *)&(uint16_t){
			    xbb_sum_fold(sum) }), plain);
		}
	/* Nothing is carried out of it. */
	memset(bytes, 0xff, sizeof(bytes));
	for (size = 0; size < 280; size += 2) {
		CHECK_EQ(xbb_sum_fold(xbb_sum_add(UINT32_MAX, bytes, size)),
		    0xffff);
		CHECK_EQ(xbb_sum_fold(xbb_sum_add(0, bytes, size)),
		    size == 0 ? 0 : 0xffff);
	}
	/* What is carried once more, and then there is nothing but that. */
	memset(bytes, 0, 32);
	memset(bytes, 0xff, 8);
	bytes[8] = 1;
	CHECK_EQ(xbb_sum_add(UINT32_MAX, bytes, 32), 1);
	CHECK_EQ(xbb_sum_fold(0x1fffe), 0xffff);
	CHECK_EQ(xbb_sum_fold(0xffff0001), 1);
}

int
main(void)
{
	uint32_t i;

	check_adding();
	for (i = 0; i < SAMPLES; i++) {
		check_sample(&samples[i]);
		check_cut(&samples[i]);
		check_padded(&samples[i]);
	}
	check_other_headers();
	check_routes();
	check_edges();
	check_no_sum(UDP4_VLAN, true);
	check_no_sum(UDP6_ATOMIC, false);
	return (0);
}
