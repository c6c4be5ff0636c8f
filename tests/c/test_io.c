/*
 * test_io.c - the frontend's own random I/O against a model of the disk: every
 * ABI, small and large rings, quick and slow disks, several rings of a device
 * at once, and tunables that change under way.  Arguments: operations of each
 * run, seed.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define SECTORS		8192
#define NRINGS		3

static struct xbb_workload
workload(uint64_t operations, uint64_t seed, uint32_t depth)
{

	return ((struct xbb_workload){
		.seed = seed,
		.operations = operations,
		.depth = depth,
		.read_percent = 50,
		.flush_every = 50,
		.barrier_every = 20,
		.min_sectors = 1,
		.max_sectors = XBB_MAX_SEGMENTS * XBB_SECTORS_PER_PAGE,
		.align_sectors = 1,
		.poll_us = 20,
	});
}

static void
check_progress(const struct xbb_progress *progress, uint64_t operations)
{

	CHECK_EQ(progress->mismatches, 0);
	CHECK_EQ(progress->errors, 0);
	CHECK_EQ(progress->still_mapped, 0);
	CHECK_EQ(progress->bad_responses, 0);
	CHECK_EQ(progress->reads + progress->writes + progress->flushes +
	    progress->barriers, operations);
	CHECK(progress->reads > 0 && progress->writes > 0);
}

static void
check_counters(const struct pair *pair, const struct xbb_progress *progress)
{

	CHECK_EQ(COUNTER(pair, rd_req), progress->reads);
	CHECK_EQ(COUNTER(pair, wr_req), progress->writes);
	CHECK_EQ(COUNTER(pair, f_req), progress->flushes);
	CHECK_EQ(COUNTER(pair, br_req), progress->barriers);
	CHECK_EQ(COUNTER(pair, rd_sect), progress->sectors_read);
	CHECK_EQ(COUNTER(pair, wr_sect), progress->sectors_written);
	CHECK_EQ(COUNTER(pair, reqs_completed_with_error), 0);
	CHECK_EQ(COUNTER(pair, io_handed_over) + COUNTER(pair, io_inline),
	    COUNTER(pair, total_dispatch));
}

static void
check_disk(const struct device *device, const uint8_t *model)
{
	uint8_t *now = malloc(SECTORS * XBB_SECTOR_SIZE);

	CHECK(now != NULL);
	device_read(device, 0, SECTORS, now);
	CHECK(memcmp(now, model, SECTORS * XBB_SECTOR_SIZE) == 0);
	free(now);
}

static uint8_t *
new_model(void)
{
	uint8_t *model = calloc(SECTORS, XBB_SECTOR_SIZE);

	CHECK(model != NULL);
	return (model);
}

/* One ring. */
static void
check_ring(const struct pair_options *options, struct xbb_workload load)
{
	struct xbb_progress progress = { 0 };
	struct device device;
	struct pair pair;

	device_open(&device, SECTORS, 1);
	pair_open(&pair, &device, 0, options);
	load.sectors = SECTORS;
	load.model = new_model();
	CHECK_EQ(xbb_front_exercise(pair.front, &load, &progress, LIMIT_MS),
	    0);
	check_progress(&progress, load.operations);
	check_disk(&device, load.model);
	pair_drain(&pair);
	check_counters(&pair, &progress);
	free(load.model);
	pair_close(&pair);
	device_close(&device);
}

static void
check_quick(uint64_t operations, uint64_t seed)
{
	static const uint32_t pages[] = { 1, 2, 32 };
	struct pair_options options = { 0 };
	struct xbb_workload load;
	uint32_t abi, p;

	for (abi = XBB_ABI_NATIVE; abi <= XBB_ABI_X86_64; abi++)
		for (p = 0; p < COUNTOF(pages); p++) {
			disk_reset();
			options.abi = abi;
			options.ring_pages = pages[p];
			load = workload(operations, seed + abi, 32 * pages[p]);
			check_ring(&options, load);
		}
}

/* Big sectors and the smallest limits. */
static void
check_narrow(uint64_t operations, uint64_t seed)
{
	const struct pair_options options = {
		.abi = XBB_ABI_X86_32,
		.sector_size = 4096,
		.workers = 1,
		.max_batch_segments = XBB_MAX_SEGMENTS,
		.max_grants = XBB_MAX_SEGMENTS,
	};
	struct xbb_workload load = workload(operations, seed, 32);

	disk_reset();
	load.min_sectors = load.align_sectors = 8;
	check_ring(&options, load);
	disk_reset();
	atomic_store(&disk.delay_us, 100);
	check_ring(&options, load);
}

