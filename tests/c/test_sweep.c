/*
 * test_sweep.c - requests whose grants are mapped or copied by one call for
 * all, once a disk has shown that it is quick; what fails meets only the
 * requests that it belongs to.
 */
#include <string.h>

#include "harness.h"

#define N		16		/* requests, which nothing merges */
#define STEP		(2 * XBB_SECTORS_PER_PAGE)
#define SECTORS		((N + 1) * STEP)

static const struct pair_options ways[] = {
	{ .transport = XBB_TRANSPORT_MAP },
	{ .transport = XBB_TRANSPORT_COPY },
	/* By a buffer for which pages are mapped. */
	{ .transport = XBB_TRANSPORT_MAP, .bounce = true },
};

/* Sectors 1 to 6 of a page each, published at once. */
static void
put_all(struct rig *rig, uint8_t operation)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < N; i++) {
		seg = guest_segment(&rig->guest, i, 1, 6);
		guest_put(&rig->guest, operation, i * STEP, &seg, 1);
	}
	guest_publish(&rig->guest);
}

static uint32_t
calls(void)
{

	return (atomic_load(&hypervisor.map_calls) +
	    atomic_load(&hypervisor.copy_calls));
}

/* A disk that is never waited for gets longer sweeps with each. */
static void
teach_quickness(struct rig *rig)
{
	const struct xbb_segment seg = guest_segment(&rig->guest, N, 0, 7);
	uint32_t i;

	for (i = 0; i < 100; i++)
		CHECK_EQ(guest_do(&rig->guest, XBB_OP_READ, N * STEP, &seg, 1),
		    XBB_RSP_OKAY);
}

static void
fill(struct rig *rig, uint8_t value)
{
	uint32_t i;

	for (i = 0; i < N; i++)
		memset(xbb_front_page(rig->guest.front, i), value + (int)i,
		    XBB_PAGE_SIZE);
}

/* Has a page what its request read, and nothing beside that? */
static void
check_page(struct rig *rig, uint32_t i, uint8_t around, uint8_t value)
{
	uint8_t *page = xbb_front_page(rig->guest.front, i);

	CHECK(all_bytes(page, XBB_SECTOR_SIZE, around));
	CHECK(all_bytes(page + XBB_SECTOR_SIZE, 6 * XBB_SECTOR_SIZE, value));
	CHECK(all_bytes(page + 7 * XBB_SECTOR_SIZE, XBB_SECTOR_SIZE, around));
}

static void
check_pages(struct rig *rig, uint8_t around, uint8_t value)
{
	uint32_t i;

	for (i = 0; i < N; i++)
		check_page(rig, i, (uint8_t)(around + i), (uint8_t)(value + i));
}

/*
 * All requests, as often as it takes until one call is enough: a busy machine
 * may have the thread wait.
 */
static void
do_swept(struct rig *rig, uint8_t operation)
{
	uint32_t before, n;

	for (n = 0;; n++) {
		CHECK(n < 1000);
		teach_quickness(rig);
		before = calls();
		put_all(rig, operation);
		guest_collect(&rig->guest);
		guest_check_okay(&rig->guest, N);
		if (calls() == before + 1)
			return;
	}
}

/* How long the disk had had them is known of each. */
static void
check_durations(const struct rig *rig, uint64_t began_ns)
{
	const struct xbb_devstat *stat = &rig->pair.rs->dispatched;
	const uint64_t most = xbb_now_ns() - began_ns;
	uint64_t took;
	uint32_t i;

	for (i = XBB_DEVSTAT_READ; i <= XBB_DEVSTAT_WRITE; i++) {
		took = XBB_GET(stat->duration_ns[i]);
		CHECK(took > 0);
		CHECK(took < most * N);
	}
}

static void
check_calls(const struct pair_options *way)
{
	const uint64_t began_ns = xbb_now_ns();
	struct rig rig;
	uint32_t before;

	rig_open(&rig, SECTORS, way);
	before = calls();
	fill(&rig, 0x20);
	put_all(&rig, XBB_OP_WRITE);	/* of a disk that nobody knows */
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, N);
	CHECK(calls() - before >= 5);	/* 1, 2, 4, 8, and the last */

	fill(&rig, 0x40);
	do_swept(&rig, XBB_OP_WRITE);
	fill(&rig, 0x80);
	do_swept(&rig, XBB_OP_READ);
	check_pages(&rig, 0x80, 0x40);
	pair_drain(&rig.pair);
	check_durations(&rig, began_ns);
	rig_close(&rig);
}

