/*
 * order.c - which batch is started next, and what must have ended before: in
 * order, but for a flush, which steps aside until the writes before it have
 * ended, and for what overlaps.  The rules of coalesce.c applied to the lists
 * of a queue.  Ring thread.
 */
#include "block/block.h"

/* Does the batch overlap one of these? */
static bool
overlaps_any(const struct xbb_queue *q, const struct xbb_batch *batch,
    const struct xbb_batch *s)
{

	for (; s != NULL; s = s->next_started)
		if (xbb_batch_overlaps(batch, s, q->set.params.block_size))
			return (true);
	return (false);
}

static bool
may_start(struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (q->own.nstarted == 0) {
		q->own.short_of_grants = false;
		return (true);
	}
	if (q->own.barrier_started || xbb_batch_is_barrier(batch))
		return (false);
	if (q->own.started_segments + batch->nseg > q->set.params.max_grants) {
		if (!q->own.short_of_grants)
			XBB_COUNT(q->conn.rc->counters.kva_shortages, 1);
		q->own.short_of_grants = true;
		return (false);
	}
	q->own.short_of_grants = false;
	return (!overlaps_any(q, batch, q->own.started[true].oldest) &&
	    !(xbb_batch_writes(batch) &&
	    overlaps_any(q, batch, q->own.started[false].oldest)));
}

/* Have the writes ended that were started before this flush came? */
static bool
flush_may_start(const struct xbb_queue *q, const struct xbb_batch *flush)
{
	const struct xbb_batch *oldest = q->own.started[true].oldest;

	return (oldest == NULL || oldest->order >= flush->order);
}

/* The first of a list, which may be started, unless a limit holds it back. */
static inline struct xbb_batch *
take_first(struct xbb_queue *q, struct xbb_work_list *list)
{

	if (xbb_throttle_holds(q, xbb_batch_of(list->head)))
		return (NULL);
	return (xbb_batch_of(xbb_work_take(list)));
}

/*
 * Take the batch that is to be started next, if there is one that may.  A flush
 * that must wait steps aside, so that nothing has to wait behind it.
 */
struct xbb_batch *
xbb_order_next(struct xbb_queue *q)
{
	struct xbb_batch *batch;

	batch = xbb_batch_of(q->own.waiting.head);
	if (batch != NULL && flush_may_start(q, batch))
		return (take_first(q, &q->own.waiting));
	while ((batch = xbb_batch_of(q->own.pending.head)) != NULL) {
		if (!xbb_batch_is_flush(batch) || q->own.barrier_started ||
		    q->own.started[true].oldest == NULL)
			return (may_start(q, batch) ? take_first(q,
			    &q->own.pending) : NULL);
		(void)xbb_work_take(&q->own.pending);
		batch->order = q->own.starts;
		xbb_work_put(&q->own.waiting, &batch->work);
	}
	return (NULL);
}

static void
put_started(struct xbb_started *list, struct xbb_batch *batch)
{

	batch->next_started = NULL;
	batch->prev_started = list->newest;
	if (list->newest != NULL)
		list->newest->next_started = batch;
	else
		list->oldest = batch;
	list->newest = batch;
}

static void
remove_started(struct xbb_started *list, struct xbb_batch *batch)
{

	if (batch->prev_started != NULL)
		batch->prev_started->next_started = batch->next_started;
	else
		list->oldest = batch->next_started;
	if (batch->next_started != NULL)
		batch->next_started->prev_started = batch->prev_started;
	else
		list->newest = batch->prev_started;
}

void
xbb_order_started(struct xbb_queue *q, struct xbb_batch *batch)
{

	batch->order = q->own.starts++;
	put_started(&q->own.started[xbb_batch_writes(batch)], batch);
	q->own.nstarted++;
	q->own.started_segments += batch->nseg;
	q->own.barrier_started = xbb_batch_is_barrier(batch);
}

void
xbb_order_ended(struct xbb_queue *q, struct xbb_batch *batch)
{

	remove_started(&q->own.started[xbb_batch_writes(batch)], batch);
	q->own.nstarted--;
	q->own.started_segments -= batch->nseg;
	if (xbb_batch_is_barrier(batch))
		q->own.barrier_started = false;
}
