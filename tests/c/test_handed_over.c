/*
 * test_handed_over.c - a ring whose server makes room for the next one: nobody
 * is refused what that one could do, as one that ends for good would refuse it,
 * and the segment says that the ring is served and owes nothing.
 */
#include "harness.h"

#define SECTORS		(2 * BATCH_SECTORS)
#define AHEAD		BATCH_SECTORS	/* of a request that is held */
#define STALL_NS	5000000		/* what is slow to fail (speed.c) */
#define TRIES		1000

static const struct pair_options usual = { .workers = 1 };
static const struct pair_options mapping = {
	.workers = 2, .transport = XBB_TRANSPORT_MAP,
};

static void
check_is_left(struct rig *rig)
{
	struct xbb_queue_status status;

	WAIT_UNTIL((xbb_queue_status(rig->pair.queue, &status),
	    status.state == XBB_QUEUE_DRAINED));
	CHECK_EQ(status.reason, XBB_STOP_NONE);
	CHECK_EQ(XBB_GET(rig->pair.rs->common.connected), 1);
	CHECK_EQ(XBB_GET(rig->pair.rs->common.status.state), XBB_QUEUE_RUNNING);
	CHECK_EQ(XBB_GET(rig->pair.rs->inflight), 0);
	CHECK_EQ(xbb_queue_owes(rig->pair.queue), 0);
}

/* A shortage is waited for; what comes meanwhile is not taken any more. */
static void
check_shortage(void)
{
	unsigned int calls;
	struct rig rig;

	rig_open(&rig, SECTORS, &mapping);
	atomic_store(&hypervisor.map_errnum, EINVAL);
	rig_put_batch(&rig, XBB_OP_READ);
	WAIT_UNTIL(COMMON(&rig.pair, kva_shortages) == 1);
	xbb_queue_hand_over(rig.pair.queue);
	calls = atomic_load(&hypervisor.map_calls);
	WAIT_UNTIL(atomic_load(&hypervisor.map_calls) > calls + 4);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	rig_put_batch(&rig, XBB_OP_READ);
	atomic_store(&hypervisor.map_errnum, 0);
	check_is_left(&rig);
	CHECK_EQ(guest_answers(&rig.guest), BATCH);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	rig_close(&rig);
	/* Not even the ring's page. */
	CHECK_EQ(atomic_load(&hypervisor.mappings), 0);
}

/*
 * A bad place costs whoever asked for it, as ever, and not those beside it.
 * False if the disk failed so late, on a busy machine, that none was to be
 * tried again (speed.c).
 */
static bool
show_bad_place(bool hands_over)
{
	struct xbb_segment seg;
	struct rig rig;
	uint64_t begun;
	uint32_t i;
	bool soon;

	rig_open(&rig, SECTORS, &usual);
	rig_teach_slowness(&rig);
	XBB_SET(rig.device.state->tunables.no_coalesce_reqs, 0);
	atomic_store(&disk.delay_us, 0);
	disk_hold_range(AHEAD * XBB_SECTOR_SIZE, SECTORS * XBB_SECTOR_SIZE);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	guest_put(&rig.guest, XBB_OP_READ, AHEAD, &seg, 1);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	atomic_store(&disk.from, 3 * XBB_PAGE_SIZE);
	atomic_store(&disk.to, 4 * XBB_PAGE_SIZE);
	atomic_store(&disk.errnum, EIO);
	rig_put_batch(&rig, XBB_OP_READ);
	WAIT_UNTIL(XBB_GET(rig.pair.rs->inflight) == 1 + BATCH);
	if (hands_over)
		xbb_queue_hand_over(rig.pair.queue);
	else
		xbb_queue_drain(rig.pair.queue);
	begun = xbb_now_ns();
	disk_hold_range(0, AHEAD * XBB_SECTOR_SIZE);
	/* What is behind it ends while the ring's thread ends the first one. */
	WAIT_UNTIL(XBB_GET(rig.pair.rs->inflight) == BATCH);
	disk_release();
	guest_collect(&rig.guest);
	soon = xbb_now_ns() - begun < STALL_NS;
	for (i = 0; i <= BATCH; i++)
		if (soon || !hands_over || i == 0 || i == 4)
			CHECK_EQ(rig.guest.status[i],
			    i == 4 || (i > 0 && !hands_over) ?
			    XBB_RSP_ERROR : XBB_RSP_OKAY);
	if (hands_over)
		check_is_left(&rig);
	else
		pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	rig_close(&rig);
	return (soon || !hands_over);
}

static void
check_bad_place(bool hands_over)
{
	int left;

	for (left = TRIES; left > 0; left--)
		if (show_bad_place(hands_over))
			return;
	CHECK(left > 0);
}

/*
 * By a version that leaves no table of ours, only word that nothing is owed:
 * whatever the segment holds of entries and indices, the ring goes on.
 */
static void
check_answered(void)
{
	struct xbb_queue_params params;
	struct xbb_req *table;
	struct xbb_error error;
	struct rig rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	rig_put_batch(&rig, XBB_OP_WRITE);
	guest_collect(&rig.guest);
	xbb_queue_hand_over(rig.pair.queue);
	check_is_left(&rig);
	xbb_queue_close(rig.pair.queue);

	XBB_SET(rig.pair.rs->common.req_cons, 0);
	XBB_SET(rig.pair.rs->common.rsp_prod, 0);
	table = xbb_state_table(rig.device.state, 0);
	for (i = 0; i < XBB_MAX_REQUESTS / 8; i++)
		table[i].state = XBB_REQ_DISPATCHED;
	pair_connect(&rig.pair);
	pair_params(&rig.pair, &rig.device, 0, &usual, &params);
	params.conn.adopt = XBB_ADOPT_TABLE;
	CHECK_EQ(xbb_queue_open(&params, rig.device.state, &error,
	    &rig.pair.queue), -EPROTO);
	pair_connect(&rig.pair);
	params.conn.event_fd = rig.pair.event_fd;
	params.conn.adopt = XBB_ADOPT_ANSWERED;
	CHECK_EQ(xbb_queue_open(&params, rig.device.state, &error,
	    &rig.pair.queue), 0);
	CHECK_EQ(xbb_queue_start(rig.pair.queue, &error), 0);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_OKAY);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 0);
	CHECK_EQ(COUNTER(&rig.pair, reqs_completed_with_error), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_answered();
	check_shortage();
	check_bad_place(true);
	check_bad_place(false);
	scratch_leave();
	return (0);
}
