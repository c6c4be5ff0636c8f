/*
 * nbd.c - the store of servers that speak NBD, by the asynchronous calls of
 * libnbd, on the ring's thread.  It connects to nobody: whoever may gives it
 * connected sockets (xbb_queue_connect()), the first as well as the next one,
 * if the server has gone or does not answer.  What was out then is asked for
 * again, in the order in which it was begun; and so are, before that, the
 * writes that were acknowledged and not flushed, since a server that crashed
 * has lost them, and no later flush could vouch for them.
 *
 * A disk of this kind has one ring: what is flushed over one connection is what
 * was written over it.
 */
#include <stdlib.h>
#include <unistd.h>

#include "block/nbd.h"

/* So many have begun, and wait for a connection: the rest can be merged. */
#define MOST_UNSENT	32

/* How long a queue that ends waits for one who is silent. */
#define ABANDON_NS		3000000000

/*
 * What was sent over an earlier connection may still be done by whoever served
 * that.  So long after the next one no write is done that was sent twice: what
 * overlaps it waits for it, and cannot be overtaken.
 */
static uint64_t
late_ns(const struct xbb_queue *q)
{

	return ((uint64_t)q->set.params.late_ms * 1000000);
}

/* What was asked for has come. */

/*
 * What is acknowledged is kept until it is durable.  What nobody wants to be
 * durable, or what is so already, is kept as well if older ones are: these are
 * written again, and must not be the last word.
 */
static int
keep_write(const struct xbb_queue *q, struct xbb_nbd *nbd, struct xbb_away *a)
{

	if (nbd->unflushed.oldest == NULL &&
	    (!nbd->can.can_flush || a->durable ||
	    XBB_GET(q->set.tunables->disable_flush) != 0))
		return (0);
	if (!xbb_unflushed_keep(&nbd->unflushed, a->buffer, a->offset,
	    a->length))
		return (-ENOMEM);
	a->buffer = NULL;
	return (0);
}

static void
finish_one(struct xbb_queue *q, struct xbb_nbd *nbd, struct xbb_away *a)
{
	int error = a->error;

	if ((a->operation == XBB_DISK_OP_WRITE ||
	    a->operation == XBB_DISK_OP_DISCARD) && error == 0)
		error = keep_write(q, nbd, a);
	else if (a->operation == XBB_DISK_OP_FLUSH && error == 0)
		xbb_unflushed_forget(&nbd->unflushed, a->mark);
	else if (a->operation == XBB_DISK_OP_FLUSH && nbd->can.can_flush)
		error = xbb_means_cannot(error) ? -EIO : error;
	if (xbb_away_end(q, a, error, &nbd->can)) {
		a->nbd = nbd;
		xbb_nbd_add(nbd, a);
	}
}

/*
 * What an earlier one has left in the file is on this server, and what is newer
 * may be about to follow.
 */
static void
forget_found(const struct xbb_queue *q, struct xbb_nbd *nbd)
{

	if (!nbd->found || nbd->again != NULL)
		return;
	(void)xbb_unflushed_void(q->set.params.disk_fd);
	nbd->found = false;
}

/*
 * A flush of ours, of which only the good ones count, or a write that was done
 * again: if that cannot be, what was acknowledged is lost.
 */
static void
finish_own(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	const int error = nbd->own.error;

	nbd->own_out = false;
	if (nbd->again == NULL) {
		if (error == 0)
			xbb_unflushed_forget(&nbd->unflushed, nbd->own.mark);
	} else
		nbd->again = nbd->again->next;
	if (error == 0) {
		forget_found(q, nbd);
		return;
	}
	xbb_flushes_lose(q->set.flushes, -error);
	xbb_conn_stop(&q->conn, XBB_STOP_LOST, -error);
}

