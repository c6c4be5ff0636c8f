/*
 * test_work.c - who does the work of a disk, and when: the ring's thread or
 * workers, with a disk that is slow, with grants that do not suffice, and with
 * a queue that shall drain or close amid it.
 */
#include <stddef.h>

#include "harness.h"

#define SECTORS		BATCH_SECTORS
#define BYTES		BATCH_BYTES
#define TURN		8		/* requests that nothing merges */
#define TRIES		5	/* of what a busy thread does not show each time */

static const struct pair_options usual = { .workers = 4 };
static const struct pair_options kept = {
	.workers = 4, .persistent = 2 * TURN,
};

/* Nobody waits for second tries of a queue that shall end. */
static void
check_dead_in_drain(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.errnum, EIO);
	disk_hold();
	rig_put_batch(&rig, XBB_OP_READ);
	disk_wait_held(1);
	xbb_queue_drain(rig.pair.queue);
	disk_release();
	guest_collect(&rig.guest);
	rig_check_statuses(&rig, 0, BYTES);
	CHECK_EQ(atomic_load(&disk.transfers), 1);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	rig_close(&rig);
}

/*
 * What is ready is published before the ring's thread begins what may last, be
 * it that nobody knows better yet.
 */
static void
check_publish_first(const struct pair_options *options)
{
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	disk_hold_range(16 * XBB_SECTOR_SIZE, BYTES);
	guest_put_scattered(&rig.guest, 2);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	WAIT_UNTIL(guest_answers(&rig.guest) == 1);
	disk_release();
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 2);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Reads of a quick disk that nothing maps, of which the last is held. */
static uint32_t
answers_while_held(struct rig *rig, uint32_t n)
{
	uint32_t answers, i;

	for (i = 0; i < 100; i++)
		CHECK_EQ(guest_read_page(&rig->guest), XBB_RSP_OKAY);
	disk_hold_range((n - 1) * 16 * XBB_SECTOR_SIZE, UINT64_MAX);
	guest_put_scattered(&rig->guest, n);
	guest_publish(&rig->guest);
	disk_wait_held(1);
	answers = guest_answers(&rig->guest);
	disk_release();
	guest_collect(&rig->guest);
	guest_check_okay(&rig->guest, n);
	return (answers);
}

/*
 * What a quick disk does at once is published together; what takes a while for
 * itself.  A busy machine may make it take a while.
 */
static void
check_turn(void)
{
	struct rig rig;
	uint32_t tries;

	rig_open(&rig, (TURN + 1) * 16, &kept);
	for (tries = 0; answers_while_held(&rig, TURN) == TURN - 1; tries++)
		CHECK(tries < 1000);
	atomic_store(&disk.spin_us, 100);
	CHECK_EQ(answers_while_held(&rig, TURN), TURN - 1);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), 0);
	rig_close(&rig);
}

/* A flush may last, however quick flushes have been. */
static void
check_publish_before_flush(void)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, (TURN + 1) * 16, &kept);
	atomic_store(&disk.sync_nothing, true);
	for (i = 0; i < 100; i++) {
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
		CHECK_EQ(guest_do(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL,
		    0), XBB_RSP_OKAY);
	}
	disk_hold_syncs();
	guest_put_scattered(&rig.guest, 2);
	guest_put(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	guest_publish(&rig.guest);
	WAIT_UNTIL(guest_answers(&rig.guest) == 2);
	disk_release();
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 3);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A lone transfer of a slow disk keeps nothing else from being seen. */
static void
check_lone(void)
{
	struct xbb_segment seg;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	rig_teach_slowness(&rig);
	disk_hold();
	for (i = 0; i < 3; i++) {
		seg = guest_segment(&rig.guest, i, 0, 7);
		guest_put(&rig.guest, XBB_OP_READ, i * 16, &seg, 1);
		guest_publish(&rig.guest);
		disk_wait_held(i + 1);
	}
	disk_release();
	guest_collect(&rig.guest);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Not a single worker can be made: the ring's thread does all, and answers. */
static void
check_no_workers(void)
{
	struct guest *guest;
	struct rig rig;

	rig_open(&rig, 128 * XBB_SECTORS_PER_PAGE, &usual);
	guest = &rig.guest;
	threads_forbid(true);
	atomic_store(&disk.delay_us, 500);
	do
		CHECK_EQ(guest_read_page(guest), XBB_RSP_OKAY);
	while (COUNTER(&rig.pair, io_inline) < 20);
	disk_hold_range(3 * 16 * XBB_SECTOR_SIZE, UINT64_MAX);
	guest_put_scattered(guest, 4);
	guest_publish(guest);
	disk_wait_held(1);
	WAIT_UNTIL(guest_answers(guest) == 3);
	disk_release();
	guest_collect(guest);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), 0);
	threads_forbid(false);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * One wait, and a short one, does not make a disk slow.  A machine may stretch
 * it, but not each time.
 */
static void
check_one_wait(void)
{
	bool inline_all;
	struct rig rig;
	uint32_t tries;

	inline_all = false;
	for (tries = 0; tries < 30 && !inline_all; tries++) {
		rig_open(&rig, SECTORS, &usual);
		/* The first of them may not count: the thread had rested. */
		atomic_store(&disk.delay_us, 200);
		guest_put_scattered(&rig.guest, 2);
		guest_publish(&rig.guest);
		guest_collect(&rig.guest);
		atomic_store(&disk.delay_us, 0);
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
		inline_all = COUNTER(&rig.pair, io_handed_over) == 0;
		pair_drain(&rig.pair);
		rig_close(&rig);
	}
	CHECK(inline_all);
}

