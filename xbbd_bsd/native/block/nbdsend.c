/*
 * nbdsend.c - what is asked of a server, by libnbd: all that has begun, in
 * order, and what is asked for on our own account.  Ring thread.
 */
#include "block/nbd.h"

/* Those that have begun, in order. */

void
xbb_nbd_add(struct xbb_nbd *nbd, struct xbb_away *a)
{

	a->next = NULL;
	a->prev = nbd->last;
	*(nbd->last != NULL ? &nbd->last->next : &nbd->first) = a;
	nbd->last = a;
	a->sent = false;
	a->redone = nbd->redoing;
	nbd->unsent++;
}

void
xbb_nbd_remove(struct xbb_nbd *nbd, struct xbb_away *a)
{

	*(a->prev != NULL ? &a->prev->next : &nbd->first) = a->next;
	*(a->next != NULL ? &a->next->prev : &nbd->last) = a->prev;
	nbd->unsent -= !a->sent;
}

/* What libnbd says. */

/* Called by it, inside a call of ours: a command is over. */
static int
note_done(void *user, int *error)
{
	struct xbb_away *a = user;

	a->nbd->asked--;
	a->error = -*error;
	a->next_come = a->nbd->come;
	a->nbd->come = a;
	return (1);
}

/*
 * Ask for it; true if it is asked for, or has come to something at once.  What
 * cannot be sent since the connection has ended waits for the next one.
 */
static bool
ask_server(struct xbb_nbd *nbd, struct xbb_away *a)
{
	const struct nbd_completion done = { .callback = note_done, .user = a };
	const struct xbb_libnbd *lib = &xbb_libnbd;
	int64_t cookie;
	int error;

	a->sent_ns = xbb_now_ns();
	nbd->asked++;
	error = EOPNOTSUPP;
	cookie = -1;
	switch (a->operation) {
	case XBB_DISK_OP_READ:
		cookie = lib->aio_pread(nbd->handle, a->buffer, a->length,
		    a->offset, done, 0);
		break;
	case XBB_DISK_OP_WRITE:
		if (a->durable && !nbd->can.can_fua) {
			a->durable = false;
			a->step = XBB_AWAY_AFTER;
		}
		cookie = lib->aio_pwrite(nbd->handle, a->buffer, a->length,
		    a->offset, done, a->durable ? NBD_FUA : 0);
		break;
	case XBB_DISK_OP_FLUSH:
		a->mark = nbd->unflushed.number;
		if (!nbd->can.can_flush)
			goto done;
		cookie = lib->aio_flush(nbd->handle, done, 0);
		break;
	default:
		if (!nbd->can_trim)
			goto done;
		cookie = lib->aio_trim(nbd->handle, a->length, a->offset, done,
		    0);
	}
	if (cookie >= 0)
		return (true);
	if (lib->aio_is_ready(nbd->handle) != 1) {
		nbd->asked--;
		return (false);
	}
	error = lib->get_errno();
done:
	error = error != 0 ? error : EIO;
	(void)note_done(a, &error);
	return (true);
}

/* Something of our own, which nobody but us waits for. */

void
xbb_nbd_send_flush(struct xbb_nbd *nbd)
{

	nbd->own = (struct xbb_away){
		.nbd = nbd, .operation = XBB_DISK_OP_FLUSH,
	};
	nbd->own_out = ask_server(nbd, &nbd->own);
}

/* What is to be done again, and is the next of that. */
void
xbb_nbd_send_again(struct xbb_nbd *nbd)
{
	const struct xbb_unflushed_write *write = nbd->again;

	nbd->own = (struct xbb_away){
		.nbd = nbd, .buffer = write->buffer, .offset = write->offset,
		.length = write->length,
		.operation = write->buffer != NULL ? XBB_DISK_OP_WRITE :
		    XBB_DISK_OP_DISCARD,
	};
	nbd->own_out = ask_server(nbd, &nbd->own);
}

static bool
may_send(const struct xbb_nbd *nbd, const struct xbb_away *a)
{

	return (a->operation != XBB_DISK_OP_WRITE || !nbd->own_out ||
	    nbd->unflushed.bytes < XBB_UNFLUSHED_MOST);
}

void
xbb_nbd_send(struct xbb_nbd *nbd)
{
	struct xbb_away *a;

	if (nbd->unflushed.bytes >= XBB_UNFLUSHED_SOME && !nbd->own_out)
		xbb_nbd_send_flush(nbd);
	for (a = nbd->first; a != NULL && nbd->unsent != 0; a = a->next)
		if (!a->sent && may_send(nbd, a)) {
			if (!ask_server(nbd, a))
				return;
			a->sent = true;
			nbd->unsent--;
		}
}
