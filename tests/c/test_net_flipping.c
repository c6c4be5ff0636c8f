/*
 * test_net_flipping.c - a guest with a card that changes slots while they are
 * read.  Arguments: rounds, seed.
 */
#include <stdio.h>

#include "card.h"

static struct frame given, taken;

/* XSA-155: slots that another thread rewrites while they are read. */
struct flipper {
	struct card	*card;
	uint64_t	 seed;
	atomic_uint	 flips;		/* so far */
	atomic_bool	 stop;
	pthread_t	 thread;
};

#define FLIPS	40			/* a round, at least */

static void *
flip_slots(void *arg)
{
	struct flipper *f = arg;
	uint8_t *slot, value;
	uint32_t i, index;

	while (!atomic_load(&f->stop)) {
		index = (uint32_t)random_next(&f->seed);
		slot = (index & CARD_SLOTS) != 0 ?
		    (uint8_t *)card_tx_slot(f->card, index) :
		    (uint8_t *)card_rx_slot(f->card, index);
		/* Its references stay near those that are granted. */
		value = (uint8_t)random_next(&f->seed);
		guest_store(slot + random_below(&f->seed,
		    (index & CARD_SLOTS) != 0 ? 12 : 2), &value, 1);
		atomic_fetch_add(&f->flips, 1);
		/* Some packets are to be as they were put. */
		for (i = 0; i < 200; i++)
			xbb_relax();
	}
	return (NULL);
}

static bool
has_stopped(const struct card *card)
{
	struct xbb_queue_status status;

	xbb_net_queue_status(card->queue, &status);
	if (status.state != XBB_QUEUE_DRAINED)
		return (false);
	CHECK_EQ(status.reason, XBB_STOP_RING);	/* a packet without an end */
	return (true);
}

/*
 * Every slot is answered once, and whatever arrives is a frame; all that is
 * touched are pages that are granted for it, which the sanitizers see to.
 */
static void
check_flipping(uint32_t transport, uint32_t offload, uint64_t rounds,
    uint64_t seed)
{
	const struct card_options options = {
		.transport = transport, .offload = offload,
		.accepts = CARD_ALL,
	};
	struct flipper f = { .seed = seed };
	uint32_t flips;
	struct card card;
	uint64_t n;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card.blind = true;
	f.card = &card;
	CHECK_EQ(pthread_create(&f.thread, NULL, flip_slots, &f), 0);
	for (n = 0; n < rounds && !has_stopped(&card); n++) {
		frame_tcp(&given, 4, 300, n);
		/* A ring that is full is carried on, or stops. */
		WAIT_UNTIL((card_take_answers(&card),
		    card.tx_prod - card.tx_cons < CARD_SLOTS) ||
		    has_stopped(&card));
		while (card.tx_prod - card.tx_cons + 4 <= CARD_SLOTS)
			card_send(&card, &given, 100, 100);
		while (card.tx_prod - card.tx_cons < CARD_SLOTS)
			card_send(&card, &given, 354, 1);
		flips = atomic_load(&f.flips);
		WAIT_UNTIL(atomic_load(&f.flips) - flips > FLIPS);
		card_publish(&card);
		while (link_take(&card, &taken))
			CHECK(taken.size >= XBB_ETHER_HEADER);
	}
	WAIT_UNTIL(CARD_COUNTER(&card, tx_errors) > 0 || has_stopped(&card));
	atomic_store(&f.stop, true);
	CHECK_EQ(pthread_join(f.thread, NULL), 0);
	card_leave(&card);
	card_check_balance(&card);
	card_close(&card);
}

int
main(int argc, char **argv)
{
	uint64_t rounds = argument(argc, argv, 1, 100);
	uint64_t seed = argument(argc, argv, 2, 1);

	printf("%ju rounds, seed %ju\n", (uintmax_t)rounds, (uintmax_t)seed);
	scratch_enter();
	card_each_way(check_flipping, rounds, seed);
	scratch_leave();
	return (0);
}
