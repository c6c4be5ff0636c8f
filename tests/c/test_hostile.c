/*
 * test_hostile.c - a guest that breaks every rule of the ring, against a real
 * queue over the simulated hypervisor: indices and slots that change under
 * way, requests that are nonsense, grants that are not, events without end.
 * Whatever it does, each request is answered once, nobody else notices, and
 * nothing stays mapped.  Arguments: malformed requests, rounds of flipping,
 * seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "sim_memory.h"

#define SECTORS		1024		/* of the disk */

const char *__tsan_default_suppressions(void);

static const struct pair_options usual = { 0 };

/*
 * A guest may name one page in two requests at once.  What comes of the page is
 * its own affair, but the thread sanitizer sees two of our threads fill it.
 */
const char *
__tsan_default_suppressions(void)
{

	return ("race:^preadv$\nrace:^pwritev$\n");
}

static void
open_all(struct device *device, struct pair *pair, struct guest *guest,
    const struct pair_options *options)
{

	disk_reset();
	device_open(device, SECTORS, 1);
	pair_open(pair, device, 0, options);
	guest_init(guest, pair);
}

static void
close_all(struct device *device, struct pair *pair)
{

	pair_close(pair);
	device_close(device);
}

/* A whole page read from the beginning of the disk: does the ring live? */
static int16_t
read_a_page(struct guest *guest)
{
	const struct xbb_segment seg = guest_segment(guest, 0, 0, 7);

	return (guest_do(guest, XBB_OP_READ, 0, &seg, 1));
}

/* One-page reads with gaps, which nothing merges. */
static void
put_scattered(struct guest *guest, uint32_t n)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < n; i++) {
		seg = guest_segment(guest, i, 0, 7);
		guest_put(guest, XBB_OP_READ, i * 16, &seg, 1);
	}
}

static void
check_all_okay(const struct guest *guest, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		CHECK_EQ(guest->status[i], XBB_RSP_OKAY);
}

/*
 * XSA-155: slots that another thread rewrites while they are read.  What is
 * checked must be what is done: nothing beyond the disk, no page that is not
 * granted for it, no request lost.
 */
#define FORBIDDEN	20	/* page granted for reading only */
#define PAGES_USED	2	/* pages 0 and 1 may be named, and no other */

struct flipper {
	struct guest	*guest;
	size_t		 from;		/* first byte of a slot to change */
	uint64_t	 seed;
	atomic_bool	 stop;
	pthread_t	 thread;
};

static void
flip_one(struct flipper *f)
{
	const struct guest_layout *at = &f->guest->layout;
	static const uint64_t sectors[] = { 0, 8, SECTORS - 1, SECTORS,
	    SECTORS + 8, UINT64_MAX };
	uint8_t *slot, byte;
	uint32_t gref, i;

	slot = guest_slot(f->guest, (uint32_t)random_next(&f->seed));
	i = (uint32_t)random_below(&f->seed, XBB_MAX_SEGMENTS);
	switch (random_below(&f->seed, f->from == 0 ? 5 : 3)) {
	case 0:
		guest_store(slot + at->sector, &sectors[random_below(&f->seed,
		    COUNTOF(sectors))], sizeof(sectors[0]));
		break;
	case 1:
		/* These differ in one byte, so that no mixture is another. */
		gref = (uint32_t)random_below(&f->seed, 4);
		gref = gref == 3 ? 0 : xbb_front_page_ref(f->guest->front,
		    gref == 2 ? FORBIDDEN : gref);
		CHECK(gref <= UINT8_MAX);
		guest_store(slot + at->seg + i * 8, &gref, sizeof(gref));
		break;
	case 2:
		byte = (uint8_t)random_below(&f->seed, 10);
		guest_store(slot + at->seg + i * 8 + 4 +
		    random_below(&f->seed, 2), &byte, 1);
		break;
	case 3:
		byte = (uint8_t)random_below(&f->seed, 6);
		guest_store(slot, &byte, 1);
		break;
	default:
		byte = (uint8_t)random_below(&f->seed, 14);
		guest_store(slot + 1, &byte, 1);
		break;
	}
}

static void *
flipper_main(void *arg)
{
	struct flipper *f = arg;

	while (!atomic_load(&f->stop))
		flip_one(f);
	return (NULL);
}