static void
settle_one(struct xbb_queue *q, struct xbb_nbd *nbd, struct xbb_away *a)
{
	const bool writes = a->operation == XBB_DISK_OP_WRITE ||
	    a->operation == XBB_DISK_OP_DISCARD;

	xbb_nbd_remove(nbd, a);
	if (a->redone && writes && a->error == 0 &&
	    nbd->heard_ns < nbd->since_ns + late_ns(q)) {
		a->next_come = nbd->late;
		nbd->late = a;
	} else
		finish_one(q, nbd, a);
}

/* Those that ended with their connection are still to be done. */
static bool
settle_come(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	struct xbb_away *a, *next;
	bool lost;

	if (nbd->come == NULL)
		return (false);
	lost = false;
	nbd->heard_ns = xbb_now_ns();
	a = nbd->come;
	nbd->come = NULL;
	for (; a != NULL; a = next) {
		next = a->next_come;
		if (a->error == -ENOTCONN || a->error == -ESHUTDOWN)
			lost = true;
		else if (a == &nbd->own)
			finish_own(q, nbd);
		else
			settle_one(q, nbd, a);
	}
	if (lost)
		xbb_nbd_break(q, nbd, ENOTCONN);
	return (true);
}

static bool
settle_late(struct xbb_queue *q, struct xbb_nbd *nbd, uint64_t now)
{
	struct xbb_away *a, *next;

	if (!nbd->ready || now < nbd->since_ns + late_ns(q))
		return (false);
	nbd->redoing = false;
	if (nbd->late == NULL)
		return (false);
	a = nbd->late;
	nbd->late = NULL;
	for (; a != NULL; a = next) {
		next = a->next_come;
		finish_one(q, nbd, a);
	}
	return (true);
}

/* Nobody waits any longer: all that is out fails. */
static void
abandon_all(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	struct xbb_away *a;

	nbd->abandoned = true;
	while ((a = nbd->late) != NULL) {
		nbd->late = a->next_come;
		while (xbb_away_end(q, a, 0, &nbd->can))
			continue;
	}
	xbb_nbd_break(q, nbd, ETIMEDOUT);
	while ((a = nbd->first) != NULL) {
		xbb_nbd_remove(nbd, a);
		while (xbb_away_end(q, a, -ETIMEDOUT, &nbd->can))
			continue;
	}
}

/* A disk that is paused, or is handed over. */

/* Is there a next one, or another time, to whom what is not done is left? */
static bool
is_to_rest(const struct xbb_queue *q)
{

	return (xbb_pause_is_on(q) || (atomic_load(&q->conn.draining) &&
	    !xbb_conn_ends(&q->conn)));
}

/* Is there something that the server may lose, and that a flush would keep? */
static bool
is_to_flush(const struct xbb_nbd *nbd)
{

	return (nbd->ready && nbd->again == NULL && nbd->can.can_flush &&
	    nbd->unflushed.oldest != NULL);
}

/*
 * Whoever pauses a disk may copy it: so what is acknowledged is flushed first,
 * if there is a server, and nothing is written before it goes on.
 */
static bool
nbd_is_still(const struct xbb_queue *q)
{
	const struct xbb_nbd *nbd = q->set.nbd;

	if (nbd->own_out || nbd->late != NULL || is_to_flush(nbd))
		return (false);
	return (!nbd->ready || nbd->again == NULL || xbb_pause_is_on(q));
}

/*
 * Without a server nothing is under way: it is begun anew when the disk goes
 * on, as what may have been done already.
 */
static void
give_back_all(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	struct xbb_away *a;

	while ((a = nbd->first) != NULL) {
		nbd->redoing |= a->redone;
		xbb_nbd_remove(nbd, a);
		xbb_away_give_back(q, a);
	}
}

/* Times: when we look again, 0 if there is nothing to look for. */

static uint64_t
silence_ends(const struct xbb_queue *q, const struct xbb_nbd *nbd)
{
	const uint64_t patience = (uint64_t)q->set.params.patience_ms *
	    1000000;

	if (nbd->handle == NULL)
		return (0);
	if (!nbd->ready)
		return (nbd->since_ns + patience);
	if (nbd->own_out)
		return (nbd->own.sent_ns + patience);
	return (nbd->first != NULL && nbd->first->sent ?
	    nbd->first->sent_ns + patience : 0);
}

