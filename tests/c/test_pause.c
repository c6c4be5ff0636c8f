/*
 * test_pause.c - a disk that is paused, by an operator or by an error, and goes
 * on; rings that end, or are handed over, meanwhile.  What waits keeps its
 * order, and nothing is lost.
 */
#include <string.h>
#include <unistd.h>

#include "pauses.h"

/* An operator's pause: what was begun ends first, and then it is quiet. */
static void
check_by_hand(bool slow)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	if (slow)
		rig_teach_slowness(&rig);
	disk_hold_range(BYTE(1), BYTE(2));
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	guest_publish(&rig.guest);
	disk_wait_held(1);
	pause_by_hand(&rig);
	put_at(&rig.guest, XBB_OP_READ, PLACE(3));
	guest_publish(&rig.guest);
	check_silence(&rig);
	CHECK(!xbb_state_followed(rig.device.state));
	disk_release();
	wait_followed(&rig);
	CHECK_EQ(guest_wait(&rig.guest) >= 1, true);
	guest_take(&rig.guest);
	check_silence(&rig);
	CHECK_EQ(why_paused(&rig), XBB_PAUSE_ASKED);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 0);
	resume(&rig);
	guest_collect(&rig.guest);
	wait_followed(&rig);
	/* Of a ring that sleeps, and again. */
	pause_by_hand(&rig);
	wait_followed(&rig);
	resume(&rig);
	wait_followed(&rig);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	rig_close(&rig);
}

/* A try that is due waits for the operator as well. */
static void
check_retry_while_paused(void)
{
	struct rig rig;

	rig_open_failing(&rig, XBB_POLICY_RETRY);
	WAIT_UNTIL(COUNTER(&rig.pair, io_held) == 1);
	pause_by_hand(&rig);
	wait_followed(&rig);
	check_silence(&rig);
	rig_close_mended(&rig, 1);
}

/*
 * A ring that ends: what is held, what waits behind it and what was taken off
 * the ring fails at once, and the disk is left alone.
 */
static void
check_drain(uint32_t why, const struct pair_options *options)
{
	const uint64_t begun = xbb_now_ns();
	unsigned int transfers;
	struct rig rig;
	uint32_t i, n;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, XBB_POLICY_PAUSE, XBB_POLICY_AUTO);
	fail_range(BYTE(1), BYTE(2), EIO);
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_flush(&rig.guest);
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_at(&rig.guest, XBB_OP_WRITE_BARRIER, PLACE(3));
	put_at(&rig.guest, XBB_OP_READ, PLACE(5));
	n = 5;
	if (why == XBB_PAUSE_ASKED) {
		disk_hold_range(BYTE(1), BYTE(2));
		atomic_store(&disk.errnum, 0);
		guest_publish(&rig.guest);
		disk_wait_held(1);
		pause_by_hand(&rig);
		disk_release();
		wait_followed(&rig);
	} else {
		guest_publish(&rig.guest);
		WAIT_UNTIL(why_paused(&rig) == XBB_PAUSE_FAILED);
	}
	transfers = atomic_load(&disk.transfers);
	pair_drain(&rig.pair);
	CHECK_EQ(atomic_load(&disk.transfers), transfers);
	guest_collect(&rig.guest);
	for (i = why == XBB_PAUSE_ASKED ? 1 : 0; i < n; i++)
		CHECK_EQ(rig.guest.status[i], XBB_RSP_ERROR);
	CHECK_EQ(atomic_load(&disk.syncs), 0);
	check_dispatched(&rig, 0);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 0);
	CHECK_EQ(rig.pair.rs->faults.last_disk.errnum, ECANCELED);
	CHECK_EQ(rig.pair.rs->faults.last_disk.operation, XBB_DISK_OP_READ);
	CHECK(rig.pair.rs->dispatched.duration_ns[XBB_DEVSTAT_READ] <=
	    xbb_now_ns() - begun);
	rig_close(&rig);
}

/* What is refused is told as what it was. */
static void
check_refused_flush(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	disk_hold_range(BYTE(1), BYTE(2));
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_flush(&rig.guest);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	WAIT_UNTIL(XBB_GET(rig.pair.rs->inflight) == 2);
	pause_by_hand(&rig);
	disk_release();
	wait_followed(&rig);
	pair_drain(&rig.pair);
	CHECK_EQ(rig.pair.rs->faults.last_disk.errnum, ECANCELED);
	CHECK_EQ(rig.pair.rs->faults.last_disk.operation, XBB_DISK_OP_FLUSH);
	rig_close(&rig);
}

