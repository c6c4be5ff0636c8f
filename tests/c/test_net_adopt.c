/*
 * test_net_adopt.c - a card's queue that goes by what a segment says of one who
 * died: while he answered, when he had answered all, or before he told of it;
 * or by a segment that says what cannot be.
 */
#include <string.h>

#include "card.h"

static const struct card_options usual = { 0 };
static struct frame given, taken;

/* A frame whose slot has two of what may follow one, and another slot. */
static void
send_with_extras(struct card *card)
{
	const struct xbb_extra gso = {
		.type = XBB_EXTRA_GSO, .flags = XBB_EXTRA_FLAG_MORE,
		.gso_type = XBB_GSO_TCPV4, .gso_size = 1000,
	};
	const struct xbb_extra hash = { .type = XBB_EXTRA_HASH };
	const uint32_t at = card->tx_prod;

	frame_tcp(&given, 4, 300, 2);
	memcpy(card_page(card, false, at), given.data, (size_t)given.size);
	card_put(card, card_ref(card, false, at), 0, XBB_TXF_CSUM_BLANK |
	    XBB_TXF_EXTRA_INFO | XBB_TXF_MORE_DATA, (uint16_t)given.size);
	card_put_extra(card, &gso);
	card_put_extra(card, &hash);
	card_put(card, card_ref(card, false, at), 54, 0, 300);
}

/* Make a response of one of each slot, as who serves does, and tell nobody. */
static void
answer_some(struct card *card, uint32_t nslots)
{
	union xbb_tx_slot answer[CARD_SLOTS], slot[CARD_SLOTS];
	struct xbb_net_packet packet;
	uint32_t at, i, n;

	for (i = 0; i < nslots; i++)
		guest_load(&slot[i], (uint8_t *)card_tx_slot(card, i),
		    sizeof(slot[i]));
	for (at = 0; at < nslots; at += n) {
		n = xbb_netif_tx_packet(slot, card->tx_prod, at,
		    XBB_NET_OFFERED, &packet);
		CHECK(n != 0);
		xbb_netif_tx_answer(slot, &packet, XBB_NETIF_OKAY, answer);
		for (i = 0; i < n && at + i < nslots; i++)
			guest_store((uint8_t *)card_tx_slot(card, at + i),
			    &answer[i], sizeof(answer[i].response));
	}
}

/*
 * The dead one had made responses of some slots, of all that he was at or of
 * some of them, and published none: those that he was at are answered by their
 * names, and what is behind them is carried.  So it is, all of it, if the
 * segment says what cannot be.
 */
static void
check_adopt(uint32_t answering, bool believed, uint32_t made)
{
	union xbb_rx_slot got = { .response = { .status = 300 } };
	struct card card;
	uint32_t i;

	card_open(&card, &usual);
	frame_raw(&given, 300, 1);
	card_send(&card, &given, 100, 100);		/* 0 to 2 */
	send_with_extras(&card);			/* 3, extras 4, 5; 6 */
	frame_raw(&given, 300, 3);
	card_send(&card, &given, 300, 1);		/* 7 */
	card_publish(&card);
	card_post(&card, 10);
	answer_some(&card, made);
	for (i = 0; believed && i < 3; i++) {
		got.response.id = (uint16_t)i;
		guest_store((uint8_t *)card_rx_slot(&card, i), &got,
		    sizeof(got));
	}
	XBB_SET(card.rs->tx_answering, answering);
	XBB_SET(card.rs->rx_answering, believed ? 3 : answering + 100);
	card_serve(&card, XBB_ADOPT_TABLE);
	card_collect(&card);
	for (i = 0; i < card.tx_prod; i++)
		CHECK_EQ(card.status[i], i == 4 || i == 5 ? XBB_NETIF_NULL :
		    XBB_NETIF_OKAY);
	for (i = 0; i < (believed ? 1 : 3); i++)
		link_receive(&card, &taken);
	CHECK(!link_take(&card, &taken));
	frame_raw(&given, 300, 3);
	frame_check_same(&given, &taken);
	for (i = 0; believed && i < 3; i++) {
		card_receive(&card, &taken);
		CHECK_EQ(taken.size, XBB_NETIF_ERROR);
	}
	link_send(&card, &given);
	card_receive(&card, &taken);
	frame_check_same(&given, &taken);
	CHECK_EQ(card.rx_cons, believed ? 4 : 1);
	CHECK_EQ(CARD_COUNTER(&card, tx_packets), believed ? 1 : 3);
	card_close(&card);
}

/*
 * He had answered everything, and the segment is another one, or says so little
 * that it may as well be.
 */
static void
check_adopt_answered(void)
{
	struct card card;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_check_works(&card);
	xbb_net_queue_hand_over(card.queue);
	xbb_net_queue_close(card.queue);
	card_post(&card, 3);
	frame_raw(&given, 300, 3);
	card_send(&card, &given, 300, 1);
	card_publish(&card);
	XBB_SET(card.rs->tx_answering, card.tx_prod);
	XBB_SET(card.rs->rx_answering, card.rx_prod);
	card_serve(&card, XBB_ADOPT_ANSWERED);
	link_receive(&card, &taken);
	frame_check_same(&given, &taken);
	card_collect(&card);
	CHECK_EQ(XBB_GET(card.rs->rx_answering), card.rx_cons);
	card_check_works(&card);
	card_close(&card);
}

/* The guest slept for what the dead one did not tell it of any more. */
static void
check_adopt_tells(void)
{
	struct card card;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_check_works(&card);
	card_leave(&card);
	card_serve(&card, XBB_ADOPT_TABLE);
	WAIT_UNTIL(CARD_COMMON(&card, notifies_sent) > 0);
	CHECK_EQ(xbb_hvfront_sim.wait(card.hv, LIMIT_MS), 1);
	card_check_works(&card);
	card_close(&card);
}

int
main(void)
{
	uint32_t made;

	scratch_enter();
	for (made = 0; made <= 7; made++)
		check_adopt(7, true, made);
	check_adopt(9, false, 0);
	check_adopt(UINT32_MAX, false, 0);
	check_adopt_answered();
	check_adopt_tells();
	scratch_leave();
	return (0);
}
