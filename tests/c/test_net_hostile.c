/*
 * test_net_hostile.c - a guest with a card that sends what it should not: bad
 * references at any position, packets that cannot be, indices that lie, packets
 * without an end, events without need.  Each costs that guest a packet or its
 * card, and nobody else anything.  Argument: seed.
 */
#include <stdio.h>
#include <string.h>

#include "card.h"

static const uint32_t transports[] = { XBB_TRANSPORT_COPY, XBB_TRANSPORT_MAP };
static struct frame given, taken;

static int16_t
status_of(const struct card *card, uint32_t index)
{

	return (card->status[index % CARD_SLOTS]);
}

/* A frame by another page than its own at one of all slots. */
#define PACKETS		4
#define PACKET_SLOTS	3

static void
check_bad_tx_at(struct card *card, uint32_t position, uint32_t ref)
{
	const uint32_t hit = position / PACKET_SLOTS;
	uint32_t at[PACKETS], i, slot;

	for (i = 0; i < PACKETS; i++) {
		frame_raw(&given, 300, i);
		at[i] = card_send(card, &given, 100, 100);
	}
	guest_store((uint8_t *)card_tx_slot(card, at[0] + position), &ref,
	    sizeof(ref));
	card_publish(card);
	card_collect(card);
	for (i = 0; i < PACKETS; i++) {
		for (slot = 0; slot < PACKET_SLOTS; slot++)
			CHECK_EQ(status_of(card, at[i] + slot), i == hit ?
			    XBB_NETIF_ERROR : XBB_NETIF_OKAY);
		if (i == hit)
			continue;
		frame_raw(&given, 300, i);
		link_receive(card, &taken);
		frame_check_same(&given, &taken);
	}
	CHECK(!link_take(card, &taken));
}

static void
check_bad_tx(uint32_t transport)
{
	const struct card_options options = { .transport = transport };
	struct card card;
	uint32_t i, n;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	n = 0;
	for (i = 0; i < PACKETS * PACKET_SLOTS; i++) {
		check_bad_tx_at(&card, i, CARD_NONE);
		check_bad_tx_at(&card, i, 0);
		check_bad_tx_at(&card, i, UINT32_MAX);
		n += 3;
	}
	CHECK_EQ(CARD_COUNTER(&card, refused[XBB_NET_BAD_GRANT]), n);
	CHECK_EQ(CARD_COMMON(&card, grant_errors), n);
	CHECK_EQ(CARD_COUNTER(&card, tx_packets), n * (PACKETS - 1));
	card_leave(&card);
	card_check_balance(&card);
	card_close(&card);
}

/*
 * A page that is only readable, of those for frames: the frame that would lie
 * there is lost, slot by slot, and those before and behind arrive.
 */
static void
check_bad_rx_at(uint32_t transport, uint32_t position, uint32_t slots)
{
	const struct card_options options = {
		.transport = transport, .accepts = CARD_ALL,
	};
	const uint32_t hit = position / slots;
	struct card card;
	uint32_t i, n;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	CHECK_EQ(xbb_hvfront_sim.set_access(card.hv, card_ref(&card, true,
	    position), 1), 0);
	for (i = 0; i < PACKETS; i++) {
		frame_raw(&given, slots * XBB_PAGE_SIZE - 7, i);
		link_send(&card, &given);
	}
	card_post(&card, PACKETS * slots + 17);
	for (i = 0; i < PACKETS; i++) {
		frame_raw(&given, slots * XBB_PAGE_SIZE - 7, i);
		for (n = 0; n < (i == hit ? slots : 1); n++) {
			card_receive(&card, &taken);
			if (i == hit)
				CHECK_EQ(taken.size, XBB_NETIF_ERROR);
			else
				frame_check_same(&given, &taken);
		}
	}
	CHECK_EQ(card.rx_cons, PACKETS * slots);
	CHECK_EQ(CARD_COUNTER(&card, rx_errors), 1);
	CHECK_EQ(CARD_COMMON(&card, grant_errors), 1);
	CHECK_EQ(CARD_COUNTER(&card, rx_packets), PACKETS - 1);
	card_leave(&card);
	card_check_balance(&card);
	card_close(&card);
}

