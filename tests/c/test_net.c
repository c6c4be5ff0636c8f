/*
 * test_net.c - what a queue of a card carries, over the simulated hypervisor
 * and a pair of sockets: frames of any size and form, both ways, by either
 * transport, with the sums and the splitting that each end needs.  Arguments:
 * rounds of a random exchange, seed.
 */
#include <stdio.h>
#include <string.h>

#include "card.h"

static const uint32_t transports[] = { XBB_TRANSPORT_COPY, XBB_TRANSPORT_MAP };
static struct frame given, taken, part;

static void
check_plain_header(const struct frame *frame)
{
	static const struct xbb_link_header none;

	CHECK(memcmp(&frame->header, &none, sizeof(none)) == 0);
}

/* Any size, in slots of several sizes. */
static void
check_sizes_out(const struct card_options *options)
{
	static const struct { uint32_t size, first, chunk; } cases[] = {
		{ 14, 14, 1 }, { 60, 60, 1 }, { 1514, 1514, 1 },
		{ 1514, 100, 1414 }, { 4096, 4096, 1 }, { 4097, 4096, 4096 },
		{ 9014, 128, 4096 }, { 65535, 4095, 4096 },
		{ 60, 43, 1 },		/* eighteen slots */
		{ 31, 14, 1 },
	};
	struct card card;
	uint32_t at, i;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	for (i = 0; i < 3 * COUNTOF(cases); i++) {
		frame_raw(&given, cases[i % COUNTOF(cases)].size, i);
		at = card_send(&card, &given, cases[i % COUNTOF(cases)].first,
		    cases[i % COUNTOF(cases)].chunk);
		card_publish(&card);
		link_receive(&card, &taken);
		check_plain_header(&taken);
		frame_check_same(&given, &taken);
		card_collect(&card);
		for (; at != card.tx_cons; at++)
			CHECK_EQ(card.status[at % CARD_SLOTS],
			    XBB_NETIF_OKAY);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_packets), i);
	CHECK_EQ(CARD_COUNTER(&card, tx_slots), card.tx_prod);
	CHECK_EQ(CARD_COUNTER(&card, tx_errors), 0);
	CHECK_EQ(CARD_COUNTER(&card, tx_dropped), 0);
	card_close(&card);
}

static void
check_sizes_in(const struct card_options *options)
{
	static const uint32_t sizes[] = { 14, 60, 1514, 4096, 4097, 9014,
	    65535 };
	const bool sg = (options->accepts & XBB_NET_SG) != 0;
	struct card card;
	uint32_t i, n, size;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, CARD_SLOTS);
	n = 0;
	for (i = 0; i < 3 * COUNTOF(sizes); i++) {
		size = sizes[i % COUNTOF(sizes)];
		frame_raw(&given, size, i);
		link_send(&card, &given);
		if (!sg && size > XBB_PAGE_SIZE)
			continue;
		card_receive(&card, &taken);
		frame_check_same(&given, &taken);
		CHECK_EQ(taken.flags, 0);
		CHECK_EQ(taken.nslots, (size + XBB_PAGE_SIZE - 1) /
		    XBB_PAGE_SIZE);
		card_post(&card, taken.nslots);
		n++;
	}
	WAIT_UNTIL(CARD_COUNTER(&card, rx_packets) == n);
	WAIT_UNTIL(CARD_COUNTER(&card, rx_dropped) == i - n);
	CHECK_EQ(CARD_COUNTER(&card, rx_errors), 0);
	card_close(&card);
}

