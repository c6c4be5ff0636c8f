/*
 * test_counters.c - what is counted, exactly, where it can be foreseen; the
 * steps of a request, as whoever maps the segment sees them; and an event
 * channel that fails, which stops the ring and says why.
 */
#include "harness.h"

#define SECTORS		1024

/* Of three that lie on the ring at once two are started with others waiting. */
static void
check_dispatch(void)
{
	const struct pair_options options = { .workers = 1 };
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	guest_put_scattered(&rig.guest, 3);
	guest_publish(&rig.guest);
	guest_collect(&rig.guest);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, forced_dispatch), 2);
	CHECK_EQ(COUNTER(&rig.pair, normal_dispatch), 1);
	rig_close(&rig);
}

/* The tunables may have the disk flushed less often than the guest wants. */
static void
check_flush_interval(void)
{
	static const struct {
		int32_t	interval, disabled;
		uint64_t done;		/* of six */
	} cases[] = {
		{ 0, 0, 6 }, { -1, 0, 6 }, { 1, 0, 6 }, { 2, 0, 3 },
		{ 3, 0, 2 }, { 7, 0, 0 }, { 0, 1, 0 },
	};
	const struct pair_options usual = { 0 };
	struct xbb_tunables *tunables;
	struct rig rig;
	uint32_t i, n;

	for (i = 0; i < COUNTOF(cases); i++) {
		rig_open(&rig, SECTORS, &usual);
		tunables = &rig.device.state->tunables;
		xbb_tunable_set(&tunables->flush_interval, cases[i].interval);
		xbb_tunable_set(&tunables->disable_flush, cases[i].disabled);
		for (n = 0; n < 6; n++)
			CHECK_EQ(guest_do(&rig.guest, XBB_OP_FLUSH_DISKCACHE, 0,
			    NULL, 0), XBB_RSP_OKAY);
		pair_drain(&rig.pair);
		CHECK_EQ(COUNTER(&rig.pair, flushes_done), cases[i].done);
		rig_close(&rig);
	}
}

/* Every page that is copied, or mapped, and nothing else. */
static void
check_grants(uint32_t transport)
{
	const struct pair_options options = {
		.workers = 1, .transport = transport,
	};
	const bool copy = transport == XBB_TRANSPORT_COPY;
	struct xbb_segment seg[3];
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &options);
	for (i = 0; i < COUNTOF(seg); i++)
		seg[i] = guest_segment(&rig.guest, i, 0, 7);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_READ, 0, seg, 3), XBB_RSP_OKAY);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 8, seg, 2), XBB_RSP_OKAY);
	seg[1].gref = 0;
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, 8, seg, 2), XBB_RSP_ERROR);
	pair_drain(&rig.pair);
	CHECK_EQ(COMMON(&rig.pair, grants_copied_total), copy ? 5 : 0);
	CHECK_EQ(COMMON(&rig.pair, grants_mapped_total), copy ? 0 : 5);
	CHECK_EQ(COMMON(&rig.pair, grants_unmapped_total), copy ? 0 : 5);
	CHECK_EQ(COMMON(&rig.pair, grant_errors), 1);
	rig_close(&rig);
}

/* Asleep again, and for good: nothing is there to wake the ring's thread. */
static void
wait_asleep(const struct rig *rig, uint64_t completed)
{
	uint64_t sleeps;

	do {
		sleeps = COMMON(&rig->pair, ring_sleeps);
		check_pause();
	} while (sleeps != COMMON(&rig->pair, ring_sleeps) ||
	    COUNTER(&rig->pair, reqs_completed) != completed);
}

/*
 * Each event that ended a sleep; one or two more may have come early.  Events
 * that brought something are listened to, however many there are: one sleep for
 * each, and none in which the channel is left alone.
 */
static void
check_events(void)
{
	enum { EVENTS = 80 };
	const struct pair_options options = { .workers = 1 };
	struct rig rig;
	uint64_t sleeps;
	uint32_t i;

	rig_open(&rig, SECTORS, &options);
	XBB_SET(rig.device.state->tunables.poll_max_us, 0);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	wait_asleep(&rig, 1);
	sleeps = COMMON(&rig.pair, ring_sleeps);
	for (i = 1; i <= EVENTS; i++) {
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
		wait_asleep(&rig, i + 1);
	}
	CHECK(COMMON(&rig.pair, ring_sleeps) - sleeps <= EVENTS + 4);
	pair_drain(&rig.pair);
	CHECK(COMMON(&rig.pair, notifies_received) >= EVENTS);
	CHECK(COMMON(&rig.pair, notifies_received) <= EVENTS + 2);
	rig_close(&rig);
}

/*
 * How many requests of the table have come so far.  It is read as another
 * process reads it, amid what the ring's thread writes: nothing for a sanitizer.
 */
__attribute__((no_sanitize("thread")))
static uint32_t
count_step(const struct rig *rig, enum xbb_req_state state)
{
	const struct xbb_req *table = xbb_state_table(rig->device.state, 0);
	uint32_t i, n;

	for (i = n = 0; i < xbb_state_entries(rig->device.state); i++)
		n += XBB_GET(table[i].state) == state;
	return (n);
}

/* Writes that merge, of which one has a reference that grants nothing. */
#define BAD		2

static void
put_bad_batch(struct rig *rig)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < BATCH; i++) {
		seg = guest_segment(&rig->guest, i, 0, 7);
		if (i == BAD)
			seg.gref = 0;
		guest_put(&rig->guest, XBB_OP_WRITE, i * XBB_SECTORS_PER_PAGE,
		    &seg, 1);
	}
	guest_publish(&rig->guest);
}

