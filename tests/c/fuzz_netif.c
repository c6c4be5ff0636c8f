/*
 * fuzz_netif.c - any bytes as slots of a card's rings: a whole ring of them is
 * made into packets and answered.  Pure, so it needs of the product only
 * netif.c:
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -DXBB_LIBFUZZER \
 *	    -D_GNU_SOURCE -Ixbbd_bsd/native tests/c/fuzz_netif.c \
 *	    tests/c/check.c xbbd_bsd/native/net/netif.c
 *
 * Without libFuzzer it feeds itself.  Arguments: slots, seed.
 *
 * An input is a byte of what was offered, then slots.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "net/net.h"

#define RING_SLOTS	256

int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Packets by what came of them, so that what is invented is worth it. */
static uint64_t	met[XBB_NET_REFUSALS];

/* What the rest takes for granted of a packet that is fine. */
static void
check_fine(const union xbb_tx_slot *slots, const struct xbb_net_packet *packet,
    uint32_t offered)
{
	uint32_t i, total, bit;

	CHECK(packet->size >= XBB_ETHER_HEADER);
	CHECK(packet->size == slots[packet->first].request.size);
	CHECK(packet->npieces >= 1 && packet->npieces <= XBB_NET_MAX_SLOTS);
	CHECK(packet->npieces <= packet->nslots - packet->nextras);
	CHECK(packet->nslots - packet->nextras == 1 || offered & XBB_NET_SG);
	CHECK(packet->nextras <= 2);
	total = 0;
	for (i = 0; i < packet->npieces; i++) {
		CHECK(packet->piece[i].len != 0);
		CHECK(packet->piece[i].offset + packet->piece[i].len <=
		    XBB_PAGE_SIZE);
		total += packet->piece[i].len;
	}
	CHECK_EQ(total, packet->size);
	if (packet->gso_type == XBB_GSO_NONE) {
		CHECK_EQ(packet->gso_size, 0);
		return;
	}
	bit = packet->gso_type == XBB_GSO_TCPV4 ? XBB_NET_GSO_TCPV4 :
	    XBB_NET_GSO_TCPV6;
	CHECK(packet->gso_type <= XBB_GSO_TCPV6 && (offered & bit) != 0);
	CHECK(packet->gso_size >= XBB_LEAST_SEGMENT && packet->nextras > 0);
}

/* Each slot has its answer, and nothing of the guest's is in the padding. */
static void
check_answers(const union xbb_tx_slot *slots,
    const struct xbb_net_packet *packet)
{
	union xbb_tx_slot answers[RING_SLOTS], expected;
	uint32_t i;
	bool extra;

	xbb_netif_tx_answer(slots, packet, XBB_NETIF_OKAY, answers);
	for (i = 0; i < packet->nslots; i++) {
		extra = i >= 1 && i <= packet->nextras;
		memset(&expected, 0, sizeof(expected));
		expected.response.id = extra ?
		    slots[packet->first + i].response.id :
		    slots[packet->first + i].request.id;
		expected.response.status = extra ? XBB_NETIF_NULL :
		    packet->refusal != XBB_NET_FINE ? XBB_NETIF_ERROR :
		    XBB_NETIF_OKAY;
		CHECK(memcmp(&answers[i], &expected, sizeof(expected)) == 0);
	}
}

/* Where a packet ends is what its flags say, whatever else is wrong with it. */
static uint32_t
slots_said(const union xbb_tx_slot *slots, uint32_t n, uint32_t first)
{
	uint32_t at = first;

	if (slots[at].request.flags & XBB_TXF_EXTRA_INFO)
		do {
			if (++at >= n)
				return (0);
		} while (slots[at].extra.flags & XBB_EXTRA_FLAG_MORE);
	if (slots[first].request.flags & XBB_TXF_MORE_DATA)
		do {
			if (++at >= n)
				return (0);
		} while (slots[at].request.flags & XBB_TXF_MORE_DATA);
	return (at - first + 1);
}

