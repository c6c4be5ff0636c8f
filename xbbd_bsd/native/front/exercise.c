/*
 * exercise.c - random I/O as a guest would do it, checked against a plain copy
 * of the disk.  An operation that failed leaves sectors of which nobody knows
 * what they hold, until they are written again.  Runs on the calling thread.
 */
#include <stdlib.h>
#include <string.h>

#include "front/front.h"

#define BUSY_WRITE	0xff		/* a sector being written */
#define BUSY_READS	0xfe		/* most reads of one sector at once */

struct exercise {
	const struct xbb_workload *load;
	struct xbb_progress *progress;
	uint64_t	 random;
	uint64_t	 begun_ns;
	uint64_t	 submitted;	/* operations */
	uint64_t	 now;		/* of this pass */
	uint32_t	 inflight;
	uint8_t		*busy;		/* one a sector, if there is a model */
	uint8_t		*unknown;	/* likewise: not what the model says */
};

/* splitmix64: any seed will do, and it fills pages quickly. */
uint64_t
xbb_random(uint64_t *state)
{
	uint64_t z;

	z = (*state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31));
}

/* Mark the sectors of an operation; false, and nothing marked, if in use. */
static bool
mark_busy(struct exercise *ex, uint64_t at, uint32_t n, bool write)
{
	uint32_t i;

	if (ex->busy == NULL)
		return (true);
	for (i = 0; i < n; i++)
		if (write ? ex->busy[at + i] != 0 :
		    ex->busy[at + i] >= BUSY_READS)
			return (false);
	for (i = 0; i < n; i++)
		ex->busy[at + i] = write ? BUSY_WRITE : ex->busy[at + i] + 1;
	return (true);
}

static void
mark_idle(struct exercise *ex, uint64_t at, uint32_t n, bool write)
{
	uint32_t i;

	if (ex->busy == NULL)
		return;
	for (i = 0; i < n; i++)
		ex->busy[at + i] = write ? 0 : ex->busy[at + i] - 1;
}

static void
compare_read(struct exercise *ex, const struct front_slot *slot, uint64_t at)
{
	const uint8_t *data, *model;
	uint32_t i;

	data = slot->data + slot->skew * XBB_SECTOR_SIZE;
	model = ex->load->model + at * XBB_SECTOR_SIZE;
	if (memcmp(data, model, (size_t)slot->nsectors * XBB_SECTOR_SIZE) == 0)
		return;
	for (i = 0; i < slot->nsectors; i++) {
		if (ex->unknown[at + i] || memcmp(data + i * XBB_SECTOR_SIZE,
		    model + i * XBB_SECTOR_SIZE, XBB_SECTOR_SIZE) == 0)
			continue;
		if (ex->progress->mismatches == 0)
			XBB_SET(ex->progress->first_mismatch,
			    slot->sector + i);
		XBB_COUNT(ex->progress->mismatches, 1);
		return;
	}
}

static void
count_done(struct exercise *ex, const struct front_slot *slot)
{
	struct xbb_progress *p = ex->progress;

	switch (slot->operation) {
	case XBB_OP_READ:
		XBB_COUNT(p->reads, 1);
		XBB_COUNT(p->sectors_read, slot->nsectors);
		return;
	case XBB_OP_WRITE_BARRIER:
		XBB_COUNT(p->barriers, 1);
		break;
	case XBB_OP_WRITE:
		XBB_COUNT(p->writes, 1);
		break;
	case XBB_OP_DISCARD:
		XBB_COUNT(p->discards, 1);
		return;
	default:
		XBB_COUNT(p->flushes, 1);
		return;
	}
	XBB_COUNT(p->sectors_written, slot->nsectors);
}

