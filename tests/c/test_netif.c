/*
 * test_netif.c - packets of a card's rings, byte for byte: the self-test's
 * cases, each of which has to notice that something is wrong, what slots are on
 * the wire, and memory that ends where the slots do.  Pure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "net/net.h"

#define RING_SLOTS	256
#define ALL \
	(XBB_NET_SG | XBB_NET_GSO_TCPV4 | XBB_NET_GSO_TCPV6)

static void
check_self_test(void)
{
	const char *name;
	uint32_t n;
	int held;

	for (n = 0; (held = xbb_net_self_test(n, &name)) != -ENOENT; n++) {
		CHECK(name != NULL);
		if (held != 1)
			check_failed(__FILE__, __LINE__, name, held, 1);
	}
	CHECK(name == NULL);
	CHECK_EQ(n, 56);
	CHECK_EQ(xbb_net_self_test(UINT32_MAX, &name), -ENOENT);
}

/* Slots in memory of their own, so that whoever reads behind them is heard. */
static union xbb_tx_slot *
slots_of(const void *bytes, uint32_t n)
{
	union xbb_tx_slot *slots;

	slots = malloc(n * sizeof(*slots));
	CHECK(slots != NULL);
	memcpy(slots, bytes, n * sizeof(*slots));
	return (slots);
}

/* A packet of three slots as a frontend writes it, and its answers. */
static void
check_bytes(void)
{
	static const uint8_t wire[] = {
		0x2a, 0x00, 0x01, 0x00, 0x10, 0x00, 0x0f, 0x00,
		0x05, 0x00, 0xb8, 0x0b,
		0x01, 0x00, 0xb4, 0x05, 0x01, 0x00, 0x00, 0x00,
		0xee, 0xee, 0xee, 0xee,
		0xff, 0xff, 0xff, 0xff, 0x64, 0x00, 0x00, 0x00,
		0x06, 0xff, 0xdc, 0x05,
	}, answers[] = {
		0x05, 0x00, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
		0x01, 0x00, 0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
		0x06, 0xff, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
	};
	union xbb_tx_slot *slots = slots_of(wire, 3);
	struct xbb_net_packet packet;
	uint32_t n;

	for (n = 0; n < 3; n++)
		CHECK_EQ(xbb_netif_tx_packet(slots, n, 0, ALL, &packet), 0);
	CHECK_EQ(xbb_netif_tx_packet(slots, 3, 3, ALL, &packet), 0);
	CHECK_EQ(xbb_netif_tx_packet(slots, 3, UINT32_MAX, ALL, &packet), 0);
	CHECK_EQ(xbb_netif_tx_packet(slots, 3, 0, ALL, &packet), 3);
	CHECK_EQ(packet.refusal, XBB_NET_FINE);
	CHECK_EQ(packet.flags, 15);
	CHECK_EQ(packet.size, 3000);
	CHECK_EQ(packet.nextras, 1);
	CHECK_EQ(packet.gso_type, XBB_GSO_TCPV4);
	CHECK_EQ(packet.gso_size, 1460);
	CHECK_EQ(packet.npieces, 2);
	CHECK_EQ(packet.piece[0].ref, 65578);
	CHECK_EQ(packet.piece[0].offset, 16);
	CHECK_EQ(packet.piece[0].len, 1500);
	CHECK_EQ(packet.piece[1].ref, 0xffffffff);
	CHECK_EQ(packet.piece[1].offset, 100);
	CHECK_EQ(packet.piece[1].len, 1500);
	xbb_netif_tx_answer(slots, &packet, XBB_NETIF_OKAY, slots);
	CHECK(memcmp(slots, answers, sizeof(answers)) == 0);
	free(slots);
}

