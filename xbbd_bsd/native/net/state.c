/*
 * state.c - to be written.
 */
#include "net/net.h"

int
xbb_net_state_format(int fd, const struct xbb_identity *identity,
    uint32_t nqueues)
{

	(void)fd;
	(void)identity;
	(void)nqueues;
	return (-ENOSYS);
}

int
xbb_net_state_map(int fd, int writable, struct xbb_net_state **statep)
{

	(void)fd;
	(void)writable;
	(void)statep;
	return (-ENOSYS);
}

void
xbb_net_state_unmap(struct xbb_net_state *state)
{

	(void)state;
}

int
xbb_net_state_damaged(const struct xbb_net_state *state)
{

	(void)state;
	return (0);
}

uint32_t
xbb_net_state_queues(const struct xbb_net_state *state)
{

	(void)state;
	return (0);
}
