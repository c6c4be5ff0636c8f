/*
 * cardslots.c - what the guest of a card under test does on its rings: it fills
 * in slots, publishes them, and takes answers and frames.
 */
#include <poll.h>
#include <string.h>

#include "card.h"

struct xbb_sring *
card_sring(const struct card *card, bool rx)
{

	return ((struct xbb_sring *)(void *)(card->base +
	    (rx ? XBB_PAGE_SIZE : 0)));
}

uint8_t *
card_page(const struct card *card, bool rx, uint32_t index)
{

	return (card->base + (2 + (rx ? CARD_SLOTS : 0) +
	    index % CARD_SLOTS) * (size_t)XBB_PAGE_SIZE);
}

uint32_t
card_ref(const struct card *card, bool rx, uint32_t index)
{

	return (card->refs[2 + (rx ? CARD_SLOTS : 0) + index % CARD_SLOTS]);
}

union xbb_tx_slot *
card_tx_slot(const struct card *card, uint32_t index)
{

	return (&((union xbb_tx_slot *)(void *)(card->base + 64))
	    [index % CARD_SLOTS]);
}

union xbb_rx_slot *
card_rx_slot(const struct card *card, uint32_t index)
{

	return (&((union xbb_rx_slot *)(void *)(card->base + XBB_PAGE_SIZE +
	    64))[index % CARD_SLOTS]);
}

static uint32_t
get_index(const uint32_t *index)
{

	return (__atomic_load_n(index, __ATOMIC_ACQUIRE));
}

void
card_notify(struct card *card)
{

	CHECK_EQ(xbb_hvfront_sim.notify(card->hv), 0);
}

