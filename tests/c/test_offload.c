/*
 * test_offload.c - frames that are to be split, by us or by others, and what
 * goes with a frame over a link, either way.  Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

/* TCP of 3000 bytes, to be split; with all flags that are not for all. */
static uint32_t
large_of(uint8_t *frame, const struct sample *sample, uint32_t nbytes)
{
	uint32_t i, size = sample->payload + nbytes;

	memcpy(frame, sample->bytes, sample->payload);
	for (i = 0; i < nbytes; i++)
		frame[sample->payload + i] = (uint8_t)(i * 7 + i / 256);
	put_be16(frame + sample->l3 + (sample->version == 4 ? 2 : 4),
	    size - sample->l3 - (sample->version == 4 ? 0 : 40));
	frame[sample->l4 + 13] = 0xd9;	/* CWR, ECE, ACK, PSH, FIN */
	return (size);
}

static void
check_split(const struct sample *sample)
{
	static const uint32_t lens[] = { 1448, 1448, 104 };
	static const uint8_t flags[] = { 0xd0, 0x50, 0x59 };
	uint8_t frame[4096], part[4096], *headers;
	struct xbb_headers h;
	struct xbb_split split;
	uint32_t from, i, len, n, size, total;

	size = large_of(frame, sample, 3000);
	headers = frame_of(frame, XBB_MOST_HEADERS);
	CHECK(!xbb_split_begin(&split, frame, size, 0));
	CHECK(xbb_split_begin(&split, frame, size, 1448));
	total = 0;
	for (i = 0; (n = xbb_split_next(&split, headers, &from, &len)) != 0;
	    i++) {
		CHECK(i < COUNTOF(lens));
		CHECK_EQ(n, sample->payload);
		CHECK_EQ(from, sample->payload + total);
		CHECK_EQ(len, lens[i]);
		memcpy(part, headers, n);
		memcpy(part + n, frame + from, len);
		CHECK(xbb_headers_find(part, n + len, &h));
		CHECK_EQ(h.end, n + len);
		CHECK_EQ(h.l4, sample->l4);
		CHECK(xbb_sum_right(part, n + len, &h));
		CHECK_EQ(part[h.l4 + 13], flags[i]);
		CHECK_EQ(be32_at(part + h.l4 + 4), 0xfffffff0 + total);
		if (sample->version == 4)
			CHECK_EQ(be16_at(part + h.l3 + 4), 0x1234 + i);
		/* All else is as it was. */
		CHECK(memcmp(part, frame, sample->l3) == 0);
		CHECK(memcmp(part + h.l4 + 14, frame + h.l4 + 14, 2) == 0);
		CHECK(memcmp(part + h.l4 + 18, frame + h.l4 + 18,
		    n - h.l4 - 18) == 0);
		total += len;
	}
	CHECK_EQ(i, COUNTOF(lens));
	CHECK_EQ(total, 3000);

	/* What fits is itself, and so is what has nothing to split. */
	size = large_of(frame, sample, 0);
	CHECK(xbb_split_begin(&split, frame, size, 1));
	CHECK_EQ(xbb_split_next(&split, headers, &from, &len),
	    sample->payload);
	CHECK_EQ(len, 0);
	CHECK_EQ(headers[sample->l4 + 13], 0xd9);
	CHECK_EQ(xbb_split_next(&split, headers, &from, &len), 0);
	free(headers);
}

/* A part of a datagram has no TCP that could be split, whatever is said. */
static void
check_fragments(const struct sample *sample)
{
	struct xbb_link_header header = { .flags = XBB_LINK_NEEDS_CSUM,
	    .gso_type = XBB_LINK_GSO_TCPV4, .gso_size = 1448 };
	struct xbb_net_frame made;
	uint8_t frame[4096];
	uint32_t size;

	size = large_of(frame, sample, 3000);
	frame[sample->l3 + 6] = 0x20;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, ANYTHING, &made),
	    XBB_OFFLOAD_BAD);
	CHECK(!xbb_offload_to_link(frame, size, BLANK, XBB_GSO_TCPV4, 1448,
	    &header));
	CHECK(!xbb_offload_to_link(frame, size, BLANK, XBB_GSO_NONE, 0,
	    &header));
}

