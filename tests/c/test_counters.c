/*
 * test_counters.c - what is counted, exactly, where it can be foreseen; and an
 * event channel that fails, which stops the ring and says why.
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
	CHECK_EQ(COUNTER(&rig.pair, grants_copied_total), copy ? 5 : 0);
	CHECK_EQ(COUNTER(&rig.pair, grants_mapped_total), copy ? 0 : 5);
	CHECK_EQ(COUNTER(&rig.pair, grants_unmapped_total), copy ? 0 : 5);
	CHECK_EQ(COUNTER(&rig.pair, grant_errors), 1);
	rig_close(&rig);
}

/* Each event that ended a sleep; one or two more may have come early. */
static void
check_events(void)
{
	const struct pair_options options = { .workers = 1 };
	struct rig rig;
	uint64_t sleeps;
	uint32_t i;

	rig_open(&rig, SECTORS, &options);
	XBB_SET(rig.device.state->tunables.poll_max_us, 0);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	for (i = 0; i < 5; i++) {
		/* Asleep again, and for good: nothing is there to wake it. */
		do {
			sleeps = COUNTER(&rig.pair, ring_sleeps);
			check_pause();
		} while (sleeps != COUNTER(&rig.pair, ring_sleeps) ||
		    COUNTER(&rig.pair, reqs_completed) != i + 1U);
		CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	}
	pair_drain(&rig.pair);
	CHECK(COUNTER(&rig.pair, notifies_received) >= 5);
	CHECK(COUNTER(&rig.pair, notifies_received) <= 7);
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
	CHECK_EQ(COUNTER(&rig.pair, grants_mapped_total),
	    COUNTER(&rig.pair, grants_unmapped_total) + 1);
	rig_close(&rig);
	atomic_store(&hypervisor.unmap_errnum, 0);
}

int
main(void)
{

	scratch_enter();
	check_dispatch();
	check_grants(XBB_TRANSPORT_MAP);
	check_grants(XBB_TRANSPORT_COPY);
	check_events();
	check_event_fault(&hypervisor.notify_errnum);
	check_event_fault(&hypervisor.unmask_errnum);
	check_event_fault(&hypervisor.take_errnum);
	check_unmap_fault(0);
	check_unmap_fault(8);
	scratch_leave();
	return (0);
}
