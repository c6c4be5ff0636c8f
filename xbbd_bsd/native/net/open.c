/*
 * open.c - to be written.
 */
#include "net/net.h"

int
xbb_net_queue_open(const struct xbb_net_params *params,
    struct xbb_net_state *state, struct xbb_error *error,
    struct xbb_net_queue **queuep)
{

	(void)params;
	(void)state;
	(void)queuep;
	return (xbb_fail(error, "open queue", ENOSYS));
}

int
xbb_net_queue_start(struct xbb_net_queue *queue, struct xbb_error *error)
{

	(void)queue;
	return (xbb_fail(error, "start threads", ENOSYS));
}

void
xbb_net_queue_drain(struct xbb_net_queue *queue)
{

	(void)queue;
}

void
xbb_net_queue_hand_over(struct xbb_net_queue *queue)
{

	(void)queue;
}

void
xbb_net_queue_status(struct xbb_net_queue *queue,
    struct xbb_queue_status *status)
{

	(void)queue;
	(void)status;
}

void
xbb_net_queue_indices(struct xbb_net_queue *queue,
    struct xbb_net_indices *indices)
{

	(void)queue;
	(void)indices;
}

void
xbb_net_queue_close(struct xbb_net_queue *queue)
{

	(void)queue;
}

uint64_t
xbb_net_queue_bytes(void)
{

	return (0);
}