static void
check_unsplittable(void)
{
	struct xbb_split split;
	uint8_t frame[400], headers[XBB_MOST_HEADERS];
	uint32_t from, i, len;

	CHECK(!xbb_split_begin(&split, samples[UDP4_VLAN].bytes,
	    samples[UDP4_VLAN].size, 100));
	memcpy(frame, samples[TCP4_OPTIONS].bytes, samples[TCP4_OPTIONS].size);
	frame[20] = 0x20;
	CHECK(!xbb_split_begin(&split, frame, samples[TCP4_OPTIONS].size, 100));
	/* Headers that do not fit where they would be made. */
	memset(frame, 0, sizeof(frame));
	memcpy(frame, samples[TCP6_TAGS].bytes, samples[TCP6_TAGS].size);
	put_be16(frame + 26, 40 + 8 + 20 + 8 * 21);
	frame[71] = 21;		/* options of 176 bytes */
	frame[70 + 176 + 12] = 0x50;
	CHECK(!xbb_split_begin(&split, frame, sizeof(frame), 100));
	frame[71] = 19;
	frame[70 + 160 + 12] = 0x50;
	CHECK(xbb_split_begin(&split, frame, sizeof(frame), 100));
	CHECK_EQ(split.headers.payload, 250);
	for (i = 0; xbb_split_next(&split, headers, &from, &len) != 0; i++)
		CHECK(from + len <= sizeof(frame));
	CHECK_EQ(i, 1);
}

/* What a guest wants to be split, as the link is told. */
static void
check_gso_to_link(const struct sample *sample)
{
	uint8_t right = sample->version == 4 ? XBB_GSO_TCPV4 : XBB_GSO_TCPV6;
	uint8_t wrong = sample->version == 4 ? XBB_GSO_TCPV6 : XBB_GSO_TCPV4;
	uint8_t said = sample->version == 4 ? XBB_LINK_GSO_TCPV4 :
	    XBB_LINK_GSO_TCPV6;
	struct xbb_link_header header;
	struct xbb_headers h;
	uint8_t frame[4096];
	uint32_t size;

	size = large_of(frame, sample, 3000);
	/* A sum that is to be filled in is implied, whatever its flags say. */
	CHECK(xbb_offload_to_link(frame, size, 0, right, 1448, &header));
	CHECK_EQ(header.flags, XBB_LINK_NEEDS_CSUM);
	CHECK_EQ(header.gso_type, said | XBB_LINK_GSO_ECN);
	CHECK_EQ(header.gso_size, 1448);
	CHECK_EQ(header.hdr_len, sample->payload);
	CHECK_EQ(header.csum_start, sample->l4);
	CHECK_EQ(header.csum_offset, 16);
	CHECK(xbb_headers_find(frame, size, &h));
	CHECK_EQ(h.end, size);
	frame[sample->l4 + 13] = 0x10;
	CHECK(xbb_offload_to_link(frame, size, BLANK, right, 2999, &header));
	CHECK_EQ(header.gso_type, said);
	CHECK(xbb_offload_to_link(frame, size, BLANK, right, 3000, &header));
	CHECK_EQ(header.gso_type, XBB_LINK_GSO_NONE);
	CHECK_EQ(header.gso_size, 0);
	CHECK_EQ(header.flags, XBB_LINK_NEEDS_CSUM);
	CHECK(!xbb_offload_to_link(frame, size, BLANK, wrong, 1448, &header));
	CHECK(!xbb_offload_to_link(frame, size, BLANK, right, 0, &header));
	CHECK(!xbb_offload_to_link(frame, size + 1, BLANK, right, 1448,
	    &header));
	memcpy(frame, samples[UDP4_VLAN].bytes, samples[UDP4_VLAN].size);
	CHECK(!xbb_offload_to_link(frame, samples[UDP4_VLAN].size, BLANK,
	    XBB_GSO_TCPV4, 2, &header));
}

