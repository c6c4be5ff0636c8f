/*
 * null.c WAY DEPTH OPERATIONS [SECTORS [READ_PERCENT [LOOK_US [SLOW_US]]]]: the
 * data plane on a disk that takes no time, since its system calls do nothing
 * here, or only wait for SLOW_US: what is left is what a ring costs.  Both ends
 * are in this program; the frontend looks for answers for a while before it
 * sleeps, as in `make bench`, the ring's thread for requests for LOOK_US.  WAY
 * is how data is moved: map, copy, kept (mapped for good, the disk works there),
 * or kept-copied.
 *
 * Prints nanoseconds of the ring thread's processor time, of time, and how
 * often it slept.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define DISK_SECTORS	131072
#define GUEST_POLLS_US	100
#define LOOK_US		50	/* as configured, if nothing is */

static const struct {
	const char	*name;
	uint32_t	 transport;
	uint32_t	 persistent;
} ways[] = {
	{ "map", XBB_TRANSPORT_MAP, 0 },
	{ "copy", XBB_TRANSPORT_COPY, 0 },
	{ "kept", XBB_TRANSPORT_MAP, XBB_MAX_PERSISTENT },
	{ "kept-copied", XBB_TRANSPORT_COPY, XBB_MAX_PERSISTENT },
};

static long slow_us;

const struct xbb_hv_ops *__real_xbb_hv_lookup(uint32_t kind);
const struct xbb_hv_ops *__wrap_xbb_hv_lookup(uint32_t kind);

/* As Xen's, and not the simulator's, it maps many pages as one. */
const struct xbb_hv_ops *
__wrap_xbb_hv_lookup(uint32_t kind)
{
	static struct xbb_hv_ops ops;

	ops = *__real_xbb_hv_lookup(kind);
	ops.maps_singly = false;
	return (&ops);
}

static ssize_t
move_nothing(const struct iovec *iov, int niov)
{
	const struct timespec ts = { .tv_nsec = slow_us * 1000 };
	ssize_t size;
	int i;

	if (slow_us != 0)
		(void)nanosleep(&ts, NULL);

	size = 0;
	for (i = 0; i < niov; i++)
		size += (ssize_t)iov[i].iov_len;
	return (size);
}

ssize_t
preadv(int fd, const struct iovec *iov, int niov, off_t at)
{

	(void)fd;
	(void)at;
	return (move_nothing(iov, niov));
}

ssize_t
pwritev(int fd, const struct iovec *iov, int niov, off_t at)
{

	(void)fd;
	(void)at;
	return (move_nothing(iov, niov));
}

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec ts;

	CHECK_EQ(clock_gettime(clock, &ts), 0);
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

static void
run(struct pair *pair, const struct xbb_workload *load)
{
	struct xbb_progress progress = { 0 };
	uint64_t cpu, wall;
	clockid_t ring;

	CHECK_EQ(pthread_getcpuclockid(pair->queue->conn.thread, &ring), 0);
	cpu = clock_ns(ring);
	wall = clock_ns(CLOCK_MONOTONIC);
	CHECK_EQ(xbb_front_exercise(pair->front, load, &progress, LIMIT_MS), 0);
	CHECK_EQ(progress.errors, 0);
	cpu = clock_ns(ring) - cpu;
	wall = clock_ns(CLOCK_MONOTONIC) - wall;
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", cpu, wall,
	    COMMON(pair, ring_sleeps));
}

int
main(int argc, char **argv)
{
	const uint32_t depth = (uint32_t)argument(argc, argv, 2, 32);
	const uint32_t sectors = (uint32_t)argument(argc, argv, 4, 8);
	struct xbb_workload load = {
		.seed = 1,
		.operations = argument(argc, argv, 3, 50000),
		.sectors = DISK_SECTORS,
		.depth = depth,
		.read_percent = (uint32_t)argument(argc, argv, 5, 100),
		.min_sectors = sectors,
		.max_sectors = sectors,
		.align_sectors = sectors,
		.poll_us = GUEST_POLLS_US,
	};
	struct pair_options options = {
		.depth = depth,
		.ring_pages = (depth + 31) / 32,
		.max_batch_segments = XBB_MAX_BATCH_SEGMENTS,
		.max_indirect_segments = 32,
		.max_segments = depth > 32 ? XBB_MAX_SEGMENTS : 32,
	};
	struct device device;
	struct pair pair;
	size_t i;

	CHECK(argc > 1);
	for (i = 0; i < COUNTOF(ways) && strcmp(ways[i].name, argv[1]) != 0; i++)
		continue;
	CHECK(i < COUNTOF(ways));
	options.transport = ways[i].transport;
	options.persistent = ways[i].persistent;
	slow_us = (long)argument(argc, argv, 7, 0);
	scratch_enter();
	device_open(&device, DISK_SECTORS, 1);
	/* One for which nothing is asked about a file's size. */
	options.device = true;
	xbb_tunable_set(&device.state->tunables.poll_max_us,
	    (int32_t)argument(argc, argv, 6, LOOK_US));
	pair_open(&pair, &device, 0, &options);
	run(&pair, &load);
	pair_drain(&pair);
	pair_close(&pair);
	device_close(&device);
	scratch_leave();
	return (0);
}