static uint64_t
waiting_ends(const struct xbb_queue *q, struct xbb_nbd *nbd, uint64_t now)
{

	if (!atomic_load(&q->conn.draining) ||
	    (!xbb_conn_ends(&q->conn) && !xbb_pause_is_on(q)) ||
	    (nbd->first == NULL && nbd->late == NULL && !nbd->own_out))
		return (0);
	if (nbd->ending_ns == 0)
		nbd->ending_ns = now;
	return ((nbd->heard_ns > nbd->ending_ns ? nbd->heard_ns :
	    nbd->ending_ns) + ABANDON_NS);
}

static bool
watch_time(struct xbb_queue *q, struct xbb_nbd *nbd, uint64_t now)
{
	const uint64_t silence = silence_ends(q, nbd);
	const uint64_t waiting = waiting_ends(q, nbd, now);

	if (waiting != 0 && now >= waiting && xbb_conn_ends(&q->conn)) {
		abandon_all(q, nbd);
		return (true);
	}
	if ((silence != 0 && now >= silence) ||
	    (waiting != 0 && now >= waiting && nbd->handle != NULL))
		xbb_nbd_break(q, nbd, ETIMEDOUT);
	return (false);
}

/* The operations of the store. */

static int
nbd_open(struct xbb_queue *q)
{
	const uint32_t n = xbb_max_requests(q->set.params.abi,
	    q->set.params.conn.ring_pages);
	struct xbb_nbd *nbd;
	int error;

	error = xbb_nbd_load();
	if (error != 0)
		return (error);
	nbd = calloc(1, sizeof(*nbd) + n * sizeof(nbd->away[0]));
	if (nbd == NULL)
		return (-ENOMEM);
	/* Until it is known: what cannot be says so. */
	nbd->can.can_flush = true;
	nbd->redoing = q->set.params.conn.adopt == XBB_ADOPT_TABLE;
	q->set.nbd = nbd;
	if (q->set.params.conn.adopt == XBB_ADOPT_NOT)
		return (0);
	error = xbb_unflushed_find(&nbd->unflushed, q->set.params.disk_fd,
	    XBB_GET(*q->set.sectors) * XBB_SECTOR_SIZE);
	nbd->found = nbd->unflushed.oldest != NULL;
	return (error);
}

static void
nbd_close(struct xbb_queue *q)
{
	struct xbb_nbd *nbd = q->set.nbd;
	struct xbb_nbd_offer *offer;

	offer = atomic_exchange(&q->shared.offered, NULL);
	if (offer != NULL)
		close(offer->fd);
	free(offer);
	if (nbd == NULL)
		return;
	if (nbd->handle != NULL)
		xbb_nbd_end(nbd->handle);
	if (nbd->unflushed.oldest != NULL && !nbd->found &&
	    !xbb_conn_ends(&q->conn))
		(void)xbb_unflushed_leave(&nbd->unflushed,
		    q->set.params.disk_fd);
	xbb_unflushed_forget(&nbd->unflushed, UINT64_MAX);
	free(nbd);
}

static bool
nbd_is_full(const struct xbb_queue *q)
{

	return (q->set.nbd->unsent >= MOST_UNSENT);
}

static bool
nbd_submit(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_nbd *nbd = q->set.nbd;
	struct xbb_away *a = &nbd->away[batch - q->set.batches];

	if (!xbb_away_begin(q, a, batch, &nbd->can))
		return (false);
	if (nbd->abandoned)
		while (xbb_away_end(q, a, -ETIMEDOUT, &nbd->can))
			continue;
	else {
		a->nbd = nbd;
		xbb_nbd_add(nbd, a);
	}
	return (false);
}

/*
 * What is there to send: on our own account first, then what was begun.  True
 * if there was any: libnbd may have looked for an answer in vain before, and
 * sends nothing until it has been told to look once more.
 */