/*
 * One that waits for its next try, which nobody has time for: each wait was
 * twice the last.
 */
static void
check_drain_of_retry(void)
{
	const uint64_t begun = xbb_now_ns();
	struct rig rig;

	rig_open_failing(&rig, XBB_POLICY_RETRY);
	WAIT_UNTIL(COUNTER(&rig.pair, io_retries) >= 3);
	CHECK(xbb_now_ns() - begun >= (100 + 200 + 400) * 1000000ULL);
	pair_drain(&rig.pair);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	CHECK_EQ(XBB_GET(rig.pair.rs->faults.last_disk.errnum), EIO);
	rig_close(&rig);
}

/*
 * A ring that is handed over: what is held is left in the table, and whoever
 * goes on finds the disk paused, and the rest where it was.
 */
static void
check_hand_over(int32_t policy, const struct pair_options *options)
{
	static uint8_t found[XBB_PAGE_SIZE];
	struct xbb_queue_params params;
	struct xbb_queue_status status;
	struct xbb_error error;
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, policy, XBB_POLICY_REPORT);
	memset(xbb_front_page(rig.pair.front, 1), 0x33, XBB_PAGE_SIZE);
	fail_range(0, UINT64_MAX, EIO);
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_at(&rig.guest, XBB_OP_WRITE, PLACE(1));
	put_flush(&rig.guest);
	guest_publish(&rig.guest);
	WAIT_UNTIL(COUNTER(&rig.pair, io_held) == 1);
	xbb_queue_hand_over(rig.pair.queue);
	WAIT_UNTIL((xbb_queue_status(rig.pair.queue, &status),
	    status.state == XBB_QUEUE_DRAINED));
	CHECK_EQ(guest_answers(&rig.guest), 0);
	CHECK_EQ(XBB_GET(rig.pair.rs->common.connected), 1);
	CHECK(XBB_GET(rig.pair.rs->inflight) >= 1);
	CHECK(xbb_queue_owes(rig.pair.queue));
	CHECK_EQ(why_paused(&rig), policy == XBB_POLICY_PAUSE ?
	    XBB_PAUSE_FAILED : 0);
	xbb_queue_close(rig.pair.queue);
	close(rig.pair.event_fd);

	pair_connect(&rig.pair);
	pair_params(&rig.pair, &rig.device, 0, options, &params);
	params.conn.adopt = XBB_ADOPT_TABLE;
	CHECK_EQ(xbb_queue_open(&params, rig.device.state, &error,
	    &rig.pair.queue), 0);
	CHECK_EQ(xbb_queue_start(rig.pair.queue, &error), 0);
	if (policy == XBB_POLICY_PAUSE) {
		wait_followed(&rig);
		check_silence(&rig);
		CHECK_EQ(guest_answers(&rig.guest), 0);
		atomic_store(&disk.errnum, 0);
		resume(&rig);
	} else
		atomic_store(&disk.errnum, 0);
	/* Its events have another backend by now. */
	while (rig.guest.outstanding > 0) {
		guest_take(&rig.guest);
		check_pause();
	}
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 3);
	device_read(&rig.device, PLACE(1), XBB_SECTORS_PER_PAGE, found);
	CHECK(all_bytes(found, XBB_PAGE_SIZE, 0x33));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* All rings of a device stop for what one has found, and go on together. */