/* A merged batch at the disk, and one that is done request by request. */
static void
check_steps(void)
{
	const struct pair_options options = {
		.workers = 1, .transport = XBB_TRANSPORT_MAP,
	};
	struct rig rig;
	uint32_t i;

	rig_open(&rig, BATCH_SECTORS, &options);
	disk_hold_range(5 * XBB_PAGE_SIZE, 6 * XBB_PAGE_SIZE);
	rig_put_batch(&rig, XBB_OP_WRITE);
	disk_wait_held(1);
	CHECK_EQ(count_step(&rig, XBB_REQ_DISPATCHED), BATCH);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), BATCH);
	disk_release();
	guest_collect(&rig.guest);

	disk_hold_range(5 * XBB_PAGE_SIZE, 6 * XBB_PAGE_SIZE);
	put_bad_batch(&rig);
	disk_wait_held(1);
	CHECK_EQ(count_step(&rig, XBB_REQ_DONE), 5);
	CHECK_EQ(count_step(&rig, XBB_REQ_DISPATCHED), BATCH - 5);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	disk_release();
	guest_collect(&rig.guest);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig.guest.status[i],
		    i == BAD ? XBB_RSP_ERROR : XBB_RSP_OKAY);
	pair_drain(&rig.pair);
	CHECK_EQ(count_step(&rig, XBB_REQ_FREE),
	    xbb_state_entries(rig.device.state));
	rig_close(&rig);
}

/* What overlaps a write at the disk waits where it can be seen to. */
static void
check_waits(void)
{
	const struct pair_options options = { .workers = 1 };
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	rig_teach_slowness(&rig);
	disk_hold();
	seg = guest_segment(&rig.guest, 0, 0, 7);
	guest_put(&rig.guest, XBB_OP_WRITE, 0, &seg, 1);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	guest_put(&rig.guest, XBB_OP_READ, 0, &seg, 1);
	guest_publish(&rig.guest);
	WAIT_UNTIL(count_step(&rig, XBB_REQ_ACCEPTED) == 1);
	CHECK_EQ(count_step(&rig, XBB_REQ_DISPATCHED), 1);
	disk_release();
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 2);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Buffers of ours: of a batch that is done as a whole, and of its parts. */
static void
check_bounced(void)
{
	const struct pair_options options = {
		.workers = 1, .transport = XBB_TRANSPORT_COPY,
	};
	struct rig rig;
	uint64_t before;

	rig_open(&rig, BATCH_SECTORS, &options);
	before = COUNTER(&rig.pair, io_bounced);
	rig_put_batch(&rig, XBB_OP_WRITE);
	guest_collect(&rig.guest);
	put_bad_batch(&rig);
	guest_collect(&rig.guest);
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_bounced) - before, 2 + BATCH);
	rig_close(&rig);
}

/* Whichever call of the event channel fails: the host's fault, by its errno. */
static void
check_event_fault(atomic_int *errnum)
{
	const struct pair_options options = { .workers = 1 };
	struct xbb_queue_status status;
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	XBB_SET(rig.device.state->tunables.poll_max_us, 0);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	atomic_store(errnum, EBADF);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	guest_put(&rig.guest, XBB_OP_READ, 0, &seg, 1);
	guest_set_index(&rig.guest, offsetof(struct xbb_sring, rsp_event),
	    rig.guest.rsp_cons + 1);
	guest_publish(&rig.guest);
	pair_wait_drained(&rig.pair, XBB_STOP_EVENT);
	xbb_queue_status(rig.pair.queue, &status);
	CHECK_EQ(status.errnum, EBADF);
	rig_close(&rig);
}

/*
 * What stays mapped stops the ring, and is not counted as given back: whether
 * that was for one batch, or for good until the end.
 */
static void
check_unmap_fault(uint32_t persistent)
{
	const struct pair_options options = {
		.workers = 1, .transport = XBB_TRANSPORT_MAP,
		.persistent = persistent,
	};
	struct xbb_queue_status status;
	struct rig rig;

	rig_open(&rig, SECTORS, &options);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	atomic_store(&hypervisor.unmap_errnum, EINVAL);
	if (persistent != 0)
		xbb_queue_drain(rig.pair.queue);
	else
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	WAIT_UNTIL((xbb_queue_status(rig.pair.queue, &status), status.state) ==
	    XBB_QUEUE_DRAINED);
	CHECK_EQ(status.reason, XBB_STOP_UNMAP);
	CHECK_EQ(status.errnum, EINVAL);
	CHECK_EQ(COMMON(&rig.pair, grants_mapped_total),
	    COMMON(&rig.pair, grants_unmapped_total) + 1);
	rig_close(&rig);
	atomic_store(&hypervisor.unmap_errnum, 0);
}

int
main(void)
{

	scratch_enter();
	check_dispatch();
	check_flush_interval();
	check_grants(XBB_TRANSPORT_MAP);
	check_grants(XBB_TRANSPORT_COPY);
	check_events();
	check_steps();
	check_waits();
	check_bounced();
	check_event_fault(&hypervisor.notify_errnum);
	check_event_fault(&hypervisor.unmask_errnum);
	check_event_fault(&hypervisor.take_errnum);
	check_unmap_fault(0);
	check_unmap_fault(8);
	scratch_leave();
	return (0);
}
