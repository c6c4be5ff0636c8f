/*
 * test_hold.c - what is done about errors of the disk: what is tried again, and
 * for how long, what pauses the disk or ends it.  Nobody is told of an error
 * that passes, and a flush is as ever: it waits for the writes before it, and
 * one that fails fails for good.
 */
#include <string.h>
#include <unistd.h>

#include "pauses.h"

#define TRIES	20	/* of what a busy thread does not show each time */

static const struct pair_options kept = { .workers = 4, .persistent = 16 };

/* What is done about which error. */
static void
check_policies(void)
{
	static const int for_good[] = { EINVAL, EOPNOTSUPP, ENOTTY, ENOSYS,
	    EFAULT, 0 };
	static const int32_t damaged[] = { 4, -1, 5, INT32_MAX, INT32_MIN };
	uint32_t i, last, ms, policy;

	for (policy = XBB_POLICY_REPORT; policy <= XBB_POLICY_STOP; policy++) {
		const int32_t p = (int32_t)policy;

		CHECK_EQ(xbb_policy_of(p, XBB_POLICY_AUTO, EIO, 0), policy);
		CHECK_EQ(xbb_policy_of(p, XBB_POLICY_STOP, EIO, 0), policy);
		CHECK_EQ(xbb_policy_of(p, XBB_POLICY_AUTO, ENXIO, 1),
		    policy == XBB_POLICY_PAUSE ? policy : XBB_POLICY_REPORT);
		CHECK_EQ(xbb_policy_of(p, XBB_POLICY_AUTO, ENOSPC, 0),
		    policy == XBB_POLICY_RETRY ? XBB_POLICY_PAUSE : policy);
		CHECK_EQ(xbb_policy_of(XBB_POLICY_REPORT, p, ENOSPC, 0),
		    policy);
		CHECK_EQ(xbb_policy_of(XBB_POLICY_PAUSE, p, EDQUOT, 0),
		    policy);
		for (i = 0; i < COUNTOF(for_good); i++)
			CHECK_EQ(xbb_policy_of(p, p, for_good[i], 0),
			    XBB_POLICY_REPORT);
	}
	for (i = 0; i < COUNTOF(damaged); i++) {
		CHECK_EQ(xbb_policy_of(damaged[i], 4, EIO, 0),
		    XBB_POLICY_REPORT);
		if (damaged[i] != XBB_POLICY_AUTO)
			CHECK_EQ(xbb_policy_of(XBB_POLICY_PAUSE, damaged[i],
			    ENOSPC, 0), XBB_POLICY_REPORT);
	}
	CHECK_EQ(xbb_policy_wait_ms(0), 100);
	CHECK_EQ(xbb_policy_wait_ms(1), 200);
	last = 0;
	for (i = 0; i < 300; i++) {
		ms = xbb_policy_wait_ms(i);
		CHECK(ms >= last && ms <= 5000);
		last = ms;
	}
	CHECK_EQ(last, 5000);
}

/* How long the thread may sleep: until the first of all tries, or less. */
static void
check_wait(void)
{
	struct xbb_pause none = { 0 };
	static struct xbb_batch batch[2];
	static struct xbb_queue queue;
	uint32_t i;

	queue.set.pause = &none;
	CHECK_EQ(xbb_hold_wait(&queue, -1), -1);
	for (i = 0; i < 2; i++) {
		batch[i].again_ns = xbb_now_ns() +
		    (60 - 10 * i) * 1000000000ULL;
		xbb_work_put(&queue.own.held, &batch[i].work);
	}
	CHECK(xbb_hold_wait(&queue, -1) <= 50000);
	CHECK(xbb_hold_wait(&queue, -1) > 10000);
	CHECK_EQ(xbb_hold_wait(&queue, 7), 7);
	CHECK_EQ(xbb_hold_wait(&queue, 0), 0);
	batch[0].again_ns = 1;
	CHECK_EQ(xbb_hold_wait(&queue, -1), 0);
	CHECK_EQ(xbb_hold_wait(&queue, 7), 0);
	none.why = XBB_PAUSE_ASKED;
	CHECK_EQ(xbb_hold_wait(&queue, 7), 7);
}