/* A thread that computes, or lost its processor, has not waited for the disk. */
static void
check_work_is_no_wait(int32_t poll_max_us)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	XBB_SET(rig.device.state->tunables.poll_max_us, poll_max_us);
	for (i = 0; i < 10; i++)
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	atomic_store(&disk.spin_us, 200);
	for (i = 0; i < 100; i++) {
		guest_put_scattered(&rig.guest, 2);
		guest_publish(&rig.guest);
		guest_collect(&rig.guest);
	}
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), 0);
	rig_close(&rig);
}

/*
 * Drained while the disk is at work, with workers or without: DRAINING until
 * the last of what was accepted is answered, and nothing more is accepted.
 */
static void
check_drain_at_work(bool workers)
{
	struct xbb_queue_status status;
	struct xbb_segment seg;
	struct rig rig;
	struct guest *guest = &rig.guest;
	uint64_t before;
	uint8_t slot[112];

	rig_open(&rig, SECTORS, &usual);
	if (workers)
		rig_teach_slowness(&rig);
	before = COUNTER(&rig.pair, reqs_received);
	disk_hold();
	rig_put_batch(&rig, XBB_OP_READ);
	disk_wait_held(workers ? usual.workers : 1);
	xbb_queue_drain(rig.pair.queue);
	xbb_queue_status(rig.pair.queue, &status);
	CHECK_EQ(status.state, XBB_QUEUE_DRAINING);
	CHECK_EQ(status.reason, XBB_STOP_NONE);

	/* One that comes too late. */
	seg = guest_segment(guest, 0, 0, 7);
	guest_request(guest, slot, XBB_OP_READ, 0, 0, &seg, 1);
	guest_store(guest_slot(guest, guest->req_prod), slot,
	    guest->layout.slot_size);
	guest_set_index(guest, offsetof(struct xbb_sring, req_prod),
	    guest->req_prod + 1);
	xbb_front_notify(rig.pair.front);

	disk_release();
	guest_collect(guest);
	rig_check_statuses(&rig, BYTES, BYTES);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	CHECK_EQ(COUNTER(&rig.pair, reqs_received), before + BATCH);
	CHECK(!workers || COUNTER(&rig.pair, io_handed_over) > 0);
	rig_close(&rig);
}

/* What would need more grants than allowed waits, and is done later. */
static void
check_grant_limit(void)
{
	const struct pair_options options = {
		.workers = 3, .max_batch_segments = 11, .max_grants = 11,
	};
	struct xbb_segment seg[2];
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &options);
	rig_teach_slowness(&rig);
	disk_hold();
	for (i = 0; i < BATCH; i++) {
		seg[0] = guest_segment(&rig.guest, 2 * i, 0, 0);
		seg[1] = guest_segment(&rig.guest, 2 * i + 1, 0, 0);
		guest_put(&rig.guest, XBB_OP_READ, i * 4, seg, 2);
	}
	guest_publish(&rig.guest);
	disk_wait_held(options.workers);
	CHECK_EQ(XBB_GET(rig.pair.rs->grants_mapped), 10);
	CHECK_EQ(COMMON(&rig.pair, kva_shortages), 1);
	disk_release();
	guest_collect(&rig.guest);
	rig_check_statuses(&rig, BYTES, BYTES);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * Of many requests for a slow disk no more are started than its workers have
 * and come back for: each that is costs a look at all that are.
 */
static void
check_few_started(void)
{
	const struct pair_options options = { .workers = 2 };
	const uint32_t n = 16;
	struct rig rig;
	uint64_t sleeps;

	rig_open(&rig, 128 * XBB_SECTORS_PER_PAGE, &options);
	rig_teach_slowness(&rig);
	disk_hold();
	guest_put_scattered(&rig.guest, n);
	guest_publish(&rig.guest);
	disk_wait_held(options.workers);
	WAIT_UNTIL(XBB_GET(rig.pair.rs->inflight) == n);
	/* It starts what may start before it sleeps again. */
	sleeps = COMMON(&rig.pair, ring_sleeps);
	xbb_front_notify(rig.pair.front);
	WAIT_UNTIL(COMMON(&rig.pair, ring_sleeps) != sleeps);
	CHECK_EQ(XBB_GET(rig.pair.rs->grants_mapped), 2 * options.workers);
	disk_release();
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, n);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Closing does the draining if nobody did. */
static void
check_close_at_work(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.delay_us, 1000);
	disk_hold();
	rig_put_batch(&rig, XBB_OP_WRITE);
	disk_wait_held(1);
	disk_release();
	rig_close(&rig);
}

int
main(void)
{
	uint32_t i;

	scratch_enter();
	check_dead_in_drain();
	check_publish_first(&usual);
	for (i = 0; i < TRIES; i++)
		check_publish_first(&kept);
	check_turn();
	for (i = 0; i < TRIES; i++)
		check_publish_before_flush();
	check_lone();
	check_no_workers();
	check_one_wait();
	check_work_is_no_wait(XBB_POLL_MAX_US);
	check_work_is_no_wait(0);	/* it has slept, but not for the disk */
	check_drain_at_work(false);
	check_drain_at_work(true);
	check_grant_limit();
	check_few_started();
	check_close_at_work();
	scratch_leave();
	return (0);
}