static void
check_rx_bytes(void)
{
	static const uint8_t wire[] = {
		0x31, 0x00, 0xaa, 0xaa, 0x07, 0x00, 0x00, 0x00,
		0x32, 0x00, 0xaa, 0xaa, 0x08, 0x00, 0x00, 0x00,
		0xff, 0xff, 0xaa, 0xaa, 0x09, 0x00, 0x00, 0x00,
	}, answers[] = {
		0x31, 0x00, 0x00, 0x00, 0x0f, 0x00, 0x00, 0x10,
		0x01, 0x00, 0x94, 0x05, 0x02, 0x00, 0x00, 0x00,
		0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00,
	}, failure[] = { 0x31, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff };
	struct xbb_net_frame frame = {
		.size = 4097, .gso_size = 1428, .gso_type = XBB_GSO_TCPV6,
		.flags = XBB_RXF_CSUM_BLANK | XBB_RXF_DATA_VALIDATED,
	};
	union xbb_rx_slot *slots;

	CHECK_EQ(xbb_netif_rx_slots(&frame, true), 3);
	slots = malloc(sizeof(wire));
	CHECK(slots != NULL);
	memcpy(slots, wire, sizeof(wire));
	CHECK_EQ(xbb_netif_rx_answer(slots, &frame, true, slots), 1);
	CHECK(memcmp(slots, failure, sizeof(failure)) == 0);
	CHECK(memcmp(slots + 1, wire + 8, 16) == 0);
	memcpy(slots, wire, sizeof(wire));
	CHECK_EQ(xbb_netif_rx_answer(slots, &frame, false, slots), 3);
	CHECK(memcmp(slots, answers, sizeof(answers)) == 0);
	free(slots);
}

/* What was offered, each way; of one that is not, only its own is refused. */
static void
check_offers(void)
{
	static const uint32_t bit[] = {
		[XBB_GSO_TCPV4] = XBB_NET_GSO_TCPV4,
		[XBB_GSO_TCPV6] = XBB_NET_GSO_TCPV6,
	};
	union xbb_tx_slot slots[2] = {
		{ .request = { .flags = XBB_TXF_EXTRA_INFO, .size = 100 } },
		{ .extra = { .type = XBB_EXTRA_GSO, .gso_size = 8 } },
	};
	struct xbb_net_packet packet;
	uint32_t offered, type;

	for (offered = 0; offered < 32; offered++)
		for (type = XBB_GSO_TCPV4; type <= XBB_GSO_TCPV6; type++) {
			slots[1].extra.gso_type = (uint8_t)type;
			CHECK_EQ(xbb_netif_tx_packet(slots, 2, 0, offered,
			    &packet), 2);
			CHECK_EQ(packet.refusal,
			    (offered & bit[type]) != 0 ? XBB_NET_FINE :
			    XBB_NET_BAD_GSO);
		}
	slots[0].request.flags = XBB_TXF_MORE_DATA;
	slots[1].request = (struct xbb_tx_request){ .size = 10 };
	CHECK_EQ(xbb_netif_tx_packet(slots, 2, 0, 0, &packet), 2);
	CHECK_EQ(packet.refusal, XBB_NET_TOO_MANY);
	CHECK_EQ(xbb_netif_tx_packet(slots, 2, 0, XBB_NET_SG, &packet), 2);
	CHECK_EQ(packet.refusal, XBB_NET_FINE);
	/* That the second one says of sums and extras means nothing. */
	slots[1].request.flags = XBB_TXF_CSUM_BLANK | XBB_TXF_EXTRA_INFO;
	CHECK_EQ(xbb_netif_tx_packet(slots, 2, 0, XBB_NET_SG, &packet), 2);
	CHECK_EQ(packet.refusal, XBB_NET_FINE);
	CHECK_EQ(packet.flags, XBB_TXF_MORE_DATA);
}