static void
check_bad_rx(uint32_t transport)
{
	uint32_t i, slots;

	for (slots = 1; slots <= 3; slots += 2)
		for (i = 0; i < PACKETS * slots; i++)
			check_bad_rx_at(transport, i, slots);
}

/*
 * One page posted for all: frames overwrite each other there, which is the
 * guest's affair, and each slot has its answer all the same.
 */
static void
check_same_page(uint32_t transport)
{
	const struct card_options options = {
		.transport = transport, .accepts = CARD_ALL,
	};
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	for (i = 0; i < CARD_SLOTS; i++)
		card.refs[2 + CARD_SLOTS + i] = card.refs[2 + CARD_SLOTS];
	for (i = 0; i < PACKETS; i++) {
		frame_raw(&given, XBB_PAGE_SIZE + 100, i);
		link_send(&card, &given);
	}
	card_post(&card, 2 * PACKETS + 17);
	for (i = 0; i < PACKETS; i++) {
		card_receive(&card, &taken);
		CHECK_EQ(taken.size, XBB_PAGE_SIZE + 100);
		CHECK_EQ(taken.nslots, 2);
	}
	CHECK(memcmp(card_page(&card, true, 0), given.data + XBB_PAGE_SIZE,
	    100) == 0);
	CHECK_EQ(card.rx_cons, 2 * PACKETS);
	CHECK_EQ(CARD_COUNTER(&card, rx_packets), PACKETS);
	CHECK_EQ(CARD_COUNTER(&card, rx_errors), 0);
	card_leave(&card);
	card_check_balance(&card);
	card_close(&card);
}

/* Packets that cannot be, each between two that can. */
struct malformed {
	enum xbb_net_refusal why;
	uint16_t	size[20];	/* of slots; the first, of the whole */
	uint16_t	offset;		/* of the last */
	struct xbb_extra extra;		/* of kind 0: there is none */
	uint16_t	flags;
};

static const struct malformed malformed[] = {
	{ .why = XBB_NET_TOO_SHORT, .size = { 13 } },
	{ .why = XBB_NET_TOO_LONG, .size = { 100, 60, 41 } },
	{ .why = XBB_NET_BEYOND_PAGE, .size = { 4097 } },
	{ .why = XBB_NET_BEYOND_PAGE, .size = { 100 }, .offset = 3997 },
	{ .why = XBB_NET_BEYOND_PAGE, .size = { 100 }, .offset = 65535 },
	{ .why = XBB_NET_BEYOND_PAGE, .size = { 200, 100 }, .offset = 3997 },
	{ .why = XBB_NET_TOO_MANY, .size = { 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
	    1, 1, 1, 1, 1, 1, 1, 1 } },
	{ .why = XBB_NET_BAD_EXTRA, .size = { 100 }, .extra = { .type = 9 } },
	{ .why = XBB_NET_BAD_GSO, .size = { 100 },
	    .extra = { .type = XBB_EXTRA_GSO, .gso_type = XBB_GSO_TCPV4 } },
	{ .why = XBB_NET_BAD_GSO, .size = { 100 },
	    .extra = { .type = XBB_EXTRA_GSO, .gso_type = 3,
	    .gso_size = 1448 } },
	{ .why = XBB_NET_BAD_HEADERS, .size = { 100 },
	    .extra = { .type = XBB_EXTRA_GSO, .gso_type = XBB_GSO_TCPV4,
	    .gso_size = 1448 } },
	{ .why = XBB_NET_BAD_HEADERS, .size = { 100 },
	    .flags = XBB_TXF_CSUM_BLANK },
};

static void
put_malformed(struct card *card, const struct malformed *m)
{
	const bool extra = m->extra.type != 0;
	uint32_t i;
	bool last;

	for (i = 0; i < COUNTOF(m->size) && m->size[i] != 0; i++) {
		last = i + 1 == COUNTOF(m->size) || m->size[i + 1] == 0;
		card_put(card, card_ref(card, false, card->tx_prod),
		    last ? m->offset : 0, (uint16_t)((i == 0 ? m->flags |
		    (extra ? XBB_TXF_EXTRA_INFO : 0) : 0) |
		    (last ? 0 : XBB_TXF_MORE_DATA)), m->size[i]);
		if (i == 0 && extra)
			card_put_extra(card, &m->extra);
	}
}

