/*
 * resume.c - batches that are held (hold.c): tried again when that is due, or
 * given up, since nobody waits for them any longer; and those of a disk that is
 * paused, which nobody has begun.  Ring thread.
 */
#include "block/block.h"

/*
 * Carry it out once more; of one that waited for an operator time begins anew.
 * It stays held until somebody begins.
 */
static void
try_again(struct xbb_queue *q, struct xbb_batch *batch)
{

	XBB_COUNT(q->set.rs->counters.io_retries, 1);
	if (batch->until_resumed)
		batch->held_ns = xbb_now_ns();
	xbb_pages_pin(q, batch);
	(void)q->set.store->submit(q, batch);
}

/*
 * Try again what is due, unless the disk is paused; or give it up, since nobody
 * waits for it any longer.  True if there was any of that.
 */
bool
xbb_hold_release(struct xbb_queue *q)
{
	const bool ends = xbb_conn_ends(&q->conn);
	struct xbb_work_list held;
	struct xbb_batch *batch;
	uint64_t now;
	bool any;

	if (xbb_pause_is_on(q) && !ends)
		return (false);
	now = xbb_now_ns();
	held = q->own.held;
	q->own.held = (struct xbb_work_list){ 0 };
	any = false;
	while ((batch = xbb_batch_of(xbb_work_take(&held))) != NULL)
		if (ends) {
			xbb_batch_give_up(q, batch);
			xbb_settle(q, batch);
			any = true;
		} else if (xbb_pause_is_on(q) ||
		    (!batch->until_resumed && now < batch->again_ns))
			xbb_work_put(&q->own.held, &batch->work);
		else {
			try_again(q, batch);
			any = true;
		}
	return (any);
}

static uint64_t
earlier_one(uint64_t at_ns, const struct xbb_work *work)
{
	const struct xbb_batch *batch = (const void *)work;

	return (batch->again_ns < at_ns ? batch->again_ns : at_ns);
}

/* How long the ring's thread may sleep, which otherwise would for limit_ms. */
int
xbb_hold_wait(const struct xbb_queue *q, int limit_ms)
{
	const struct xbb_work *work;
	uint64_t at, now;
	int ms;

	if (q->own.held.head == NULL || xbb_pause_is_on(q))
		return (limit_ms);
	at = UINT64_MAX;
	for (work = q->own.held.head; work != NULL; work = work->next)
		at = earlier_one(at, work);
	now = xbb_now_ns();
	ms = at <= now ? 0 : (int)((at - now + 999999) / 1000000);
	return (limit_ms >= 0 && limit_ms < ms ? limit_ms : ms);
}

/* What becomes of it if the ring ends before it was done. */
static struct xbb_verdict
cancelled(const struct xbb_batch *batch)
{

	return ((struct xbb_verdict){
		.blame = XBB_BLAME_HOST,
		.errnum = ECANCELED,
		.operation = xbb_batch_is_flush(batch) ? XBB_DISK_OP_FLUSH :
		    batch->operation == XBB_OP_DISCARD ? XBB_DISK_OP_DISCARD :
		    batch->operation == XBB_OP_READ ? XBB_DISK_OP_READ :
		    XBB_DISK_OP_WRITE,
	});
}

/*
 * A started batch that its store has given back, since the disk is paused: it
 * is begun anew when that is over, by whoever serves the ring then.
 */
void
xbb_hold_back(struct xbb_queue *q, struct xbb_batch *batch)
{

	batch->starved = batch->held = batch->until_resumed = true;
	batch->held_why = cancelled(batch);
	batch->again_ns = 0;
	xbb_pages_unpin(q, batch);
	xbb_work_put(&q->own.held, &batch->work);
}

/*
 * A batch that nobody has begun, of a disk that is paused, and of a ring that
 * ends: it fails, and the disk is left alone.
 */
void
xbb_hold_refuse(struct xbb_queue *q, struct xbb_batch *batch)
{

	batch->held = true;
	batch->held_why = cancelled(batch);
	batch->begun_ns = xbb_now_ns();
	xbb_batch_give_up(q, batch);
	xbb_settle(q, batch);
}