/* A sum that the guest leaves to others, and a frame that it does not split. */
static void
check_sums_out(const struct card_options *options, int version)
{
	const bool full = options->offload == XBB_NET_OFFLOAD_FULL;
	struct card card;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	frame_tcp(&given, version, 1000, 7);
	taken = given;
	given.data[(version == 4 ? 34 : 54) + 16] ^= 0x55;	/* its sum */
	/* A wrong one that it does not leave to anybody. */
	card_send(&card, &given, 66, 500);
	card_publish(&card);
	link_receive(&card, &part);
	card_collect(&card);
	frame_check_same(&part, &given);
	CHECK_EQ(CARD_COUNTER(&card, tx_summed), 0);
	given.flags = XBB_TXF_CSUM_BLANK | XBB_TXF_DATA_VALIDATED;
	card_send(&card, &given, 66, 500);
	card_publish(&card);
	link_receive(&card, &part);
	card_collect(&card);
	if (full) {
		CHECK_EQ(part.header.flags, XBB_LINK_NEEDS_CSUM);
		CHECK_EQ(part.header.csum_start, version == 4 ? 34 : 54);
		CHECK_EQ(part.header.csum_offset, 16);
	} else {
		check_plain_header(&part);
		frame_check_same(&part, &taken);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_summed), !full);
	card_close(&card);
}

/* The parts of a frame, put together again. */
static void
join_part(uint32_t headers, uint32_t gso_size)
{
	const int32_t left = given.size - taken.size;

	CHECK(frame_is_right(&part));
	if (taken.size == 0) {
		memcpy(taken.data, part.data, headers);
		taken.size = (int32_t)headers;
	}
	CHECK_EQ(part.size - (int32_t)headers,
	    left > (int32_t)gso_size && taken.size != (int32_t)headers ?
	    (int32_t)gso_size : part.size - (int32_t)headers);
	CHECK(part.size - headers <= gso_size);
	memcpy(taken.data + taken.size, part.data + headers,
	    (size_t)part.size - headers);
	taken.size += part.size - (int32_t)headers;
}

static void
check_joined(uint32_t headers)
{

	CHECK_EQ(taken.size, given.size);
	CHECK(memcmp(taken.data + headers, given.data + headers,
	    (size_t)given.size - headers) == 0);
}

static void
check_split_out(const struct card_options *options, int version)
{
	const uint32_t headers = version == 4 ? FRAME_TCP4 : FRAME_TCP6;
	const uint32_t payload = 60000, mss = 1448;
	struct card card;
	uint32_t at, n;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	frame_tcp(&given, version, payload, 9);
	given.flags = XBB_TXF_CSUM_BLANK | XBB_TXF_DATA_VALIDATED;
	given.gso_type = version == 4 ? XBB_GSO_TCPV4 : XBB_GSO_TCPV6;
	given.gso_size = mss;
	at = card_send(&card, &given, 128, 4096);
	card_publish(&card);
	if (options->offload == XBB_NET_OFFLOAD_FULL) {
		link_receive(&card, &taken);
		CHECK_EQ(taken.header.gso_type, version == 4 ?
		    XBB_LINK_GSO_TCPV4 : XBB_LINK_GSO_TCPV6);
		CHECK_EQ(taken.header.gso_size, mss);
		check_joined(headers);
		card_collect(&card);
	} else {
		taken.size = 0;
		for (n = 0; n < (payload + mss - 1) / mss; n++) {
			link_receive(&card, &part);
			check_plain_header(&part);
			join_part(headers, mss);
		}
		check_joined(headers);
		card_collect(&card);
		CHECK_EQ(CARD_COUNTER(&card, tx_split), n);
	}
	CHECK_EQ(card.status[at % CARD_SLOTS], XBB_NETIF_OKAY);
	CHECK_EQ(card.status[(at + 1) % CARD_SLOTS], XBB_NETIF_NULL);
	CHECK_EQ(CARD_COUNTER(&card, tx_packets), 1);
	card_close(&card);
}