static void
check_malformed(uint32_t transport, uint32_t offload)
{
	const struct card_options options = {
		.transport = transport, .offload = offload,
	};
	const struct malformed *m;
	struct card card;
	uint32_t end, first, i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	memset(card_page(&card, false, 0), 0x11,
	    (size_t)CARD_SLOTS * XBB_PAGE_SIZE);
	frame_raw(&given, 70, 4);
	for (i = 0; i < COUNTOF(malformed); i++) {
		m = &malformed[i];
		card_send(&card, &given, 70, 1);
		first = card.tx_prod;
		put_malformed(&card, m);
		end = card.tx_prod;
		card_send(&card, &given, 70, 1);
		card_publish(&card);
		card_collect(&card);
		CHECK_EQ(status_of(&card, first - 1), XBB_NETIF_OKAY);
		CHECK_EQ(status_of(&card, end), XBB_NETIF_OKAY);
		for (; first != end; first++)
			CHECK(card.is_extra[first % CARD_SLOTS] ||
			    status_of(&card, first) == XBB_NETIF_ERROR);
		CHECK_EQ(CARD_COUNTER(&card, tx_errors), i + 1);
		CHECK(CARD_COUNTER(&card, refused[m->why]) > 0);
		link_receive(&card, &taken);
		frame_check_same(&given, &taken);
		link_receive(&card, &taken);
		frame_check_same(&given, &taken);
	}
	CHECK(!link_take(&card, &taken));
	card_check_balance(&card);
	card_close(&card);
}

/*
 * A packet whose end is not there yet is not taken, and is waited for asleep,
 * be it data that is to come or what the first slot says is behind it.
 */
static void
check_partial(bool extra)
{
	const struct card_options options = { 0 };
	uint64_t slept, told;
	struct card card;
	uint32_t i, missing;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	frame_tcp(&given, 4, 300, 1);
	if (extra) {
		given.flags = XBB_TXF_CSUM_BLANK;
		given.gso_type = XBB_GSO_TCPV4;
		given.gso_size = 200;
	}
	card_send(&card, &given, 100, 100);
	missing = card.tx_prod - 1;	/* all but the first */
	card.tx_prod -= missing;
	for (i = 0; i < missing; i++) {
		slept = CARD_COMMON(&card, ring_sleeps);
		told = CARD_COMMON(&card, notifies_received);
		card_publish(&card);
		/* In the beginning it may see that before it is told. */
		WAIT_UNTIL(i == 0 ||
		    CARD_COMMON(&card, notifies_received) > told);
		WAIT_UNTIL(CARD_COMMON(&card, ring_sleeps) > slept);
		WAIT_UNTIL(XBB_GET(card_sring(&card, false)->req_event) ==
		    card.tx_prod + 1);
		CHECK_EQ(CARD_COUNTER(&card, tx_slots), 0);
		CHECK(!link_take(&card, &taken));
		card.tx_prod++;
	}
	card_publish(&card);
	card_collect(&card);
	link_receive(&card, &taken);
	CHECK_EQ(taken.size, given.size);
	CHECK_EQ(CARD_COUNTER(&card, tx_slots), missing + 1);
	CHECK(CARD_COMMON(&card, ring_sleeps) < 20);
	card_close(&card);
}

/* With another card, which does not notice. */
static void
check_stops(void (*lie)(struct card *card))
{
	const struct card_options options = { 0 };
	struct xbb_queue_status status;
	struct card honest, liar;

	card_open(&liar, &options);
	card_open(&honest, &options);
	card_serve(&liar, XBB_ADOPT_NOT);
	card_serve(&honest, XBB_ADOPT_NOT);
	frame_raw(&given, 100, 1);
	card_send(&liar, &given, 100, 1);
	card_publish(&liar);
	card_collect(&liar);
	lie(&liar);
	card_notify(&liar);
	card_wait_drained(&liar, XBB_STOP_RING);
	xbb_net_queue_status(liar.queue, &status);
	CHECK_EQ(status.errnum, EPROTO);
	CHECK_EQ(CARD_COUNTER(&liar, tx_packets), 1);
	card_send(&honest, &given, 100, 1);
	card_publish(&honest);
	card_collect(&honest);
	link_receive(&honest, &taken);
	card_leave(&liar);
	card_leave(&honest);
	card_close(&honest);
	card_close(&liar);
}

