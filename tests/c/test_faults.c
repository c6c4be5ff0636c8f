/*
 * test_faults.c - what a ring says of requests that failed: each is counted once,
 * by blame, operation and errno, and the last of each blame is told.
 */
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define SECTORS		1024

static const struct pair_options usual = { .workers = 4, .discard = true };

static struct xbb_faults
faults_of(const struct rig *rig)
{
	struct xbb_faults faults;

	CHECK_EQ(xbb_state_faults(rig->device.state, 0, &faults), 0);
	return (faults);
}

/* How often a disk failed at something with an errno; any with -1. */
static uint64_t
failed(const struct rig *rig, uint32_t operation, int32_t errnum)
{
	const struct xbb_faults faults = faults_of(rig);
	uint64_t sum;
	uint32_t i;

	sum = 0;
	for (i = 0; i < XBB_FAULT_COUNTS; i++)
		if (faults.disk[i].operation == operation &&
		    (errnum == -1 || faults.disk[i].errnum == errnum))
			sum += faults.disk[i].count;
	return (sum);
}

static uint64_t
all_failed(const struct rig *rig)
{
	uint64_t sum;
	uint32_t op;

	sum = 0;
	for (op = 0; op < XBB_DISK_OPS; op++)
		sum += failed(rig, op, -1);
	return (sum);
}

static uint64_t
all_refused(const struct rig *rig)
{
	const struct xbb_faults faults = faults_of(rig);
	uint64_t sum;
	uint32_t i;

	sum = 0;
	for (i = 0; i < XBB_REFUSALS; i++)
		sum += faults.guest[i];
	return (sum);
}

static void
check_last_disk(const struct rig *rig, uint32_t operation, uint64_t sector,
    uint64_t nsectors, int errnum, bool shrunk)
{
	const struct xbb_fault last = faults_of(rig).last_disk;
	const uint64_t now = xbb_wall_ns();

	CHECK(last.sequence != 0 && last.sequence % 2 == 0);
	CHECK_EQ(last.operation, operation);
	CHECK_EQ(last.sector, sector);
	CHECK_EQ(last.nsectors, nsectors);
	CHECK_EQ(last.errnum, errnum);
	CHECK_EQ(last.shrunk, shrunk);
	CHECK(last.when_ns <= now && now - last.when_ns < LIMIT_MS * 1000000ULL);
}

static void
check_last_guest(const struct rig *rig, uint32_t operation, uint64_t sector,
    uint64_t nsectors, enum xbb_refusal why)
{
	const struct xbb_fault last = faults_of(rig).last_guest;
	const uint64_t now = xbb_wall_ns();

	CHECK(last.sequence != 0 && last.sequence % 2 == 0);
	CHECK_EQ(last.operation, operation);
	CHECK_EQ(last.sector, sector);
	CHECK_EQ(last.nsectors, nsectors);
	CHECK_EQ(last.refusal, why);
	CHECK(last.when_ns <= now && now - last.when_ns < LIMIT_MS * 1000000ULL);
}

static void
do_batch(struct rig *rig, uint8_t operation)
{

	rig_put_batch(rig, operation);
	guest_collect(&rig->guest);
}

static int16_t
do_page(struct rig *rig, uint8_t operation, uint64_t sector)
{
	const struct xbb_segment seg = guest_segment(&rig->guest, 0, 0, 7);

	return (guest_do(&rig->guest, operation, sector, &seg, 1));
}

static int16_t
do_discard(struct rig *rig, uint64_t sector, uint64_t nsectors)
{
	struct guest *guest = &rig->guest;
	uint8_t *slot = guest_slot(guest, guest->req_prod);

	guest_put(guest, XBB_OP_DISCARD, sector, NULL, 0);
	guest_store(slot + guest->layout.seg, &nsectors, sizeof(nsectors));
	guest_publish(guest);
	guest_collect(guest);
	return (guest->status[0]);
}