/* As every kernel does it, unless somebody wants something else. */
static void
check_report(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	fail_range(0, UINT64_MAX, ENOSPC);
	put_at(&rig.guest, XBB_OP_WRITE, 0);
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	CHECK_EQ(why_paused(&rig), 0);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_held), 0);
	rig_close(&rig);
}

/* An error that passes is nobody's to hear of, of whatever operation. */
static void
check_retry(const struct pair_options *options, uint8_t operation)
{
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, XBB_POLICY_RETRY, XBB_POLICY_AUTO);
	fail_range(BYTE(1), BYTE(2), EIO);
	put_at(&rig.guest, operation, PLACE(1));
	put_flush(&rig.guest);
	put_at(&rig.guest, XBB_OP_READ, PLACE(3));
	guest_publish(&rig.guest);
	WAIT_UNTIL(COUNTER(&rig.pair, io_retries) >= 2);
	/* A flush waits for a write, and a barrier has all wait for it. */
	CHECK_EQ(guest_answers(&rig.guest),
	    operation == XBB_OP_READ ? 2 :
	    operation == XBB_OP_WRITE ? 1 : 0);
	CHECK_EQ(XBB_GET(rig.pair.rs->faults.last_held.errnum), EIO);
	CHECK_EQ(XBB_GET(rig.pair.rs->faults.last_held.sector), PLACE(1));
	atomic_store(&disk.errnum, 0);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 3);
	CHECK_EQ(why_paused(&rig), 0);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_held), 1);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	CHECK_EQ(XBB_GET(rig.pair.rs->faults.last_disk.sequence), 0);
	rig_close(&rig);
}

/*
 * What is held, and not due yet, is no work: the thread sleeps again when others
 * have had it look.
 */
static void
check_held_is_no_work(void)
{
	uint64_t retries, sleeps;
	uint32_t tries;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	set_policy(&rig, XBB_POLICY_RETRY, XBB_POLICY_AUTO);
	fail_range(BYTE(1), BYTE(2), EIO);
	put_at(&rig.guest, XBB_OP_READ, PLACE(1));
	guest_publish(&rig.guest);
	WAIT_UNTIL(COUNTER(&rig.pair, io_retries) >= 2);
	tries = 0;
	do {
		CHECK(tries++ < 6);
		retries = COUNTER(&rig.pair, io_retries);
		sleeps = COMMON(&rig.pair, ring_sleeps);
		put_at(&rig.guest, XBB_OP_READ, PLACE(3));
		guest_publish(&rig.guest);
		WAIT_UNTIL(COMMON(&rig.pair, ring_sleeps) > sleeps ||
		    COUNTER(&rig.pair, io_retries) != retries);
	} while (COUNTER(&rig.pair, io_retries) != retries);
	atomic_store(&disk.errnum, 0);
	guest_collect(&rig.guest);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* One that lasts is told in the end; a bad place costs who asked for it. */
static void
check_retry_ends(void)
{
	uint64_t begun;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	set_policy(&rig, XBB_POLICY_RETRY, XBB_POLICY_AUTO);
	xbb_tunable_set(&rig.device.state->tunables.retry_seconds, 1);
	fail_range(3 * XBB_PAGE_SIZE, 4 * XBB_PAGE_SIZE, EIO);
	begun = xbb_now_ns();
	rig_put_batch(&rig, XBB_OP_WRITE);
	guest_collect(&rig.guest);
	CHECK(xbb_now_ns() - begun >= 1000000000);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig.guest.status[i], i == 3 ? XBB_RSP_ERROR :
		    XBB_RSP_OKAY);
	/* Without any time there is no other try. */
	xbb_tunable_set(&rig.device.state->tunables.retry_seconds, 0);
	put_at(&rig.guest, XBB_OP_READ, 3 * XBB_SECTORS_PER_PAGE);
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_held), 1);
	rig_close(&rig);
}