/* The first reason counts, in the order that is written down. */
static void
check_reasons(void)
{
	union xbb_tx_slot slots[RING_SLOTS], *all;
	struct xbb_net_packet packet;
	uint32_t i;

	memset(slots, 0, sizeof(slots));
	slots[0].request.flags = XBB_TXF_MORE_DATA | XBB_TXF_EXTRA_INFO;
	slots[0].request.size = 13;
	slots[1].extra.type = XBB_EXTRA_GSO;
	for (i = 2; i < RING_SLOTS - 1; i++) {
		slots[i].request.flags = XBB_TXF_MORE_DATA;
		slots[i].request.size = slots[i].request.offset = 65535;
	}
	all = slots_of(slots, RING_SLOTS);
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet),
	    RING_SLOTS);
	CHECK_EQ(packet.refusal, XBB_NET_BAD_GSO);
	all[1].extra.gso_type = XBB_GSO_TCPV4;
	all[1].extra.gso_size = 100;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet),
	    RING_SLOTS);
	CHECK_EQ(packet.refusal, XBB_NET_TOO_MANY);
	all[3].request.flags = 0;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 4);
	CHECK_EQ(packet.refusal, XBB_NET_TOO_SHORT);
	all[0].request.size = 100;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 4);
	CHECK_EQ(packet.refusal, XBB_NET_TOO_LONG);
	all[2].request.size = 80;
	all[3].request.size = 20;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 4);
	CHECK_EQ(packet.refusal, XBB_NET_BEYOND_PAGE);
	all[2].request.offset = 4016;
	all[3].request.offset = 0;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 4);
	CHECK_EQ(packet.refusal, XBB_NET_FINE);
	CHECK_EQ(packet.npieces, 2);	/* the first has nothing left */
	CHECK_EQ(packet.piece[0].offset, 4016);

	/* A ring that is full, and has no end; and one of extras alone. */
	for (i = 0; i < RING_SLOTS; i++)
		all[i].request.flags = XBB_TXF_MORE_DATA;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 0);
	all[0].request.flags = XBB_TXF_EXTRA_INFO;
	for (i = 1; i < RING_SLOTS; i++)
		all[i].extra.flags = XBB_EXTRA_FLAG_MORE;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet), 0);
	all[RING_SLOTS - 1].extra.flags = 0;
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet),
	    RING_SLOTS);
	CHECK_EQ(packet.refusal, XBB_NET_BAD_EXTRA);
	CHECK_EQ(packet.nextras, RING_SLOTS - 1);
	xbb_netif_tx_answer(all, &packet, XBB_NETIF_DROPPED, all);
	CHECK_EQ(all[0].response.status, XBB_NETIF_ERROR);
	for (i = 1; i < RING_SLOTS; i++)
		CHECK(all[i].response.status == XBB_NETIF_NULL);
	all[0].request.flags = XBB_TXF_EXTRA_INFO;
	/* It is as long, seen by whoever finds it half answered. */
	CHECK_EQ(xbb_netif_tx_packet(all, RING_SLOTS, 0, ALL, &packet),
	    RING_SLOTS);
	CHECK_EQ(packet.nextras, RING_SLOTS - 1);
	free(all);
}

/* The largest there is, of as many slots as there may be. */
static void
check_largest(void)
{
	struct xbb_net_frame frame = { .size = 65535,
	    .gso_type = XBB_GSO_TCPV4, .gso_size = 1448 };
	union xbb_tx_slot slots[XBB_NET_MAX_SLOTS];
	struct xbb_net_packet packet;
	uint32_t i, total;

	for (i = 0; i < XBB_NET_MAX_SLOTS; i++)
		slots[i].request = (struct xbb_tx_request){
			.flags = XBB_TXF_MORE_DATA, .size = 3640, .ref = i,
		};
	slots[0].request.size = 65535;
	slots[i - 1].request.flags = 0;
	CHECK_EQ(xbb_netif_tx_packet(slots, i, 0, ALL, &packet), i);
	CHECK_EQ(packet.refusal, XBB_NET_FINE);
	CHECK_EQ(packet.npieces, XBB_NET_MAX_SLOTS);
	for (total = 0; i-- > 0; total += packet.piece[i].len)
		CHECK_EQ(packet.piece[i].ref, i);
	CHECK_EQ(total, 65535);
	xbb_netif_tx_answer(slots, &packet, XBB_NETIF_DROPPED, slots);
	for (i = 0; i < XBB_NET_MAX_SLOTS; i++)
		CHECK_EQ(slots[i].response.status, XBB_NETIF_DROPPED);

	CHECK_EQ(xbb_netif_rx_slots(&frame, true), 17);
	CHECK_EQ(xbb_netif_rx_piece(&frame, 15, &i), 4095);
	CHECK_EQ(i, 61440);
	CHECK_EQ(xbb_netif_rx_piece(&frame, 16, &i), 0);
	frame.size = UINT32_MAX;
	CHECK_EQ(xbb_netif_rx_slots(&frame, true), 0);
	frame.size = 65536;
	CHECK_EQ(xbb_netif_rx_slots(&frame, true), 0);
	CHECK_EQ(xbb_netif_rx_answer(NULL, &frame, false, NULL), 0);
}

int
main(void)
{

	check_self_test();
	check_bytes();
	check_rx_bytes();
	check_offers();
	check_reasons();
	check_largest();
	return (0);
}
