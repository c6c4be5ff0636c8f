/*
 * test_net_adopt.c - a card's queue that goes by what a segment says of one who
 * died: while he answered, when he had answered all, or before he told of it;
 * or by a segment that says what cannot be.
 */
#include "card.h"

static const struct card_options usual = { 0 };
static struct frame given, taken;

/*
 * The dead one had made responses of some slots and published none: those are
 * answered by their names, and what is behind them is carried.  So it is, all
 * of it, if the segment says what cannot be.
 */
static void
check_adopt(uint32_t answering, bool believed)
{
	static const struct xbb_extra gso = {
		.type = XBB_EXTRA_GSO, .gso_type = XBB_GSO_TCPV4,
		.gso_size = 1000,
	};
	const uint32_t made = 0x00000001;	/* id, and OKAY */
	struct card card;
	uint32_t i;

	card_open(&card, &usual);
	frame_raw(&given, 300, 1);
	card_send(&card, &given, 100, 100);		/* 0 to 2 */
	frame_tcp(&given, 4, 300, 2);
	given.flags = XBB_TXF_CSUM_BLANK;
	given.gso_type = gso.gso_type;
	given.gso_size = gso.gso_size;
	card_send(&card, &given, 354, 1);		/* 3, extra 4 */
	frame_raw(&given, 300, 3);
	card_send(&card, &given, 300, 1);		/* 5 */
	card_publish(&card);
	card_post(&card, 10);
	for (i = 0; believed && i < 5; i++)
		guest_store((uint8_t *)card_tx_slot(&card, i), &made, 4);
	for (i = 0; believed && i < 3; i++)
		guest_store((uint8_t *)card_rx_slot(&card, i) + 4, &made, 4);
	XBB_SET(card.rs->tx_answering, answering);
	XBB_SET(card.rs->rx_answering, believed ? 3 : answering + 100);
	card_serve(&card, XBB_ADOPT_TABLE);
	card_collect(&card);
	CHECK_EQ(card.status[0], XBB_NETIF_OKAY);
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

	scratch_enter();
	check_adopt(5, true);
	check_adopt(7, false);
	check_adopt(UINT32_MAX, false);
	check_adopt_answered();
	check_adopt_tells();
	scratch_leave();
	return (0);
}
