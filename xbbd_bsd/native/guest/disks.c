/*
 * disks.c - disks, as the process of a guest has its devices: all rings of one
 * share its descriptor.  Any thread, as the functions that it calls.
 */
#include <string.h>

#include "guest/guest.h"

static int32_t *
disk_fd(union xbb_guest_ring *ring)
{

	return (&ring->disk.disk_fd);
}

static int
disk_map(int fd, void **statep)
{
	struct xbb_state *state;
	int error;

	error = xbb_state_map(fd, 1, &state);
	if (error == 0)
		*statep = state;
	return (error);
}

static void
disk_unmap(void *state)
{

	xbb_state_unmap(state);
}

static void
disk_share(void *state, uint32_t level, struct xbb_rate_words *words)
{

	(void)xbb_rate_share(state, level, words);
}

static int
disk_open(const union xbb_guest_ring *ring, void *state,
    struct xbb_error *error, void **queuep)
{
	struct xbb_queue *queue;
	int e;

	e = xbb_queue_open(&ring->disk, state, error, &queue);
	if (e == 0)
		*queuep = queue;
	return (e);
}

static int
disk_start(void *queue, struct xbb_error *error)
{

	return (xbb_queue_start(queue, error));
}

/* Without TLS, whose keys are no process's of a guest. */
static int
disk_connect(void *queue, int fd, const uint8_t *name)
{
	struct xbb_nbd_export wanted = { .tls = 0 };

	memcpy(wanted.name, name, sizeof(wanted.name) - 1);
	return (xbb_queue_connect(queue, fd, &wanted));
}

static void
disk_drain(void *queue)
{

	xbb_queue_drain(queue);
}

static void
disk_look(void *queue)
{

	xbb_queue_look(queue);
}

static bool
disk_owes(void *queue)
{

	return (xbb_queue_owes(queue));
}

static void
disk_hand_over(void *queue)
{

	xbb_queue_hand_over(queue);
}

static void
disk_status(void *queue, struct xbb_queue_status *status)
{

	xbb_queue_status(queue, status);
}

static void
disk_close(void *queue)
{

	xbb_queue_close(queue);
}

const struct xbb_kind xbb_disks = {
	.family = &xbb_block_family,
	.medium = XBB_USE_DISK,
	.each = false,
	.medium_fd = disk_fd,
	.map = disk_map,
	.unmap = disk_unmap,
	.share = disk_share,
	.open = disk_open,
	.start = disk_start,
	.connect = disk_connect,
	.drain = disk_drain,
	.look = disk_look,
	.owes = disk_owes,
	.hand_over = disk_hand_over,
	.status = disk_status,
	.close = disk_close,
};