/* A sum that the link leaves to others. */
static void
check_sums_in(const struct card_options *options, int version)
{
	const bool leaves = (options->accepts & (version == 4 ?
	    XBB_NET_CSUM_IPV4 : XBB_NET_CSUM_IPV6)) != 0;
	struct card card;
	struct xbb_headers h;
	uint16_t sum;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, CARD_SLOTS);
	frame_tcp(&given, version, 1001, 7);
	CHECK(xbb_headers_find(given.data, (uint32_t)given.size, &h));
	sum = xbb_sum_pseudo(given.data, &h);
	memcpy(given.data + h.l4 + 16, &sum, sizeof(sum));
	given.header = (struct xbb_link_header){
		.flags = XBB_LINK_NEEDS_CSUM,
		.csum_start = h.l4,
		.csum_offset = 16,
	};
	link_send(&card, &given);
	card_receive(&card, &taken);
	if (leaves) {
		CHECK_EQ(taken.flags, XBB_RXF_CSUM_BLANK |
		    XBB_RXF_DATA_VALIDATED);
		frame_check_same(&given, &taken);
	} else {
		CHECK_EQ(taken.flags, XBB_RXF_DATA_VALIDATED);
		CHECK(frame_is_right(&taken));
	}
	WAIT_UNTIL(CARD_COUNTER(&card, rx_summed) == !leaves);
	given.header.flags = XBB_LINK_DATA_VALID;
	link_send(&card, &given);
	card_receive(&card, &taken);
	CHECK_EQ(taken.flags, XBB_RXF_DATA_VALIDATED);
	frame_check_same(&given, &taken);
	card_close(&card);
}

/* A frame that the link has not split: the guest gets it as it can have it. */
static void
check_split_in(const struct card_options *options, int version)
{
	const uint32_t headers = version == 4 ? FRAME_TCP4 : FRAME_TCP6;
	const uint32_t mss = 1000, payload = 62345;
	const uint32_t needed = XBB_NET_SG | (version == 4 ?
	    XBB_NET_GSO_TCPV4 | XBB_NET_CSUM_IPV4 :
	    XBB_NET_GSO_TCPV6 | XBB_NET_CSUM_IPV6);
	struct card card;
	uint32_t n;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	/* Less than it becomes: it goes on when there is room. */
	card_post(&card, 20);
	frame_tcp(&given, version, payload, 11);
	given.header = (struct xbb_link_header){
		.flags = XBB_LINK_NEEDS_CSUM,
		.gso_type = (version == 4 ? XBB_LINK_GSO_TCPV4 :
		    XBB_LINK_GSO_TCPV6) | XBB_LINK_GSO_ECN,
		.gso_size = mss,
		.hdr_len = (uint16_t)headers,
		.csum_start = (uint16_t)(headers - 20),
		.csum_offset = 16,
	};
	link_send(&card, &given);
	if ((options->accepts & needed) == needed) {
		card_receive(&card, &taken);
		CHECK_EQ(taken.gso_type, version == 4 ? XBB_GSO_TCPV4 :
		    XBB_GSO_TCPV6);
		CHECK_EQ(taken.gso_size, mss);
		CHECK_EQ(taken.flags, XBB_RXF_CSUM_BLANK |
		    XBB_RXF_DATA_VALIDATED | XBB_RXF_EXTRA_INFO);
		frame_check_same(&given, &taken);
	} else {
		taken.size = 0;
		for (n = 0; n < (payload + mss - 1) / mss; n++) {
			card_receive(&card, &part);
			CHECK_EQ(part.flags, XBB_RXF_DATA_VALIDATED);
			join_part(headers, mss);
			card_post(&card, 1);
		}
		check_joined(headers);
		WAIT_UNTIL(CARD_COUNTER(&card, rx_split) == n);
	}
	/* And what comes behind it. */
	card_post(&card, 20);
	frame_raw(&given, 600, 3);
	link_send(&card, &given);
	card_receive(&card, &taken);
	frame_check_same(&given, &taken);
	CHECK_EQ(CARD_COUNTER(&card, rx_dropped), 0);
	card_close(&card);
}

