/*
 * test_flush.c - what a flush promises: it covers every write that stood before
 * it on its ring, and nobody is told that all is well once one has failed, on
 * any ring of the disk, whoever the kernel told.  A disk that cannot flush
 * loses no data for that.
 */
#include <stdio.h>
#include <string.h>

#include "harness.h"

#define SECTORS		1024
#define PLACE(n)	((n) * 16ULL)	/* sectors that nothing merges */
#define BYTE(n)		(PLACE(n) * XBB_SECTOR_SIZE)

static const struct pair_options usual = { .workers = 4 };

/* A device with two rings, and a guest at each. */
struct twins {
	struct device	 device;
	struct pair	 pair[2];
	struct guest	 guest[2];
};

static void
twins_open(struct twins *twins)
{
	uint32_t i;

	disk_reset();
	device_open(&twins->device, SECTORS, 2);
	for (i = 0; i < 2; i++) {
		pair_open(&twins->pair[i], &twins->device, i, &usual);
		guest_init(&twins->guest[i], &twins->pair[i]);
	}
}

static void
twins_close(struct twins *twins)
{
	uint32_t i;

	for (i = 0; i < 2; i++)
		pair_close(&twins->pair[i]);
	device_close(&twins->device);
}

static void
check_stopped(struct pair *pair, enum xbb_stop_reason reason, int errnum)
{
	struct xbb_queue_status status;

	pair_wait_drained(pair, reason);
	xbb_queue_status(pair->queue, &status);
	CHECK_EQ(status.errnum, errnum);
}

static int16_t
do_flush(struct guest *guest)
{

	return (guest_do(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0));
}

