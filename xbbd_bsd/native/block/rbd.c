/*
 * rbd.c - the store of images in a cluster of Ceph, by the asynchronous calls
 * of librbd, whose threads do the work: the ring's thread asks, and is told by
 * a descriptor when something has come.  librbd never says that the cluster is
 * gone, it waits; and nothing can be taken back.  So what is out when nobody
 * waits any longer fails, and stays with the image until it comes.
 *
 * A disk of this kind has one ring: its completions come by one descriptor.
 */
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/rbd.h"

#define MOST_OUT	128	/* more of it can be merged meanwhile */
#define MOST_EVENTS	32	/* before others get their turn */

/* How long a queue that ends waits for a cluster that is silent. */
#define ABANDON_NS	3000000000

struct xbb_rbd {
	struct xbb_rbd_image *image;
	bool		 abandoned;	/* nobody waits for anything any more */
	uint64_t	 heard_ns;	/* when something came last */
	uint64_t	 ending_ns;	/* since when the queue ends */
	struct xbb_away	 away[];	/* by batch */
};

/* Without a cache there is little to flush, and it costs as little. */
static const struct xbb_away_store can = { .can_flush = true };

/* What is asked for. */

static int
begin_op(const struct xbb_rbd *rbd, const struct xbb_away *a,
    struct xbb_rbd_op *op)
{
	const struct xbb_librbd *lib = &xbb_librbd;
	xbb_rbd_t image = rbd->image->image;

	switch (a->operation) {
	case XBB_DISK_OP_READ:
		return (lib->aio_read(image, a->offset, a->length,
		    (char *)a->buffer, op->completion));
	case XBB_DISK_OP_WRITE:
		return (lib->aio_write(image, a->offset, a->length,
		    (const char *)a->buffer, op->completion));
	case XBB_DISK_OP_FLUSH:
		return (lib->aio_flush(image, op->completion));
	default:
		/* A discard of librbd's may leave parts as they are. */
		return (lib->aio_write_zeroes(image, a->offset, a->length,
		    op->completion, 0, 0));
	}
}

static int
ask_for_op(struct xbb_rbd *rbd, struct xbb_away *a)
{
	struct xbb_rbd_op *op;
	int error;

	if (rbd->abandoned)
		return (-ETIMEDOUT);
	op = calloc(1, sizeof(*op));
	if (op == NULL)
		return (-ENOMEM);
	op->away = a;
	error = xbb_librbd.aio_create_completion(op, NULL, &op->completion);
	if (error == 0) {
		/* It may come before this returns, and is taken later. */
		xbb_rbd_link(rbd->image, op);
		error = begin_op(rbd, a, op);
		if (error == 0)
			return (0);
		xbb_rbd_unlink(rbd->image, op);
		xbb_librbd.aio_release(op->completion);
	}
	free(op);
	return (error);
}

/* Until something of a batch is asked for, or it is settled. */
static void
ask_further(struct xbb_queue *q, struct xbb_rbd *rbd, struct xbb_away *a)
{
	int error;

	do {
		error = ask_for_op(rbd, a);
		if (error == 0)
			return;
	} while (xbb_away_end(q, a, error, &can));
}

/* What has come. */

/* A read that is short is one of an image that ends there by now. */
static int
error_in(const struct xbb_away *a, int64_t result)
{

	if (result < 0)
		return (result < -INT16_MAX ? -EIO : (int)result);
	if (a->operation == XBB_DISK_OP_READ && (uint64_t)result != a->length)
		return (-EIO);
	return (0);
}

static void
take_completion(struct xbb_queue *q, struct xbb_rbd *rbd,
    xbb_rbd_completion_t completion)
{
	struct xbb_rbd_op *op = xbb_librbd.aio_get_arg(completion);
	const int64_t result = xbb_librbd.aio_get_return_value(completion);
	struct xbb_away *a = op->away;

	xbb_librbd.aio_release(completion);
	xbb_rbd_unlink(rbd->image, op);
	free(op->buffer);
	free(op);
	if (a != NULL && xbb_away_end(q, a, error_in(a, result), &can))
		ask_further(q, rbd, a);
}

