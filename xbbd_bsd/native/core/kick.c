/*
 * kick.c - how a ring's thread that sleeps is woken by another of ours.  Opened
 * and closed by whoever opens the ring; kicked by any thread.
 */
#include <fcntl.h>
#include <unistd.h>

#include "core/core.h"

int
xbb_kick_open(struct xbb_rest *rest)
{
	int i;

	rest->kick[0] = rest->kick[1] = rest->also_fd = -1;
	if (pipe(rest->kick) != 0)
		return (-errno);
	for (i = 0; i < 2; i++) {
		fcntl(rest->kick[i], F_SETFD, FD_CLOEXEC);
		fcntl(rest->kick[i], F_SETFL, O_NONBLOCK);
	}
	return (0);
}

void
xbb_kick_close(struct xbb_rest *rest)
{

	if (rest->kick[0] >= 0) {
		close(rest->kick[0]);
		close(rest->kick[1]);
	}
}

/* End the ring thread's poll, if it is in one.  Any thread. */
void
xbb_kick(struct xbb_rest *rest)
{
	ssize_t n;

	if (!atomic_load(&rest->sleeping) ||
	    !atomic_exchange(&rest->sleeping, false))
		return;
	do
		n = write(rest->kick[1], "", 1);
	while (n < 0 && errno == EINTR);
	/* EAGAIN: a full pipe wakes as well. */
}
