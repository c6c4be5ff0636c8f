/*
 * test_hostile.c - a guest that breaks the rules, against a real queue over the
 * simulated hypervisor: requests that are nonsense, grants that are not, events
 * without end, and an end without a word.  Each request is answered once, an
 * error meets only those concerned, and nothing stays mapped.  Arguments:
 * malformed requests, seed.
 */
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "hv/sim_memory.h"

#define SECTORS		1024		/* of the disk */

static const struct pair_options usual = { 0 };

/* Grants that do not map, at every place of a batch of eight requests. */

enum flaw {
	NO_SUCH, BEYOND, FARTHEST, UNUSED, WITHDRAWN, FOREIGN, READ_ONLY
};

/* A reference in the place of the page's, or the page's no longer good. */
static uint32_t
spoil(struct rig *rig, uint32_t page, enum flaw flaw)
{
	uint32_t ref = xbb_front_page_ref(rig->pair.front, page);
	struct sim_domain domain;

	switch (flaw) {
	case NO_SUCH:
		return (0);
	case BEYOND:
		return (DOMAIN_PAGES);
	case FARTHEST:
		return (UINT32_MAX);
	case UNUSED:
		return (DOMAIN_PAGES - 1);	/* granted by nobody */
	case WITHDRAWN:
		CHECK_EQ(xbb_front_set_access(rig->pair.front, ref, 0), 0);
		break;
	case FOREIGN:
		CHECK_EQ(sim_domain_open(&domain, rig->device.domain_fd),
		    0);
		atomic_store(&domain.grants->entry[ref],
		    SIM_GRANT(5, SIM_PERMIT, ref));
		sim_domain_close(&domain);
		break;
	case READ_ONLY:
		CHECK_EQ(xbb_front_set_access(rig->pair.front, ref, 1), 0);
		break;
	}
	return (ref);
}

static void
check_flaw(struct rig *rig, enum flaw flaw, uint8_t operation, uint32_t bad,
    uint64_t *seed)
{
	static uint8_t on_disk[BATCH * XBB_PAGE_SIZE];
	struct guest *guest = &rig->guest;
	uint64_t batches = COUNTER(&rig->pair, total_dispatch);
	struct xbb_segment seg;
	uint8_t *page;
	uint32_t i;
	bool fails = !(flaw == READ_ONLY && operation == XBB_OP_WRITE);

	random_bytes(seed, on_disk, sizeof(on_disk));
	device_write(&rig->device, 0, sizeof(on_disk) / XBB_SECTOR_SIZE,
	    on_disk);
	for (i = 0; i < BATCH; i++) {
		memset(xbb_front_page(guest->front, i), 0xa0 + (int)i,
		    XBB_PAGE_SIZE);
		seg = guest_segment(guest, i, 0, 7);
		if (i == bad)
			seg.gref = spoil(rig, i, flaw);
		guest_put(guest, operation, i * 8, &seg, 1);
	}
	guest_publish(guest);
	guest_collect(guest);
	CHECK_EQ(COUNTER(&rig->pair, total_dispatch), batches + 1);
	if (operation == XBB_OP_WRITE)
		device_read(&rig->device, 0,
		    sizeof(on_disk) / XBB_SECTOR_SIZE, on_disk);
	for (i = 0; i < BATCH; i++) {
		page = xbb_front_page(guest->front, i);
		CHECK_EQ(guest->status[i], fails && i == bad ?
		    XBB_RSP_ERROR : XBB_RSP_OKAY);
		CHECK_EQ(memcmp(page, on_disk + i * XBB_PAGE_SIZE,
		    XBB_PAGE_SIZE) == 0, !(fails && i == bad));
		if (operation == XBB_OP_WRITE || (fails && i == bad))
			CHECK(all_bytes(page, XBB_PAGE_SIZE,
			    (uint8_t)(0xa0 + i)));
	}
	CHECK_EQ(xbb_front_set_access(guest->front,
	    xbb_front_page_ref(guest->front, bad), 2), 0);
}

static void
check_grants(uint64_t seed)
{
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	struct rig rig;
	enum flaw flaw;
	uint32_t bad, i;

	rig_open(&rig, SECTORS, &usual);
	for (flaw = NO_SUCH; flaw <= READ_ONLY; flaw++)
		for (bad = 0; bad < BATCH; bad++) {
			check_flaw(&rig, flaw, XBB_OP_READ, bad, &seed);
			check_flaw(&rig, flaw, XBB_OP_WRITE, bad, &seed);
		}
	/* Within a request one bad segment spoils all. */
	for (bad = 0; bad < XBB_MAX_SEGMENTS; bad++) {
		for (i = 0; i < XBB_MAX_SEGMENTS; i++)
			seg[i] = guest_segment(&rig.guest, i, 0, 7);
		seg[bad].gref = 0;
		CHECK_EQ(guest_do(&rig.guest, XBB_OP_READ, 0, seg,
		    XBB_MAX_SEGMENTS), XBB_RSP_ERROR);
	}
	/* One page many times is unusual, but allowed. */
	for (i = 0; i < XBB_MAX_SEGMENTS; i++)
		seg[i] = guest_segment(&rig.guest, 0, 0, 7);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 0, seg, XBB_MAX_SEGMENTS),
	    XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	CHECK(COMMON(&rig.pair, grant_errors) > 0);
	CHECK_EQ(COUNTER(&rig.pair, io_errors), 0);
	rig_close(&rig);
}

