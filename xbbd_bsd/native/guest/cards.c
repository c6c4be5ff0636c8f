/*
 * cards.c - network cards, likewise: each queue has one of its interface.  Any
 * thread, as the functions that it calls.
 */
#include "guest/guest.h"

static int32_t *
card_fd(union xbb_guest_ring *ring)
{

	return (&ring->card.link_fd);
}

static int
card_map(int fd, void **statep)
{
	struct xbb_net_state *state;
	int error;

	error = xbb_net_state_map(fd, 1, &state);
	if (error == 0)
		*statep = state;
	return (error);
}

static void
card_unmap(void *state)
{

	xbb_net_state_unmap(state);
}

static int
card_open(const union xbb_guest_ring *ring, void *state,
    struct xbb_error *error, void **queuep)
{
	struct xbb_net_queue *queue;
	int e;

	e = xbb_net_queue_open(&ring->card, state, error, &queue);
	if (e == 0)
		*queuep = queue;
	return (e);
}

static int
card_start(void *queue, struct xbb_error *error)
{

	return (xbb_net_queue_start(queue, error));
}

static void
card_drain(void *queue)
{

	xbb_net_queue_drain(queue);
}

static void
card_hand_over(void *queue)
{

	xbb_net_queue_hand_over(queue);
}

static void
card_status(void *queue, struct xbb_queue_status *status)
{

	xbb_net_queue_status(queue, status);
}

static void
card_close(void *queue)
{

	xbb_net_queue_close(queue);
}

const struct xbb_kind xbb_cards = {
	.family = &xbb_net_family,
	.medium = XBB_USE_LINK,
	.each = true,
	.medium_fd = card_fd,
	.map = card_map,
	.unmap = card_unmap,
	.open = card_open,
	.start = card_start,
	.drain = card_drain,
	.hand_over = card_hand_over,
	.status = card_status,
	.close = card_close,
};