static void
put_flippable(struct guest *guest, uint64_t *seed)
{
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	uint32_t i, j;

	for (i = 0; i < guest->nslots; i++) {
		for (j = 0; j < XBB_MAX_SEGMENTS; j++)
			seg[j] = guest_segment(guest, j % PAGES_USED, 0, 7);
		guest_put(guest, (uint8_t)random_below(seed, 2), 8 * i,
		    seg, (uint8_t)(1 + random_below(seed, XBB_MAX_SEGMENTS)));
	}
}

/*
 * The responses lie at the beginning of the slots: if that is flipped as well
 * they can only be counted.
 */
static void
check_flipping(uint32_t abi, bool everything, uint64_t rounds, uint64_t seed)
{
	const struct pair_options options = { .abi = abi };
	struct flipper flipper = { .seed = seed };
	struct device device;
	struct guest guest;
	struct pair pair;
	uint8_t *pages;
	uint64_t n;

	open_all(&device, &pair, &guest, &options);
	pages = xbb_front_page(pair.front, 0);
	memset(pages, 0x5a, xbb_front_pages(pair.front) *
	    (size_t)XBB_PAGE_SIZE);
	CHECK_EQ(xbb_front_set_access(pair.front,
	    xbb_front_page_ref(pair.front, FORBIDDEN), 1), 0);
	flipper.guest = &guest;
	flipper.from = everything ? 0 : guest.layout.rsp_size;
	CHECK_EQ(pthread_create(&flipper.thread, NULL, flipper_main, &flipper),
	    0);
	for (n = 0; n < rounds; n++) {
		put_flippable(&guest, &seed);
		guest_publish(&guest);
		if (everything)
			guest_collect_blindly(&guest);
		else
			guest_collect(&guest);
	}
	atomic_store(&flipper.stop, true);
	CHECK_EQ(pthread_join(flipper.thread, NULL), 0);
	CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);
	pair_drain(&pair);
	CHECK_EQ(COUNTER(&pair, reqs_received), rounds * guest.nslots + 1);
	CHECK(COUNTER(&pair, reqs_completed_with_error) > 0);
	CHECK(COUNTER(&pair, reqs_completed_with_error) < rounds *
	    guest.nslots);
	CHECK(all_bytes(pages + PAGES_USED * XBB_PAGE_SIZE,
	    (xbb_front_pages(pair.front) - PAGES_USED) *
	    (size_t)XBB_PAGE_SIZE, 0x5a));
	CHECK_EQ(lseek(device.disk_fd, 0, SEEK_END), SECTORS *
	    XBB_SECTOR_SIZE);
	close_all(&device, &pair);
}

/*
 * A producer index that cannot be: the queue stops and says so, what was
 * accepted is answered, and another ring of the device goes on.
 */
static void
check_lie(uint32_t ahead)
{
	struct device device;
	struct guest guest, other;
	struct pair liar, honest;
	struct xbb_queue_status status;

	disk_reset();
	device_open(&device, SECTORS, 2);
	pair_open(&liar, &device, 0, &usual);
	pair_open(&honest, &device, 1, &usual);
	guest_init(&guest, &liar);
	guest_init(&other, &honest);
	CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);

	disk_hold();
	put_scattered(&guest, 8);
	guest_publish(&guest);
	disk_wait_held(1);
	guest_set_index(&guest, offsetof(struct xbb_sring, req_prod),
	    guest.req_prod + ahead);
	xbb_front_notify(liar.front);
	disk_release();
	guest_collect(&guest);
	check_all_okay(&guest, 8);
	pair_wait_drained(&liar, XBB_STOP_RING);
	xbb_queue_status(liar.queue, &status);
	CHECK_EQ(status.errnum, EPROTO);
	CHECK_EQ(COUNTER(&liar, reqs_received), 9);

	CHECK_EQ(read_a_page(&other), XBB_RSP_OKAY);
	pair_drain(&honest);
	pair_close(&liar);
	pair_close(&honest);
	device_close(&device);
}

static void
check_lies(void)
{

	check_lie(33);
	check_lie(UINT32_MAX);
	check_lie(0x80000000);
}

/* What the backend wrote it must not believe when it reads it again. */
static void
check_scribbled_indices(uint64_t seed)
{
	struct device device;
	struct guest guest;
	struct pair pair;
	uint32_t i;

	open_all(&device, &pair, &guest, &usual);
	for (i = 0; i < 200; i++) {
		guest_set_index(&guest, offsetof(struct xbb_sring, rsp_prod),
		    guest.rsp_cons);
		guest_set_index(&guest, offsetof(struct xbb_sring, req_event),
		    (uint32_t)random_next(&seed));
		CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);
		CHECK_EQ(guest_index(&guest, offsetof(struct xbb_sring,
		    rsp_prod)), guest.rsp_cons);
		guest_set_index(&guest, offsetof(struct xbb_sring, rsp_prod),
		    (uint32_t)random_next(&seed));
	}
	pair_drain(&pair);
	CHECK_EQ(COUNTER(&pair, reqs_received), 200);
	close_all(&device, &pair);
}