static void
operation_done(struct xbb_front *front, struct front_slot *slot,
    int16_t status, void *arg)
{
	const bool okay = status == XBB_RSP_OKAY;
	struct exercise *ex = arg;
	uint64_t at;

	(void)front;
	ex->inflight--;
	at = slot->sector - ex->load->first_sector;
	xbb_latency_add(ex->progress->latency, ex->now - slot->started_ns);
	if (okay)
		count_done(ex, slot);
	else
		XBB_COUNT(ex->progress->errors, 1);
	if (ex->busy == NULL || slot->operation == XBB_OP_FLUSH_DISKCACHE)
		return;
	if (slot->operation == XBB_OP_READ) {
		if (okay)
			compare_read(ex, slot, at);
	} else if (okay)
		memset(ex->unknown + at, 0, slot->nsectors);
	mark_idle(ex, at, slot->nsectors, slot->operation != XBB_OP_READ);
}

/* New data for a write, in the pages and in the model. */
static void
invent_data(struct exercise *ex, struct front_slot *slot, uint64_t at,
    uint32_t n, uint16_t skew)
{
	uint64_t *word;
	uint8_t *data;
	size_t i;

	data = slot->data + skew * XBB_SECTOR_SIZE;
	word = (uint64_t *)(void *)data;
	for (i = 0; i < n * (XBB_SECTOR_SIZE / sizeof(*word)); i++)
		word[i] = xbb_random(&ex->random);
	if (ex->load->model != NULL)
		memcpy(ex->load->model + at * XBB_SECTOR_SIZE, data,
		    (size_t)n * XBB_SECTOR_SIZE);
}

static bool
one_in(struct exercise *ex, uint32_t n)
{

	return (n != 0 && xbb_random(&ex->random) % n == 0);
}

static uint8_t
choose_operation(struct exercise *ex)
{
	const struct xbb_workload *load = ex->load;

	if (one_in(ex, load->flush_every))
		return (XBB_OP_FLUSH_DISKCACHE);
	if (one_in(ex, load->discard_every))
		return (XBB_OP_DISCARD);
	if (xbb_random(&ex->random) % 100 < load->read_percent)
		return (XBB_OP_READ);
	return (one_in(ex, load->barrier_every) ?
	    XBB_OP_WRITE_BARRIER : XBB_OP_WRITE);
}

/* Submit one random operation; false if the range drawn was in use. */
static bool
submit_operation(struct xbb_front *front, struct exercise *ex)
{
	const struct xbb_workload *load = ex->load;
	const uint32_t most = front_max_sectors(front);
	const uint8_t op = choose_operation(ex);
	struct front_slot *slot = front->free;
	uint32_t n, steps;
	uint16_t skew;
	uint64_t at;

	slot->started_ns = ex->now;
	if (op == XBB_OP_FLUSH_DISKCACHE) {
		front_submit(front, op, 0, 0, 0, false);
		return (true);
	}
	steps = (load->max_sectors - load->min_sectors) / load->align_sectors;
	n = load->min_sectors + load->align_sectors *
	    (uint32_t)(xbb_random(&ex->random) % (steps + 1));
	at = xbb_random(&ex->random) %
	    ((load->sectors - n) / load->align_sectors + 1) *
	    load->align_sectors;
	if (!mark_busy(ex, at, n, op != XBB_OP_READ))
		return (false);
	/* Data need not begin at a page; figures are taken as if it did. */
	skew = ex->busy != NULL && n + XBB_SECTORS_PER_PAGE <= most ?
	    (uint16_t)(xbb_random(&ex->random) % XBB_SECTORS_PER_PAGE) : 0;
	if (ex->busy != NULL && op != XBB_OP_READ)
		memset(ex->unknown + at, 1, n);	/* until it is answered */
	if (op == XBB_OP_DISCARD) {
		/* What a disk may read as afterwards; ours read as zeros. */
		if (load->model != NULL)
			memset(load->model + at * XBB_SECTOR_SIZE, 0,
			    (size_t)n * XBB_SECTOR_SIZE);
	} else if (op != XBB_OP_READ)
		invent_data(ex, slot, at, n, skew);
	else if (load->model != NULL)
		memset(slot->data + skew * XBB_SECTOR_SIZE, 0xa5,
		    (size_t)n * XBB_SECTOR_SIZE);
	front_submit(front, op, load->first_sector + at, n, skew,
	    one_in(ex, load->indirect_every));
	return (true);
}