/* In a merged batch: the one that has the bad place, once, however often it was tried. */
static void
check_bad_place(void)
{
	struct rig rig;
	uint32_t bad;

	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(xbb_state_failures(rig.device.state), 0);
	CHECK_EQ(faults_of(&rig).last_disk.sequence, 0);
	for (bad = 0; bad < BATCH; bad++) {
		atomic_store(&disk.from, bad * XBB_PAGE_SIZE + 1024);
		atomic_store(&disk.to, bad * XBB_PAGE_SIZE + 1536);
		atomic_store(&disk.errnum, EIO);
		do_batch(&rig, XBB_OP_READ);
		check_last_disk(&rig, XBB_DISK_OP_READ,
		    bad * XBB_SECTORS_PER_PAGE, XBB_SECTORS_PER_PAGE, EIO,
		    false);
		atomic_store(&disk.errnum, ENOSPC);
		do_batch(&rig, XBB_OP_WRITE);
		check_last_disk(&rig, XBB_DISK_OP_WRITE,
		    bad * XBB_SECTORS_PER_PAGE, XBB_SECTORS_PER_PAGE, ENOSPC,
		    false);
		atomic_store(&disk.errnum, 0);
		do_batch(&rig, XBB_OP_WRITE);
	}
	CHECK_EQ(failed(&rig, XBB_DISK_OP_READ, EIO), BATCH);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_WRITE, ENOSPC), BATCH);
	CHECK_EQ(all_failed(&rig), 2 * BATCH);
	CHECK_EQ(xbb_state_failures(rig.device.state), 2 * BATCH);
	CHECK_EQ(all_refused(&rig), 0);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 2 * BATCH);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* What gets no other try has failed for what the one before it failed for. */
static void
check_given_up(int errnum)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.errnum, errnum);
	do_batch(&rig, XBB_OP_READ);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_READ, errnum), BATCH);
	CHECK_EQ(all_failed(&rig), BATCH);
	pair_wait_drained(&rig.pair, XBB_STOP_MEDIUM);
	rig_close(&rig);

	/* The same where a part of it is what takes its time. */
	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(xbb_front_set_access(rig.guest.front,
	    xbb_front_page_ref(rig.guest.front, 0), 0), 0);
	atomic_store(&disk.from, 3 * XBB_PAGE_SIZE);
	atomic_store(&disk.failure_us, 50000);
	atomic_store(&disk.errnum, ETIMEDOUT);
	do_batch(&rig, XBB_OP_READ);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_READ, ETIMEDOUT), BATCH - 3);
	CHECK_EQ(all_failed(&rig), BATCH - 3);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_GRANTS], 1);
	check_last_guest(&rig, XBB_OP_READ, 0, XBB_SECTORS_PER_PAGE,
	    XBB_REFUSED_GRANTS);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Flushes, alone and around the data of a barrier; discards. */
static void
check_other_operations(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.discard_errnum, EIO);
	CHECK_EQ(do_discard(&rig, 16, 40), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_DISCARD, 16, 40, EIO, false);
	/* It was offered, so that the disk fails at it; the guest hears "cannot". */
	atomic_store(&disk.discard_errnum, EOPNOTSUPP);
	CHECK_EQ(do_discard(&rig, 16, 40), XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_DISCARD, EIO), 1);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_DISCARD, EOPNOTSUPP), 1);

	/* A disk without a cache fails at nothing. */
	atomic_store(&disk.sync_errnum, EOPNOTSUPP);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0),
	    XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE_BARRIER, 0), XBB_RSP_OKAY);
	CHECK_EQ(all_failed(&rig), 2);
	CHECK_EQ(all_refused(&rig), 0);

	atomic_store(&disk.sync_errnum, ENOSPC);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 77, NULL, 0),
	    XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_FLUSH, 0, 0, ENOSPC, false);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_FLUSH, ENOSPC), 1);
	pair_wait_drained(&rig.pair, XBB_STOP_LOST);
	rig_close(&rig);

	/* A barrier's: what fails is the write, or one of the flushes. */
	rig_open(&rig, SECTORS, &usual);
	atomic_store(&disk.errnum, EIO);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE_BARRIER, 8), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_WRITE, 8, 8, EIO, false);
	atomic_store(&disk.sync_errnum, EDQUOT);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE_BARRIER, 8), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_FLUSH, 0, 0, EDQUOT, false);
	CHECK_EQ(all_failed(&rig), 2);
	pair_wait_drained(&rig.pair, XBB_STOP_LOST);
	rig_close(&rig);
}

