/*
 * test_table.c - the in-flight table as whoever comes after a crash would find
 * it: of each request that was read and whose response is not published it has
 * an entry, those that were refused included, and of those whose response is put
 * it says where.  The ring's thread is held in a call of the hypervisor.
 */
#include <string.h>

#include "harness.h"

#define SECTORS		1024
#define REFUSED		77	/* no operation */

/* What stands in the table at a moment; responses by how far they are unpublished. */
struct found {
	uint32_t	 n;		/* entries not free */
	uint32_t	 by_state[5];
	uint32_t	 told;		/* ANSWERED, published and said to be */
	struct xbb_req	 by_response[XBB_MAX_REQUESTS];	/* the others of these */
};

/*
 * The table, and what the segment and the ring say of the indices: G and S of
 * recovery.  Read as another process reads it, while nothing changes: nothing for
 * a sanitizer.
 */
__attribute__((no_sanitize("thread")))
static struct found
look(struct rig *rig)
{
	const uint32_t published = guest_index(&rig->guest,
	    offsetof(struct xbb_sring, rsp_prod));
	const struct xbb_req *table = xbb_state_table(rig->device.state, 0);
	const uint32_t said = XBB_GET(rig->pair.rs->common.rsp_prod);
	static struct found found;
	uint32_t at, i, owed;
	uint8_t state;

	memset(&found, 0, sizeof(found));
	owed = 0;
	for (i = 0; i < xbb_state_entries(rig->device.state); i++) {
		state = table[i].state;
		CHECK(state < COUNTOF(found.by_state));
		found.by_state[state]++;
		if (state == XBB_REQ_FREE)
			continue;
		found.n++;
		CHECK((int32_t)(table[i].ring_index -
		    XBB_GET(rig->pair.rs->common.req_cons)) < 0);
		if (state != XBB_REQ_ANSWERED) {
			CHECK(state == XBB_REQ_DONE ||
			    table[i].status == XBB_RSP_OKAY);
			owed++;
			continue;
		}
		owed += (int32_t)(table[i].rsp_index - published) >= 0;
		at = table[i].rsp_index - said;
		if ((int32_t)at < 0) {
			found.told++;
			continue;
		}
		CHECK(at < COUNTOF(found.by_response));
		CHECK_EQ(found.by_response[at].state, XBB_REQ_FREE);
		found.by_response[at] = table[i];
	}
	/* Without a gap, or the recovery would not know what was published. */
	for (i = 0; i + found.told < found.by_state[XBB_REQ_ANSWERED]; i++)
		CHECK_EQ(found.by_response[i].state, XBB_REQ_ANSWERED);
	CHECK(published - said <= found.by_state[XBB_REQ_ANSWERED]);
	CHECK_EQ(published + owed, XBB_GET(rig->pair.rs->common.req_cons));
	return (found);
}

/* A request whose segments are in a page of their own, which is none. */
static void
put_indirect(struct guest *guest)
{
	const uint8_t one = 1;

	guest_put(guest, XBB_OP_INDIRECT, 0, NULL, XBB_OP_READ);
	guest_store(guest_slot(guest, guest->req_prod - 1) + 2, &one, 1);
}

static void
put_read(struct guest *guest, uint64_t sector)
{
	const struct xbb_segment seg = guest_segment(guest, 0, 0, 7);

	guest_put(guest, XBB_OP_READ, sector, &seg, 1);
}

static void
open_table(struct rig *rig)
{
	const struct pair_options options = {
		.workers = 1, .transport = XBB_TRANSPORT_MAP,
		.max_indirect_segments = 32,
	};

	rig_open(rig, SECTORS, &options);
}

static void
close_table(struct rig *rig)
{

	pair_drain(&rig->pair);
	CHECK_EQ(look(rig).n, 0);
	rig_close(rig);
}

/*
 * Two that are refused are answered while a third is looked at; the one that
 * was not read yet, since nobody knows what to make of it, is not in the table.
 */
static void
check_refused(void)
{
	struct found found;
	struct rig rig;

	open_table(&rig);
	atomic_store(&hypervisor.hold_map, true);
	guest_put(&rig.guest, REFUSED, 0, NULL, 200);
	put_read(&rig.guest, SECTORS);
	put_indirect(&rig.guest);
	guest_publish(&rig.guest);
	WAIT_UNTIL(atomic_load(&hypervisor.held) == 1);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	found = look(&rig);
	CHECK_EQ(found.n, 2);
	CHECK_EQ(found.by_state[XBB_REQ_ANSWERED], 2);
	CHECK_EQ(found.by_response[0].id, rig.guest.id[0]);
	CHECK_EQ(found.by_response[0].status, XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(found.by_response[0].operation, REFUSED);
	CHECK_EQ(found.by_response[1].id, rig.guest.id[1]);
	CHECK_EQ(found.by_response[1].status, XBB_RSP_ERROR);
	CHECK_EQ(found.by_response[1].ring_index,
	    found.by_response[0].ring_index + 1);
	/* Nobody waits for the disk; answers that are put have their own gauge. */
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 0);
	CHECK_EQ(COUNTER(&rig.pair, reqs_queued_for_completion), 2);

	atomic_store(&hypervisor.hold_map, false);
	guest_collect(&rig.guest);
	CHECK_EQ(rig.guest.status[2], XBB_RSP_ERROR);
	close_table(&rig);
}

