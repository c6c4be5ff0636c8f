/*
 * exercise.c - random I/O as a guest would do it, checked against a plain copy
 * of the disk, and the same reads without ring and backend as a yardstick.
 * Runs on the calling thread; the yardstick makes one thread for each request
 * in flight.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front.h"

#define BUSY_WRITE	0xff		/* a sector being written, or unknown */
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
};

/* splitmix64: any seed will do, and it fills pages quickly. */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t z;

	z = (*state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31));
}

/* Eight buckets for each power of two; stats.py knows the way back. */
void
xbb_latency_add(uint64_t histogram[XBB_LATENCY_BUCKETS], uint64_t ns)
{
	uint32_t bucket, e;

	if (ns < 8)
		bucket = (uint32_t)ns;
	else {
		e = 63 - (uint32_t)__builtin_clzll(ns);
		bucket = (e - 2) * 8 + ((uint32_t)(ns >> (e - 3)) & 7);
	}
	if (bucket >= XBB_LATENCY_BUCKETS)
		bucket = XBB_LATENCY_BUCKETS - 1;
	XBB_COUNT(histogram[bucket], 1);
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
compare(struct exercise *ex, const struct front_slot *slot, uint64_t at)
{
	const uint8_t *data, *model;
	uint32_t i;

	data = slot->data + slot->skew * XBB_SECTOR_SIZE;
	model = ex->load->model + at * XBB_SECTOR_SIZE;
	if (memcmp(data, model, (size_t)slot->nsectors * XBB_SECTOR_SIZE) == 0)
		return;
	for (i = 0; memcmp(data + i * XBB_SECTOR_SIZE,
	    model + i * XBB_SECTOR_SIZE, XBB_SECTOR_SIZE) == 0; i++)
		continue;
	if (ex->progress->mismatches == 0)
		XBB_SET(ex->progress->first_mismatch, slot->sector + i);
	XBB_COUNT(ex->progress->mismatches, 1);
}

static void
operation_done(struct xbb_front *front, struct front_slot *slot,
    int16_t status, void *arg)
{
	struct exercise *ex = arg;
	struct xbb_progress *p = ex->progress;
	uint64_t at;

	(void)front;
	ex->inflight--;
	at = slot->sector - ex->load->first_sector;
	xbb_latency_add(p->latency, ex->now - slot->started_ns);
	if (status != XBB_RSP_OKAY) {
		/* What a failed write left there nobody knows: it stays busy. */
		XBB_COUNT(p->errors, 1);
		if (slot->operation == XBB_OP_READ)
			mark_idle(ex, at, slot->nsectors, false);
		return;
	}
	switch (slot->operation) {
	case XBB_OP_READ:
		XBB_COUNT(p->reads, 1);
		XBB_COUNT(p->sectors_read, slot->nsectors);
		if (ex->load->model != NULL)
			compare(ex, slot, at);
		break;
	case XBB_OP_WRITE_BARRIER:
		XBB_COUNT(p->barriers, 1);
		XBB_COUNT(p->sectors_written, slot->nsectors);
		break;
	case XBB_OP_WRITE:
		XBB_COUNT(p->writes, 1);
		XBB_COUNT(p->sectors_written, slot->nsectors);
		break;
	default:
		XBB_COUNT(p->flushes, 1);
		return;
	}
	mark_idle(ex, at, slot->nsectors, slot->operation != XBB_OP_READ);
}

/* New data for a write, in the pages and in the model. */
static void
invent(struct exercise *ex, struct front_slot *slot, uint64_t at, uint32_t n,
    uint16_t skew)
{
	uint64_t *word;
	uint8_t *data;
	size_t i;

	data = slot->data + skew * XBB_SECTOR_SIZE;
	word = (uint64_t *)(void *)data;
	for (i = 0; i < n * (XBB_SECTOR_SIZE / sizeof(*word)); i++)
		word[i] = next_random(&ex->random);
	if (ex->load->model != NULL)
		memcpy(ex->load->model + at * XBB_SECTOR_SIZE, data,
		    (size_t)n * XBB_SECTOR_SIZE);
}

static bool
one_in(struct exercise *ex, uint32_t n)
{

	return (n != 0 && next_random(&ex->random) % n == 0);
}

/* Submit one random operation; false if the range drawn was in use. */
static bool
submit(struct xbb_front *front, struct exercise *ex)
{
	const struct xbb_workload *load = ex->load;
	struct front_slot *slot = front->free;
	uint32_t n, steps;
	uint16_t skew;
	uint64_t at;
	uint8_t op;

	slot->started_ns = ex->now;
	if (one_in(ex, load->flush_every)) {
		front_submit(front, XBB_OP_FLUSH_DISKCACHE, 0, 0, 0);
		return (true);
	}
	steps = (load->max_sectors - load->min_sectors) / load->align_sectors;
	n = load->min_sectors + load->align_sectors *
	    (uint32_t)(next_random(&ex->random) % (steps + 1));
	at = next_random(&ex->random) %
	    ((load->sectors - n) / load->align_sectors + 1) *
	    load->align_sectors;
	op = next_random(&ex->random) % 100 < load->read_percent ?
	    XBB_OP_READ : one_in(ex, load->barrier_every) ?
	    XBB_OP_WRITE_BARRIER : XBB_OP_WRITE;
	if (!mark_busy(ex, at, n, op != XBB_OP_READ))
		return (false);
	/* Data need not begin at a page; figures are taken as if it did. */
	skew = ex->busy != NULL && n <= FRONT_MAX_SECTORS -
	    XBB_SECTORS_PER_PAGE ? (uint16_t)(next_random(&ex->random) %
	    XBB_SECTORS_PER_PAGE) : 0;
	if (op != XBB_OP_READ)
		invent(ex, slot, at, n, skew);
	else if (load->model != NULL)
		memset(slot->data, 0xa5, XBB_MAX_SEGMENTS * XBB_PAGE_SIZE);
	front_submit(front, op, load->first_sector + at, n, skew);
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
run(struct xbb_front *front, struct exercise *ex, int timeout_ms)
{
	struct xbb_progress *p = ex->progress;
	uint32_t tries;
	int error;

	for (;;) {
		ex->now = xbb_now_ns();
		XBB_SET(p->elapsed_ns, ex->now - ex->begun_ns);
		for (tries = 0; ex->inflight < ex->load->depth &&
		    tries < 64 && !is_over(ex); tries++)
			if (submit(front, ex)) {
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

static bool
is_sane(const struct xbb_workload *load, uint32_t most_inflight)
{

	return (load->depth >= 1 && load->depth <= most_inflight &&
	    load->align_sectors >= 1 && load->min_sectors >= 1 &&
	    load->min_sectors % load->align_sectors == 0 &&
	    load->min_sectors <= load->max_sectors &&
	    load->max_sectors <= FRONT_MAX_SECTORS &&
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

	if (!is_sane(load, front->params.depth))
		return (-EINVAL);
	if (load->model != NULL) {
		ex.busy = calloc(load->sectors, 1);
		if (ex.busy == NULL)
			return (-ENOMEM);
	}
	XBB_SET(progress->running, 1);
	cpu = xbb_thread_cpu_ns();
	ex.begun_ns = xbb_now_ns();
	error = run(front, &ex, timeout_ms);
	XBB_SET(progress->cpu_ns, xbb_thread_cpu_ns() - cpu);
	XBB_SET(progress->still_mapped, front->still_mapped);
	XBB_SET(progress->bad_responses, front->bad_responses);
	XBB_SET(progress->running, 0);
	free(ex.busy);
	return (error);
}

/* The yardstick. */

struct direct {
	const struct xbb_workload *load;
	struct xbb_progress mine;
	uint64_t	 begun_ns;
	uint64_t	 seed;
	int		 fd;
	int		 error;
	pthread_t	 thread;
};

static void *
direct_main(void *arg)
{
	struct direct *d = arg;
	const struct xbb_workload *load = d->load;
	struct iovec iov;
	uint64_t at, before, cpu, now, quota;
	uint32_t n;
	bool was_short;
	void *buffer;

	n = load->max_sectors;
	if (posix_memalign(&buffer, XBB_PAGE_SIZE,
	    (size_t)n * XBB_SECTOR_SIZE) != 0) {
		d->error = -ENOMEM;
		return (NULL);
	}
	quota = (load->operations + load->depth - 1) / load->depth;
	cpu = xbb_thread_cpu_ns();
	before = xbb_now_ns();
	for (;;) {
		at = next_random(&d->seed) %
		    ((load->sectors - n) / load->align_sectors + 1) *
		    load->align_sectors;
		iov = (struct iovec){ buffer, (size_t)n * XBB_SECTOR_SIZE };
		d->error = xbb_transfer(d->fd, false, &iov, 1,
		    (off_t)((load->first_sector + at) * XBB_SECTOR_SIZE),
		    &was_short);
		if (d->error != 0)
			break;
		now = xbb_now_ns();
		xbb_latency_add(d->mine.latency, now - before);
		before = now;
		d->mine.reads++;
		d->mine.sectors_read += n;
		if ((quota != 0 && d->mine.reads >= quota) ||
		    (load->seconds > 0 &&
		    (double)(now - d->begun_ns) >= load->seconds * 1e9))
			break;
	}
	d->mine.cpu_ns = xbb_thread_cpu_ns() - cpu;
	free(buffer);
	return (NULL);
}

int
xbb_direct_reads(int disk_fd, const struct xbb_workload *load,
    struct xbb_progress *progress)
{
	struct direct *threads;
	uint64_t begun;
	uint32_t i, j, started;
	int error;

	if (!is_sane(load, XBB_MAX_REQUESTS))
		return (-EINVAL);
	threads = calloc(load->depth, sizeof(*threads));
	if (threads == NULL)
		return (-ENOMEM);
	begun = xbb_now_ns();
	error = 0;
	for (started = 0; started < load->depth; started++) {
		threads[started].load = load;
		threads[started].fd = disk_fd;
		threads[started].begun_ns = begun;
		threads[started].seed = load->seed + started;
		error = xbb_thread_start(&threads[started].thread, direct_main,
		    &threads[started]);
		if (error != 0)
			break;
	}
	for (i = 0; i < started; i++) {
		pthread_join(threads[i].thread, NULL);
		progress->reads += threads[i].mine.reads;
		progress->sectors_read += threads[i].mine.sectors_read;
		progress->cpu_ns += threads[i].mine.cpu_ns;
		for (j = 0; j < XBB_LATENCY_BUCKETS; j++)
			progress->latency[j] += threads[i].mine.latency[j];
		if (error == 0)
			error = threads[i].error;
	}
	progress->elapsed_ns = xbb_now_ns() - begun;
	free(threads);
	return (error);
}
