/*
 * test_order.c - rings full of random requests in a small part of a disk, read
 * and written as if one after the other: each read sees what was written
 * before it and nothing that was written after, no byte of a page or of the
 * disk changes but those named (XSA-403), and an answered request holds no
 * grant.  On a quick disk, a slow one and an awkward one.  Arguments: rounds,
 * seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define SECTORS		256		/* of the disk */
#define BYTES		(SECTORS * XBB_SECTOR_SIZE)

/* What disk and pages must be once everything is answered. */
struct oracle {
	uint8_t		disk[BYTES];
	uint8_t		*pages;
	size_t		 pages_size;
};

/* Let the request happen at once in the oracle. */
static void
foresee(struct oracle *oracle, uint8_t operation, uint64_t sector,
    uint32_t first_page, const struct xbb_segment *seg, uint8_t nseg)
{
	uint8_t *data, *place = oracle->disk + sector * XBB_SECTOR_SIZE;
	size_t size;
	uint32_t i;

	for (i = 0; i < nseg; i++, place += size) {
		data = oracle->pages + (first_page + i) * XBB_PAGE_SIZE +
		    seg[i].first_sect * XBB_SECTOR_SIZE;
		size = XBB_SECTOR_SIZE *
		    (seg[i].last_sect - seg[i].first_sect + 1U);
		if (operation == XBB_OP_READ)
			memcpy(data, place, size);
		else
			memcpy(place, data, size);
	}
}

static uint8_t
draw_operation(uint64_t *seed)
{
	uint64_t n = random_below(seed, 100);

	return (n < 45 ? XBB_OP_READ : n < 90 ? XBB_OP_WRITE :
	    n < 95 ? XBB_OP_WRITE_BARRIER : XBB_OP_FLUSH_DISKCACHE);
}

/*
 * A request on pages of its own.  Often it goes on where the last one ended,
 * so that there is something to merge.
 */
static void
put_request(struct guest *guest, struct oracle *oracle, uint64_t *seed,
    uint64_t *sectorp)
{
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	uint32_t first_page, i, nsectors;
	uint8_t first, nseg, operation;

	operation = draw_operation(seed);
	first_page = guest->ntags * XBB_MAX_SEGMENTS;
	nseg = (uint8_t)(1 + random_below(seed, XBB_MAX_SEGMENTS));
	if (operation >= XBB_OP_WRITE_BARRIER && random_below(seed, 2) == 0)
		nseg = 0;
	nsectors = 0;
	for (i = 0; i < nseg; i++) {
		first = (uint8_t)random_below(seed, 8);
		seg[i] = guest_segment(guest, first_page + i, first,
		    (uint8_t)(first + random_below(seed, 8U - first)));
		nsectors += 1U + seg[i].last_sect - seg[i].first_sect;
		CHECK_EQ(xbb_front_set_access(guest->front, seg[i].gref,
		    operation == XBB_OP_READ ? 2 : 1), 0);
	}
	if (random_below(seed, 3) == 0 || *sectorp + nsectors > SECTORS)
		*sectorp = random_below(seed, SECTORS - nsectors + 1);
	foresee(oracle, operation, *sectorp, first_page, seg, nseg);
	guest_put(guest, operation, *sectorp, seg, nseg);
	*sectorp += nsectors;
}

/* Fill part of the ring, wait, and look at every byte there is. */
static void
check_round(struct rig *rig, struct oracle *oracle, uint64_t *seed)
{
	struct guest *guest = &rig->guest;
	uint8_t *pages = xbb_front_page(guest->front, 0);
	static uint8_t now[BYTES];
	uint64_t sector = 0;
	uint32_t i, n;

	random_bytes(seed, pages, oracle->pages_size);
	memcpy(oracle->pages, pages, oracle->pages_size);
	n = 1 + (uint32_t)random_below(seed, guest->nslots);
	for (i = 0; i < n; i++)
		put_request(guest, oracle, seed, &sector);
	guest_publish(guest);
	guest_collect(guest);
	for (i = 0; i < n; i++)
		CHECK_EQ(guest->status[i], XBB_RSP_OKAY);
	for (i = 0; i < n * XBB_MAX_SEGMENTS; i++)
		CHECK_EQ(xbb_front_set_access(guest->front,
		    xbb_front_page_ref(guest->front, i), 0), 0);
	CHECK(memcmp(pages, oracle->pages, oracle->pages_size) == 0);
	device_read(&rig->device, 0, SECTORS, now);
	CHECK(memcmp(now, oracle->disk, BYTES) == 0);
}

enum kind { QUICK, AWKWARD, SLOW };

static void
set_disk(enum kind kind)
{

	if (kind == AWKWARD) {
		/* Interrupted, and short in the middle of a sector. */
		atomic_store(&disk.chunk, 1300);
		atomic_store(&disk.interrupted, 5);
	} else if (kind == SLOW)
		atomic_store(&disk.delay_us, 300);
}

static void
check_order(uint32_t abi, uint64_t rounds, uint64_t seed, enum kind kind)
{
	const struct pair_options options = { .abi = abi, .workers = 8 };
	struct oracle *oracle;
	struct rig rig;
	struct pair *pair = &rig.pair;

	rig_open(&rig, SECTORS, &options);
	set_disk(kind);
	oracle = calloc(1, sizeof(*oracle));
	CHECK(oracle != NULL);
	oracle->pages_size = (size_t)xbb_front_pages(pair->front) *
	    XBB_PAGE_SIZE;
	oracle->pages = malloc(oracle->pages_size);
	CHECK(oracle->pages != NULL);
	for (; rounds > 0; rounds--)
		check_round(&rig, oracle, &seed);
	pair_drain(pair);
	CHECK_EQ(COUNTER(pair, reqs_completed_with_error), 0);
	CHECK(COUNTER(pair, total_dispatch) < COUNTER(pair, reqs_received));
	CHECK_EQ(COUNTER(pair, io_short) > 0, kind == AWKWARD);
	if (kind == SLOW) {
		CHECK(COUNTER(pair, io_handed_over) > 0);
		CHECK(atomic_load(&disk.most_inflight) > 1);
	}
	free(oracle->pages);
	free(oracle);
	rig_close(&rig);
}

int
main(int argc, char **argv)
{
	uint64_t rounds = argument(argc, argv, 1, 60);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint32_t abi;

	printf("%ju rounds, seed %ju\n", (uintmax_t)rounds, (uintmax_t)seed);
	scratch_enter();
	for (abi = XBB_ABI_NATIVE; abi <= XBB_ABI_X86_64; abi++) {
		check_order(abi, rounds, seed + abi, QUICK);
		check_order(abi, rounds, seed + abi, AWKWARD);
		check_order(abi, rounds, seed + abi, SLOW);
	}
	scratch_leave();
	return (0);
}