static void
set_req_prod(struct card *card, bool rx, uint32_t prod)
{

	__atomic_store_n(&card_sring(card, rx)->req_prod, prod,
	    __ATOMIC_SEQ_CST);
}

static void
lie_ahead(struct card *card)
{

	set_req_prod(card, false, card->tx_prod + CARD_SLOTS + 1);
}

static void
lie_behind(struct card *card)
{

	set_req_prod(card, false, card->tx_prod - 1);
}

static void
lie_rx_ahead(struct card *card)
{

	set_req_prod(card, true, CARD_SLOTS + 1);
}

static void
lie_rx_behind(struct card *card)
{

	set_req_prod(card, true, UINT32_MAX);
}

/* Each slot of the ring says that there is another one. */
static void
never_end(struct card *card)
{
	uint32_t i;

	for (i = 0; i < CARD_SLOTS; i++)
		card_put(card, card_ref(card, false, i), 0,
		    XBB_TXF_MORE_DATA, 10);
	set_req_prod(card, false, card->tx_prod);
}

static void
never_end_extras(struct card *card)
{
	const struct xbb_extra extra = {
		.type = XBB_EXTRA_GSO, .flags = XBB_EXTRA_FLAG_MORE,
	};
	uint32_t i;

	card_put(card, card_ref(card, false, 0), 0, XBB_TXF_EXTRA_INFO, 100);
	for (i = 1; i < CARD_SLOTS; i++)
		card_put_extra(card, &extra);
	set_req_prod(card, false, card->tx_prod);
}

/* What the backend wrote it must not believe when it reads it again. */
static void
check_scribbled(uint64_t seed)
{
	const struct card_options options = { 0 };
	struct xbb_sring *tx, *rx;
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	tx = card_sring(&card, false);
	rx = card_sring(&card, true);
	frame_raw(&given, 100, 1);
	for (i = 0; i < 200; i++) {
		XBB_SET(tx->rsp_prod, (uint32_t)random_next(&seed));
		XBB_SET(rx->rsp_prod, (uint32_t)random_next(&seed));
		XBB_SET(rx->req_event, (uint32_t)random_next(&seed));
		XBB_SET(tx->rsp_event, (uint32_t)random_next(&seed));
		card_send(&card, &given, 100, 1);
		card_publish(&card);
		card_notify(&card);
		link_receive(&card, &taken);
		frame_check_same(&given, &taken);
		card_collect(&card);
	}
	card_close(&card);
}

/* Events without need: they are not listened to for a while, but frames go. */
static void
check_storm(void)
{
	const struct card_options options = { 0 };
	uint64_t events;
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 1);
	for (i = 0; i < 20000; i++)
		card_notify(&card);
	frame_raw(&given, 100, 1);
	link_send(&card, &given);
	card_receive(&card, &taken);
	card_send(&card, &given, 100, 1);
	card_publish(&card);
	card_collect(&card);
	events = CARD_COMMON(&card, notifies_received);
	CHECK(events < 10000);
	card_close(&card);
}

int
main(int argc, char **argv)
{
	uint64_t seed = argument(argc, argv, 1, 1);
	uint32_t i;

	printf("seed %ju\n", (uintmax_t)seed);
	scratch_enter();
	for (i = 0; i < COUNTOF(transports); i++) {
		check_bad_tx(transports[i]);
		check_bad_rx(transports[i]);
		check_same_page(transports[i]);
		check_malformed(transports[i], XBB_NET_OFFLOAD_FULL);
		check_malformed(transports[i], XBB_NET_OFFLOAD_SAFE);
	}
	check_partial(false);
	check_partial(true);
	check_stops(lie_ahead);
	check_stops(lie_behind);
	check_stops(lie_rx_ahead);
	check_stops(lie_rx_behind);
	check_stops(never_end);
	check_stops(never_end_extras);
	check_scribbled(seed);
	check_storm();
	scratch_leave();
	return (0);
}