/* A table that is full: an entry an operation has the rest, and none is lost. */
static void
check_many_errnos(void)
{
	const uint32_t own = XBB_FAULT_COUNTS - XBB_DISK_OPS;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	/* From 40 on: none says that the disk is gone. */
	for (i = 0; i < own + 3; i++) {
		atomic_store(&disk.errnum, 40 + (int)i);
		CHECK_EQ(do_page(&rig, XBB_OP_WRITE, 0), XBB_RSP_ERROR);
		check_last_disk(&rig, XBB_DISK_OP_WRITE, 0, 8, 40 + (int)i,
		    false);
	}
	CHECK_EQ(do_page(&rig, XBB_OP_READ, 0), XBB_RSP_ERROR);
	for (i = 0; i < own; i++)
		CHECK_EQ(failed(&rig, XBB_DISK_OP_WRITE, 40 + (int)i), 1);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_WRITE, 0), 3);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_READ, 0), 1);
	/* One that has its own goes on there. */
	atomic_store(&disk.errnum, 41);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, 0), XBB_RSP_ERROR);
	CHECK_EQ(failed(&rig, XBB_DISK_OP_WRITE, 41), 2);
	CHECK_EQ(all_failed(&rig), own + 5);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* What a guest does wrong, each kind under its own name, and nothing of the disk's. */
static void
check_guest(uint32_t transport)
{
	const struct pair_options options = {
		.workers = 4, .transport = transport,
		.max_indirect_segments = 32, .sector_size = 1024,
	};
	const uint16_t nseg = 12;
	const uint32_t none = 0;
	struct xbb_segment seg;
	struct rig rig;
	uint8_t *slot;

	rig_open(&rig, SECTORS, &options);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, SECTORS - 6), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_READ, SECTORS - 6, 8,
	    XBB_REFUSED_BEYOND_END);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, UINT64_MAX - 1), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_WRITE, UINT64_MAX - 1, 8,
	    XBB_REFUSED_BEYOND_END);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, 1), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_READ, 1, 8, XBB_REFUSED_ALIGNMENT);
	CHECK_EQ(do_page(&rig, 4, 16), XBB_RSP_EOPNOTSUPP);
	check_last_guest(&rig, 4, 16, 8, XBB_REFUSED_OPERATION);
	seg = guest_segment(&rig.guest, 0, 5, 4);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_READ, 8, &seg, 1), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_READ, 8, 0, XBB_REFUSED_SEGMENTS);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	seg.gref = 0;
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 8, &seg, 1),
	    XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_WRITE, 8, 8, XBB_REFUSED_GRANTS);
	/* A list of segments in a page that is not granted. */
	slot = guest_slot(&rig.guest, rig.guest.req_prod);
	guest_put(&rig.guest, XBB_OP_INDIRECT, 24, NULL, XBB_OP_READ);
	guest_store(slot + 2, &nseg, sizeof(nseg));
	guest_store(slot + 28, &none, sizeof(none));
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[0], XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_READ, 24, 0, XBB_REFUSED_GRANTS);

	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_BEYOND_END], 2);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_ALIGNMENT], 1);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_OPERATION], 1);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_SEGMENTS], 1);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_GRANTS], 2);
	CHECK_EQ(all_refused(&rig), 7);
	CHECK_EQ(all_failed(&rig), 0);
	CHECK_EQ(xbb_state_failures(rig.device.state), 7);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