/* A full disk: silence, until somebody has made room and says so. */
static void
check_full(const struct pair_options *options, int errnum, int32_t on_error)
{
	static uint8_t found[XBB_PAGE_SIZE];
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, on_error, XBB_POLICY_AUTO);
	memset(xbb_front_page(rig.pair.front, 0), 0x11, XBB_PAGE_SIZE);
	memset(xbb_front_page(rig.pair.front, 2), 0x22, XBB_PAGE_SIZE);
	fail_range(BYTE(1), BYTE(2), errnum);
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_flush(&rig.guest);
	guest_publish(&rig.guest);
	WAIT_UNTIL(why_paused(&rig) == XBB_PAUSE_FAILED);
	CHECK(XBB_GET(rig.device.state->pause.since_ns) != 0);
	/* Over the first one, and beside it. */
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_at(&rig.guest, XBB_OP_READ, PLACE(5));
	guest_publish(&rig.guest);
	check_silence(&rig);
	check_dispatched(&rig, 1);
	CHECK_EQ(guest_answers(&rig.guest), 0);

	/* Too early: it is paused again. */
	resume(&rig);
	WAIT_UNTIL(COUNTER(&rig.pair, io_retries) == 1 &&
	    why_paused(&rig) != 0);
	CHECK_EQ(atomic_load(&disk.syncs), 0);
	atomic_store(&disk.errnum, 0);
	resume(&rig);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 4);
	wait_followed(&rig);
	CHECK_EQ(why_paused(&rig), 0);
	CHECK_EQ(XBB_GET(rig.device.state->pause.since_ns), 0);
	device_read(&rig.device, PLACE(1), XBB_SECTORS_PER_PAGE, found);
	CHECK(all_bytes(found, XBB_PAGE_SIZE, 0x22));
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	CHECK_EQ(COUNTER(&rig.pair, io_held), 1);
	CHECK_EQ(XBB_GET(rig.pair.rs->grants_mapped), 0);
	rig_close(&rig);
}

/* Some of a merged batch is done, and answered with the rest. */
static void
check_pause_within_batch(const struct pair_options *options)
{
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, XBB_POLICY_PAUSE, XBB_POLICY_AUTO);
	fail_range(3 * XBB_PAGE_SIZE, 5 * XBB_PAGE_SIZE, ENOSPC);
	rig_put_batch(&rig, XBB_OP_WRITE);
	WAIT_UNTIL(why_paused(&rig) != 0);
	check_silence(&rig);
	rig_close_mended(&rig, BATCH);
}

/*
 * A turn of what a quick disk does at once ends where the disk is paused,
 * unless it ends by itself, as that took long.
 */
static void
check_pause_within_turn(void)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &kept);
	set_policy(&rig, XBB_POLICY_PAUSE, XBB_POLICY_AUTO);
	for (i = 0; i < 100; i++)
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	fail_range(BYTE(1), BYTE(2), EIO);
	for (i = 1; i <= 8; i++)
		put_at(&rig.guest, XBB_OP_READ, PLACE(i));
	guest_publish(&rig.guest);
	WAIT_UNTIL(why_paused(&rig) != 0);
	check_silence(&rig);
	check_dispatched(&rig, 1);
	rig_close_mended(&rig, 8);
}

/* Who changes his mind has the next try go by that. */
static void
check_change_of_mind(void)
{
	struct rig rig;

	rig_open_failing(&rig, XBB_POLICY_PAUSE);
	WAIT_UNTIL(why_paused(&rig) != 0);
	set_policy(&rig, XBB_POLICY_REPORT, XBB_POLICY_AUTO);
	check_silence(&rig);
	resume(&rig);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	pair_drain(&rig.pair);
	CHECK_EQ(rig.pair.rs->faults.last_disk.errnum, EIO);
	rig_close(&rig);
}

