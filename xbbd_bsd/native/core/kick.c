/*
 * kick.c - how one who sleeps in poll(2) is woken by another thread of ours: by
 * an eventfd(2), which FreeBSD has too, and is one descriptor where a pipe is
 * two.  A ring's is opened and closed by whoever opens the ring, and kicked by
 * any thread.
 */
#include <sys/eventfd.h>

#include <poll.h>
#include <unistd.h>

#include "core/core.h"

/* What poll(2) says is readable once it was written to, until it is read. */
int
xbb_wake_open(void)
{
	int fd;

	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return (fd < 0 ? -errno : fd);
}

/* Any thread; whatever fd is, as long as it does not block. */
void
xbb_wake(int fd)
{
	const uint64_t one = 1;
	ssize_t n;

	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
	/* EAGAIN: what is full wakes as well. */
}

int
xbb_kick_open(struct xbb_rest *rest)
{
	int fd;

	rest->also_fd = -1;
	rest->also_events = POLLIN;
	fd = xbb_wake_open();
	rest->kick = fd < 0 ? -1 : fd;
	return (fd < 0 ? fd : 0);
}

void
xbb_kick_close(struct xbb_rest *rest)
{

	if (rest->kick >= 0)
		close(rest->kick);
}

/* End the ring thread's poll, if it is in one.  Any thread. */
void
xbb_kick(struct xbb_rest *rest)
{

	if (atomic_load(&rest->sleeping) &&
	    atomic_exchange(&rest->sleeping, false))
		xbb_wake(rest->kick);
}