static void
check_read_only(void)
{
	const struct pair_options options = { .read_only = true };
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, 32), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_WRITE, 32, 8, XBB_REFUSED_READ_ONLY);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE_BARRIER, 40), XBB_RSP_ERROR);
	check_last_guest(&rig, XBB_OP_WRITE_BARRIER, 40, 8,
	    XBB_REFUSED_READ_ONLY);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_READ_ONLY], 2);
	CHECK_EQ(all_refused(&rig), 2);
	CHECK_EQ(all_failed(&rig), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * A disk that has shrunk under its guest: what was there is the host's fault,
 * what never was the guest's.  A guest that connects anew knows the new size.
 */
static void
check_shrunk(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	CHECK_EQ(xbb_state_resize(rig.device.state, SECTORS + 64), 0);
	CHECK_EQ(xbb_state_resize(rig.device.state, SECTORS / 2), 0);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, SECTORS + 56), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_WRITE, SECTORS + 56, 8, EIO, true);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, SECTORS / 2 - 4), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_READ, SECTORS / 2 - 4, 8, EIO,
	    true);
	CHECK_EQ(do_discard(&rig, SECTORS / 2, 8), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_DISCARD, SECTORS / 2, 8, EIO, true);
	CHECK_EQ(all_failed(&rig), 3);
	CHECK_EQ(all_refused(&rig), 0);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, SECTORS + 57), XBB_RSP_ERROR);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_BEYOND_END], 1);
	CHECK_EQ(all_failed(&rig), 3);
	pair_drain(&rig.pair);
	pair_close(&rig.pair);

	pair_open(&rig.pair, &rig.device, 0, &usual);
	guest_init(&rig.guest, &rig.pair);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, SECTORS / 2), XBB_RSP_ERROR);
	CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_BEYOND_END], 1);
	CHECK_EQ(all_failed(&rig), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* The same before anybody has looked at its size. */
static void
check_cut_off(uint32_t transport)
{
	const struct pair_options options = {
		.workers = 4, .transport = transport,
	};
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	CHECK_EQ(ftruncate(rig.device.disk_fd, 64 * XBB_SECTOR_SIZE), 0);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, 60), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_READ, 60, 8, EIO, true);
	CHECK_EQ(do_page(&rig, XBB_OP_WRITE, 64), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_WRITE, 64, 8, EIO, true);
	atomic_store(&disk.errnum, EIO);
	CHECK_EQ(do_page(&rig, XBB_OP_READ, 56), XBB_RSP_ERROR);
	check_last_disk(&rig, XBB_DISK_OP_READ, 56, 8, EIO, false);
	CHECK_EQ(all_refused(&rig), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/*
 * What starves until the end: for want of the host's memory, or because the guest
 * is dying, which looks like a shortage of its own.
 */
static void
check_starved(int errnum)
{
	const struct pair_options options = {
		.workers = 4, .transport = XBB_TRANSPORT_MAP,
	};
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	atomic_store(&hypervisor.map_errnum, errnum);
	rig_put_batch(&rig, XBB_OP_WRITE);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	CHECK_EQ(xbb_state_failures(rig.device.state), 0);
	pair_drain(&rig.pair);
	guest_collect(&rig.guest);
	if (errnum == ENOMEM) {
		CHECK_EQ(failed(&rig, XBB_DISK_OP_WRITE, ENOMEM), BATCH);
		CHECK_EQ(all_refused(&rig), 0);
	} else {
		CHECK_EQ(faults_of(&rig).guest[XBB_REFUSED_GRANTS], BATCH);
		CHECK_EQ(all_failed(&rig), 0);
	}
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_bad_place();
	check_given_up(ENXIO);
	check_other_operations();
	check_many_errnos();
	check_guest(XBB_TRANSPORT_MAP);
	check_guest(XBB_TRANSPORT_COPY);
	check_read_only();
	check_shrunk();
	check_cut_off(XBB_TRANSPORT_MAP);
	check_cut_off(XBB_TRANSPORT_COPY);
	check_starved(ENOMEM);
	check_starved(EAGAIN);
	scratch_leave();
	return (0);
}