static void
check_two_rings(void)
{
	struct device device;
	struct guest guest[2];
	struct pair pair[2];
	uint32_t i;

	disk_reset();
	device_open(&device, SECTORS, 2);
	xbb_tunable_set(&device.state->tunables.on_error, XBB_POLICY_PAUSE);
	for (i = 0; i < 2; i++) {
		pair_open(&pair[i], &device, i, &usual);
		guest_init(&guest[i], &pair[i]);
	}
	fail_range(BYTE(1), BYTE(2), EIO);
	put_at(&guest[0], XBB_OP_WRITE, PLACE(1));
	guest_publish(&guest[0]);
	WAIT_UNTIL(XBB_GET(device.state->pause.why) != 0);
	put_at(&guest[1], XBB_OP_WRITE, PLACE(3));
	guest_publish(&guest[1]);
	for (i = 0; i < 20; i++) {
		check_pause();
		CHECK_EQ(guest_answers(&guest[0]) + guest_answers(&guest[1]),
		    0);
	}
	xbb_state_pause(device.state, XBB_PAUSE_ASKED);
	CHECK_EQ(XBB_GET(device.state->pause.why),
	    XBB_PAUSE_ASKED | XBB_PAUSE_FAILED);
	for (i = 0; i < 2; i++)
		xbb_queue_look(pair[i].queue);
	WAIT_UNTIL(xbb_state_followed(device.state));
	atomic_store(&disk.errnum, 0);
	xbb_state_resume(device.state);
	for (i = 0; i < 2; i++)
		xbb_queue_look(pair[i].queue);
	for (i = 0; i < 2; i++) {
		guest_collect(&guest[i]);
		guest_check_okay(&guest[i], 1);
		pair_drain(&pair[i]);
	}
	WAIT_UNTIL(xbb_state_followed(device.state));
	for (i = 0; i < 2; i++)
		pair_close(&pair[i]);
	device_close(&device);
}

/*
 * Writes over each other on a disk that fails each third transfer: whatever is
 * tried again, the last one of each place is what stays.
 */
static void
check_order_stays(const struct pair_options *options, uint64_t seed)
{
	static uint8_t found[XBB_PAGE_SIZE];
	uint32_t i, last[4], round;
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	set_policy(&rig, XBB_POLICY_PAUSE, XBB_POLICY_AUTO);
	for (round = 0; round < 30; round++) {
		atomic_store(&disk.failing, 3);
		for (i = 0; i < 16; i++) {
			const uint32_t place = i < 4 ? i :
			    (uint32_t)random_below(&seed, 4);

			last[place] = i;
			memset(xbb_front_page(rig.pair.front, i),
			    (int)(1 + i + 16 * (round % 8)), XBB_PAGE_SIZE);
			put_at(&rig.guest, XBB_OP_WRITE, PLACE(place));
		}
		guest_publish(&rig.guest);
		while (rig.guest.outstanding > 0) {
			if (why_paused(&rig) != 0)
				resume(&rig);
			guest_take(&rig.guest);
			check_pause();
		}
		atomic_store(&disk.failing, 0);
		for (i = 0; i < 4; i++) {
			device_read(&rig.device, PLACE(i),
			    XBB_SECTORS_PER_PAGE, found);
			CHECK(all_bytes(found, XBB_PAGE_SIZE, (uint8_t)(1 +
			    last[i] + 16 * (round % 8))));
		}
		guest_collect(&rig.guest);
		guest_check_okay(&rig.guest, 16);
	}
	CHECK(COUNTER(&rig.pair, io_held) > 30);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* What rings have followed, by their words alone: all that are connected. */
static void
check_words(void)
{
	struct xbb_state *state;
	struct device device;
	uint32_t i;

	device_open(&device, SECTORS, XBB_MAX_RINGS);
	state = device.state;
	CHECK(xbb_state_followed(state));
	xbb_state_pause(state, XBB_PAUSE_ASKED);
	CHECK(xbb_state_followed(state));
	for (i = 0; i < XBB_MAX_RINGS; i++) {
		XBB_SET(state->ring[i].common.connected, 1);
		CHECK_EQ(xbb_state_followed(state), 0);
		XBB_SET(state->ring[i].pause_seen, state->pause.serial);
		CHECK_EQ(xbb_state_followed(state), 1);
	}
	xbb_state_resume(state);
	CHECK_EQ(xbb_state_followed(state), 0);
	device_close(&device);
}

int
main(void)
{
	uint32_t i;

	scratch_enter();
	check_words();
	for (i = 0; i < WAYS; i++) {
		check_drain(XBB_PAUSE_FAILED, &ways[i]);
		check_hand_over(XBB_POLICY_PAUSE, &ways[i]);
		check_order_stays(&ways[i], i);
	}
	check_by_hand(false);
	check_by_hand(true);
	check_retry_while_paused();
	check_drain(XBB_PAUSE_ASKED, &usual);
	check_refused_flush();
	check_drain_of_retry();
	check_hand_over(XBB_POLICY_RETRY, &usual);
	check_two_rings();
	scratch_leave();
	return (0);
}
