/*
 * test_disk.c - disks that fail: at their end, at a file size limit, full,
 * gone, unable to flush, and one that is still at work when the queue shall
 * drain.  In a merged batch an error meets only the requests that it belongs
 * to, wherever it happens.  Errors are the system's where it can be made to
 * give them, disk.c's elsewhere.
 */
#include <sys/resource.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define BATCH		8		/* requests, of a page each */
#define SECTORS		(BATCH * XBB_SECTORS_PER_PAGE)
#define BYTES		(SECTORS * XBB_SECTOR_SIZE)

static const struct pair_options usual = { .workers = 4 };

/* The whole disk in requests of a page, put at once so that they merge. */
static void
put_batch(struct rig *rig, uint8_t operation)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < BATCH; i++) {
		memset(xbb_front_page(rig->pair.front, i), 0x10 + (int)i,
		    XBB_PAGE_SIZE);
		seg = guest_segment(&rig->guest, i, 0, 7);
		guest_put(&rig->guest, operation,
		    i * XBB_SECTORS_PER_PAGE, &seg, 1);
	}
	guest_publish(&rig->guest);
}

static void
do_batch(struct rig *rig, uint8_t operation)
{
	uint64_t batches = COUNTER(&rig->pair, total_dispatch);

	put_batch(rig, operation);
	guest_collect(&rig->guest);
	CHECK_EQ(COUNTER(&rig->pair, total_dispatch), batches + 1);
}

/* What request i must come to if the bytes [from, to) of the disk are bad. */
static int16_t
status_with_bad(uint32_t i, uint64_t from, uint64_t to)
{
	const uint64_t begin = i * (uint64_t)XBB_PAGE_SIZE;

	return (begin < to && from < begin + XBB_PAGE_SIZE ? XBB_RSP_ERROR :
	    XBB_RSP_OKAY);
}

static void
check_statuses(const struct rig *rig, uint64_t from, uint64_t to)
{
	uint32_t i;

	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig->guest.status[i], status_with_bad(i, from, to));
}

/* Reads beyond the end of a file that has become shorter. */
static void
check_short_file(void)
{
	static const uint64_t ends[] = { 0, 1, 512, 4096, 5000, 16384, 20000,
	    BYTES - 1, BYTES };
	static uint8_t data[BYTES];
	struct rig rig;
	uint64_t seed = 1;
	uint32_t e, i;

	rig_open(&rig, SECTORS, &usual);
	random_bytes(&seed, data, sizeof(data));
	for (e = 0; e < COUNTOF(ends); e++) {
		CHECK_EQ(ftruncate(rig.device.disk_fd, BYTES), 0);
		device_write(&rig.device, 0, SECTORS, data);
		CHECK_EQ(ftruncate(rig.device.disk_fd, (off_t)ends[e]), 0);
		do_batch(&rig, XBB_OP_READ);
		check_statuses(&rig, ends[e], BYTES);
		for (i = 0; i < BATCH; i++)
			if (rig.guest.status[i] == XBB_RSP_OKAY)
				CHECK(memcmp(xbb_front_page(rig.pair.front,
				    i), data + i * XBB_PAGE_SIZE,
				    XBB_PAGE_SIZE) == 0);
	}
	pair_drain(&rig.pair);
	CHECK(COUNTER(&rig.pair, io_errors) > 0);
	CHECK(COUNTER(&rig.pair, io_short) > 0);
	rig_close(&rig);
}

static void
check_written(const struct rig *rig, uint8_t *before)
{
	uint8_t now[BYTES];
	uint32_t i;

	device_read(&rig->device, 0, SECTORS, now);
	for (i = 0; i < BATCH; i++)
		if (rig->guest.status[i] == XBB_RSP_OKAY)
			CHECK(all_bytes(now + i * XBB_PAGE_SIZE, XBB_PAGE_SIZE,
			    (uint8_t)(0x10 + i)));
		else if (before != NULL)
			CHECK(memcmp(now + i * XBB_PAGE_SIZE,
			    before + i * XBB_PAGE_SIZE, XBB_PAGE_SIZE) == 0);
}

/*
 * Writes beyond what this process may make a file: EFBIG, and a signal that
 * Python has every process of ours ignore.
 */
static void
check_size_limit(void)
{
	static const uint64_t limits[] = { 1, 4096, 5000, 16384, 20000,
	    BYTES - 1, BYTES };
	struct rlimit all, some;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	CHECK_EQ(getrlimit(RLIMIT_FSIZE, &all), 0);
	for (i = 0; i < COUNTOF(limits); i++) {
		CHECK_EQ(ftruncate(rig.device.disk_fd, 0), 0);
		some = all;
		some.rlim_cur = limits[i];
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &some), 0);
		do_batch(&rig, XBB_OP_WRITE);
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &all), 0);
		check_statuses(&rig, limits[i], BYTES);
		CHECK_EQ(ftruncate(rig.device.disk_fd, BYTES), 0);
		check_written(&rig, NULL);
	}
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* One bad place in the middle, each in turn; the rest is read and written. */
static void
check_bad_places(void)
{
	static uint8_t before[BYTES];
	struct rig rig;
	uint64_t from, seed = 2;
	uint32_t bad;

	rig_open(&rig, SECTORS, &usual);
	for (bad = 0; bad < BATCH; bad++) {
		from = bad * XBB_PAGE_SIZE + 1024;
		random_bytes(&seed, before, sizeof(before));
		device_write(&rig.device, 0, SECTORS, before);
		atomic_store(&disk.from, from);
		atomic_store(&disk.to, from + 512);
		atomic_store(&disk.errnum, EIO);
		do_batch(&rig, XBB_OP_READ);
		check_statuses(&rig, from, from + 512);
		do_batch(&rig, XBB_OP_WRITE);
		check_statuses(&rig, from, from + 512);
		check_written(&rig, before);
		atomic_store(&disk.errnum, 0);
	}
	pair_drain(&rig.pair);
	/* The batch once and its culprit once, each time. */
	CHECK_EQ(COUNTER(&rig.pair, io_errors), 4 * BATCH);
	rig_close(&rig);
}