static bool
send_some(struct xbb_queue *q, struct xbb_nbd *nbd)
{
	const uint32_t unsent = nbd->unsent;
	const bool own_out = nbd->own_out;

	if (!nbd->ready)
		return (false);
	if (nbd->again != NULL) {
		if (!own_out && !xbb_pause_is_on(q))
			xbb_nbd_send_again(nbd);
	} else if (unsent != 0 || nbd->unflushed.bytes >= XBB_UNFLUSHED_SOME)
		xbb_nbd_send(nbd);
	else if (is_to_rest(q) && nbd->first == NULL && nbd->late == NULL &&
	    !own_out && is_to_flush(nbd))
		xbb_nbd_send_flush(nbd);
	return (nbd->unsent != unsent || nbd->own_out != own_out);
}

/* Is there a connection of which nothing more will be heard? */
static bool
has_ended(const struct xbb_nbd *nbd)
{

	return (nbd->handle != NULL &&
	    (xbb_libnbd.aio_is_dead(nbd->handle) == 1 ||
	    xbb_libnbd.aio_is_closed(nbd->handle) == 1));
}

/*
 * Send what there is, and say what to wait for.  True if there is something to
 * be looked at, as the end of the connection, for which nobody wakes us.
 */
static bool
nbd_push(struct xbb_queue *q)
{
	struct xbb_rest *rest = &q->conn.rest;
	struct xbb_nbd *nbd = q->set.nbd;
	bool sent;

	if (!nbd->ready && nbd->first != NULL && xbb_pause_is_on(q) &&
	    !xbb_conn_ends(&q->conn))
		give_back_all(q, nbd);
	sent = send_some(q, nbd);
	XBB_SET(q->set.rs->link.unflushed, nbd->unflushed.bytes);
	rest->also_fd = -1;
	rest->also_awaited = nbd->first != NULL || nbd->own_out;
	if (nbd->handle != NULL) {
		rest->also_fd = xbb_libnbd.aio_get_fd(nbd->handle);
		rest->also_events = xbb_nbd_events(
		    xbb_libnbd.aio_get_direction(nbd->handle));
	}
	return (sent || nbd->come != NULL || has_ended(nbd));
}

static bool
nbd_reap(struct xbb_queue *q)
{
	struct xbb_nbd *nbd = q->set.nbd;
	uint64_t now;
	bool any;

	any = xbb_nbd_take(q, nbd);
	if (nbd->handle != NULL && (!nbd->ready || nbd->first != NULL ||
	    nbd->own_out || q->conn.rest.also_ready))
		xbb_nbd_move(q, nbd);
	any |= settle_come(q, nbd);
	if (has_ended(nbd))
		xbb_nbd_break(q, nbd, ENOTCONN);
	now = xbb_now_ns();
	any |= settle_late(q, nbd, now);
	return (any | watch_time(q, nbd, now));
}

static int
nbd_wait(struct xbb_queue *q)
{
	struct xbb_nbd *nbd = q->set.nbd;
	const uint64_t now = xbb_now_ns();
	const uint64_t ends[] = {
		silence_ends(q, nbd), waiting_ends(q, nbd, now),
		nbd->late == NULL || !nbd->ready ? 0 :
		    nbd->since_ns + late_ns(q),
	};
	uint64_t soonest;
	size_t i;

	soonest = UINT64_MAX;
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (ends[i] != 0 && ends[i] < soonest)
			soonest = ends[i];
	if (soonest == UINT64_MAX)
		return (-1);
	return (soonest <= now ? 0 : (int)((soonest - now) / 1000000 + 1));
}

const struct xbb_store_ops xbb_store_nbd = {
	.open = nbd_open,
	.close = nbd_close,
	.is_full = nbd_is_full,
	.submit = nbd_submit,
	.push = nbd_push,
	.reap = nbd_reap,
	.is_still = nbd_is_still,
	.wait = nbd_wait,
};