/* Grants that do not map, at every place of a batch of eight requests. */

#define BATCH	8

enum flaw { NO_SUCH, BEYOND, FARTHEST, RESERVED, WITHDRAWN, FOREIGN, READ_ONLY };

static uint32_t
spoil(struct device *device, struct guest *guest, uint32_t page,
    enum flaw flaw)
{
	uint32_t ref = xbb_front_page_ref(guest->front, page);
	struct sim_domain domain;

	switch (flaw) {
	case NO_SUCH:
		return (0);
	case BEYOND:
		return (16384);		/* pages of a domain, device.c */
	case FARTHEST:
		return (UINT32_MAX);
	case RESERVED:
		return (16383);		/* there, but nobody granted it */
	case WITHDRAWN:
		CHECK_EQ(xbb_front_set_access(guest->front, ref, 0), 0);
		break;
	case FOREIGN:
		CHECK_EQ(sim_domain_open(&domain, device->domain_fd), 0);
		atomic_store(&domain.grants->entry[ref],
		    SIM_GRANT(5, SIM_PERMIT, ref));
		sim_domain_close(&domain);
		break;
	case READ_ONLY:
		CHECK_EQ(xbb_front_set_access(guest->front, ref, 1), 0);
		break;
	}
	return (ref);
}

static void
check_flaw(struct device *device, struct pair *pair, struct guest *guest,
    enum flaw flaw, uint8_t operation, uint32_t bad, uint64_t *seed)
{
	static uint8_t on_disk[BATCH * XBB_PAGE_SIZE];
	uint64_t batches = COUNTER(pair, total_dispatch);
	struct xbb_segment seg;
	uint8_t *page;
	uint32_t i;
	bool fails = !(flaw == READ_ONLY && operation == XBB_OP_WRITE);

	random_bytes(seed, on_disk, sizeof(on_disk));
	device_write(device, 0, sizeof(on_disk) / XBB_SECTOR_SIZE, on_disk);
	for (i = 0; i < BATCH; i++) {
		memset(xbb_front_page(guest->front, i), 0xa0 + (int)i,
		    XBB_PAGE_SIZE);
		seg = guest_segment(guest, i, 0, 7);
		if (i == bad)
			seg.gref = spoil(device, guest, i, flaw);
		guest_put(guest, operation, i * 8, &seg, 1);
	}
	guest_publish(guest);
	guest_collect(guest);
	CHECK_EQ(COUNTER(pair, total_dispatch), batches + 1);
	if (operation == XBB_OP_WRITE)
		device_read(device, 0, sizeof(on_disk) / XBB_SECTOR_SIZE,
		    on_disk);
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
	struct device device;
	struct guest guest;
	struct pair pair;
	enum flaw flaw;
	uint32_t bad, i;

	open_all(&device, &pair, &guest, &usual);
	for (flaw = NO_SUCH; flaw <= READ_ONLY; flaw++)
		for (bad = 0; bad < BATCH; bad++) {
			check_flaw(&device, &pair, &guest, flaw, XBB_OP_READ,
			    bad, &seed);
			check_flaw(&device, &pair, &guest, flaw, XBB_OP_WRITE,
			    bad, &seed);
		}
	/* Within a request one bad segment spoils all. */
	for (bad = 0; bad < XBB_MAX_SEGMENTS; bad++) {
		for (i = 0; i < XBB_MAX_SEGMENTS; i++)
			seg[i] = guest_segment(&guest, i, 0, 7);
		seg[bad].gref = 0;
		CHECK_EQ(guest_do(&guest, XBB_OP_READ, 0, seg,
		    XBB_MAX_SEGMENTS), XBB_RSP_ERROR);
	}
	/* One page many times is unusual, but allowed. */
	for (i = 0; i < XBB_MAX_SEGMENTS; i++)
		seg[i] = guest_segment(&guest, 0, 0, 7);
	CHECK_EQ(guest_do(&guest, XBB_OP_WRITE, 0, seg, XBB_MAX_SEGMENTS),
	    XBB_RSP_OKAY);
	pair_drain(&pair);
	CHECK(COUNTER(&pair, grant_errors) > 0);
	CHECK_EQ(COUNTER(&pair, io_errors), 0);
	close_all(&device, &pair);
}