static bool
is_over(const struct exercise *ex)
{
	const struct xbb_workload *load = ex->load;

	return (XBB_GET(ex->progress->stop) != 0 ||
	    (load->operations != 0 && ex->submitted >= load->operations) ||
	    (load->seconds > 0 && (double)(ex->now - ex->begun_ns) >=
	    load->seconds * 1e9));
}

static int
wait_for_event(struct xbb_front *front, int timeout_ms)
{
	int n;

	n = front->ops->wait(front->hv, timeout_ms);
	if (n == 0)
		return (-ETIMEDOUT);
	if (n > 0)
		n = front_take(front);
	return (n < 0 ? n : 0);
}

/* A guest with nothing else to do looks for a while before it sleeps. */
static bool
poll_responses(struct xbb_front *front, struct exercise *ex)
{
	uint64_t end;
	uint32_t i;

	if (ex->load->poll_us == 0)
		return (false);
	end = ex->now + (uint64_t)ex->load->poll_us * 1000;
	do
		for (i = 0; i < 32; i++) {
			if (front_has_responses(front))
				return (true);
			xbb_relax();
		}
	while (xbb_now_ns() < end);
	return (false);
}

static int
run_exercise(struct xbb_front *front, struct exercise *ex, int timeout_ms)
{
	struct xbb_progress *p = ex->progress;
	uint32_t tries;
	int error;

	for (;;) {
		ex->now = xbb_now_ns();
		XBB_SET(p->elapsed_ns, ex->now - ex->begun_ns);
		for (tries = 0; ex->inflight < ex->load->depth &&
		    tries < 64 && !is_over(ex); tries++)
			if (submit_operation(front, ex)) {
				ex->inflight++;
				ex->submitted++;
				tries = 0;
			}
		front_push(front);
		if (ex->inflight == 0 && is_over(ex))
			return (0);
		ex->now = xbb_now_ns();
		if (front_reap(front, operation_done, ex))
			continue;
		if (front->bad_responses != 0)
			return (-EPROTO);
		if (!poll_responses(front, ex) && !front_final_check(front)) {
			error = wait_for_event(front, timeout_ms);
			if (error != 0)
				return (error);
		}
	}
}

bool
xbb_workload_is_sane(const struct xbb_workload *load, uint32_t most_inflight,
    uint32_t most_sectors)
{

	return (load->depth >= 1 && load->depth <= most_inflight &&
	    load->align_sectors >= 1 && load->min_sectors >= 1 &&
	    load->min_sectors % load->align_sectors == 0 &&
	    load->min_sectors <= load->max_sectors &&
	    load->max_sectors <= most_sectors &&
	    load->max_sectors <= load->sectors && load->read_percent <= 100);
}

int
xbb_front_exercise(struct xbb_front *front, const struct xbb_workload *load,
    struct xbb_progress *progress, int timeout_ms)
{
	struct exercise ex = {
		.load = load, .progress = progress, .random = load->seed,
	};
	uint64_t cpu;
	int error;

	if (!xbb_workload_is_sane(load, front->params.depth,
	    front_max_sectors(front)))
		return (-EINVAL);
	if (load->model != NULL) {
		ex.busy = calloc(load->sectors, 2);
		if (ex.busy == NULL)
			return (-ENOMEM);
		ex.unknown = load->unknown != NULL ? load->unknown :
		    ex.busy + load->sectors;
	}
	XBB_SET(progress->running, 1);
	cpu = xbb_thread_cpu_ns();
	ex.begun_ns = xbb_now_ns();
	error = run_exercise(front, &ex, timeout_ms);
	XBB_SET(progress->cpu_ns, xbb_thread_cpu_ns() - cpu);
	XBB_SET(progress->still_mapped, front->still_mapped);
	XBB_SET(progress->bad_responses, front->bad_responses);
	XBB_SET(progress->running, 0);
	free(ex.busy);
	return (error);
}
