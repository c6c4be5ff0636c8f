/*
 * kick.c - how one who sleeps is woken by another thread of ours.  In poll(2)
 * by an eventfd(2), which FreeBSD has too, and is one descriptor where a pipe
 * is two; a ring's is opened and closed by whoever opens the ring.  In read(2)
 * by a signal, and by having the descriptor block no more: a read that has
 * begun ends by the one, and one that has not by the other.  In the hypervisor
 * likewise.  Any thread.
 */
#include <sys/eventfd.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
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

static void
end_wait(int signo)
{

	(void)signo;	/* that there is one is all that it takes */
}

static void
catch_signal(void)
{
	const struct sigaction action = {
		.sa_handler = end_wait, .sa_flags = SA_RESTART,
	};

	(void)sigaction(XBB_WAIT_SIGNAL, &action, NULL);
}

int
xbb_kick_open(struct xbb_rest *rest)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int fd;

	(void)pthread_once(&once, catch_signal);
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

/* Have a read of the descriptor wait, or not. */
void
xbb_kick_set_blocking(int fd, bool blocks)
{

	(void)fcntl(fd, F_SETFL, blocks ? 0 : O_NONBLOCK);
}

/*
 * End the ring thread's sleep, if it is in one.  One that has ended by itself
 * meanwhile makes this of no use, and the next one short.  Any thread.
 */
void
xbb_kick(struct xbb_rest *rest)
{
	unsigned int sleep;

	if (atomic_load(&rest->sleeping) == XBB_AWAKE)
		return;
	atomic_fetch_add(&rest->kicks, 1);
	sleep = atomic_exchange(&rest->sleeping, XBB_AWAKE);
	if (sleep == XBB_POLLS)
		xbb_wake(rest->kick);
	if (sleep == XBB_WAITS)
		xbb_kick_set_blocking(atomic_load(&rest->waits_for), false);
	if (sleep == XBB_DOZES)
		rest->ops->end_doze(rest->hv);
	if (sleep == XBB_WAITS || sleep == XBB_DOZES)
		(void)pthread_kill(atomic_load(&rest->thread),
		    XBB_WAIT_SIGNAL);
	atomic_fetch_sub(&rest->kicks, 1);
}

/*
 * Before the ring's thread ends, awake: nobody is left who is about to send it
 * a signal.
 */
void
xbb_kick_settle(struct xbb_rest *rest)
{

	while (atomic_load(&rest->kicks) != 0)
		sched_yield();
}