/* Nobody waits any longer: all that is out fails, whatever comes of it. */
static void
abandon_ops(struct xbb_queue *q, struct xbb_rbd *rbd)
{
	struct xbb_rbd_op *op;
	struct xbb_away *a;

	rbd->abandoned = true;
	for (op = rbd->image->ops; op != NULL; op = op->next) {
		a = op->away;
		if (a == NULL)
			continue;
		op->buffer = a->buffer;
		a->buffer = NULL;
		op->away = NULL;
		while (xbb_away_end(q, a, -ETIMEDOUT, &can))
			continue;
	}
}

/* When a queue that ends has waited for long enough; 0: it need not. */
static uint64_t
patience_ends(const struct xbb_queue *q, struct xbb_rbd *rbd, uint64_t now)
{

	if (!xbb_conn_ends(&q->conn) || rbd->abandoned || rbd->image->out == 0)
		return (0);
	if (rbd->ending_ns == 0)
		rbd->ending_ns = now;
	return ((rbd->heard_ns > rbd->ending_ns ? rbd->heard_ns :
	    rbd->ending_ns) + ABANDON_NS);
}

/* The operations of the store. */

static int
rbd_open(struct xbb_queue *q)
{
	const uint32_t n = xbb_max_requests(q->set.params.abi,
	    q->set.params.conn.ring_pages);
	struct xbb_rbd *rbd;

	rbd = calloc(1, sizeof(*rbd) + n * sizeof(rbd->away[0]));
	if (rbd == NULL)
		return (-ENOMEM);
	rbd->image = xbb_rbd_take(q->set.params.disk_fd);
	if (rbd->image == NULL) {
		free(rbd);
		return (-EBADF);
	}
	q->set.rbd = rbd;
	return (0);
}

static void
rbd_close(struct xbb_queue *q)
{
	struct xbb_rbd *rbd = q->set.rbd;

	if (rbd == NULL)
		return;
	xbb_rbd_give_back(rbd->image);
	free(rbd);
}

static bool
rbd_is_full(const struct xbb_queue *q)
{

	return (q->set.rbd->image->out >= MOST_OUT);
}

static bool
rbd_submit(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_rbd *rbd = q->set.rbd;
	struct xbb_away *a = &rbd->away[batch - q->set.batches];

	if (xbb_away_begin(q, a, batch, &can))
		ask_further(q, rbd, a);
	return (false);
}

/* All has been asked for: say what to wait for. */
static bool
rbd_push(struct xbb_queue *q)
{
	struct xbb_rest *rest = &q->conn.rest;
	const struct xbb_rbd *rbd = q->set.rbd;

	rest->also_fd = rbd->image->fd;
	rest->also_events = POLLIN;
	rest->also_awaited = rbd->image->out != 0;
	return (false);
}

static bool
rbd_reap(struct xbb_queue *q)
{
	struct xbb_rbd *rbd = q->set.rbd;
	xbb_rbd_completion_t come[MOST_EVENTS];
	uint64_t drop, end, now;
	int i, n;

	/* First, so that what comes meanwhile is said again. */
	if (q->conn.rest.also_ready) {
		(void)!read(rbd->image->fd, &drop, sizeof(drop));
		q->conn.rest.also_ready = false;
	}
	if (rbd->image->out == 0)
		return (false);
	n = xbb_librbd.poll_io_events(rbd->image->image, come, MOST_EVENTS);
	if (n > 0)
		rbd->heard_ns = xbb_now_ns();
	for (i = 0; i < n; i++)
		take_completion(q, rbd, come[i]);
	if (n > 0 || !xbb_conn_ends(&q->conn))
		return (n > 0);
	now = xbb_now_ns();
	end = patience_ends(q, rbd, now);
	if (end == 0 || now < end)
		return (false);
	abandon_ops(q, rbd);
	return (true);
}

static int
rbd_wait(struct xbb_queue *q)
{
	const uint64_t now = xbb_now_ns();
	const uint64_t end = patience_ends(q, q->set.rbd, now);

	if (end == 0)
		return (-1);
	return (end <= now ? 0 : (int)((end - now) / 1000000 + 1));
}

const struct xbb_store_ops xbb_store_rbd = {
	.open = rbd_open,
	.close = rbd_close,
	.is_full = rbd_is_full,
	.submit = rbd_submit,
	.push = rbd_push,
	.reap = rbd_reap,
	.wait = rbd_wait,
};
