/*
 * test_secure_linux.c - secure discards: a promise, unlike others.  What a
 * device erases is counted by disk.c; the file that it is here says of any other
 * discard that it is no device.
 */
#include <string.h>

#include "harness.h"

#define GIB		((uint64_t)1 << 30)
#define SECTORS		(4 * GIB / XBB_SECTOR_SIZE)
#define FLAG		1	/* byte of a slot */

static const struct pair_options erasing = { .device = true, .secure = true };
static const struct pair_options discarding = {
	.device = true, .discard = true,
};

static uint32_t
put(struct guest *guest, uint8_t flags, uint64_t sector, uint64_t nsectors)
{
	uint8_t *slot;
	uint32_t tag;

	tag = guest_put(guest, XBB_OP_DISCARD, sector, NULL, 0);
	slot = guest_slot(guest, guest->req_prod - 1);
	guest_store(slot + FLAG, &flags, sizeof(flags));
	guest_store(slot + guest->layout.seg, &nsectors, sizeof(nsectors));
	return (tag);
}

static int16_t
do_one(struct guest *guest, uint8_t flags, uint64_t sector, uint64_t nsectors)
{
	uint32_t tag = put(guest, flags, sector, nsectors);

	guest_publish(guest);
	guest_collect(guest);
	return (guest->status[tag]);
}

/* Just what was asked for, and by that call alone. */
static void
check_erased(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &erasing);
	CHECK_EQ(do_one(&rig.guest, XBB_DISCARD_SECURE, 3, 5), XBB_RSP_OKAY);
	CHECK_EQ(atomic_load(&disk.erasures), 1);
	CHECK_EQ(atomic_load(&disk.erased), 5 * XBB_SECTOR_SIZE);
	CHECK_EQ(do_one(&rig.guest, 0xff, 0, 8), XBB_RSP_OKAY);
	CHECK_EQ(atomic_load(&disk.erased), 13 * XBB_SECTOR_SIZE);
	CHECK_EQ(do_one(&rig.guest, 0, 0, 8), XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(atomic_load(&disk.erasures), 2);
	CHECK_EQ(atomic_load(&disk.discards), 0);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, ds_req), 3);
	rig_close(&rig);
}

/* Nothing is said to be erased that is not, nor discarded in its place. */
static void
check_failures(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &erasing);
	atomic_store(&disk.erase_errnum, EIO);
	CHECK_EQ(do_one(&rig.guest, XBB_DISCARD_SECURE, 0, 8), XBB_RSP_ERROR);
	atomic_store(&disk.erase_errnum, EOPNOTSUPP);
	CHECK_EQ(do_one(&rig.guest, XBB_DISCARD_SECURE, 0, 8),
	    XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(atomic_load(&disk.discards), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Not where it was not offered, nor for what cannot keep it. */
static void
check_refused(void)
{
	struct pair_options file = erasing;
	struct device device;
	struct pair pair = { 0 };
	struct rig rig;

	rig_open(&rig, SECTORS, &discarding);
	CHECK_EQ(do_one(&rig.guest, XBB_DISCARD_SECURE, 0, 8),
	    XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(atomic_load(&disk.erasures), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);

	device_open(&device, SECTORS, 1);
	file.device = false;
	CHECK_EQ(pair_try(&pair, &device, 0, &file), -EINVAL);
	CHECK_EQ(pair_try(&pair, &device, 0, &erasing), 0);
	pair_drain(&pair);
	pair_close(&pair);
	device_close(&device);
}

/* One call for what adjoins; but no other discard becomes one, or its part. */
static void
check_merging(void)
{
	struct rig rig;
	struct guest *guest = &rig.guest;
	uint32_t plain;

	rig_open(&rig, SECTORS, &erasing);
	put(guest, XBB_DISCARD_SECURE, 0, 8);
	put(guest, XBB_DISCARD_SECURE, 8, 8);
	plain = put(guest, 0, 16, 8);
	put(guest, XBB_DISCARD_SECURE, 24, 8);
	guest_publish(guest);
	guest_collect(guest);
	CHECK_EQ(atomic_load(&disk.erased), 24 * XBB_SECTOR_SIZE);
	CHECK_EQ(atomic_load(&disk.erasures), 2);
	CHECK_EQ(guest->status[plain], XBB_RSP_EOPNOTSUPP);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, total_dispatch), 3);
	rig_close(&rig);
}

/* A long one is done to its end, whoever waits for the queue to drain. */
static void
check_drain(void)
{
	struct rig rig;

	rig_open(&rig, SECTORS, &erasing);
	disk_hold_range(0, 1);
	put(&rig.guest, XBB_DISCARD_SECURE, 0, SECTORS);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	xbb_queue_drain(rig.pair.queue);
	disk_release();
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	CHECK_EQ(atomic_load(&disk.erased), 4 * GIB);
	CHECK_EQ(atomic_load(&disk.erasures), 4);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 1);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_erased();
	check_failures();
	check_refused();
	check_merging();
	check_drain();
	scratch_leave();
	return (0);
}