static void
put_flush(struct guest *guest)
{

	guest_put(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	guest_publish(guest);
}

static void
put_at(struct guest *guest, uint8_t operation, uint64_t sector)
{
	const struct xbb_segment seg = guest_segment(guest, guest->ntags, 0,
	    7);

	guest_put(guest, operation, sector, &seg, 1);
}

/* A batch of the ring has been given to the disk, or to whoever asks it. */
static void
wait_dispatched(const struct pair *pair, uint64_t n)
{

	WAIT_UNTIL(COUNTER(pair, total_dispatch) >= n);
}

/*
 * The kernel says once that pages could not be written, and then that there is
 * nothing to do.  Each kind of flush, of each ring, fails all the same.
 */
static void
check_once(uint8_t first, int errnum)
{
	struct xbb_segment seg;
	struct twins twins;
	struct pair again;
	struct guest guest;

	twins_open(&twins);
	CHECK_EQ(do_flush(&twins.guest[1]), XBB_RSP_OKAY);
	atomic_store(&disk.sync_errnum_once, errnum);
	seg = guest_segment(&twins.guest[0], 0, 0, 7);
	CHECK_EQ(guest_do(&twins.guest[0], first, 0, &seg,
	    first == XBB_OP_WRITE_BARRIER), XBB_RSP_ERROR);
	check_stopped(&twins.pair[0], XBB_STOP_LOST, errnum);
	CHECK_EQ(XBB_GET(twins.device.state->lost_errno), errnum);
	/* What is not a flush is not concerned. */
	CHECK_EQ(guest_read_page(&twins.guest[1]), XBB_RSP_OKAY);
	seg = guest_segment(&twins.guest[1], 0, 0, 7);
	CHECK_EQ(guest_do(&twins.guest[1], XBB_OP_WRITE_BARRIER, 0, &seg, 1),
	    XBB_RSP_ERROR);
	check_stopped(&twins.pair[1], XBB_STOP_LOST, errnum);
	CHECK_EQ(atomic_load(&disk.syncs), 2);
	CHECK_EQ(COUNTER(&twins.pair[1], flushes_done), 1);

	/* One that connects once all are gone, to the same segment. */
	pair_close(&twins.pair[0]);
	pair_close(&twins.pair[1]);
	pair_open(&again, &twins.device, 1, &usual);
	guest_init(&guest, &again);
	CHECK_EQ(do_flush(&guest), XBB_RSP_ERROR);
	check_stopped(&again, XBB_STOP_LOST, errnum);
	pair_close(&again);
	device_close(&twins.device);
}

/* Two at once, on two rings: the kernel tells one of them, 0 the other. */
static void
check_beside(void)
{
	struct twins twins;
	uint32_t i;

	twins_open(&twins);
	disk_hold_syncs();
	put_flush(&twins.guest[0]);
	disk_wait_held(1);
	put_flush(&twins.guest[1]);
	wait_dispatched(&twins.pair[1], 1);
	atomic_store(&disk.sync_errnum_once, EIO);
	disk_release();
	for (i = 0; i < 2; i++) {
		guest_collect(&twins.guest[i]);
		CHECK_EQ(twins.guest[i].status[0], XBB_RSP_ERROR);
		check_stopped(&twins.pair[i], XBB_STOP_LOST, EIO);
	}
	twins_close(&twins);
}

/* Two at once, on one ring. */
static void
check_beside_on_one_ring(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	disk_hold_syncs();
	put_flush(&rig.guest);
	disk_wait_held(1);
	put_flush(&rig.guest);
	wait_dispatched(&rig.pair, 2);
	atomic_store(&disk.sync_errnum_once, ENOSPC);
	disk_release();
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	CHECK_EQ(rig.guest.status[1], XBB_RSP_ERROR);
	check_stopped(&rig.pair, XBB_STOP_LOST, ENOSPC);
	rig_close(&rig);
}

/* One that began before a flush came does not cover it. */
static void
check_own_flush(void)
{
	struct twins twins;
	uint32_t i;

	twins_open(&twins);
	disk_hold_syncs();
	put_flush(&twins.guest[0]);
	disk_wait_held(1);
	put_flush(&twins.guest[1]);
	wait_dispatched(&twins.pair[1], 1);
	CHECK_EQ(atomic_load(&disk.syncs), 1);
	disk_release();
	for (i = 0; i < 2; i++) {
		guest_collect(&twins.guest[i]);
		CHECK_EQ(twins.guest[i].status[0], XBB_RSP_OKAY);
	}
	CHECK_EQ(atomic_load(&disk.syncs), 2);
	for (i = 0; i < 2; i++) {
		pair_drain(&twins.pair[i]);
		CHECK_EQ(COUNTER(&twins.pair[i], flushes_done), 1);
	}
	twins_close(&twins);
}

/* The disk went away with what it had not written: gone is the better word. */
static void
check_gone(int errnum)
{
	struct twins twins;

	twins_open(&twins);
	atomic_store(&disk.sync_errnum_once, errnum);
	CHECK_EQ(do_flush(&twins.guest[0]), XBB_RSP_ERROR);
	check_stopped(&twins.pair[0], XBB_STOP_MEDIUM, errnum);
	CHECK_EQ(do_flush(&twins.guest[1]), XBB_RSP_ERROR);
	check_stopped(&twins.pair[1], XBB_STOP_MEDIUM, errnum);
	twins_close(&twins);
}

/* That a write failed concerns the one who wrote. */
static void
check_write_error(void)
{
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	atomic_store(&disk.errnum, EIO);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 0, &seg, 1),
	    XBB_RSP_ERROR);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE_BARRIER, 0, &seg, 1),
	    XBB_RSP_ERROR);
	atomic_store(&disk.errnum, 0);
	CHECK_EQ(do_flush(&rig.guest), XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	CHECK_EQ(XBB_GET(rig.device.state->lost_errno), 0);
	rig_close(&rig);
}

static void
put_discard(struct guest *guest, uint64_t sector)
{
	uint64_t nsectors = 8;
	uint8_t *slot;

	guest_put(guest, XBB_OP_DISCARD, sector, NULL, 0);
	slot = guest_slot(guest, guest->req_prod - 1);
	guest_store(slot + guest->layout.seg, &nsectors, sizeof(nsectors));
}