/* As ring.h has it: tell the other side only if it asked. */
static void
publish_requests(struct card *card, bool rx, uint32_t old, uint32_t prod)
{
	struct xbb_sring *sring = card_sring(card, rx);
	uint32_t event;

	__atomic_store_n(&sring->req_prod, prod, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	event = get_index(&sring->req_event);
	if (prod - event < prod - old && !(rx && card->options.rx_polls))
		card_notify(card);
}

void
card_put(struct card *card, uint32_t ref, uint16_t offset, uint16_t flags,
    uint16_t size)
{
	const union xbb_tx_slot slot = { .request = {
		.ref = ref, .offset = offset, .flags = flags,
		.id = (uint16_t)card->tx_prod, .size = size,
	} };

	card->is_extra[card->tx_prod % CARD_SLOTS] = false;
	guest_store((uint8_t *)card_tx_slot(card, card->tx_prod++), &slot,
	    sizeof(slot));
}

void
card_put_extra(struct card *card, const struct xbb_extra *extra)
{

	card->is_extra[card->tx_prod % CARD_SLOTS] = true;
	guest_store((uint8_t *)card_tx_slot(card, card->tx_prod++), extra,
	    sizeof(*extra));
}

/*
 * A frame in slots of so many bytes, the first of first bytes; flags, gso_type
 * and gso_size are those of the frame.  If it has an extra that is not for that
 * it is a hash.  Returns its first slot.
 */
uint32_t
card_send(struct card *card, const struct frame *frame, uint32_t first,
    uint32_t chunk)
{
	const struct xbb_extra extra = {
		.type = frame->gso_type != XBB_GSO_NONE ? XBB_EXTRA_GSO :
		    XBB_EXTRA_HASH,
		.gso_type = frame->gso_type,
		.gso_size = frame->gso_size,
	};
	const uint32_t start = card->tx_prod;
	uint32_t at, len, offset;
	uint16_t flags;

	for (at = 0; at < (uint32_t)frame->size; at += len) {
		len = at == 0 ? first : chunk;
		if (len > (uint32_t)frame->size - at)
			len = (uint32_t)frame->size - at;
		/* At the end of its page. */
		offset = XBB_PAGE_SIZE - len;
		memcpy(card_page(card, false, card->tx_prod) + offset,
		    frame->data + at, len);
		flags = at + len < (uint32_t)frame->size ?
		    XBB_TXF_MORE_DATA : 0;
		if (at == 0)
			flags |= frame->flags;
		if (at == 0 && frame->gso_type != XBB_GSO_NONE)
			flags |= XBB_TXF_EXTRA_INFO;
		card_put(card, card_ref(card, false, card->tx_prod),
		    (uint16_t)offset, flags,
		    (uint16_t)(at == 0 ? (uint32_t)frame->size : len));
		if ((flags & XBB_TXF_EXTRA_INFO) != 0)
			card_put_extra(card, &extra);
	}
	return (start);
}

void
card_publish(struct card *card)
{
	const uint32_t old = get_index(&card_sring(card, false)->req_prod);

	publish_requests(card, false, old, card->tx_prod);
}

/* One of them, in order, under its own name. */
static void
take_answer(struct card *card, uint32_t index)
{
	union xbb_tx_slot slot;

	guest_load(&slot, (uint8_t *)card_tx_slot(card, index), 4);
	card->status[index % CARD_SLOTS] = slot.response.status;
	if (card->blind)
		return;
	if (card->is_extra[index % CARD_SLOTS])
		CHECK_EQ(slot.response.status, XBB_NETIF_NULL);
	else
		CHECK_EQ(slot.response.id, (uint16_t)index);
}

void
card_take_answers(struct card *card)
{
	struct xbb_sring *sring = card_sring(card, false);
	const uint32_t prod = get_index(&sring->rsp_prod);

	CHECK(prod - card->tx_cons <= card->tx_prod - card->tx_cons);
	while (card->tx_cons != prod)
		take_answer(card, card->tx_cons++);
	XBB_SET(sring->rsp_event, card->tx_cons + 1);
}

/* All that was sent is answered. */
void
card_collect(struct card *card)
{

	WAIT_UNTIL(get_index(&card_sring(card, false)->rsp_prod) ==
	    card->tx_prod);
	card_take_answers(card);
	CHECK_EQ(card->tx_cons, card->tx_prod);
}

void
card_post(struct card *card, uint32_t n)
{
	const uint32_t old = card->rx_prod;
	union xbb_rx_slot slot;
	uint32_t i;

	for (i = 0; i < n; i++) {
		slot.request = (struct xbb_rx_request){
			.id = (uint16_t)card->rx_prod,
			.ref = card_ref(card, true, card->rx_prod),
		};
		guest_store((uint8_t *)card_rx_slot(card, card->rx_prod++),
		    &slot, sizeof(slot));
	}
	publish_requests(card, true, old, card->rx_prod);
}

bool
card_can_receive(const struct card *card)
{

	return (get_index(&card_sring(card, true)->rsp_prod) != card->rx_cons);
}

static void
load_response(struct card *card, union xbb_rx_slot *slot)
{

	CHECK(card_can_receive(card));	/* frames are published whole */
	guest_load(slot, (uint8_t *)card_rx_slot(card, card->rx_cons),
	    sizeof(*slot));
}

/* One frame, of all its slots; or a status, of one. */
static void
take_frame_slots(struct card *card, struct frame *frame)
{
	union xbb_rx_slot slot;
	bool more;

	frame->size = 0;
	frame->nslots = 0;
	frame->gso_type = XBB_GSO_NONE;
	frame->gso_size = 0;
	do {
		load_response(card, &slot);
		CHECK_EQ(slot.response.id, (uint16_t)card->rx_cons);
		if (slot.response.status < 0) {
			CHECK_EQ(frame->nslots, 0);
			frame->size = slot.response.status;
			card->rx_cons++;
			return;
		}
		CHECK(slot.response.status > 0 &&
		    slot.response.offset + slot.response.status <=
		    XBB_PAGE_SIZE);
		CHECK(frame->size + slot.response.status <=
		    XBB_NET_MAX_FRAME);
		memcpy(frame->data + frame->size, card_page(card, true,
		    card->rx_cons) + slot.response.offset,
		    (size_t)slot.response.status);
		frame->size += slot.response.status;
		if (frame->nslots++ == 0)
			frame->flags = slot.response.flags & ~(unsigned int)
			    XBB_RXF_MORE_DATA;
		more = (slot.response.flags & XBB_RXF_MORE_DATA) != 0;
		card->rx_cons++;
		if ((slot.response.flags & XBB_RXF_EXTRA_INFO) == 0)
			continue;
		CHECK_EQ(frame->nslots, 1);
		load_response(card, &slot);
		CHECK_EQ(slot.extra.type, XBB_EXTRA_GSO);
		CHECK_EQ(slot.extra.flags, 0);
		frame->gso_type = slot.extra.gso_type;
		frame->gso_size = slot.extra.gso_size;
		card->rx_cons++;
	} while (more);
}

void
card_receive(struct card *card, struct frame *frame)
{

	WAIT_UNTIL(card_can_receive(card));
	take_frame_slots(card, frame);
	XBB_SET(card_sring(card, true)->rsp_event, card->rx_cons + 1);
}