/* A page that is not granted, amid the others. */
static void
check_bad_grant(const struct pair_options *way, uint8_t operation)
{
	const uint32_t bad = 5;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, way);
	fill(&rig, 0x20);
	do_swept(&rig, XBB_OP_WRITE);
	teach_quickness(&rig);
	fill(&rig, 0x60);
	CHECK_EQ(xbb_front_set_access(rig.guest.front,
	    xbb_front_page_ref(rig.guest.front, bad),
	    operation == XBB_OP_READ ? 1 : 0), 0);
	put_all(&rig, operation);
	guest_collect(&rig.guest);
	for (i = 0; i < N; i++)
		CHECK_EQ(rig.guest.status[i],
		    i == bad ? XBB_RSP_ERROR : XBB_RSP_OKAY);
	CHECK_EQ(COMMON(&rig.pair, grant_errors), 1);
	CHECK_EQ(XBB_GET(rig.pair.rs->faults.guest[XBB_REFUSED_GRANTS]), 1);
	for (i = 0; i < N && operation == XBB_OP_READ; i++)
		check_page(&rig, i, (uint8_t)(0x60 + i),
		    (uint8_t)((i == bad ? 0x60 : 0x20) + i));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A bad place of the disk, amid the others. */
static void
check_bad_place(const struct pair_options *way, uint8_t operation)
{
	const uint32_t bad = 7;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, way);
	fill(&rig, 0x20);
	do_swept(&rig, XBB_OP_WRITE);
	teach_quickness(&rig);
	fill(&rig, 0x60);
	atomic_store(&disk.from, bad * STEP * XBB_SECTOR_SIZE);
	atomic_store(&disk.to, bad * STEP * XBB_SECTOR_SIZE + 1);
	atomic_store(&disk.transfers, 0);
	atomic_store(&disk.errnum, EIO);
	put_all(&rig, operation);
	guest_collect(&rig.guest);
	for (i = 0; i < N; i++)
		CHECK_EQ(rig.guest.status[i],
		    i == bad ? XBB_RSP_ERROR : XBB_RSP_OKAY);
	CHECK_EQ(atomic_load(&disk.transfers), N);
	CHECK_EQ(COUNTER(&rig.pair, io_errors), 1);
	for (i = 0; i < N && operation == XBB_OP_READ; i++)
		if (i != bad)
			check_page(&rig, i, (uint8_t)(0x60 + i),
			    (uint8_t)(0x20 + i));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* The disk becomes slow amid them: the rest is for others, each by itself. */
static void
check_slow(const struct pair_options *way, uint8_t operation)
{
	struct rig rig;

	rig_open(&rig, SECTORS, way);
	fill(&rig, 0x20);
	do_swept(&rig, XBB_OP_WRITE);
	teach_quickness(&rig);
	atomic_store(&disk.delay_us, 20000);
	put_all(&rig, operation);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, N);
	/* The first may not be known to have been waited for (speed.c). */
	CHECK(COUNTER(&rig.pair, io_handed_over) >= N - 6);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A host that can map a few pages at once, but not all. */
static void
check_short(const struct pair_options *way)
{
	struct rig rig;

	if (way->transport == XBB_TRANSPORT_COPY)
		return;
	rig_open(&rig, SECTORS, way);
	fill(&rig, 0x20);
	do_swept(&rig, XBB_OP_WRITE);
	teach_quickness(&rig);
	atomic_store(&hypervisor.most_pages, 2);
	fill(&rig, 0x60);
	put_all(&rig, XBB_OP_READ);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, N);
	check_pages(&rig, 0x60, 0x20);
	CHECK_EQ(COMMON(&rig.pair, kva_shortages), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Where each page takes a mapping there is nothing to save by mapping at once. */
static void
check_singly(void)
{
	struct rig rig;
	uint32_t before, i;

	hypervisor_map_singly(true);
	rig_open(&rig, SECTORS, &ways[0]);
	for (i = 0; i < 10; i++) {
		teach_quickness(&rig);
		before = calls();
		put_all(&rig, XBB_OP_READ);
		guest_collect(&rig.guest);
		guest_check_okay(&rig.guest, N);
		CHECK_EQ(calls(), before + N);
	}
	pair_drain(&rig.pair);
	rig_close(&rig);

	rig_open(&rig, SECTORS, &ways[1]);
	do_swept(&rig, XBB_OP_READ);
	pair_drain(&rig.pair);
	rig_close(&rig);
	hypervisor_map_singly(false);
}

int
main(void)
{
	static const uint8_t operations[] = { XBB_OP_READ, XBB_OP_WRITE };
	uint32_t i, j;

	scratch_enter();
	for (i = 0; i < COUNTOF(ways); i++) {
		check_calls(&ways[i]);
		check_short(&ways[i]);
		for (j = 0; j < COUNTOF(operations); j++) {
			check_bad_grant(&ways[i], operations[j]);
			check_bad_place(&ways[i], operations[j]);
			check_slow(&ways[i], operations[j]);
		}
	}
	check_singly();
	scratch_leave();
	return (0);
}
