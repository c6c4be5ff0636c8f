/*
 * test_net_link.c - when a card's queue looks at its link, and when it tells
 * its guest: no more often than is asked for.
 */
#include <sys/socket.h>

#include "card.h"

static const struct card_options usual = { 0 };
static struct frame given, taken;

/*
 * A link that gives nothing, as if it were down, is left alone for a while,
 * though the guest sends meanwhile, and no longer.
 */
static void
check_link_back(void)
{
	struct card card;
	uint64_t begun;
	uint32_t i;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 10);
	card_check_works(&card);
	begun = xbb_now_ns();
	CHECK_EQ(send(card.link[1], "", 0, 0), 0);
	frame_raw(&given, 200, 7);
	link_send(&card, &given);
	for (i = 0; i < 10; i++) {
		card_send_one(&card, &given, i);
		card_collect(&card);
		link_receive(&card, &taken);
		frame_check_same(&given, &taken);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_sweeps), 1 + i);
	frame_raw(&given, 200, 7);
	card_receive(&card, &taken);
	frame_check_same(&given, &taken);
	CHECK(xbb_now_ns() - begun >= XBB_NET_MUTE_MS * UINT64_C(1000000));
	card_check_works(&card);
	card_close(&card);
}

/* A guest is told of the response that it asked for, and of none before. */
static void
check_told(bool rx)
{
	struct xbb_sring *sring;
	struct card card;
	uint32_t i;

	card_open(&card, &usual);
	sring = card_sring(&card, rx);
	XBB_SET(sring->rsp_event, 5);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 10);
	XBB_SET(card_sring(&card, !rx)->rsp_event, 100);
	frame_raw(&given, 100, 1);
	for (i = 1; i <= 5; i++) {
		CHECK_EQ(CARD_COMMON(&card, notifies_sent), 0);
		if (rx)
			link_send(&card, &given);
		else
			card_send_one(&card, &given, i);
		WAIT_UNTIL(XBB_GET(sring->rsp_prod) == i);
	}
	WAIT_UNTIL(CARD_COMMON(&card, notifies_sent) == 1);
	card_close(&card);
}

int
main(void)
{

	scratch_enter();
	check_link_back();
	check_told(false);
	check_told(true);
	scratch_leave();
	return (0);
}