/* ENOSPC for every write, zeros for every read. */
static void
check_full(void)
{
	struct rig rig;
	int fd;

	fd = open("/dev/full", O_RDWR);
	if (fd < 0) {
		printf("no /dev/full\n");
		return;
	}
	rig_open(&rig, SECTORS, &usual);
	CHECK(dup2(fd, rig.device.disk_fd) >= 0);
	close(fd);
	do_batch(&rig, XBB_OP_WRITE);
	check_statuses(&rig, 0, BYTES);
	do_batch(&rig, XBB_OP_READ);
	check_statuses(&rig, BYTES, BYTES);
	CHECK(all_bytes(xbb_front_page(rig.pair.front, 0),
	    BATCH * XBB_PAGE_SIZE, 0));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* The disk is gone: the queue answers what it has and stops by itself. */
static void
check_gone(void)
{
	struct xbb_queue_status status;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.to, BYTES);
	atomic_store(&disk.from, 0);
	atomic_store(&disk.errnum, ENXIO);
	do_batch(&rig, XBB_OP_READ);
	check_statuses(&rig, 0, BYTES);
	pair_wait_drained(&rig.pair, XBB_STOP_DISK);
	xbb_queue_status(rig.pair.queue, &status);
	CHECK_EQ(status.errnum, ENXIO);
	rig_close(&rig);
}

static void
check_flushes(void)
{
	static const struct {
		int		errnum;
		int16_t		bare, with_data;
	} errors[] = {
		{ 0, XBB_RSP_OKAY, XBB_RSP_OKAY },
		{ EIO, XBB_RSP_ERROR, XBB_RSP_ERROR },
		{ ENOSPC, XBB_RSP_ERROR, XBB_RSP_ERROR },
		{ EOPNOTSUPP, XBB_RSP_EOPNOTSUPP, XBB_RSP_ERROR },
		{ ENOTTY, XBB_RSP_EOPNOTSUPP, XBB_RSP_ERROR },
	};
	struct xbb_segment seg;
	struct rig rig;
	struct guest *guest = &rig.guest;
	uint32_t e, i;

	rig_open(&rig, SECTORS, &usual);
	seg = guest_segment(guest, 0, 0, 7);
	for (e = 0; e < COUNTOF(errors); e++) {
		atomic_store(&disk.sync_errnum, errors[e].errnum);
		CHECK_EQ(guest_do(guest, XBB_OP_WRITE_BARRIER, 0, &seg, 1),
		    errors[e].with_data);
		CHECK_EQ(guest_do(guest, XBB_OP_FLUSH_DISKCACHE, 0, &seg, 1),
		    errors[e].with_data);
		CHECK_EQ(guest_do(guest, XBB_OP_WRITE_BARRIER, 0, NULL, 0),
		    errors[e].bare);
		for (i = 0; i < BATCH; i++)
			guest_put(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
		guest_publish(guest);
		guest_collect(guest);
		for (i = 0; i < BATCH; i++)
			CHECK_EQ(guest->status[i], errors[e].bare);
		/* Transfers go on regardless. */
		CHECK_EQ(guest_do(guest, XBB_OP_WRITE, 0, &seg, 1),
		    XBB_RSP_OKAY);
	}
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Have the queue find out that this disk is slow, so that it uses workers. */
#define LESSONS		10

static void
teach_slowness(struct rig *rig)
{
	uint32_t i;

	atomic_store(&disk.delay_us, 200);
	for (i = 0; i < LESSONS; i++)
		CHECK_EQ(guest_read_page(&rig->guest), XBB_RSP_OKAY);
	CHECK_EQ(COUNTER(&rig->pair, io_handed_over), 0);
	XBB_SET(rig->device.state->tunables.no_coalesce_reqs, 1);
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
		teach_slowness(&rig);
	before = COUNTER(&rig.pair, reqs_received);
	disk_hold();
	put_batch(&rig, XBB_OP_READ);
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
	check_statuses(&rig, BYTES, BYTES);
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
		.workers = 2, .max_batch_segments = 11, .max_grants = 11,
	};
	struct xbb_segment seg[2];
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &options);
	teach_slowness(&rig);
	disk_hold();
	for (i = 0; i < BATCH; i++) {
		seg[0] = guest_segment(&rig.guest, 2 * i, 0, 0);
		seg[1] = guest_segment(&rig.guest, 2 * i + 1, 0, 0);
		guest_put(&rig.guest, XBB_OP_READ, i * 4, seg, 2);
	}
	guest_publish(&rig.guest);
	disk_wait_held(options.workers);
	CHECK_EQ(XBB_GET(rig.pair.rs->grants_mapped), 10);
	CHECK_EQ(COUNTER(&rig.pair, kva_shortages), 1);
	disk_release();
	guest_collect(&rig.guest);
	check_statuses(&rig, BYTES, BYTES);
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
	put_batch(&rig, XBB_OP_WRITE);
	disk_wait_held(1);
	disk_release();
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_short_file();
	check_size_limit();
	check_bad_places();
	check_full();
	check_gone();
	check_flushes();
	check_drain_at_work(false);
	check_drain_at_work(true);
	check_grant_limit();
	check_close_at_work();
	scratch_leave();
	return (0);
}
