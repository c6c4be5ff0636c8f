/*
 * test_shortage.c - a host that is short: of mappings, of memory, of what the
 * hypervisor keeps track of grants with.  No honest request is answered with an
 * error for that; it is done once there is enough, in its order, and counted.
 * A reference that is none is an error all the same, and a queue that drains
 * ends.
 */
#include <string.h>

#include "harness.h"

#define SECTORS		1024
#define BATCH		8		/* requests, of a page each */
#define NO_REF		3		/* a reference that grants nothing */

static const struct pair_options mapping = {
	.workers = 2, .transport = XBB_TRANSPORT_MAP,
};
static const struct pair_options copying = {
	.workers = 2, .transport = XBB_TRANSPORT_COPY,
};
static const struct pair_options keeping = {
	.workers = 2, .transport = XBB_TRANSPORT_MAP, .persistent = 256,
	.max_indirect_segments = 64,
};

/* Pages [first, first + n) of the guest to or from that place of the disk. */
static void
put_pages(struct guest *guest, uint8_t operation, uint32_t first, uint32_t n)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = first; i < first + n; i++) {
		seg = guest_segment(guest, i, 0, 7);
		guest_put(guest, operation, i * XBB_SECTORS_PER_PAGE, &seg, 1);
	}
	guest_publish(guest);
}

static void
check_nothing_went_wrong(struct rig *rig, uint64_t shortages)
{

	CHECK_EQ(COUNTER(&rig->pair, reqs_completed_with_error), 0);
	CHECK_EQ(COMMON(&rig->pair, grant_errors), 0);
	CHECK_EQ(COMMON(&rig->pair, kva_shortages), shortages);
}

/* A merged batch waits, on the ring's thread or a worker's, and is done. */
static void
check_passes(const struct pair_options *options, atomic_int *errnum, int e,
    bool slow, uint8_t operation)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, options);
	if (slow) {
		rig_teach_slowness(&rig);
		XBB_SET(rig.device.state->tunables.no_coalesce_reqs, 0);
	}
	for (i = 0; i < BATCH; i++)
		memset(xbb_front_page(rig.pair.front, i), 0x20 + (int)i,
		    XBB_PAGE_SIZE);
	atomic_store(errnum, e);
	put_pages(&rig.guest, operation, 0, BATCH);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	atomic_store(errnum, 0);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, BATCH);
	for (i = 0; i < BATCH; i++) {
		uint8_t now[XBB_PAGE_SIZE];

		device_read(&rig.device, i * XBB_SECTORS_PER_PAGE,
		    XBB_SECTORS_PER_PAGE, now);
		CHECK(all_bytes(now, sizeof(now), operation == XBB_OP_READ ?
		    0 : (uint8_t)(0x20 + i)));
	}
	check_nothing_went_wrong(&rig, 1);
	/* And the next one has nothing to wait for. */
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	check_nothing_went_wrong(&rig, 1);
	rig_close(&rig);
}

/* Memory for one page at a time is enough: nobody waits, and all is done. */
static void
check_one_at_a_time(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.most_pages, 1);
	put_pages(&rig.guest, XBB_OP_WRITE, 0, BATCH);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, BATCH);
	check_nothing_went_wrong(&rig, 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* One that is alone in its batch waits as well, whomever that is about. */
static void
check_alone(int e)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.map_errnum, e);
	put_pages(&rig.guest, XBB_OP_WRITE, 0, 1);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	atomic_store(&hypervisor.map_errnum, 0);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 1);
	pair_drain(&rig.pair);
	check_nothing_went_wrong(&rig, 1);
	rig_close(&rig);
}

/* A bad reference in a batch that had to wait is nobody else's error. */
static void
check_bad_reference(const struct pair_options *options, atomic_int *errnum)
{
	struct xbb_segment seg = { .gref = NO_REF, .last_sect = 7 };
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	atomic_store(errnum, ENOMEM);
	put_pages(&rig.guest, XBB_OP_READ, 0, 3);
	guest_put(&rig.guest, XBB_OP_READ, 3 * XBB_SECTORS_PER_PAGE, &seg, 1);
	put_pages(&rig.guest, XBB_OP_READ, 4, 3);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) >= 1);
	atomic_store(errnum, 0);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[3], XBB_RSP_ERROR);
	rig.guest.status[3] = XBB_RSP_OKAY;
	guest_check_okay(&rig.guest, 7);
	CHECK(COMMON(&rig.pair, grant_errors) > 0);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 1);
	/* Without a shortage it is one at once. */
	atomic_store(&hypervisor.map_calls, 0);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_READ, 0, &seg, 1), XBB_RSP_ERROR);
	CHECK(atomic_load(&hypervisor.map_calls) <= 2);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * Tries are few: each wait is longer than the last, up to a bound, and a guest
 * whose requests wait can do nothing about that.
 */