/* What is no frame, or not what its header says, is lost. */
static void
check_nonsense_in(void)
{
	const struct card_options options = { .accepts = CARD_ALL };
	struct card card;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, CARD_SLOTS);
	frame_raw(&given, 13, 1);
	link_send(&card, &given);		/* too short */
	frame_raw(&given, 200, 1);
	given.header.flags = XBB_LINK_NEEDS_CSUM;
	given.header.csum_start = 180;
	given.header.csum_offset = 19;		/* beyond its end */
	link_send(&card, &given);
	given.header.gso_type = XBB_LINK_GSO_UDP;
	link_send(&card, &given);
	given.header.gso_type = XBB_LINK_GSO_TCPV4;	/* and it is no TCP */
	given.header.gso_size = 100;
	link_send(&card, &given);
	frame_raw(&given, 100, 2);
	link_send(&card, &given);
	card_receive(&card, &taken);
	frame_check_same(&given, &taken);
	CHECK_EQ(CARD_COUNTER(&card, rx_dropped), 4);
	CHECK_EQ(CARD_COUNTER(&card, rx_sweeps), 1);
	card_close(&card);
}

/* Only frames from its own address, if that is asked for. */
static void
check_filter(void)
{
	const struct card_options options = { .filter = true };
	struct card card;
	uint32_t at;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	frame_raw(&given, 100, 1);
	given.data[11] ^= 1;
	at = card_send(&card, &given, 100, 1);
	given.data[11] ^= 1;
	card_send(&card, &given, 100, 1);
	card_publish(&card);
	card_collect(&card);
	CHECK_EQ(card.status[at % CARD_SLOTS], XBB_NETIF_ERROR);
	CHECK_EQ(card.status[(at + 1) % CARD_SLOTS], XBB_NETIF_OKAY);
	link_receive(&card, &taken);
	frame_check_same(&given, &taken);
	CHECK(!link_take(&card, &taken));
	CHECK_EQ(CARD_COUNTER(&card, refused[XBB_NET_BAD_SOURCE]), 1);
	card_check_balance(&card);
	card_close(&card);
}

/*
 * Frames of any size, as many as there is room for, both ways at the same
 * time: all arrive, in order, whole.
 */
static void
check_exchange(const struct card_options *options, uint64_t rounds,
    uint64_t seed)
{
	const uint32_t most = (options->accepts & XBB_NET_SG) != 0 ? 9000 :
	    XBB_PAGE_SIZE;
	uint64_t in = seed, out = seed, round;
	uint64_t in_taken = seed, out_taken = seed;
	uint32_t i, nin, nout, size;
	struct card card;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, CARD_SLOTS);
	for (round = 0; round < rounds; round++) {
		nin = (uint32_t)random_below(&seed, 12);
		nout = (uint32_t)random_below(&seed, 30);
		for (i = 0; i < nin; i++) {
			size = (uint32_t)(14 + random_below(&in, most - 13));
			frame_raw(&given, size, in);
			link_send(&card, &given);
		}
		for (i = 0; i < nout; i++) {
			size = (uint32_t)(14 + random_below(&out, 9000));
			frame_raw(&given, size, out);
			(void)card_send(&card, &given,
			    (uint32_t)(1 + random_below(&out, 4096)), 4096);
			if (random_below(&out, 4) == 0)
				card_publish(&card);
		}
		card_publish(&card);
		for (i = 0; i < nin; i++) {
			size = (uint32_t)(14 + random_below(&in_taken,
			    most - 13));
			frame_raw(&given, size, in_taken);
			card_receive(&card, &taken);
			frame_check_same(&given, &taken);
			card_post(&card, taken.nslots);
		}
		for (i = 0; i < nout; i++) {
			size = (uint32_t)(14 + random_below(&out_taken, 9000));
			frame_raw(&given, size, out_taken);
			(void)random_below(&out_taken, 4096);
			(void)random_below(&out_taken, 4);
			link_receive(&card, &taken);
			frame_check_same(&given, &taken);
		}
		card_collect(&card);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_dropped), 0);
	CHECK_EQ(CARD_COUNTER(&card, tx_errors), 0);
	xbb_net_queue_drain(card.queue);
	card_wait_drained(&card, XBB_STOP_NONE);
	card_check_balance(&card);
	CHECK_EQ(CARD_COUNTER(&card, rx_errors), 0);
	CHECK_EQ(CARD_COUNTER(&card, rx_slots), card.rx_cons);
	CHECK_EQ(XBB_GET(card.rs->rx_rsp_prod), card.rx_cons);
	CHECK_EQ(XBB_GET(card.rs->common.rsp_prod), card.tx_cons);
	card_close(&card);
}