/*
 * A write (or a discard) and a flush behind it: the flush begins when the write
 * has ended.  What came after the flush does not wait for that.
 */
static void
check_order(bool slow, bool discard)
{
	const struct pair_options options = { .workers = 4, .discard = true };
	struct rig rig;
	struct guest *guest = &rig.guest;
	uint64_t ordered;

	rig_open(&rig, SECTORS, &options);
	if (slow)
		rig_teach_slowness(&rig);
	ordered = rig.pair.rs->received.tag_ordered;
	disk_hold_range(BYTE(1), BYTE(2));
	if (discard)
		put_discard(guest, PLACE(1));
	else
		put_at(guest, XBB_OP_WRITE, PLACE(1));
	guest_put(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	put_at(guest, XBB_OP_READ, PLACE(3));
	put_at(guest, XBB_OP_WRITE, PLACE(4));
	guest_publish(guest);
	disk_wait_held(1);
	if (slow)
		WAIT_UNTIL(guest_answers(guest) == 2);
	CHECK_EQ(atomic_load(&disk.syncs), 0);
	disk_release();
	guest_collect(guest);
	guest_check_okay(guest, 4);
	CHECK_EQ(atomic_load(&disk.syncs), 1);
	CHECK_EQ(XBB_GET(rig.pair.rs->received.tag_ordered), ordered + 1);
	pair_drain(&rig.pair);
	CHECK_EQ(rig.pair.rs->dispatched.tag_ordered, ordered + 1);
	rig_close(&rig);
}

/* A flush between two writes, on a slow disk that is stuck at one place. */
static void
open_amid_writes(struct rig *rig, uint32_t held)
{

	rig_open(rig, SECTORS, &usual);
	rig_teach_slowness(rig);
	disk_hold_range(BYTE(held), BYTE(held + 1));
	put_at(&rig->guest, XBB_OP_WRITE, PLACE(1));
	guest_put(&rig->guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	put_at(&rig->guest, XBB_OP_WRITE, PLACE(2));
}

/* And it does not wait for what came after it, either. */
static void
check_later_writes(void)
{
	struct rig rig;
	struct guest *guest = &rig.guest;

	open_amid_writes(&rig, 2);
	guest_publish(guest);
	disk_wait_held(1);
	WAIT_UNTIL(guest_answers(guest) == 2);
	disk_release();
	guest_collect(guest);
	guest_check_okay(guest, 3);
	CHECK_EQ(guest->order[2], 2);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Two that wait, each for the writes before it, and a barrier behind all. */
static void
check_several(void)
{
	struct rig rig;
	struct guest *guest = &rig.guest;

	open_amid_writes(&rig, 1);
	guest_put(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	put_at(guest, XBB_OP_WRITE_BARRIER, PLACE(3));
	put_at(guest, XBB_OP_WRITE, PLACE(4));
	guest_publish(guest);
	disk_wait_held(1);
	WAIT_UNTIL(guest_answers(guest) == 1);
	xbb_queue_drain(rig.pair.queue);
	CHECK_EQ(atomic_load(&disk.syncs), 0);
	disk_release();
	guest_collect(guest);
	guest_check_okay(guest, 6);
	CHECK_EQ(guest->order[0], 2);
	CHECK_EQ(guest->order[4], 4);
	CHECK_EQ(guest->order[5], 5);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	rig_close(&rig);
}

/* "Cannot" is no failure: what carries data is written, the rest is told. */
static void
check_cannot(int errnum)
{
	static uint8_t now[XBB_PAGE_SIZE];
	struct xbb_segment seg;
	struct rig rig;
	uint8_t operation;

	rig_open(&rig, SECTORS, &usual);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	CHECK_EQ(xbb_can_flush(rig.device.disk_fd, XBB_DISK_FILE), 1);
	atomic_store(&disk.sync_errnum, errnum);
	CHECK_EQ(xbb_can_flush(rig.device.disk_fd, XBB_DISK_FILE), 0);
	for (operation = XBB_OP_WRITE_BARRIER;
	    operation <= XBB_OP_FLUSH_DISKCACHE; operation++) {
		memset(xbb_front_page(rig.guest.front, 0), operation,
		    XBB_PAGE_SIZE);
		CHECK_EQ(guest_do(&rig.guest, operation, 0, &seg, 1),
		    XBB_RSP_OKAY);
		device_read(&rig.device, 0, 8, now);
		CHECK(all_bytes(now, sizeof(now), operation));
		CHECK_EQ(guest_do(&rig.guest, operation, 0, NULL, 0),
		    XBB_RSP_EOPNOTSUPP);
	}
	pair_drain(&rig.pair);
	CHECK_EQ(XBB_GET(rig.device.state->lost_errno), 0);
	CHECK_EQ(COUNTER(&rig.pair, io_errors), 0);
	/* What cannot be asked has failed. */
	atomic_store(&disk.sync_errnum, EIO);
	CHECK_EQ(xbb_can_flush(rig.device.disk_fd, XBB_DISK_FILE), -EIO);
	rig_close(&rig);
}

/* Flushes that were quick until now, so that the ring's thread does them. */
static void
teach_quick_flushes(struct rig *rig)
{
	uint32_t i;

	atomic_store(&disk.sync_nothing, true);
	for (i = 0; i < 100; i++)
		CHECK_EQ(do_flush(&rig->guest), XBB_RSP_OKAY);
}

/* One that has become slow holds the ring once, and no second time. */
static void
check_slow_flush(void)
{
	struct rig rig;
	uint64_t before;

	rig_open(&rig, SECTORS, &usual);
	teach_quick_flushes(&rig);
	before = COUNTER(&rig.pair, io_handed_over);
	CHECK_EQ(do_flush(&rig.guest), XBB_RSP_OKAY);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), before);
	atomic_store(&disk.sync_us, 20000);
	CHECK_EQ(do_flush(&rig.guest), XBB_RSP_OKAY);
	atomic_store(&disk.sync_us, 0);
	disk_hold_syncs();
	put_flush(&rig.guest);
	disk_wait_held(1);
	put_at(&rig.guest, XBB_OP_READ, 0);
	guest_publish(&rig.guest);
	WAIT_UNTIL(guest_answers(&rig.guest) == 1);
	disk_release();
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.order[0], 1);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A barrier flushes twice: the second time it is somebody else's turn. */
static void
check_slow_barrier(void)
{
	struct xbb_segment seg;
	struct rig rig;
	uint64_t before;
	unsigned int syncs;

	rig_open(&rig, SECTORS, &usual);
	teach_quick_flushes(&rig);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	before = COUNTER(&rig.pair, io_handed_over);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE_BARRIER, 0, &seg, 1),
	    XBB_RSP_OKAY);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), before);
	syncs = atomic_load(&disk.syncs);
	atomic_store(&disk.sync_us, 20000);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE_BARRIER, 0, &seg, 1),
	    XBB_RSP_OKAY);
	CHECK_EQ(COUNTER(&rig.pair, io_handed_over), before + 1);
	CHECK_EQ(atomic_load(&disk.syncs), syncs + 2);
	atomic_store(&disk.sync_us, 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_once(XBB_OP_FLUSH_DISKCACHE, EIO);
	check_once(XBB_OP_WRITE_BARRIER, ENOSPC);
	check_beside();
	check_beside_on_one_ring();
	check_own_flush();
	check_gone(ENXIO);
	check_gone(ENODEV);
	check_write_error();
	check_order(false, false);
	check_order(true, false);
	check_order(false, true);
	check_order(true, true);
	check_later_writes();
	check_several();
	check_cannot(EOPNOTSUPP);
	check_cannot(ENOTTY);
	check_cannot(ENOSYS);
	check_cannot(EINVAL);
	check_slow_flush();
	check_slow_barrier();
	scratch_leave();
	return (0);
}
