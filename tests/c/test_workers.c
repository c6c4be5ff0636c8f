/*
 * test_workers.c - the bound of all I/O threads: each queue is sure of its
 * first, what is beyond is shared so that every queue finds something, all of
 * it is given back, and whoever looks after a queue hears of the shortage.
 */
#include <poll.h>
#include <unistd.h>

#include "harness.h"

#define SECTORS		1024
#define NRINGS		3
#define NREADS		8	/* of a queue: as many as workers */

struct rings {
	struct device	 device;
	struct pair	 pair[NRINGS];
	struct guest	 guest[NRINGS];
};

static const struct pair_options by_buffer = {
	.workers = NREADS, .transport = XBB_TRANSPORT_COPY,
};

static struct xbb_io_use
use_now(void)
{
	struct xbb_io_use use;

	xbb_io_use(&use);
	return (use);
}

static void
bound(uint32_t threads, uint64_t bytes)
{
	struct xbb_io_use use;

	xbb_io_bound(threads, bytes, &use);
}

/* Rings of a disk that is known to be slow, each with its first worker. */
static void
rings_open(struct rings *rings)
{
	struct guest *guest;
	uint32_t i, n;

	disk_reset();
	atomic_store(&disk.delay_us, 500);
	device_open(&rings->device, SECTORS, NRINGS);
	for (n = 0; n < NRINGS; n++) {
		pair_open(&rings->pair[n], &rings->device, n, &by_buffer);
		guest = &rings->guest[n];
		guest_init(guest, &rings->pair[n]);
		for (i = 0; COUNTER(&rings->pair[n], io_handed_over) == 0;
		    i++) {
			CHECK(i < 1000);
			CHECK_EQ(guest_read_page(guest), XBB_RSP_OKAY);
		}
	}
	XBB_SET(rings->device.state->tunables.no_coalesce_reqs, 1);
	CHECK_EQ(use_now().threads, 0);
	atomic_store(&disk.delay_us, 0);
	disk_hold();
}

/* Nothing is left in use, and the ring's own words do not say otherwise. */
static void
rings_close(struct rings *rings)
{
	uint32_t n;

	for (n = 0; n < NRINGS; n++)
		pair_close(&rings->pair[n]);
	device_close(&rings->device);
	CHECK_EQ(use_now().threads, 0);
	CHECK_EQ(use_now().bytes, 0);
	bound(UINT32_MAX, UINT64_MAX);
}

static void
ask_much(struct rings *rings, uint32_t n)
{

	guest_put_scattered(&rings->guest[n], NREADS);
	guest_publish(&rings->guest[n]);
}

static void
collect_all(struct rings *rings)
{
	uint32_t n;

	disk_release();
	for (n = 0; n < NRINGS; n++)
		if (rings->guest[n].outstanding != 0) {
			guest_collect(&rings->guest[n]);
			guest_check_okay(&rings->guest[n], NREADS);
		}
}

static bool
has_told(const struct pair *pair)
{
	struct pollfd pfd = { .fd = pair->wake[0], .events = POLLIN };

	return (poll(&pfd, 1, 0) == 1);
}

static void
check_unbounded(void)
{
	struct rings rings;

	rings_open(&rings);
	ask_much(&rings, 0);
	disk_wait_held(NREADS);
	CHECK_EQ(use_now().threads, NREADS - 1);
	CHECK(use_now().bytes > 0);
	CHECK(!has_told(&rings.pair[0]));
	collect_all(&rings);
	rings_close(&rings);
}

/* With nothing beyond the first of each, all are served, one thread a queue. */
static void
check_first(uint32_t threads, uint64_t bytes)
{
	const uint64_t before = use_now().over_bound;
	struct rings rings;
	uint32_t n;

	rings_open(&rings);
	bound(threads, bytes);
	for (n = 0; n < NRINGS; n++) {
		ask_much(&rings, n);
		disk_wait_held(n + 1);
		WAIT_UNTIL(has_told(&rings.pair[n]));
	}
	CHECK(use_now().over_bound >= before + NRINGS);
	CHECK_EQ(use_now().threads, 0);
	collect_all(&rings);
	CHECK(atomic_load(&disk.most_inflight) <= NRINGS);
	rings_close(&rings);
}

/*
 * The first to ask gets half of what there is, not all: the more a queue has
 * the more must be left.
 */
static void
check_shared(void)
{
	static const uint32_t beyond[NRINGS] = { 2, 3, 4 };
	struct rings rings;
	uint32_t n;

	rings_open(&rings);
	bound(4, UINT64_MAX);
	for (n = 0; n < NRINGS; n++) {
		ask_much(&rings, n);
		WAIT_UNTIL(has_told(&rings.pair[n]));
		disk_wait_held(n + 1 + beyond[n]);
		CHECK_EQ(use_now().threads, beyond[n]);
	}
	/* A bound that is taken away counts for what comes. */
	bound(2, UINT64_MAX);
	CHECK_EQ(use_now().threads, 4);
	collect_all(&rings);
	CHECK(atomic_load(&disk.most_inflight) <= NRINGS + 4);
	rings_close(&rings);
}

/* As many bytes as two buffers have. */
static void
check_bytes(void)
{
	const uint64_t buffer = 2 * XBB_SECTOR_SIZE + 65 * XBB_PAGE_SIZE;
	struct rings rings;

	rings_open(&rings);
	bound(UINT32_MAX, 2 * buffer);
	ask_much(&rings, 0);
	WAIT_UNTIL(has_told(&rings.pair[0]));
	disk_wait_held(3);
	CHECK_EQ(use_now().threads, 2);
	CHECK_EQ(use_now().bytes, 2 * buffer);
	collect_all(&rings);
	rings_close(&rings);
}

/* The host has no more: not the bound's fault, and told as well. */
static void
check_host(void)
{
	const struct xbb_io_use before = use_now();
	struct rings rings;

	rings_open(&rings);
	threads_forbid(true);
	ask_much(&rings, 0);
	WAIT_UNTIL(has_told(&rings.pair[0]));
	/* It tries on; in the end it holds nothing for that. */
	WAIT_UNTIL(use_now().threads == 0 && use_now().bytes == 0);
	CHECK_EQ(use_now().over_bound, before.over_bound);
	CHECK(use_now().failed > before.failed);
	collect_all(&rings);
	threads_forbid(false);
	rings_close(&rings);
}

int
main(void)
{

	scratch_enter();
	check_unbounded();
	check_first(0, UINT64_MAX);
	check_first(UINT32_MAX, 0);
	check_shared();
	check_bytes();
	check_host();
	scratch_leave();
	return (0);
}