/* The other way: what becomes of it for a guest that accepts so much. */
static void
check_from_link(const struct sample *sample)
{
	uint8_t gso = sample->version == 4 ? XBB_LINK_GSO_TCPV4 :
	    XBB_LINK_GSO_TCPV6;
	/* Behind tags there is none that accepts a sum. */
	uint32_t csum = sample->l3 > 14 ? 32 : sample->version == 4 ?
	    XBB_NET_CSUM_IPV4 : XBB_NET_CSUM_IPV6;
	uint32_t all = XBB_NET_SG | csum | (sample->version == 4 ?
	    XBB_NET_GSO_TCPV4 : XBB_NET_GSO_TCPV6);
	struct xbb_link_header header = { .flags = XBB_LINK_NEEDS_CSUM,
	    .csum_start = sample->l4,
	    .csum_offset = (uint16_t)(sample->sum - sample->l4) };
	struct xbb_net_frame made;
	struct xbb_headers h;
	uint8_t frame[4096];
	uint32_t accepts, size;
	uint16_t pseudo;

	CHECK(xbb_headers_find(sample->bytes, sample->size, &h));
	pseudo = xbb_sum_pseudo(sample->bytes, &h);
	for (accepts = 0; accepts <= ANYTHING; accepts++) {
		memcpy(frame, sample->bytes, sample->size);
		memcpy(frame + sample->sum, &pseudo, 2);
		if ((accepts & csum) != 0) {
			CHECK_EQ(xbb_offload_from_link(frame, sample->size,
			    &header, accepts, &made), XBB_OFFLOAD_AS_IS);
			CHECK_EQ(made.flags, XBB_RXF_CSUM_BLANK |
			    XBB_RXF_DATA_VALIDATED);
		} else {
			CHECK_EQ(xbb_offload_from_link(frame, sample->size,
			    &header, accepts, &made), XBB_OFFLOAD_SUMMED);
			CHECK_EQ(made.flags, XBB_RXF_DATA_VALIDATED);
			CHECK(memcmp(frame, sample->bytes, sample->size) == 0);
		}
		CHECK_EQ(made.size, sample->size);
		CHECK_EQ(made.gso_type, XBB_GSO_NONE);
		CHECK_EQ(made.gso_size, 0);
	}
	if (sample->protocol != 6)
		return;
	size = large_of(frame, sample, 3000);
	header.gso_type = gso | XBB_LINK_GSO_ECN;
	header.gso_size = 1400;
	for (accepts = 0; accepts <= ANYTHING; accepts++) {
		if ((accepts & all) == all) {
			CHECK_EQ(xbb_offload_from_link(frame, size, &header,
			    accepts, &made), XBB_OFFLOAD_AS_IS);
			CHECK_EQ(made.flags, XBB_RXF_CSUM_BLANK |
			    XBB_RXF_DATA_VALIDATED);
			CHECK_EQ(made.gso_size, 1400);
			CHECK_EQ(made.gso_type, sample->version == 4 ?
			    XBB_GSO_TCPV4 : XBB_GSO_TCPV6);
		} else {
			CHECK_EQ(xbb_offload_from_link(frame, size, &header,
			    accepts, &made), XBB_OFFLOAD_SPLIT);
			CHECK_EQ(made.flags, XBB_RXF_DATA_VALIDATED);
			CHECK_EQ(made.gso_type, XBB_GSO_NONE);
		}
	}
	header.gso_size = 3000;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, all, &made),
	    sample->l3 > 14 ? XBB_OFFLOAD_SUMMED : XBB_OFFLOAD_AS_IS);
	CHECK_EQ(made.gso_type, XBB_GSO_NONE);
	header.gso_size = 0;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, all, &made),
	    XBB_OFFLOAD_BAD);
	header.gso_size = 1400;
	header.gso_type = XBB_LINK_GSO_TCPV4 + XBB_LINK_GSO_TCPV6 - gso;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, all, &made),
	    XBB_OFFLOAD_BAD);
	header.gso_type = XBB_LINK_GSO_UDP;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, all, &made),
	    XBB_OFFLOAD_BAD);
}

/* Frames of the link that nothing is to be done with, or nothing can be. */
/*
 * Several segments in one, whose sum is as good as complete (Linux has such of
 * cards that join segments and have looked at their sums): whoever is to split
 * it wants that of the pseudo header, and what is none too large is as it is.
 */
