/*
 * wire.c - frames off the link and onto it, each behind its header, with one
 * system call.  A link that does not want a frame loses it, like a wire; one
 * that fails to give any is left alone for a while; one that is gone ends the
 * queue.  Ring thread.
 */
#include <poll.h>
#include <unistd.h>

#include "net/net.h"

/* Was the interface removed?  Linux has a word of its own for that. */
static bool
is_gone(int errnum)
{

#ifdef EBADFD
	if (errnum == EBADFD)
		return (true);
#endif
	return (errnum == ENXIO || errnum == ENODEV);
}

static void
check_gone(struct xbb_net_queue *q, int errnum)
{

	if (is_gone(errnum))
		xbb_conn_stop(&q->conn, XBB_STOP_MEDIUM, errnum);
}

/*
 * False if the frame is lost: no buffers, an interface that is down, a header
 * that the kernel does not like.  FreeBSD takes nothing of one that is for an
 * interface that is down, and says no errno (read in its tunwrite(), not seen).
 */
bool
xbb_net_write(struct xbb_net_queue *q, struct iovec *iov, int n)
{
	ssize_t taken;

	taken = writev(q->params.link_fd, iov, n);
	if (taken < 0)
		check_gone(q, errno);
	return (taken > 0);
}

/*
 * The next frame, behind its header; what does not fit is cut off.  0 if there
 * is none.
 */
size_t
xbb_net_read(struct xbb_net_queue *q, uint8_t *to, size_t size)
{
	ssize_t n;

	n = read(q->params.link_fd, to, size);
	if (n > 0)
		return ((size_t)n);
	if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK &&
	    errno != EINTR)) {
		/* The other end is closed, or the interface is down. */
		q->rx.mute_until_ns = xbb_now_ns() +
		    XBB_NET_MUTE_MS * UINT64_C(1000000);
		if (n < 0)
			check_gone(q, errno);
	}
	return (0);
}

/* Is there one now, or something that reading it would tell? */
bool
xbb_net_readable(const struct xbb_net_queue *q)
{
	struct pollfd pfd = { .fd = q->params.link_fd, .events = POLLIN };

	return (poll(&pfd, 1, 0) > 0);
}