static void
check_tries_are_few(void)
{
	uint64_t begun;
	struct rig rig;

	rig_open(&rig, SECTORS, &mapping);
	put_pages(&rig.guest, XBB_OP_READ, 0, 1);
	guest_collect(&rig.guest);
	atomic_store(&hypervisor.map_errnum, ENOMEM);
	atomic_store(&hypervisor.map_calls, 0);
	begun = xbb_now_ns();
	put_pages(&rig.guest, XBB_OP_READ, 0, 1);
	while (atomic_load(&hypervisor.map_calls) < 8) {
		xbb_front_notify(rig.pair.front);
		CHECK(xbb_now_ns() - begun < LIMIT_MS * 1000000ULL);
	}
	/* 4, 8, 16, 32, 64, 128, 128 ms */
	CHECK(xbb_now_ns() - begun > 300000000);
	atomic_store(&hypervisor.map_errnum, 0);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 1);
	pair_drain(&rig.pair);
	/* The next one that is short begins anew. */
	CHECK_EQ(rig.pair.queue->own.retry.wait_ms, 0);
	rig_close(&rig);
}

/* A write that waits is read as written by who came later; the rest goes on. */
static void
check_order(void)
{
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &mapping);
	memset(xbb_front_page(rig.pair.front, 0), 0x77, XBB_PAGE_SIZE);
	atomic_store(&hypervisor.map_errnum, ENOSPC);
	put_pages(&rig.guest, XBB_OP_WRITE, 0, 1);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	seg = guest_segment(&rig.guest, 1, 0, 7);
	guest_put(&rig.guest, XBB_OP_READ, 0, &seg, 1);
	guest_put(&rig.guest, XBB_OP_DISCARD, 0, NULL, 0);
	guest_publish(&rig.guest);
	WAIT_UNTIL(guest_answers(&rig.guest) == 1);
	atomic_store(&hypervisor.map_errnum, 0);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.order[0], 2);	/* not offered: known at once */
	CHECK_EQ(rig.guest.status[0], XBB_RSP_OKAY);
	CHECK_EQ(rig.guest.status[1], XBB_RSP_OKAY);
	CHECK(all_bytes(xbb_front_page(rig.pair.front, 1), XBB_PAGE_SIZE,
	    0x77));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* An indirect request whose list lies in a page; to read pages 40 and on. */
static void
put_indirect(struct rig *rig, uint32_t list, uint16_t nseg)
{
	struct xbb_segment seg[64];
	uint32_t i, ref;
	uint8_t *slot;

	for (i = 0; i < nseg; i++)
		seg[i] = guest_segment(&rig->guest, 40 + i, 0, 7);
	memcpy(xbb_front_page(rig->pair.front, list), seg,
	    nseg * sizeof(seg[0]));
	ref = xbb_front_page_ref(rig->pair.front, list);
	slot = guest_slot(&rig->guest, rig->guest.req_prod);
	guest_put(&rig->guest, XBB_OP_INDIRECT, 0, NULL, XBB_OP_READ);
	guest_store(slot + 2, &nseg, sizeof(nseg));
	guest_store(slot + 28, &ref, sizeof(ref));
	guest_publish(&rig->guest);
}

/*
 * The segments of a request cannot be fetched: it stays on the ring, what came
 * before is answered, and what comes after it waits its turn.
 */
static void
check_indirect(const struct pair_options *options, atomic_int *errnum)
{
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	put_indirect(&rig, 1, 20);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 1);
	atomic_store(errnum, ENOMEM);
	guest_put(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	guest_publish(&rig.guest);
	put_indirect(&rig, 2, 20);
	guest_put(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	guest_publish(&rig.guest);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1 &&
	    guest_answers(&rig.guest) == 1);
	CHECK_EQ(COUNTER(&rig.pair, reqs_received), 2);
	atomic_store(errnum, 0);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 3);
	CHECK_EQ(rig.guest.order[0], 0);
	check_nothing_went_wrong(&rig, 1);
	CHECK_EQ(COUNTER(&rig.pair, indirect_req), 2);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* One that waits on the ring was not accepted: nobody waits for it. */
static void
check_drain_with_indirect(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &keeping);
	atomic_store(&hypervisor.map_errnum, ENOMEM);
	put_indirect(&rig, 1, 20);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_received), 0);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	rig_close(&rig);
}

/* A shortage that lasts ends a queue that drains, with errors, not before. */
static void
check_drain_ends(void)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.map_errnum, ENOMEM);
	put_pages(&rig.guest, XBB_OP_READ, 0, BATCH);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	pair_drain(&rig.pair);
	guest_collect(&rig.guest);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig.guest.status[i], XBB_RSP_ERROR);
	CHECK_EQ(COMMON(&rig.pair, grant_errors), BATCH);
	rig_close(&rig);

	/* One that passes meanwhile is none. */
	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.map_errnum, ENOMEM);
	put_pages(&rig.guest, XBB_OP_READ, 0, BATCH);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	xbb_queue_drain(rig.pair.queue);
	atomic_store(&hypervisor.map_errnum, 0);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, BATCH);
	rig_close(&rig);
}

/*
 * The hypervisor keeps track of no more: EINVAL for every page there is, as
 * for a reference that is none.  And of a dead guest, which nobody waits for
 * once the queue drains.
 */