static void
check_joined(const struct sample *sample)
{
	const bool version4 = sample->version == 4;
	struct xbb_link_header header = { .flags = XBB_LINK_DATA_VALID,
	    .gso_type = version4 ? XBB_LINK_GSO_TCPV4 : XBB_LINK_GSO_TCPV6,
	    .gso_size = 1400 };
	struct xbb_net_frame made;
	struct xbb_headers h;
	uint8_t frame[4096], whole[4096];
	uint32_t size;
	uint16_t sum;

	size = large_of(whole, sample, 3000);
	CHECK(xbb_headers_find(whole, size, &h) &&
	    xbb_sum_fill(whole, size, &h));
	memcpy(frame, whole, size);
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, 0, &made),
	    XBB_OFFLOAD_SPLIT);
	CHECK(memcmp(frame, whole, size) == 0);
	if (sample->l3 == 14) {
		CHECK_EQ(xbb_offload_from_link(frame, size, &header, ANYTHING,
		    &made), XBB_OFFLOAD_SUMMED);
		CHECK_EQ(made.flags, XBB_RXF_CSUM_BLANK |
		    XBB_RXF_DATA_VALIDATED);
		CHECK_EQ(made.gso_size, 1400);
		memcpy(&sum, frame + sample->sum, 2);
		CHECK_EQ(sum, xbb_sum_pseudo(whole, &h));
		memcpy(frame + sample->sum, whole + sample->sum, 2);
	}
	header.gso_size = 3000;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, ANYTHING, &made),
	    XBB_OFFLOAD_AS_IS);
	CHECK_EQ(made.flags, XBB_RXF_DATA_VALIDATED);
	CHECK_EQ(made.gso_type, XBB_GSO_NONE);
	header.flags = 0;
	CHECK_EQ(xbb_offload_from_link(frame, size, &header, ANYTHING, &made),
	    XBB_OFFLOAD_AS_IS);
	CHECK_EQ(made.flags, 0);
	CHECK(memcmp(frame, whole, size) == 0);
}

static void
check_link_alone(void)
{
	struct xbb_link_header header = { .flags = 0 };
	struct xbb_net_frame made;
	uint8_t frame[49];
	uint16_t sum;

	CHECK_EQ(samples[UDP4_VLAN].size, sizeof(frame));
	memcpy(frame, samples[UDP4_VLAN].bytes, sizeof(frame));
	frame[46] ^= 1;		/* nobody looks */
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, 0,
	    &made), XBB_OFFLOAD_AS_IS);
	CHECK_EQ(made.flags, 0);
	header.flags = XBB_LINK_DATA_VALID;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, 0,
	    &made), XBB_OFFLOAD_AS_IS);
	CHECK_EQ(made.flags, XBB_RXF_DATA_VALIDATED);
	CHECK_EQ(xbb_offload_from_link(frame, 13, &header, 0, &made),
	    XBB_OFFLOAD_BAD);
	CHECK_EQ(xbb_offload_from_link(frame, 14, &header, 0, &made),
	    XBB_OFFLOAD_AS_IS);
	/* Nobody looks into them. */
	CHECK_EQ(xbb_offload_from_link(frame, 65535, &header, 0, &made),
	    XBB_OFFLOAD_AS_IS);
	CHECK_EQ(xbb_offload_from_link(frame, 65536, &header, 0, &made),
	    XBB_OFFLOAD_BAD);

	/* No transport, and a sum in its first bytes. */
	put_be16(frame + 16, 0x88b5);
	header.flags = XBB_LINK_NEEDS_CSUM;
	header.csum_offset = 6;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, ANYTHING,
	    &made), XBB_OFFLOAD_SUMMED);
	memcpy(frame, samples[UDP4_VLAN].bytes, sizeof(frame));
	frame[46] ^= 1;

	/* In a tunnel: a sum that the guest could not place. */
	frame[46] ^= 1;
	header.flags = XBB_LINK_NEEDS_CSUM;
	header.csum_start = 46;
	header.csum_offset = 1;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, ANYTHING,
	    &made), XBB_OFFLOAD_SUMMED);
	CHECK_EQ(made.flags, XBB_RXF_DATA_VALIDATED);
	memcpy(&sum, frame + 47, 2);
	CHECK_EQ(be16_at((uint8_t *)&sum), 0xffff - (0x6f64 + 0x6400));
	header.csum_offset = 2;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, ANYTHING,
	    &made), XBB_OFFLOAD_BAD);
	header.csum_start = sizeof(frame);
	header.csum_offset = 0;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, ANYTHING,
	    &made), XBB_OFFLOAD_BAD);
	header.csum_start = header.csum_offset = UINT16_MAX;
	CHECK_EQ(xbb_offload_from_link(frame, sizeof(frame), &header, ANYTHING,
	    &made), XBB_OFFLOAD_BAD);
}

int
main(void)
{
	uint32_t i;

	for (i = 0; i < SAMPLES; i++) {
		check_from_link(&samples[i]);
		if (samples[i].protocol != XBB_PROTOCOL_TCP)
			continue;
		check_split(&samples[i]);
		check_gso_to_link(&samples[i]);
		check_joined(&samples[i]);
	}
	check_fragments(&samples[TCP4_OPTIONS]);
	check_unsplittable();
	check_link_alone();
	return (0);
}
