/*
 * test_net_places.c - where frames lie in our memory: what follows the Ethernet
 * header aligned, and those of several pages as in the guest's, so that no
 * piece is in two pages, which would be two for the hypervisor.  What was moved
 * last is looked at once the thread has ended.
 */
#include "card.h"

#define PAGES		4		/* slots of a frame, at least */

static struct frame given, taken;

/* Behind whatever is there, with room for a header of the link, and no more. */
static void
check_rules(void)
{
	static uint8_t arena[4 * XBB_PAGE_SIZE];
	static struct xbb_net_queue queue = { .arena = arena };
	uint32_t end, offset;
	size_t at, least;

	for (end = 0; end <= 2 * XBB_PAGE_SIZE; end++) {
		least = end + XBB_NET_LINK_HEADER;
		at = (size_t)(xbb_net_place(&queue, arena + end) - arena);
		CHECK_EQ((at + XBB_ETHER_HEADER) % 16, 0);
		CHECK(at >= least + 2 && at < least + 2 + 16);
		for (offset = 0; offset < XBB_PAGE_SIZE; offset += 13) {
			at = (size_t)(xbb_net_place_in_page(&queue,
			    arena + end, offset) - arena);
			CHECK_EQ(at % XBB_PAGE_SIZE, offset);
			CHECK(at >= least && at < least + XBB_PAGE_SIZE);
		}
	}
}

/* But for those of headers, one in so many. */
static void
check_pieces(const struct card *card, uint32_t heads)
{
	const struct xbb_net_queue *q = card->queue;
	uint32_t i;

	CHECK(q->npieces >= PAGES);
	for (i = 0; i < q->npieces; i++)
		if (heads == 0 || i % heads != 0)
			CHECK_EQ((uintptr_t)q->piece[i].local % XBB_PAGE_SIZE,
			    q->piece[i].offset);
}

/* Headers have a slot of their own, behind which all is as it lies there. */
static void
check_places_out(const struct card_options *options, uint32_t headers)
{
	struct card card;
	uint32_t n;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	for (n = 0; n < 3; n++) {
		frame_raw(&given, headers + (PAGES - 1) * XBB_PAGE_SIZE, n);
		card_send(&card, &given, headers, XBB_PAGE_SIZE);
	}
	card_publish(&card);
	for (n = 0; n < 3; n++) {
		link_receive(&card, &taken);
		frame_raw(&given, headers + (PAGES - 1) * XBB_PAGE_SIZE, n);
		frame_check_same(&given, &taken);
	}
	card_collect(&card);
	xbb_net_queue_drain(card.queue);
	card_wait_drained(&card, XBB_STOP_NONE);
	check_pieces(&card, PAGES);
	card_close(&card);
}

/* One after another: the first such frame tells what those behind it are. */
static void
check_places_in(const struct card_options *options)
{
	struct card card;
	uint32_t n;

	card_open(&card, options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, CARD_SLOTS);
	for (n = 0; n < 3; n++) {
		frame_raw(&given, PAGES * XBB_PAGE_SIZE, n);
		link_send(&card, &given);
		card_receive(&card, &taken);
		frame_check_same(&given, &taken);
	}
	xbb_net_queue_drain(card.queue);
	card_wait_drained(&card, XBB_STOP_NONE);
	check_pieces(&card, 0);
	card_close(&card);
}

int
main(void)
{
	static const uint32_t transports[] = {
		XBB_TRANSPORT_COPY, XBB_TRANSPORT_MAP,
	};
	struct card_options options = { .accepts = CARD_ALL };
	uint32_t i;

	check_rules();
	scratch_enter();
	for (i = 0; i < COUNTOF(transports); i++) {
		options.transport = transports[i];
		check_places_out(&options, 66);
		check_places_out(&options, XBB_PAGE_SIZE);
		check_places_in(&options);
	}
	scratch_leave();
	return (0);
}
