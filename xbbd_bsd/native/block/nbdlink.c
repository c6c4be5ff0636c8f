/*
 * nbdlink.c - the connection to a server of NBD, from a socket that somebody
 * gives us to its end, which leaves all that was out to be asked for again.
 * Ring thread, but for the giving.
 */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/nbd.h"

#define MOST_READ	16	/* answers, before others get their turn */

static void
show_link(struct xbb_queue *q, enum xbb_link_state state, int errnum)
{
	struct xbb_link *link = &q->set.rs->link;

	XBB_SET(link->errnum, errnum);
	XBB_SET(link->since_ns, xbb_now_ns());
	XBB_PUT(link->state, state);
}

void
xbb_nbd_break(struct xbb_queue *q, struct xbb_nbd *nbd, int errnum)
{
	struct xbb_away *a;

	if (nbd->handle != NULL)
		xbb_libnbd.close(nbd->handle);
	nbd->handle = NULL;
	nbd->ready = nbd->own_out = false;
	nbd->again = NULL;
	nbd->come = NULL;	/* of this connection: see settle_come() */
	nbd->asked = 0;
	for (a = nbd->first; a != NULL; a = a->next)
		if (a->sent) {
			a->sent = false;
			a->redone = true;
			nbd->unsent++;
		}
	/*
	 * What was not acknowledged yet is done again as well: what it wrote
	 * over may be among the acknowledged ones, which come first.
	 */
	while ((a = nbd->late) != NULL) {
		nbd->late = a->next_come;
		xbb_nbd_add(nbd, a);
		a->redone = true;
	}
	show_link(q, XBB_LINK_WANTED, errnum);
	xbb_conn_tell(&q->conn);
}

bool
xbb_nbd_take(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	struct xbb_nbd_offer *offer;
	char words[XBB_NBD_WORDS];

	offer = atomic_exchange(&q->shared.offered, NULL);
	if (offer == NULL)
		return (false);
	if (nbd->handle != NULL || nbd->abandoned)
		close(offer->fd);
	else {
		nbd->handle = xbb_nbd_begin(offer->fd, &offer->wanted, words,
		    sizeof(words));
		nbd->since_ns = xbb_now_ns();
		if (nbd->handle != NULL)
			show_link(q, XBB_LINK_BEGUN, 0);
		else
			xbb_nbd_break(q, nbd, EPROTO);
	}
	free(offer);
	return (true);
}

/* Is it the disk that the guest knows? */
static bool
is_the_disk(const struct xbb_queue *q, const struct xbb_nbd_found *found)
{
	const struct xbb_queue_params *p = &q->set.params;

	return (found->size / XBB_SECTOR_SIZE >= XBB_GET(*q->set.sectors) &&
	    found->minimum <= p->block_size &&
	    (found->read_only == 0 || p->read_only != 0));
}

static void
agree_upon(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	struct xbb_nbd_found found;

	if (xbb_nbd_agreed(nbd->handle, &found) != 0 ||
	    !is_the_disk(q, &found)) {
		xbb_nbd_break(q, nbd, EINVAL);
		return;
	}
	nbd->can.can_flush = found.can_flush != 0;
	nbd->can.can_fua = found.can_fua != 0;
	nbd->can_trim = found.can_trim != 0;
	nbd->ready = true;
	nbd->since_ns = nbd->heard_ns = xbb_now_ns();
	XBB_COUNT(q->set.rs->counters.reconnects, nbd->agreed);
	nbd->agreed = true;
	show_link(q, XBB_LINK_READY, 0);
	nbd->again = nbd->unflushed.oldest;
}

static void
move_link(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	const struct xbb_libnbd *lib = &xbb_libnbd;
	const unsigned direction = lib->aio_get_direction(nbd->handle);
	struct pollfd pfd = {
		.fd = lib->aio_get_fd(nbd->handle),
		.events = xbb_nbd_events(direction),
	};

	if (poll(&pfd, 1, 0) <= 0)
		pfd.revents = 0;
	/* An end that was hung up shows as something to be read. */
	if ((direction & NBD_READING) != 0 && (pfd.revents & ~POLLOUT) != 0)
		(void)lib->aio_notify_read(nbd->handle);
	else if ((direction & NBD_WRITING) != 0 && pfd.revents != 0)
		(void)lib->aio_notify_write(nbd->handle);
	/* One who is quick has agreed before we come to wait for him. */
	if (!nbd->ready && lib->aio_is_ready(nbd->handle) == 1)
		agree_upon(q, nbd);
}

/*
 * Read what has come, if nothing is being written; true if that was so.  Once
 * nothing is left to come nobody looks for it: that would be in vain, and what
 * is asked for next would wait for one more look.
 */
static bool
read_answers(struct xbb_nbd *nbd)
{
	const struct xbb_libnbd *lib = &xbb_libnbd;
	struct xbb_away *before;
	uint32_t i;

	for (i = 0; i < MOST_READ && nbd->asked != 0; i++) {
		if (lib->aio_get_direction(nbd->handle) != NBD_READING)
			return (i > 0);
		before = nbd->come;
		if (lib->aio_notify_read(nbd->handle) != 0 ||
		    nbd->come == before)
			return (true);
	}
	return (i > 0);
}

/*
 * Have libnbd do what it can.  While it writes it is told of what is there, and
 * of nothing else: one that reads in vain may forget that it was writing.
 */
void
xbb_nbd_move(struct xbb_queue *q, struct xbb_nbd *nbd)
{

	if (!nbd->ready || !read_answers(nbd))
		move_link(q, nbd);
}

/* Any thread but the ring's. */
int
xbb_queue_connect(struct xbb_queue *q, int fd,
    const struct xbb_nbd_export *wanted)
{
	struct xbb_nbd_offer *offer;

	if (q->set.nbd == NULL)
		return (-ENOTSUP);
	offer = malloc(sizeof(*offer));
	if (offer == NULL)
		return (-ENOMEM);
	offer->fd = fd;
	offer->wanted = *wanted;
	offer = atomic_exchange(&q->shared.offered, offer);
	if (offer != NULL)
		close(offer->fd);
	free(offer);
	xbb_kick(&q->conn.rest);
	return (0);
}
