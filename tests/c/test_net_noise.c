/*
 * test_net_noise.c - a guest with a card whose slots are nearly anything: all
 * of them are answered, once, and what they make the backend touch the
 * sanitizers see.  Arguments: slots, seed.
 */
#include <stdio.h>
#include <string.h>

#include "card.h"

#define ROUND		240		/* slots, and some that end the last packet */
#define RX_ROUND	64

/* What a packet that has begun still wants. */
struct want {
	bool	 extra;
	bool	 data;
	bool	 much;		/* it is to be a long one */
};

static struct frame given, taken;

/* Near to one that is granted, mostly. */
static uint32_t
invent_ref(const struct card *card, bool rx, uint64_t *seed)
{

	switch (random_below(seed, 16)) {
	case 0:
		return ((uint32_t)random_next(seed));
	case 1:
		return (CARD_NONE);
	default:
		return (card_ref(card, rx, (uint32_t)random_next(seed)));
	}
}

static void
invent_extra(struct xbb_extra *extra, uint64_t *seed)
{

	random_bytes(seed, extra, sizeof(*extra));
	if (random_below(seed, 4) != 0) {
		extra->type = XBB_EXTRA_GSO;
		extra->gso_type %= 4;
		extra->gso_size = (uint16_t)random_below(seed, 2000);
	}
	if (random_below(seed, 16) != 0)
		extra->flags = 0;
}

static void
put_extra(struct card *card, struct want *want, uint64_t *seed, bool last)
{
	struct xbb_extra extra;

	invent_extra(&extra, seed);
	if (last)
		extra.flags = 0;
	want->extra = (extra.flags & XBB_EXTRA_FLAG_MORE) != 0;
	card_put_extra(card, &extra);
}

static void
put_data(struct card *card, struct want *want, uint64_t *seed, bool last)
{
	const uint64_t dice = random_next(seed);
	uint16_t flags, offset, size;

	flags = (uint16_t)(dice & 0xfff0);	/* of no meaning */
	flags |= (uint16_t)(dice >> 16) & (XBB_TXF_CSUM_BLANK |
	    XBB_TXF_DATA_VALIDATED);
	if (!want->data)
		want->much = (dice >> 48) % 16 == 0;
	if (!last && (want->much ? (dice & 31) != 0 : (dice & 3) == 0))
		flags |= XBB_TXF_MORE_DATA;
	if (!last && (dice & 12) == 0)
		flags |= XBB_TXF_EXTRA_INFO;
	offset = (uint16_t)((dice >> 32) % 3 != 0 ? 0 : dice >> 40);
	size = (uint16_t)((dice >> 36) % 8 != 0 ? random_below(seed, 4097) :
	    random_next(seed));
	if (!want->data)
		want->extra = (flags & XBB_TXF_EXTRA_INFO) != 0;
	want->data = (flags & XBB_TXF_MORE_DATA) != 0;
	card_put(card, invent_ref(card, false, seed), offset, flags, size);
}

static uint32_t
send_noise(struct card *card, uint64_t *seed)
{
	const uint32_t begun = card->tx_prod;
	struct want want = { 0 };
	uint32_t n;
	bool last;

	n = 1 + (uint32_t)random_below(seed, ROUND);
	do {
		last = card->tx_prod - begun >= n;
		(want.extra ? put_extra : put_data)(card, &want, seed, last);
	} while (want.extra || want.data || card->tx_prod - begun < n);
	n = card->tx_prod - begun;
	CHECK(n <= CARD_SLOTS);
	card_publish(card);
	card_collect(card);
	while (link_take(card, &taken))
		CHECK(taken.size >= XBB_ETHER_HEADER);
	return (n);
}

/* Pages for frames that are not all there, and frames. */
static void
receive_noise(struct card *card, uint64_t *seed)
{
	const uint32_t n = 1 + (uint32_t)random_below(seed, RX_ROUND);
	uint32_t i, at;

	for (i = 0; i < CARD_SLOTS; i++)
		card->refs[2 + CARD_SLOTS + i] = random_below(seed, 8) == 0 ?
		    (uint32_t)random_next(seed) : card->refs[2 +
		    random_below(seed, CARD_SLOTS)];
	if (card->rx_prod - card->rx_cons + n <= CARD_SLOTS)
		card_post(card, n);
	if (random_below(seed, 2) == 0)
		frame_tcp(&given, random_below(seed, 2) == 0 ? 4 : 6,
		    (uint32_t)random_below(seed, 3000), random_next(seed));
	else
		frame_raw(&given, (uint32_t)(14 + random_below(seed, 9000)),
		    random_next(seed));
	link_send(card, &given);
	at = XBB_GET(card_sring(card, true)->rsp_prod);
	CHECK(at - card->rx_cons <= card->rx_prod - card->rx_cons);
	card->rx_cons = at;
}

static void
check_noise(uint32_t transport, uint32_t offload, uint64_t slots, uint64_t seed)
{
	const struct card_options options = {
		.transport = transport, .offload = offload,
		.accepts = CARD_ALL,
	};
	uint64_t refused, done;
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card.blind = true;
	for (i = 0; i < CARD_SLOTS; i++) {
		frame_tcp(&given, i % 2 == 0 ? 4 : 6, 2000, i);
		memcpy(card_page(&card, false, i), given.data, 2000);
	}
	for (done = 0; done < slots; done += send_noise(&card, &seed))
		receive_noise(&card, &seed);
	WAIT_UNTIL(CARD_COUNTER(&card, tx_slots) >= done);
	refused = 0;
	for (i = 0; i < XBB_NET_REFUSALS; i++)
		refused += CARD_COUNTER(&card, refused[i]);
	CHECK_EQ(CARD_COUNTER(&card, tx_errors), refused);
	for (i = XBB_NET_TOO_SHORT; i <= XBB_NET_BAD_GRANT; i++)
		CHECK(slots < 10000 || CARD_COUNTER(&card, refused[i]) > 0);
	CHECK(slots < 10000 || CARD_COUNTER(&card, tx_packets) > 0);
	card_leave(&card);
	card_check_balance(&card);
	card_close(&card);
}

int
main(int argc, char **argv)
{
	uint64_t slots = argument(argc, argv, 1, 40000);
	uint64_t seed = argument(argc, argv, 2, 1);

	printf("%ju slots, seed %ju\n", (uintmax_t)slots, (uintmax_t)seed);
	scratch_enter();
	card_each_way(check_noise, slots / 4, seed);
	scratch_leave();
	return (0);
}
