/*
 * state.c - the state segment of a network card: the common head, and a part
 * for each queue.  There is no table, since nothing of a packet has to be known
 * after a death.  Any thread.
 */
#include "net/net.h"

static const struct xbb_segment_shape shape = {
	.family = XBB_FAMILY_NET,
	.table_version = XBB_NET_TABLE_VERSION,
	.header_size = sizeof(struct xbb_net_state),
	.entry_size = 8,
	.most_entries = 1,	/* the least that a segment may have */
};

int
xbb_net_state_format(int fd, const struct xbb_identity *identity,
    uint32_t nqueues)
{
	struct xbb_net_state header = {
		.head.identity = *identity,
		.head.nrings = nqueues,
		.head.table_entries = 1,
		.tunables.poll_max_us = XBB_POLL_MAX_US,
	};
	uint32_t i;

	for (i = 0; i < XBB_MAX_RINGS; i++)
		header.ring[i].common.status.state = XBB_QUEUE_DRAINED;
	return (xbb_segment_format(fd, &shape, &header.head));
}

int
xbb_net_state_map(int fd, int writable, struct xbb_net_state **statep)
{
	void *segment;
	int error;

	error = xbb_segment_map(fd, writable, &shape, &segment);
	if (error == 0)
		*statep = segment;
	return (error);
}

void
xbb_net_state_unmap(struct xbb_net_state *state)
{

	xbb_mapping_remove(xbb_mapping_of(state));
}

int
xbb_net_state_damaged(const struct xbb_net_state *state)
{

	return (xbb_mapping_damaged(xbb_mapping_of(state)));
}

uint32_t
xbb_net_state_rings(const struct xbb_net_state *state)
{

	return (xbb_mapping_rings(xbb_mapping_of(state)));
}
