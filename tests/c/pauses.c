/*
 * pauses.c - disks whose errors somebody wants to be dealt with, and disks that
 * are paused, for the tests of both.
 */
#include "pauses.h"

const struct pair_options usual = { .workers = 4 };
const struct pair_options ways[] = {
	{ .workers = 4 },
	{ .workers = 4, .transport = XBB_TRANSPORT_COPY },
	{ .workers = 4, .persistent = 256 },
	{ .workers = 4, .block_size = 4096 },
};

void
set_policy(struct rig *rig, int32_t on_error, int32_t on_full)
{
	struct xbb_tunables *t = &rig->device.state->tunables;

	xbb_tunable_set(&t->on_error, on_error);
	xbb_tunable_set(&t->on_full, on_full);
	xbb_tunable_set(&t->retry_seconds, 60);
}

void
put_at(struct guest *guest, uint8_t operation, uint64_t sector)
{
	const struct xbb_segment seg = guest_segment(guest, guest->ntags, 0,
	    7);

	guest_put(guest, operation, sector, &seg, 1);
}

void
put_flush(struct guest *guest)
{

	guest_put(guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
}

void
fail_range(uint64_t from, uint64_t to, int errnum)
{

	atomic_store(&disk.from, from);
	atomic_store(&disk.to, to);
	atomic_store(&disk.errnum, errnum);
}

/* A disk that fails whatever is asked of it, and a write that finds that out. */
void
rig_open_failing(struct rig *rig, int32_t on_error)
{

	rig_open(rig, SECTORS, &usual);
	set_policy(rig, on_error, XBB_POLICY_AUTO);
	fail_range(0, UINT64_MAX, EIO);
	put_at(&rig->guest, XBB_OP_WRITE, 0);
	guest_publish(&rig->guest);
}

uint32_t
why_paused(const struct rig *rig)
{

	return (XBB_GET(rig->device.state->pause.why));
}

void
resume(struct rig *rig)
{

	xbb_state_resume(rig->device.state);
	xbb_queue_look(rig->pair.queue);
}

/* The disk is well again, and so is what had waited for that: so many. */
void
rig_close_mended(struct rig *rig, uint32_t n)
{

	atomic_store(&disk.errnum, 0);
	resume(rig);
	guest_collect(&rig->guest);
	guest_check_okay(&rig->guest, n);
	pair_drain(&rig->pair);
	rig_close(rig);
}

void
pause_by_hand(struct rig *rig)
{

	xbb_state_pause(rig->device.state, XBB_PAUSE_ASKED);
	xbb_queue_look(rig->pair.queue);
}

void
wait_followed(const struct rig *rig)
{

	WAIT_UNTIL(xbb_state_followed(rig->device.state));
}

/* No answer comes, and the disk is asked for nothing, as long as we look. */
void
check_silence(struct rig *rig)
{
	const unsigned int transfers = atomic_load(&disk.transfers);
	const uint32_t answers = guest_answers(&rig->guest);
	int i;

	for (i = 0; i < 20; i++) {
		check_pause();
		CHECK_EQ(guest_answers(&rig->guest), answers);
		CHECK_EQ(atomic_load(&disk.transfers), transfers);
	}
}

/* The table has of each request that is out that it was given to the disk. */
void
check_dispatched(const struct rig *rig, uint32_t n)
{
	const struct xbb_req *table = xbb_state_table(rig->device.state, 0);
	uint32_t found, i;

	found = 0;
	for (i = 0; i < XBB_MAX_REQUESTS; i++)
		found += XBB_GET(table[i].state) == XBB_REQ_DISPATCHED;
	CHECK_EQ(found, n);
}