/* As long as the disk works on it, a page cannot be taken back. */
static void
check_grant_in_use(void)
{
	struct rig rig;
	uint32_t ref;

	rig_open(&rig, SECTORS, &usual);
	ref = xbb_front_page_ref(rig.pair.front, 0);
	disk_hold();
	guest_put_scattered(&rig.guest, 1);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	CHECK_EQ(xbb_front_set_access(rig.pair.front, ref, 0), -EBUSY);
	disk_release();
	guest_collect(&rig.guest);
	CHECK_EQ(xbb_front_set_access(rig.pair.front, ref, 0), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * XSA-332: events without requests.  After 8 that brought nothing the channel
 * is left alone for 2 ms, so sleeps grow with time and not with events.
 */
static void
check_storm(void)
{
	struct rig rig;
	uint64_t begun, periods;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	begun = xbb_now_ns();
	for (i = 0; i < 20000; i++)
		xbb_front_notify(rig.pair.front);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	periods = (xbb_now_ns() - begun) / 2000000 + 2;
	CHECK(COMMON(&rig.pair, notifies_received) <= 8 * periods);
	CHECK(COMMON(&rig.pair, ring_sleeps) <= 10 * periods);
	rig_close(&rig);
}

/* Nonsense in every field, with one true request in each ring full. */

static int16_t
put_nonsense(struct guest *guest, uint64_t *seed)
{
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	uint8_t nseg = (uint8_t)(1 + random_below(seed, XBB_MAX_SEGMENTS));
	uint8_t operation = (uint8_t)random_below(seed, 4);
	uint64_t sector = 0;
	uint32_t i;

	for (i = 0; i < XBB_MAX_SEGMENTS; i++)
		seg[i] = guest_segment(guest, 0, 0, 7);
	switch (random_below(seed, 6)) {
	case 0:
		operation = (uint8_t)(4 + random_below(seed, 252));
		nseg = (uint8_t)random_next(seed);
		sector = random_next(seed);
		break;
	case 1:
		nseg = (uint8_t)(12 + random_below(seed, 244));
		break;
	case 2:
		operation &= 1;
		nseg = 0;
		break;
	case 3:
		seg[nseg - 1].first_sect = (uint8_t)(1 +
		    random_below(seed, 255));
		seg[nseg - 1].last_sect = (uint8_t)random_below(seed,
		    seg[nseg - 1].first_sect);
		break;
	case 4:
		seg[random_below(seed, nseg)].last_sect = (uint8_t)(8 +
		    random_below(seed, 248));
		break;
	default:
		sector = SECTORS - 7 + random_below(seed, UINT64_MAX -
		    SECTORS);
		break;
	}
	guest_put(guest, operation, sector, seg, nseg);
	return (operation > XBB_OP_FLUSH_DISKCACHE ? XBB_RSP_EOPNOTSUPP :
	    XBB_RSP_ERROR);
}

static void
check_malformed(uint32_t abi, uint64_t n, uint64_t seed)
{
	const struct pair_options options = {
		.abi = abi, .ring_pages = 8, .depth = 32,
	};
	struct xbb_segment seg;
	struct rig rig;
	int16_t expected[XBB_MAX_REQUESTS];
	uint64_t put, rounds;
	uint32_t i, good;

	rig_open(&rig, SECTORS, &options);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	for (put = rounds = 0; put < n; rounds++) {
		good = (uint32_t)random_below(&seed, rig.guest.nslots);
		for (i = 0; i < rig.guest.nslots; i++)
			if (i == good) {
				guest_put(&rig.guest, XBB_OP_READ, 0, &seg, 1);
				expected[i] = XBB_RSP_OKAY;
			} else {
				expected[i] = put_nonsense(&rig.guest, &seed);
				put++;
			}
		guest_publish(&rig.guest);
		guest_collect(&rig.guest);
		for (i = 0; i < rig.guest.nslots; i++)
			CHECK_EQ(rig.guest.status[i], expected[i]);
	}
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_malformed), put);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), put);
	CHECK_EQ(COUNTER(&rig.pair, total_dispatch), rounds);
	rig_close(&rig);
}

/* A frontend that is gone without a word: the queue waits to be told. */
static void
check_vanished(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	disk_hold();
	guest_put_scattered(&rig.guest, 8);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	xbb_front_close(rig.pair.front);
	rig.pair.front = NULL;
	disk_release();
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_received), 9);
	rig_close(&rig);
}

int
main(int argc, char **argv)
{
	uint64_t malformed = argument(argc, argv, 1, 100000);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint32_t abi;

	printf("%ju malformed requests, seed %ju\n", (uintmax_t)malformed,
	    (uintmax_t)seed);
	scratch_enter();
	for (abi = XBB_ABI_NATIVE; abi <= XBB_ABI_X86_64; abi++)
		check_malformed(abi, malformed / 3, seed);
	check_grants(seed);
	check_grant_in_use();
	check_storm();
	check_vanished();
	scratch_leave();
	return (0);
}
