/*
 * test_flipping.c - a guest that writes where it should not, against a real
 * queue over the simulated hypervisor: slots that change while they are read,
 * a producer index that lies, indices of ours overwritten.  What was checked
 * is what is done, every request is answered once, and no other ring notices.
 * Arguments: rounds of flipping, seed.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

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
	struct rig rig;
	struct pair *pair = &rig.pair;
	struct guest *guest = &rig.guest;
	uint8_t *pages;
	uint64_t n, most;

	rig_open(&rig, SECTORS, &options);
	pages = xbb_front_page(pair->front, 0);
	memset(pages, 0x5a, xbb_front_pages(pair->front) *
	    (size_t)XBB_PAGE_SIZE);
	CHECK_EQ(xbb_front_set_access(pair->front,
	    xbb_front_page_ref(pair->front, FORBIDDEN), 1), 0);
	flipper.guest = guest;
	flipper.from = everything ? 0 : guest->layout.rsp_size;
	CHECK_EQ(pthread_create(&flipper.thread, NULL, flipper_main, &flipper),
	    0);
	/* The flipper may not be given a processor for a while. */
	most = 1000 * rounds;
	for (n = 0; n < rounds || (n < most &&
	    COUNTER(pair, reqs_completed_with_error) == 0); n++) {
		put_flippable(guest, &seed);
		guest_publish(guest);
		if (everything)
			guest_collect_blindly(guest);
		else
			guest_collect(guest);
	}
	atomic_store(&flipper.stop, true);
	CHECK_EQ(pthread_join(flipper.thread, NULL), 0);
	CHECK_EQ(guest_read_page(guest), XBB_RSP_OKAY);
	pair_drain(pair);
	CHECK_EQ(COUNTER(pair, reqs_received), n * guest->nslots + 1);
	CHECK(COUNTER(pair, reqs_completed_with_error) > 0);
	CHECK(COUNTER(pair, reqs_completed_with_error) < n * guest->nslots);
	CHECK(all_bytes(pages + PAGES_USED * XBB_PAGE_SIZE,
	    (xbb_front_pages(pair->front) - PAGES_USED) *
	    (size_t)XBB_PAGE_SIZE, 0x5a));
	CHECK_EQ(lseek(rig.device.disk_fd, 0, SEEK_END), SECTORS *
	    XBB_SECTOR_SIZE);
	rig_close(&rig);
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
	CHECK_EQ(guest_read_page(&guest), XBB_RSP_OKAY);

	disk_hold();
	guest_put_scattered(&guest, 8);
	guest_publish(&guest);
	disk_wait_held(1);
	guest_set_index(&guest, offsetof(struct xbb_sring, req_prod),
	    guest.req_prod + ahead);
	xbb_front_notify(liar.front);
	disk_release();
	guest_collect(&guest);
	guest_check_okay(&guest, 8);
	pair_wait_drained(&liar, XBB_STOP_RING);
	xbb_queue_status(liar.queue, &status);
	CHECK_EQ(status.errnum, EPROTO);
	CHECK_EQ(COUNTER(&liar, reqs_received), 9);

	CHECK_EQ(guest_read_page(&other), XBB_RSP_OKAY);
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
	const size_t rsp_prod = offsetof(struct xbb_sring, rsp_prod);
	const size_t req_event = offsetof(struct xbb_sring, req_event);
	struct rig rig;
	struct guest *guest = &rig.guest;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	for (i = 0; i < 200; i++) {
		guest_set_index(guest, rsp_prod, guest->rsp_cons);
		guest_set_index(guest, req_event,
		    (uint32_t)random_next(&seed));
		CHECK_EQ(guest_read_page(guest), XBB_RSP_OKAY);
		CHECK_EQ(guest_index(guest, rsp_prod), guest->rsp_cons);
		guest_set_index(guest, rsp_prod,
		    (uint32_t)random_next(&seed));
	}
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_received), 200);
	rig_close(&rig);
}

int
main(int argc, char **argv)
{
	uint64_t rounds = argument(argc, argv, 1, 100);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint32_t abi;

	printf("%ju rounds, seed %ju\n", (uintmax_t)rounds, (uintmax_t)seed);
	scratch_enter();
	for (abi = XBB_ABI_NATIVE; abi <= XBB_ABI_X86_64; abi++) {
		check_flipping(abi, false, rounds, seed);
		check_flipping(abi, true, rounds, seed);
	}
	check_lies();
	check_scribbled_indices(seed);
	scratch_leave();
	return (0);
}