/* A disk so slow that the workers get most, and every sync a barrier's. */
static void
check_slow(uint64_t operations, uint64_t seed)
{
	static const uint32_t pages[] = { 1, 4 };
	struct pair_options options = { .workers = 8 };
	struct xbb_workload load;
	uint32_t p;

	for (p = 0; p < COUNTOF(pages); p++) {
		disk_reset();
		atomic_store(&disk.delay_us, 200);
		options.ring_pages = pages[p];
		load = workload(operations, seed, 32 * pages[p]);
		load.flush_every = 0;
		check_ring(&options, load);
		CHECK(atomic_load(&disk.most_inflight) > 1);
		CHECK(atomic_load(&disk.syncs) > 0);
		CHECK_EQ(atomic_load(&disk.syncs_amid), 0);
	}
}

/* Several rings, each with its part of the disk. */
struct guest_thread {
	struct xbb_front *front;
	struct xbb_workload load;
	struct xbb_progress progress;
	atomic_uint	*running;
	int		 error;
	pthread_t	 thread;
};

static void *
guest_main(void *arg)
{
	struct guest_thread *g = arg;

	g->error = xbb_front_exercise(g->front, &g->load, &g->progress,
	    LIMIT_MS);
	atomic_fetch_sub(g->running, 1);
	return (NULL);
}

/* Change every tunable as often as can be while anybody runs. */
static void
toggle(struct xbb_tunables *tunables, atomic_uint *running, uint64_t *seed)
{

	while (atomic_load(running) > 0) {
		XBB_SET(tunables->disable_flush,
		    (int32_t)random_below(seed, 2));
		XBB_SET(tunables->flush_interval,
		    (int32_t)random_below(seed, 8) - 2);
		XBB_SET(tunables->no_coalesce_reqs,
		    (int32_t)random_below(seed, 2));
		XBB_SET(tunables->poll_max_us,
		    (int32_t)random_below(seed, 4) * 100 - 100);
		sched_yield();
	}
}

static void
check_rings(uint64_t operations, uint64_t seed, uint32_t delay_us)
{
	const uint64_t part = SECTORS / NRINGS;
	struct guest_thread g[NRINGS];
	struct pair_options options = { .workers = 3 };
	struct device device;
	struct pair pair[NRINGS];
	atomic_uint running = NRINGS;
	uint8_t *model = new_model();
	uint32_t i;

	disk_reset();
	atomic_store(&disk.delay_us, delay_us);
	device_open(&device, SECTORS, NRINGS);
	for (i = 0; i < NRINGS; i++) {
		options.abi = i;
		options.ring_pages = 1U << i;
		pair_open(&pair[i], &device, i, &options);
		g[i] = (struct guest_thread){
			.front = pair[i].front,
			.load = workload(operations, seed + i, 32U << i),
			.running = &running,
		};
		g[i].load.first_sector = i * part;
		g[i].load.sectors = part;
		g[i].load.model = model + i * part * XBB_SECTOR_SIZE;
	}
	for (i = 0; i < NRINGS; i++)
		CHECK_EQ(pthread_create(&g[i].thread, NULL, guest_main, &g[i]),
		    0);
	toggle(&device.state->tunables, &running, &seed);
	for (i = 0; i < NRINGS; i++) {
		CHECK_EQ(pthread_join(g[i].thread, NULL), 0);
		CHECK_EQ(g[i].error, 0);
		check_progress(&g[i].progress, operations);
		pair_drain(&pair[i]);
		check_counters(&pair[i], &g[i].progress);
		pair_close(&pair[i]);
	}
	check_disk(&device, model);
	free(model);
	device_close(&device);
}

int
main(int argc, char **argv)
{
	uint64_t operations = argument(argc, argv, 1, 1000);
	uint64_t seed = argument(argc, argv, 2, 1);

	printf("%ju operations, seed %ju\n", (uintmax_t)operations,
	    (uintmax_t)seed);
	scratch_enter();
	check_quick(operations, seed);
	check_narrow(operations, seed);
	check_slow(operations, seed);
	check_rings(operations, seed, 0);
	check_rings(operations, seed, 100);
	scratch_leave();
	return (0);
}
