/*
 * test_bounce.c - data that goes by a buffer: whatever the disk is given begins
 * at a page, since a kernel takes it a page at a time and of one that straddles
 * two both; for reads, writes, and writes of parts of sectors, which read first;
 * on the ring's thread and on workers.
 */
#include <string.h>

#include "harness.h"

#define SECTORS		4096
#define MOST		11	/* pages of a request */

static const struct pair_options ways[] = {
	{ .transport = XBB_TRANSPORT_COPY },
	{ .transport = XBB_TRANSPORT_COPY, .persistent = 256, .device = true },
	{ .block_size = 1024 },
	{ .block_size = 4096 },
	{ .block_size = 65536, .transport = XBB_TRANSPORT_COPY },
	{ .block_size = 4096, .persistent = 256 },
};

/* A write of so many pages, less some sectors at either end, and back. */
static void
check_one(struct rig *rig, uint64_t sector, uint32_t npages, uint8_t skip,
    uint8_t value)
{
	struct xbb_segment seg[MOST];
	struct guest *guest = &rig->guest;
	uint8_t *page;
	uint32_t i;

	for (i = 0; i < npages; i++) {
		seg[i] = guest_segment(guest, i, 0, 7);
		memset(xbb_front_page(guest->front, i), value, XBB_PAGE_SIZE);
	}
	seg[0].first_sect = skip;
	seg[npages - 1].last_sect = 7 - (skip > 3 ? 0 : skip);
	CHECK_EQ(guest_do(guest, XBB_OP_WRITE, sector, seg, (uint8_t)npages),
	    XBB_RSP_OKAY);
	for (i = 0; i < npages; i++)
		memset(xbb_front_page(guest->front, i), 0, XBB_PAGE_SIZE);
	CHECK_EQ(guest_do(guest, XBB_OP_READ, sector, seg, (uint8_t)npages),
	    XBB_RSP_OKAY);
	for (i = 0; i < npages; i++) {
		page = xbb_front_page(guest->front, i);
		CHECK(all_bytes(page + seg[i].first_sect * XBB_SECTOR_SIZE,
		    (size_t)(seg[i].last_sect - seg[i].first_sect + 1) *
		    XBB_SECTOR_SIZE, value));
	}
}

/* Such ones of all sizes on a new ring, which is to be closed; how many. */
static uint32_t
check_all(struct rig *rig, const struct pair_options *way, bool slow)
{
	uint32_t n;
	uint8_t skip, value;

	rig_open(rig, SECTORS, way);
	if (slow)
		rig_teach_slowness(rig);
	atomic_store(&disk.transfers, 0);
	atomic_store(&disk.straddling, 0);
	value = 1;
	for (n = 1; n <= MOST; n += 5)
		for (skip = 0; skip < 8; skip += 3, value++)
			check_one(rig, 200 + 3 * value, n, skip, value);
	return (2U * value - 2);
}

static void
check_way(const struct pair_options *way, bool slow)
{
	struct rig rig;
	uint32_t n;

	n = check_all(&rig, way, slow);
	CHECK(atomic_load(&disk.transfers) >= n);
	CHECK_EQ(atomic_load(&disk.straddling), 0);
	CHECK(COUNTER(&rig.pair, io_bounced) >= n);
	CHECK(way->block_size == 0 ||
	    COUNTER(&rig.pair, io_read_modify_write) != 0);
	CHECK(!slow || COUNTER(&rig.pair, io_handed_over) != 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Between a file's cache and pages that stay mapped the kernel copies: once. */
static void
check_file(bool slow)
{
	const struct pair_options way = {
		.transport = XBB_TRANSPORT_COPY, .persistent = 256,
	};
	struct rig rig;

	(void)check_all(&rig, &way, slow);
	CHECK_EQ(COUNTER(&rig.pair, io_bounced), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{
	uint32_t i;

	scratch_enter();
	for (i = 0; i < COUNTOF(ways); i++) {
		check_way(&ways[i], false);
		check_way(&ways[i], true);
	}
	check_file(false);
	check_file(true);
	scratch_leave();
	return (0);
}