/* The same bytes as what a frame for the guest is, and its rx requests. */
static void
check_rx(const uint8_t *data, size_t size)
{
	union xbb_rx_slot requests[RING_SLOTS], answers[RING_SLOTS];
	struct xbb_net_frame frame;
	uint32_t i, len, n, offset, pages, total;

	if (size < sizeof(frame))
		return;
	memcpy(&frame, data, sizeof(frame));
	frame.size &= 0x1ffff;
	frame.flags &= XBB_RXF_CSUM_BLANK | XBB_RXF_DATA_VALIDATED;
	for (i = 0; i < RING_SLOTS; i++)
		requests[i].request.id = (uint16_t)(i * 7);
	n = xbb_netif_rx_slots(&frame, true);
	CHECK(n <= XBB_NET_MAX_SLOTS);
	CHECK(xbb_netif_rx_slots(&frame, false) <= 2);
	CHECK_EQ(xbb_netif_rx_answer(requests, &frame, false, answers), n);
	total = 0;
	for (i = 0; (len = xbb_netif_rx_piece(&frame, i, &offset)) != 0; i++) {
		CHECK_EQ(offset, total);
		total += len;
	}
	CHECK_EQ(total, frame.size);
	pages = i;
	for (i = 0; i < n; i++) {
		if (i == 1 && frame.gso_type != XBB_GSO_NONE)
			continue;
		CHECK_EQ(answers[i].response.id, (uint16_t)(i * 7));
		CHECK(answers[i].response.status > 0);
		CHECK_EQ((answers[i].response.flags & XBB_RXF_MORE_DATA) != 0,
		    --pages > 0);
		total -= (uint32_t)answers[i].response.status;
	}
	CHECK(n == 0 || total == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xbb_net_packet packet;
	union xbb_tx_slot *slots;
	uint32_t at, n, nslots, offered;

	if (size < 1 + sizeof(*slots))
		return (0);
	offered = data[0];
	check_rx(data + 1, size - 1);
	n = (uint32_t)((size - 1) / sizeof(*slots));
	if (n > RING_SLOTS)
		n = RING_SLOTS;
	slots = malloc(n * sizeof(*slots));
	CHECK(slots != NULL);
	memcpy(slots, data + 1, n * sizeof(*slots));
	for (at = 0; at < n; at += nslots) {
		memset(&packet, 0xee, sizeof(packet));
		nslots = xbb_netif_tx_packet(slots, n, at, offered, &packet);
		CHECK_EQ(nslots, slots_said(slots, n, at));
		if (nslots == 0)
			break;
		CHECK_EQ(packet.first, at);
		CHECK_EQ(packet.nslots, nslots);
		CHECK(packet.nextras < nslots);
		CHECK(packet.refusal < XBB_NET_BAD_HEADERS);
		met[packet.refusal]++;
		if (packet.refusal == XBB_NET_FINE)
			check_fine(slots, &packet, offered);
		check_answers(slots, &packet);
	}
	free(slots);
	return (0);
}

#ifndef XBB_LIBFUZZER

/* A slot near to a valid one; extra info where one is expected, mostly. */
static void
invent_slot(union xbb_tx_slot *slot, uint64_t *seed, bool *extrap)
{
	uint64_t dice = random_next(seed);
	bool extra = *extrap;

	random_bytes(seed, slot, sizeof(*slot));
	*extrap = false;
	if ((dice & 15) == 0)
		return;
	if (extra) {
		slot->extra.type = (uint8_t)((dice >> 4) % 6);
		if ((dice & 0x700) != 0)
			slot->extra.type = XBB_EXTRA_GSO;
		slot->extra.gso_type = (uint8_t)((dice >> 12) % 4);
		slot->extra.flags = (dice & 0xf0000) == 0;
		*extrap = slot->extra.flags != 0;
		return;
	}
	slot->request.flags = 0;
	if ((dice & 0x30) != 0)
		slot->request.flags |= XBB_TXF_MORE_DATA;
	if ((dice & 0x1c0) == 0)
		slot->request.flags |= XBB_TXF_EXTRA_INFO;
	*extrap = (slot->request.flags & XBB_TXF_EXTRA_INFO) != 0;
	slot->request.offset = (uint16_t)((dice >> 20) % 64);
	slot->request.size = (uint16_t)((dice >> 32) % 5000);
	if ((dice & 0x600) == 0)
		slot->request.size = (uint16_t)(dice >> 32);
}

int
main(int argc, char **argv)
{
	uint64_t amount = argument(argc, argv, 1, 200000);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint8_t data[1 + RING_SLOTS * sizeof(union xbb_tx_slot)];
	union xbb_tx_slot slot;
	uint64_t done;
	uint32_t i, n;
	bool extra;

	printf("%ju slots, seed %ju\n", (uintmax_t)amount, (uintmax_t)seed);
	for (done = 0; done < amount; done += n) {
		data[0] = (uint8_t)random_next(&seed) | XBB_NET_SG;
		if (random_below(&seed, 16) == 0)
			data[0] = 0;
		n = 1 + (uint32_t)random_below(&seed, RING_SLOTS);
		extra = false;
		for (i = 0; i < n; i++) {
			invent_slot(&slot, &seed, &extra);
			memcpy(data + 1 + i * sizeof(slot), &slot,
			    sizeof(slot));
		}
		LLVMFuzzerTestOneInput(data, 1 + n * sizeof(slot));
	}
	for (i = XBB_NET_FINE; i < XBB_NET_BAD_HEADERS; i++) {
		printf("refusal %u: %ju\n", i, (uintmax_t)met[i]);
		CHECK(met[i] > amount / 10000);
	}
	return (0);
}

#endif /* !XBB_LIBFUZZER */