/*
 * The ring's thread is at the disk with the first of two; what comes meanwhile it
 * reads before it publishes that one's answer, and the second it has not begun.
 */
static void
check_done(void)
{
	struct found found;
	struct rig rig;

	open_table(&rig);
	disk_hold();
	put_read(&rig.guest, 0);
	put_read(&rig.guest, 64);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	found = look(&rig);
	CHECK_EQ(found.by_state[XBB_REQ_DISPATCHED], 1);
	CHECK_EQ(found.by_state[XBB_REQ_ACCEPTED], 1);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 2);

	atomic_store(&hypervisor.hold_map, true);
	guest_put(&rig.guest, REFUSED, 0, NULL, 1);
	put_indirect(&rig.guest);
	guest_publish(&rig.guest);
	disk_release();
	WAIT_UNTIL(atomic_load(&hypervisor.held) == 1);
	CHECK_EQ(guest_answers(&rig.guest), 0);
	found = look(&rig);
	CHECK_EQ(found.by_state[XBB_REQ_ANSWERED], 2);
	CHECK_EQ(found.by_state[XBB_REQ_ACCEPTED], 1);
	CHECK_EQ(found.n, 3);
	CHECK_EQ(found.by_response[0].id, rig.guest.id[0]);
	CHECK_EQ(found.by_response[0].status, XBB_RSP_OKAY);
	CHECK_EQ(found.by_response[1].id, rig.guest.id[2]);
	CHECK_EQ(found.by_response[1].status, XBB_RSP_EOPNOTSUPP);
	CHECK_EQ(XBB_GET(rig.pair.rs->inflight), 1);

	atomic_store(&hypervisor.hold_map, false);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 2);
	close_table(&rig);
}

/*
 * A guest that takes answers for given which are put and not published: there
 * would be no entry for what it asks then.
 */
static void
check_full(void)
{
	const uint32_t pages = 4;
	struct rig rig;
	uint32_t i;

	open_table(&rig);
	disk_hold();
	put_read(&rig.guest, 0);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	for (i = 1; i < rig.guest.nslots; i++)
		put_read(&rig.guest, (i % pages) * 64);
	guest_set_index(&rig.guest, offsetof(struct xbb_sring, req_prod),
	    rig.guest.req_prod + 1);
	disk_release();
	pair_wait_drained(&rig.pair, XBB_STOP_RING);
	CHECK_EQ(look(&rig).n, 0);
	rig_close(&rig);
}

/* Published, and the guest is being told: it may see its answers already. */
static void
check_published(void)
{
	struct found found;
	struct rig rig;

	open_table(&rig);
	atomic_store(&hypervisor.hold_notify, true);
	put_read(&rig.guest, 0);
	guest_set_index(&rig.guest, offsetof(struct xbb_sring, rsp_event),
	    rig.guest.rsp_cons + 1);
	guest_publish(&rig.guest);
	WAIT_UNTIL(atomic_load(&hypervisor.held) == 1);
	CHECK_EQ(guest_answers(&rig.guest), 1);
	found = look(&rig);
	CHECK_EQ(found.told, 1);
	CHECK_EQ(found.n, 1);
	atomic_store(&hypervisor.hold_notify, false);
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 1);
	close_table(&rig);
}

/* Draining for as long as the disk takes; what the segment says, too. */
static void
check_status(void)
{
	const struct xbb_queue_status *shown;
	struct rig rig;

	open_table(&rig);
	rig_teach_slowness(&rig);
	shown = &rig.pair.rs->common.status;
	CHECK_EQ(XBB_GET(shown->state), XBB_QUEUE_RUNNING);
	disk_hold();
	guest_put(&rig.guest, REFUSED, 0, NULL, 1);
	put_read(&rig.guest, 0);
	guest_publish(&rig.guest);
	disk_wait_held(1);
	/* The refused one's status is not its neighbour's. */
	CHECK_EQ(look(&rig).by_state[XBB_REQ_DISPATCHED], 1);
	xbb_queue_drain(rig.pair.queue);
	WAIT_UNTIL(XBB_GET(shown->state) == XBB_QUEUE_DRAINING);
	disk_release();
	guest_collect(&rig.guest);
	pair_wait_drained(&rig.pair, XBB_STOP_NONE);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_refused();
	check_done();
	check_full();
	check_published();
	check_status();
	scratch_leave();
	return (0);
}