/* What a guest does wrong, and what a disk cannot do, pauses nothing. */
static void
check_not_the_disks(void)
{
	const struct pair_options options = { .workers = 4, .discard = true };
	struct xbb_segment seg;
	uint64_t nsectors = 8;
	struct rig rig;
	uint8_t *slot;

	rig_open(&rig, SECTORS, &options);
	set_policy(&rig, XBB_POLICY_PAUSE, XBB_POLICY_PAUSE);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	seg.gref = 9999999;
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 0, &seg, 1),
	    XBB_RSP_ERROR);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, SECTORS, &seg, 1),
	    XBB_RSP_ERROR);
	atomic_store(&disk.discard_errnum, EOPNOTSUPP);
	guest_put(&rig.guest, XBB_OP_DISCARD, 0, NULL, 0);
	slot = guest_slot(&rig.guest, rig.guest.req_prod - 1);
	guest_store(slot + rig.guest.layout.seg, (const uint8_t *)&nsectors,
	    sizeof(nsectors));
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_EOPNOTSUPP);
	/* Beyond an end that somebody has moved. */
	CHECK_EQ(ftruncate(rig.device.disk_fd, 4096), 0);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 8, &seg, 1),
	    XBB_RSP_ERROR);
	atomic_store(&disk.sync_errnum, EINVAL);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0),
	    XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(why_paused(&rig), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A flush that fails is no error to wait for: what it was about may be lost. */
static void
check_flush_fails(int32_t policy, uint8_t operation)
{
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	set_policy(&rig, policy, policy);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	atomic_store(&disk.sync_errnum_once, ENOSPC);
	CHECK_EQ(guest_do(&rig.guest, operation, 0, &seg,
	    operation == XBB_OP_WRITE_BARRIER), XBB_RSP_ERROR);
	pair_wait_drained(&rig.pair, XBB_STOP_LOST);
	CHECK_EQ(XBB_GET(rig.device.state->lost_errno), ENOSPC);
	CHECK_EQ(why_paused(&rig), 0);
	rig_close(&rig);
}

/*
 * A write that is held, and another ring whose flush fails: what is lost ends
 * the wait, since nothing will be believed any more.
 */
static void
check_lost_meanwhile(void)
{
	struct rig rig;

	rig_open_failing(&rig, XBB_POLICY_PAUSE);
	WAIT_UNTIL(why_paused(&rig) != 0);
	xbb_state_lose(rig.device.state, EIO);
	resume(&rig);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A disk that is gone is paused if that is wanted, and ends the ring if not. */
static void
check_gone(int32_t policy)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	set_policy(&rig, policy, XBB_POLICY_AUTO);
	fail_range(0, UINT64_MAX, ENXIO);
	put_at(&rig.guest, XBB_OP_READ, 0);
	guest_publish(&rig.guest);
	if (policy == XBB_POLICY_PAUSE) {
		WAIT_UNTIL(why_paused(&rig) != 0);
		atomic_store(&disk.errnum, 0);
		resume(&rig);
		guest_collect(&rig.guest);
		guest_check_okay(&rig.guest, 1);
		pair_drain(&rig.pair);
	} else {
		guest_collect(&rig.guest);
		CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
		pair_wait_drained(&rig.pair, XBB_STOP_MEDIUM);
	}
	rig_close(&rig);
}

static void
check_stop(int32_t on_error, int32_t on_full, int errnum)
{
	struct xbb_queue_status status;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	set_policy(&rig, on_error, on_full);
	fail_range(BYTE(1), BYTE(2), errnum);
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	pair_wait_drained(&rig.pair, XBB_STOP_ERROR);
	xbb_queue_status(rig.pair.queue, &status);
	CHECK_EQ(status.errnum, errnum);
	rig_close(&rig);
}

int
main(void)
{
	uint32_t i;

	scratch_enter();
	check_policies();
	check_wait();
	check_report();
	for (i = 0; i < WAYS; i++) {
		check_retry(&ways[i], XBB_OP_WRITE);
		check_full(&ways[i], ENOSPC, XBB_POLICY_PAUSE);
		check_pause_within_batch(&ways[i]);
	}
	check_retry(&usual, XBB_OP_READ);
	check_retry(&usual, XBB_OP_WRITE_BARRIER);
	check_held_is_no_work();
	check_retry_ends();
	check_full(&usual, ENOSPC, XBB_POLICY_RETRY);
	check_full(&usual, EIO, XBB_POLICY_PAUSE);
	for (i = 0; i < TRIES; i++)
		check_pause_within_turn();
	check_change_of_mind();
	check_not_the_disks();
	for (i = XBB_POLICY_REPORT; i <= XBB_POLICY_STOP; i++) {
		check_flush_fails((int32_t)i, XBB_OP_FLUSH_DISKCACHE);
		check_flush_fails((int32_t)i, XBB_OP_WRITE_BARRIER);
		check_gone((int32_t)i);
	}
	check_lost_meanwhile();
	check_stop(XBB_POLICY_STOP, XBB_POLICY_AUTO, EIO);
	check_stop(XBB_POLICY_STOP, XBB_POLICY_AUTO, ENOSPC);
	check_stop(XBB_POLICY_REPORT, XBB_POLICY_STOP, ENOSPC);
	scratch_leave();
	return (0);
}