/* As long as the disk works on it, a page cannot be taken back. */
static void
check_grant_in_use(void)
{
	struct device device;
	struct guest guest;
	struct pair pair;
	uint32_t ref;

	open_all(&device, &pair, &guest, &usual);
	ref = xbb_front_page_ref(pair.front, 0);
	disk_hold();
	put_scattered(&guest, 1);
	guest_publish(&guest);
	disk_wait_held(1);
	CHECK_EQ(xbb_front_set_access(pair.front, ref, 0), -EBUSY);
	disk_release();
	guest_collect(&guest);
	CHECK_EQ(xbb_front_set_access(pair.front, ref, 0), 0);
	pair_drain(&pair);
	close_all(&device, &pair);
}

/*
 * XSA-332: events without requests.  After 8 that brought nothing the channel
 * is left alone for 2 ms, so sleeps grow with time and not with events.
 */
static void
check_storm(void)
{
	struct device device;
	struct guest guest;
	struct pair pair;
	uint64_t begun, periods;
	uint32_t i;

	open_all(&device, &pair, &guest, &usual);
	CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);
	begun = xbb_now_ns();
	for (i = 0; i < 20000; i++)
		xbb_front_notify(pair.front);
	CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);
	pair_drain(&pair);
	periods = (xbb_now_ns() - begun) / 2000000 + 2;
	CHECK(COUNTER(&pair, notifies_received) <= 8 * periods);
	CHECK(COUNTER(&pair, ring_sleeps) <= 10 * periods);
	close_all(&device, &pair);
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
	struct device device;
	struct guest guest;
	struct pair pair;
	int16_t expected[XBB_MAX_REQUESTS];
	uint64_t put, rounds;
	uint32_t i, good;

	open_all(&device, &pair, &guest, &options);
	seg = guest_segment(&guest, 0, 0, 7);
	for (put = rounds = 0; put < n; rounds++) {
		good = (uint32_t)random_below(&seed, guest.nslots);
		for (i = 0; i < guest.nslots; i++)
			if (i == good) {
				guest_put(&guest, XBB_OP_READ, 0, &seg, 1);
				expected[i] = XBB_RSP_OKAY;
			} else {
				expected[i] = put_nonsense(&guest, &seed);
				put++;
			}
		guest_publish(&guest);
		guest_collect(&guest);
		for (i = 0; i < guest.nslots; i++)
			CHECK_EQ(guest.status[i], expected[i]);
	}
	pair_drain(&pair);
	CHECK_EQ(COUNTER(&pair, reqs_malformed), put);
	CHECK_EQ(COUNTER(&pair, reqs_completed_with_error), put);
	CHECK_EQ(COUNTER(&pair, total_dispatch), rounds);
	close_all(&device, &pair);
}

/* A frontend that is gone without a word: the queue waits to be told. */
static void
check_vanished(void)
{
	struct device device;
	struct guest guest;
	struct pair pair;

	open_all(&device, &pair, &guest, &usual);
	CHECK_EQ(read_a_page(&guest), XBB_RSP_OKAY);
	disk_hold();
	put_scattered(&guest, 8);
	guest_publish(&guest);
	disk_wait_held(1);
	xbb_front_close(pair.front);
	pair.front = NULL;
	disk_release();
	pair_drain(&pair);
	CHECK_EQ(COUNTER(&pair, reqs_received), 9);
	close_all(&device, &pair);
}

int
main(int argc, char **argv)
{
	uint64_t malformed = argument(argc, argv, 1, 100000);
	uint64_t rounds = argument(argc, argv, 2, 100);
	uint64_t seed = argument(argc, argv, 3, 1);
	uint32_t abi;

	printf("%ju malformed requests, %ju rounds, seed %ju\n",
	    (uintmax_t)malformed, (uintmax_t)rounds, (uintmax_t)seed);
	scratch_enter();
	for (abi = XBB_ABI_NATIVE; abi <= XBB_ABI_X86_64; abi++) {
		check_flipping(abi, false, rounds, seed);
		check_flipping(abi, true, rounds, seed);
		check_malformed(abi, malformed / 3, seed);
	}
	check_lies();
	check_scribbled_indices(seed);
	check_grants(seed);
	check_grant_in_use();
	check_storm();
	check_vanished();
	scratch_leave();
	return (0);
}