static void
check_no_page_maps(void)
{
	struct rig rig;
	uint32_t i;

	check_passes(&mapping, &hypervisor.map_errnum, EINVAL, false,
	    XBB_OP_WRITE);
	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.map_errnum, EINVAL);
	put_pages(&rig.guest, XBB_OP_READ, 0, BATCH);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	xbb_queue_drain(rig.pair.queue);
	guest_collect(&rig.guest);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig.guest.status[i], XBB_RSP_ERROR);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	rig_close(&rig);
}

/* A ring that keeps 20 grants, each in a mapping of its own, for good. */
static void
rig_open_keeping(struct rig *rig)
{
	uint32_t i;

	rig_open(rig, SECTORS, &keeping);
	XBB_SET(rig->device.state->tunables.persistent_grant_unused_seconds, 0);
	for (i = 0; i < 20; i++) {
		put_pages(&rig->guest, XBB_OP_READ, i, 1);
		guest_collect(&rig->guest);
	}
	CHECK_EQ(XBB_GET(rig->pair.rs->common.grants_persistent), 20);
}

/*
 * A process with no mapping left, since another guest's ring keeps them: what
 * is only kept there is given back, and an honest guest sees no error.
 */
static void
check_others_give_back(void)
{
	struct pair_options other = mapping;
	struct device device;
	struct guest guest;
	struct pair pair;
	struct rig rig;
	uint32_t i;

	rig_open_keeping(&rig);
	other.domid = 2;
	device_open(&device, SECTORS, 1);
	pair_open(&pair, &device, 0, &other);
	guest_init(&guest, &pair);
	atomic_store(&hypervisor.most_mappings,
	    atomic_load(&hypervisor.mappings));
	for (i = 0; i < 20; i++) {
		put_pages(&guest, XBB_OP_WRITE, i, 1);
		guest_collect(&guest);
		guest_check_okay(&guest, 1);
	}
	CHECK(COMMON(&pair, kva_shortages) > 0);
	CHECK_EQ(COUNTER(&pair, reqs_completed_with_error), 0);
	CHECK(XBB_GET(rig.pair.rs->common.grants_persistent) < 20);
	pair_drain(&pair);
	pair_close(&pair);
	device_close(&device);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * No mapping, or no thread, for another queue: that is said, as what passes,
 * and what others keep is given back for the next try.
 */
static void
check_opening(bool threads)
{
	struct pair pair = { 0 };
	struct device device;
	struct rig rig;

	rig_open_keeping(&rig);
	device_open(&device, SECTORS, 1);
	if (threads)
		threads_forbid(true);
	else
		atomic_store(&hypervisor.most_mappings,
		    atomic_load(&hypervisor.mappings));
	CHECK_EQ(pair_try(&pair, &device, 0, &mapping),
	    threads ? -EAGAIN : -ENOMEM);
	if (threads) {
		WAIT_UNTIL(pair_try(&pair, &device, 0, &mapping) == -EAGAIN &&
		    XBB_GET(rig.pair.rs->common.grants_persistent) < 20);
		/* Nor does it look as if somebody served it. */
		CHECK_EQ(XBB_GET(pair.rs->common.connected), 0);
		CHECK_EQ(XBB_GET(pair.rs->common.status.state),
		    XBB_QUEUE_DRAINED);
		threads_forbid(false);
	}
	WAIT_UNTIL(pair_try(&pair, &device, 0, &mapping) == 0);
	pair_drain(&pair);
	pair_close(&pair);
	device_close(&device);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* What a ring keeps itself is the first to go: one mapping is enough. */
static void
check_own_is_given_back(void)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &keeping);
	put_pages(&rig.guest, XBB_OP_READ, 0, 1);
	guest_collect(&rig.guest);
	atomic_store(&hypervisor.most_mappings,
	    atomic_load(&hypervisor.mappings));
	for (i = 0; i < 20; i++) {
		put_pages(&rig.guest, XBB_OP_READ, i, 1);
		guest_collect(&rig.guest);
		guest_check_okay(&rig.guest, 1);
	}
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{
	static const int errnums[] = { ENOMEM, ENOSPC, EAGAIN };
	uint32_t i;

	scratch_enter();
	for (i = 0; i < 2 * COUNTOF(errnums); i++) {
		check_passes(&mapping, &hypervisor.map_errnum, errnums[i / 2],
		    i % 2, XBB_OP_WRITE);
		check_passes(&copying, &hypervisor.copy_errnum,
		    errnums[i / 2], i % 2, XBB_OP_WRITE);
		check_passes(&copying, &hypervisor.copy_errnum,
		    errnums[i / 2], i % 2, XBB_OP_READ);
	}
	check_one_at_a_time();
	for (i = 0; i < COUNTOF(errnums); i++)
		check_alone(errnums[i]);
	check_bad_reference(&mapping, &hypervisor.map_errnum);
	check_bad_reference(&copying, &hypervisor.copy_errnum);
	check_tries_are_few();
	check_order();
	check_indirect(&keeping, &hypervisor.map_errnum);
	check_drain_with_indirect();
	check_drain_ends();
	check_no_page_maps();
	check_others_give_back();
	check_own_is_given_back();
	check_opening(false);
	check_opening(true);
	scratch_leave();
	return (0);
}
