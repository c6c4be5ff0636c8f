/*
 * test_disk.c - disks that fail: at their end, at a file size limit, full,
 * gone, dead.  In a merged batch an error meets only the requests that it
 * belongs to, wherever it happens.  Errors are the system's where it can be
 * made to give them, disk.c's elsewhere.
 */
#include <sys/resource.h>
#include <sys/stat.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define SECTORS		BATCH_SECTORS
#define BYTES		BATCH_BYTES

static const struct pair_options usual = { .workers = 4 };
static const struct pair_options copying = {
	.workers = 4, .transport = XBB_TRANSPORT_COPY,
};

static void
do_batch(struct rig *rig, uint8_t operation)
{
	uint64_t batches = COUNTER(&rig->pair, total_dispatch);

	rig_put_batch(rig, operation);
	guest_collect(&rig->guest);
	CHECK_EQ(COUNTER(&rig->pair, total_dispatch), batches + 1);
}

/*
 * Writes beyond the end of one: the file stays as short as somebody made it,
 * since what was cut off would come back as zeros.
 */
static void
check_no_growth(const struct pair_options *options)
{
	static const uint64_t ends[] = { 0, 1, 512, 4096, 5000, 16384, 20000,
	    BYTES - 1, BYTES };
	struct xbb_segment seg;
	struct stat st;
	struct rig rig;
	uint32_t e, i;

	rig_open(&rig, SECTORS, options);
	for (e = 0; e < COUNTOF(ends); e++) {
		CHECK_EQ(ftruncate(rig.device.disk_fd, (off_t)ends[e]), 0);
		do_batch(&rig, XBB_OP_WRITE);
		rig_check_statuses(&rig, ends[e], BYTES);
		for (i = 0; i < BATCH; i++) {
			seg = guest_segment(&rig.guest, 0, 0, 7);
			CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE_BARRIER,
			    i * XBB_SECTORS_PER_PAGE, &seg, 1),
			    batch_status(i, ends[e], BYTES));
		}
		CHECK_EQ(fstat(rig.device.disk_fd, &st), 0);
		CHECK_EQ(st.st_size, ends[e]);
	}
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A write of the third page, while the file is made that short. */
static void
write_while_cut(struct rig *rig, off_t size)
{
	const struct xbb_segment seg = guest_segment(&rig->guest, 0, 0, 7);

	disk_hold();
	guest_put(&rig->guest, XBB_OP_WRITE, 2 * XBB_SECTORS_PER_PAGE, &seg, 1);
	guest_publish(&rig->guest);
	disk_wait_held(1);
	CHECK_EQ(ftruncate(rig->device.disk_fd, size), 0);
	disk_release();
	guest_collect(&rig->guest);
}

/*
 * Cut off between the look at its end and the write, so that it has grown again:
 * that is not answered as if nothing had happened, nor is anything after it.  An
 * end behind the write's is nobody's loss.
 */
static void
check_cut_off_under_a_write(const struct pair_options *options)
{
	struct rig rig;

	rig_open(&rig, SECTORS, options);
	write_while_cut(&rig, 4 * XBB_PAGE_SIZE);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_OKAY);
	write_while_cut(&rig, XBB_PAGE_SIZE);
	pair_wait_drained(&rig.pair, XBB_STOP_LOST);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	CHECK_EQ(XBB_GET(rig.device.state->lost_errno), EFBIG);
	rig_close(&rig);
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
		rig_check_statuses(&rig, ends[e], BYTES);
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
		some = all;
		some.rlim_cur = limits[i];
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &some), 0);
		do_batch(&rig, XBB_OP_WRITE);
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &all), 0);
		rig_check_statuses(&rig, limits[i], BYTES);
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
		rig_check_statuses(&rig, from, from + 512);
		do_batch(&rig, XBB_OP_WRITE);
		rig_check_statuses(&rig, from, from + 512);
		check_written(&rig, before);
		atomic_store(&disk.errnum, 0);
	}
	pair_drain(&rig.pair);
	/* The batch and three halves, each time. */
	CHECK_EQ(COUNTER(&rig.pair, io_errors), 2 * 4 * BATCH);
	rig_close(&rig);
}

/* ENOSPC for every write, zeros for every read. */
static void
check_full(void)
{
	const struct pair_options options = { .workers = 4, .device = true };
	struct rig rig;
	int fd;

	fd = open("/dev/full", O_RDWR);
	if (fd < 0) {
		printf("no /dev/full\n");
		return;
	}
	rig_open(&rig, SECTORS, &options);
	CHECK(dup2(fd, rig.device.disk_fd) >= 0);
	close(fd);
	do_batch(&rig, XBB_OP_WRITE);
	rig_check_statuses(&rig, 0, BYTES);
	do_batch(&rig, XBB_OP_READ);
	rig_check_statuses(&rig, BYTES, BYTES);
	CHECK(all_bytes(xbb_front_page(rig.pair.front, 0),
	    BATCH * XBB_PAGE_SIZE, 0));
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * The disk is gone: the queue answers what it has and stops by itself.  What
 * was merged is not asked for again.
 */
static void
check_gone(int errnum)
{
	struct xbb_queue_status status;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.errnum, errnum);
	do_batch(&rig, XBB_OP_READ);
	rig_check_statuses(&rig, 0, BYTES);
	CHECK_EQ(atomic_load(&disk.transfers), 1);
	pair_wait_drained(&rig.pair, XBB_STOP_MEDIUM);
	xbb_queue_status(rig.pair.queue, &status);
	CHECK_EQ(status.errnum, errnum);
	rig_close(&rig);
}

/* A disk that fails everywhere: halves and halves again, if that is quick. */
static void
check_dead(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.errnum, EIO);
	do_batch(&rig, XBB_OP_WRITE);
	rig_check_statuses(&rig, 0, BYTES);
	CHECK_EQ(atomic_load(&disk.transfers), 2 * BATCH - 1);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* One that takes its time to fail is not asked again, wherever that is seen. */
static void
check_dead_slowly(void)
{
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.failure_us, 50000);
	atomic_store(&disk.errnum, EIO);
	do_batch(&rig, XBB_OP_READ);
	rig_check_statuses(&rig, 0, BYTES);
	CHECK_EQ(atomic_load(&disk.transfers), 1);
	pair_drain(&rig.pair);
	rig_close(&rig);

	/* A grant that is none in front: then each is done by itself. */
	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(xbb_front_set_access(rig.guest.front,
	    xbb_front_page_ref(rig.guest.front, 0), 0), 0);
	atomic_store(&disk.from, 3 * XBB_PAGE_SIZE);
	atomic_store(&disk.failure_us, 50000);
	atomic_store(&disk.errnum, EIO);
	do_batch(&rig, XBB_OP_READ);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig.guest.status[i], i == 1 || i == 2 ?
		    XBB_RSP_OKAY : XBB_RSP_ERROR);
	CHECK_EQ(atomic_load(&disk.transfers), 3);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_no_growth(&usual);
	check_no_growth(&copying);
	check_cut_off_under_a_write(&usual);
	check_cut_off_under_a_write(&copying);
	check_short_file();
	check_size_limit();
	check_bad_places();
	check_full();
	check_gone(ENXIO);
	check_gone(ENODEV);
	check_dead();
	check_dead_slowly();
	scratch_leave();
	return (0);
}
