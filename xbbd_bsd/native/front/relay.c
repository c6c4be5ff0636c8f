/*
 * relay.c - the yardstick of network cards: one thread that moves frames
 * between two links, without rings, grants or a guest.  What a backend costs is
 * what it is slower.  Runs on the calling thread.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/netfront.h"

#define FRAME_BYTES	(XBB_NET_LINK_HEADER + XBB_NET_MAX_FRAME)

/* Up to a batch of frames one way; how many. */
static uint32_t
move_frames(int from, int to, uint8_t *buffer)
{
	uint8_t *copy = buffer + FRAME_BYTES;
	uint32_t i;
	ssize_t n;

	for (i = 0; i < NETFRONT_BATCH; i++) {
		n = read(from, buffer, FRAME_BYTES);
		if (n <= 0)
			break;
		memcpy(copy, buffer, (size_t)n);
		memcpy(buffer, copy, (size_t)n);
		/* What is not taken is lost, as on any wire. */
		if (write(to, buffer, (size_t)n) < 0)
			continue;
	}
	return (i);
}

int
xbb_direct_relay(int link_fd, int other_fd, int stop_fd)
{
	struct pollfd pfd[3] = {
		{ .fd = link_fd, .events = POLLIN },
		{ .fd = other_fd, .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN },
	};
	uint8_t *buffer;
	int error;

	buffer = malloc(2 * (size_t)FRAME_BYTES);
	if (buffer == NULL)
		return (-ENOMEM);
	error = 0;
	while (pfd[2].revents == 0) {
		if (poll(pfd, 3, -1) < 0 && errno != EINTR) {
			error = -errno;
			break;
		}
		while (move_frames(link_fd, other_fd, buffer) +
		    move_frames(other_fd, link_fd, buffer) != 0)
			continue;
	}
	free(buffer);
	return (error);
}
