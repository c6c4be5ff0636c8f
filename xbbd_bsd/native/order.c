/*
 * order.c - which batch is started next, and what must have ended before: in
 * order, but for a flush, which steps aside until the writes before it have
 * ended, and for what overlaps.  The rules of coalesce.c applied to the lists of
 * a queue.  Ring thread.
 */
#include "internal.h"

/* Does the batch overlap one of these? */
static bool
overlaps_any(const struct xbb_queue *q, const struct xbb_batch *batch,
    const struct xbb_batch *s)
{

	for (; s != NULL; s = s->next_started)
		if (xbb_batch_overlaps(batch, s, q->params.block_size))
			return (true);
	return (false);
}

static bool
may_start(struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (q->nstarted == 0) {
		q->short_of_grants = false;
		return (true);
	}
	if (q->barrier_started || xbb_batch_is_barrier(batch))
		return (false);
	if (q->started_segments + batch->nseg > q->params.max_grants) {
		if (!q->short_of_grants)
			XBB_COUNT(q->rs->counters.kva_shortages, 1);
		q->short_of_grants = true;
		return (false);
	}
	q->short_of_grants = false;
	return (!overlaps_any(q, batch, q->started[true].oldest) &&
	    !(xbb_batch_writes(batch) &&
	    overlaps_any(q, batch, q->started[false].oldest)));
}

/* Have the writes ended that were started before this flush came? */
static bool
flush_may_start(const struct xbb_queue *q, const struct xbb_batch *flush)
{
	const struct xbb_batch *oldest = q->started[true].oldest;

	return (oldest == NULL || oldest->order >= flush->order);
}

/*
 * Take the batch that is to be started next, if there is one that may.  A flush
 * that must wait steps aside, so that nothing has to wait behind it.
 */
struct xbb_batch *
xbb_order_next(struct xbb_queue *q)
{
	struct xbb_batch *batch;

	batch = q->waiting.head;
	if (batch != NULL && flush_may_start(q, batch))
		return (xbb_batch_list_take(&q->waiting));
	while ((batch = q->pending.head) != NULL) {
		if (!xbb_batch_is_flush(batch) || q->barrier_started ||
		    q->started[true].oldest == NULL)
			return (may_start(q, batch) ?
			    xbb_batch_list_take(&q->pending) : NULL);
		batch = xbb_batch_list_take(&q->pending);
		batch->order = q->starts;
		xbb_batch_list_put(&q->waiting, batch);
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

	batch->order = q->starts++;
	put_started(&q->started[xbb_batch_writes(batch)], batch);
	q->nstarted++;
	q->started_segments += batch->nseg;
	q->barrier_started = xbb_batch_is_barrier(batch);
}

void
xbb_order_ended(struct xbb_queue *q, struct xbb_batch *batch)
{

	remove_started(&q->started[xbb_batch_writes(batch)], batch);
	q->nstarted--;
	q->started_segments -= batch->nseg;
	if (xbb_batch_is_barrier(batch))
		q->barrier_started = false;
}
