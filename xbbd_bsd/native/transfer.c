/*
 * transfer.c - carry one batch out: map its pages, move the data, flush,
 * unmap, and leave a status in each of its requests.  Runs on an I/O thread or
 * on the ring's, and changes nothing of the queue but the batch, its requests
 * and the opinion about the disk's speed.
 */
#include <assert.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/*
 * Move all bytes of iov, however many calls that takes; iov is used up.
 * Returns 0 or a negative errno; -EIO when the disk ends early, for a size
 * that was checked against it.
 */
int
xbb_transfer(int fd, bool write, struct iovec *iov, int niov, off_t offset,
    bool *was_short)
{
	ssize_t n;

	while (niov > 0) {
		n = write ? pwritev(fd, iov, niov, offset) :
		    preadv(fd, iov, niov, offset);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return (-errno);
		}
		if (n == 0)
			return (-EIO);
		offset += n;
		while (niov > 0 && (size_t)n >= iov->iov_len) {
			n -= iov->iov_len;
			iov++;
			niov--;
		}
		if (niov > 0) {
			*was_short = true;
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
	return (0);
}

/* Describe the mapped segments of the batch; neighbours become one vector. */
static int
fill_iov(const struct xbb_queue *q, const struct xbb_batch *batch,
    const struct xbb_map *map, struct iovec iov[XBB_MAX_BATCH_SEGMENTS])
{
	const struct xbb_segment *seg;
	const struct xbb_req *req;
	uint8_t *base, *page;
	uint32_t i;
	uint16_t r;
	int niov;

	niov = 0;
	page = map->base;
	for (r = batch->first; r != XBB_NONE; r = req->next) {
		req = &q->reqs[r];
		for (i = 0; i < req->nseg; i++, page += XBB_PAGE_SIZE) {
			seg = &req->seg[i];
			base = page + seg->first_sect * XBB_SECTOR_SIZE;
			if (niov == 0 || base !=
			    (uint8_t *)iov[niov - 1].iov_base +
			    iov[niov - 1].iov_len) {
				iov[niov].iov_base = base;
				iov[niov].iov_len = 0;
				niov++;
			}
			iov[niov - 1].iov_len += XBB_SECTOR_SIZE *
			    (seg->last_sect - seg->first_sect + 1);
		}
		if (r == batch->last)
			break;
	}
	return (niov);
}

/*
 * Is the disk one to wait for?  What waits for SLOW_NS counts much, a stall
 * even more, and what is over sooner takes a little away: a thread that lost
 * its processor in the middle does not make a disk slow, a disk that is slow
 * one time in ten does.  Flushes have an account of their own, which begins
 * with the worst, since a single one may take seconds.  Racing writers cost a
 * sample, no more.
 */
#define SLOW_NS		20000
#define SLOW_WEIGHT	10
#define STALL_NS	5000000
#define STALL_WEIGHT	30
#define SLOW_ENOUGH	40

static void
judge(atomic_uint *slowness, uint64_t took, uint64_t computing)
{
	unsigned int old, new;

	old = atomic_load_explicit(slowness, memory_order_relaxed);
	if (took < SLOW_NS + computing)
		new = old > 0 ? old - 1 : 0;
	else
		new = old + (took < STALL_NS ? SLOW_WEIGHT : STALL_WEIGHT);
	if (new > XBB_SLOWEST)
		new = XBB_SLOWEST;
	if (new != old)
		atomic_store_explicit(slowness, new, memory_order_relaxed);
}

/*
 * What a batch costs in processor time, which is not waiting: one in so many
 * is measured.  A call costs about what OVERHEAD_PAGES pages do.
 */
#define SAMPLE_EVERY	64
#define OVERHEAD_PAGES	4

static uint64_t
computing_ns(struct xbb_queue *q, const struct xbb_batch *batch)
{

	return ((uint64_t)(batch->nseg + OVERHEAD_PAGES) *
	    atomic_load_explicit(&q->page_ns, memory_order_relaxed));
}

static bool
is_sample(struct xbb_queue *q)
{

	return (atomic_fetch_add_explicit(&q->runs, 1,
	    memory_order_relaxed) % SAMPLE_EVERY == 0);
}

static void
learn_cost(struct xbb_queue *q, const struct xbb_batch *batch, uint64_t cpu)
{

	atomic_store_explicit(&q->page_ns, (unsigned int)(cpu /
	    (batch->nseg + OVERHEAD_PAGES)), memory_order_relaxed);
}

/* Note what the disk said, as opposed to what a guest did wrong. */
static int
note(struct xbb_batch *batch, int error)
{

	batch->tally.io_errors += error != 0;
	batch->tally.disk_gone |= error == -ENXIO;
	return (error);
}

static int
flush(struct xbb_queue *q, struct xbb_batch *batch)
{
	uint64_t before;
	int error;

	batch->tally.flushes++;
	before = xbb_now_ns();
	error = xbb_disk_flush(q->params.disk_fd, q->params.disk_kind);
	judge(&q->flush_slowness, xbb_now_ns() - before, 0);
	return (note(batch, error));
}

/*
 * The disk's part.  What a barrier promises about durability is done around
 * the data: everything older first, then the data, then it is durable too.
 */
static int
move(struct xbb_queue *q, struct xbb_batch *batch, struct iovec *iov, int niov)
{
	bool was_short;
	int error;

	error = 0;
	was_short = false;
	if (xbb_batch_is_barrier(batch))
		error = flush(q, batch);
	if (error == 0)
		error = note(batch, xbb_transfer(q->params.disk_fd,
		    batch->operation != XBB_OP_READ, iov, niov,
		    (off_t)(batch->sector * XBB_SECTOR_SIZE), &was_short));
	if (error == 0 && xbb_batch_is_barrier(batch))
		error = flush(q, batch);
	batch->tally.io_short += was_short;
	return (error);
}

static int
move_mapped(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct iovec iov[XBB_MAX_BATCH_SEGMENTS];
	struct xbb_map map;
	int error;

	error = xbb_grants_map(q, batch, &map);
	if (error != 0)
		return (error);
	error = move(q, batch, iov, fill_iov(q, batch, &map, iov));
	xbb_grants_unmap(q, batch, &map);
	return (error);
}

static int
move_copied(struct xbb_queue *q, struct xbb_batch *batch, uint8_t *buffer)
{
	struct iovec iov;
	int error;

	iov = (struct iovec){ buffer,
	    (size_t)batch->nsectors * XBB_SECTOR_SIZE };
	if (batch->operation == XBB_OP_READ) {
		error = move(q, batch, &iov, 1);
		return (error != 0 ? error :
		    xbb_grants_copy(q, batch, buffer, true));
	}
	error = xbb_grants_copy(q, batch, buffer, false);
	return (error != 0 ? error : move(q, batch, &iov, 1));
}

static int
perform(struct xbb_queue *q, struct xbb_batch *batch, uint8_t *buffer)
{

	if (batch->faked)
		return (0);
	if (batch->nseg == 0)
		return (flush(q, batch));
	return (buffer != NULL ? move_copied(q, batch, buffer) :
	    move_mapped(q, batch));
}

static int16_t
status_of(const struct xbb_batch *batch, int error)
{

	if (error == 0)
		return (XBB_RSP_OKAY);
	/* "Cannot flush" is for good; the frontend should stop asking. */
	if (batch->nseg == 0 && (error == -EOPNOTSUPP || error == -ENOTTY))
		return (XBB_RSP_EOPNOTSUPP);
	return (XBB_RSP_ERROR);
}

/* The same again for one request of a batch that failed as a whole. */
static int16_t
perform_alone(struct xbb_queue *q, struct xbb_batch *batch, uint16_t r,
    uint8_t *buffer)
{
	struct xbb_batch one;
	int16_t status;
	uint16_t next;

	next = q->reqs[r].next;
	xbb_batch_begin(&one, q->reqs, r);
	one.tally = batch->tally;
	status = status_of(&one, perform(q, &one, buffer));
	batch->tally = one.tally;
	q->reqs[r].next = next;
	return (status);
}

/* Would carrying this batch out keep a thread for long? */
bool
xbb_batch_is_slow(struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (xbb_batch_flushes(batch) &&
	    atomic_load_explicit(&q->flush_slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH)
		return (true);
	return (batch->nseg != 0 &&
	    atomic_load_explicit(&q->slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH);
}

/*
 * Carry the batch out.  If a merged one fails, each request is done again by
 * itself: reads and writes can be repeated, and only those that fail alone may
 * report an error.
 */
void
xbb_batch_run(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	const bool sample = is_sample(q);
	uint64_t before, cpu_before, took;
	uint8_t *buffer;
	uint16_t r;
	int error;

	buffer = q->buffers == NULL ? NULL : q->buffers +
	    (size_t)thread * q->params.max_batch_segments * XBB_PAGE_SIZE;
	cpu_before = sample ? xbb_thread_cpu_ns() : 0;
	before = xbb_now_ns();
	error = perform(q, batch, buffer);
	if (batch->tally.flushes == 0 && !batch->faked) {
		took = xbb_now_ns() - before;
		if (sample)
			learn_cost(q, batch, xbb_thread_cpu_ns() - cpu_before);
		judge(&q->slowness, took, computing_ns(q, batch));
	}
	for (r = batch->first; r != XBB_NONE; r = q->reqs[r].next) {
		if (error != 0 && batch->nreq > 1 && batch->nseg != 0)
			q->reqs[r].status = perform_alone(q, batch, r, buffer);
		else
			q->reqs[r].status = status_of(batch, error);
		XBB_SET(q->reqs[r].state, XBB_REQ_DONE);
	}
}