/* What a queue cannot be made of. */
static void
check_parameters(void)
{
	const struct card_options options = { .accepts = 32 };
	struct xbb_net_params params;
	struct xbb_net_queue *queue;
	struct xbb_error error;
	struct card card;

	card_open(&card, &options);
	card_connect(&card);
	CHECK_EQ(card_try(&card, XBB_ADOPT_NOT), -EINVAL);
	card_params(&card, &params);
	params.accepts = 0;
	params.conn.ring_pages = 1;
	CHECK_EQ(xbb_net_queue_open(&params, card.state, &error, &queue),
	    -EINVAL);
	params.conn.ring_pages = 2;
	params.conn.ring = 2;		/* of a segment of two */
	CHECK_EQ(xbb_net_queue_open(&params, card.state, &error, &queue),
	    -EINVAL);
	params.conn.ring = 1;
	params.offload = 2;
	CHECK_EQ(xbb_net_queue_open(&params, card.state, &error, &queue),
	    -EINVAL);
	params.offload = XBB_NET_OFFLOAD_SAFE;
	params.conn.ring_ref[1] = CARD_NONE;
	CHECK_EQ(xbb_hvfront_sim.set_access(card.hv, card.refs[0], 1), 0);
	CHECK_EQ(xbb_net_queue_open(&params, card.state, &error, &queue),
	    -EINVAL);
	CHECK(strcmp(error.operation, "map ring") == 0);
	card_close(&card);
}

static void
check_transport(uint32_t transport, uint64_t rounds, uint64_t seed)
{
	static const uint32_t accepts[] = { 0, XBB_NET_SG,
	    XBB_NET_SG | XBB_NET_CSUM_IPV4 | XBB_NET_GSO_TCPV4,
	    CARD_ALL & ~XBB_NET_SG, CARD_ALL };
	struct card_options options = { .transport = transport };
	uint32_t i;
	int version;

	check_sizes_out(&options);
	for (options.offload = XBB_NET_OFFLOAD_FULL;
	    options.offload <= XBB_NET_OFFLOAD_SAFE; options.offload++)
		for (version = 4; version <= 6; version += 2) {
			check_sums_out(&options, version);
			check_split_out(&options, version);
		}
	options.offload = XBB_NET_OFFLOAD_FULL;
	for (i = 0; i < COUNTOF(accepts); i++) {
		options.accepts = accepts[i];
		check_sizes_in(&options);
		for (version = 4; version <= 6; version += 2) {
			check_sums_in(&options, version);
			check_split_in(&options, version);
		}
	}
	check_exchange(&options, rounds, seed);
	options.accepts = 0;
	options.rx_polls = true;
	check_exchange(&options, rounds / 4, seed);
}

int
main(int argc, char **argv)
{
	uint64_t rounds = argument(argc, argv, 1, 100);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint32_t i;

	printf("%ju rounds, seed %ju\n", (uintmax_t)rounds, (uintmax_t)seed);
	scratch_enter();
	for (i = 0; i < COUNTOF(transports); i++)
		check_transport(transports[i], rounds, seed);
	check_nonsense_in();
	check_filter();
	check_parameters();
	scratch_leave();
	return (0);
}
