/*
 * test_recover.c - what a table comes to after a death: by hand for the edges,
 * at random against a plain model of a ring, and as somebody hostile may have
 * left it, up to a queue that adopts it.
 */
#include <string.h>

#include "harness.h"

#define ENTRIES		32
#define SECTORS		64

static struct xbb_recovery found;

/* A table of so many free entries. */
static void
clear(struct xbb_req reqs[ENTRIES])
{

	memset(reqs, 0, ENTRIES * sizeof(*reqs));
}

static int
recover(const struct xbb_req *reqs, uint32_t said_req, uint32_t said_rsp,
    uint32_t rsp_prod)
{
	const struct xbb_indices said = { said_req, said_rsp };

	return (xbb_recover(reqs, ENTRIES, &said, rsp_prod, &found));
}

static void
put(struct xbb_req *req, enum xbb_req_state state, uint32_t ring_index,
    uint32_t rsp_index)
{

	req->state = (uint8_t)state;
	req->ring_index = ring_index;
	req->rsp_index = rsp_index;
}

/* Nothing was in flight; and indices that are about to wrap. */
static void
check_quiet(void)
{
	struct xbb_req reqs[ENTRIES];

	clear(reqs);
	CHECK_EQ(recover(reqs, 7, 7, 7), 0);
	CHECK_EQ(found.req_cons, 7);
	CHECK_EQ(found.nowed + found.npublished, 0);
	put(&reqs[3], XBB_REQ_ACCEPTED, UINT32_MAX - 1, 0);
	put(&reqs[5], XBB_REQ_DISPATCHED, UINT32_MAX, 0);
	put(&reqs[1], XBB_REQ_ANSWERED, 0, UINT32_MAX - 1);
	CHECK_EQ(recover(reqs, 1, UINT32_MAX - 1, UINT32_MAX - 1), 0);
	CHECK_EQ(found.nowed, 3);
	CHECK_EQ(found.owed[0], 3);
	CHECK_EQ(found.owed[1], 5);
	CHECK_EQ(found.owed[2], 1);
	CHECK_EQ(found.req_cons, 1);
	/* The same, once the ring has the response. */
	CHECK_EQ(recover(reqs, 1, UINT32_MAX - 1, UINT32_MAX), 0);
	CHECK_EQ(found.npublished, 1);
	CHECK_EQ(found.published[0], 1);
	CHECK_EQ(found.nowed, 2);
	CHECK_EQ(found.req_cons, 1);
}

/* One was read and its reading not said; two cannot be. */
static void
check_unsaid(void)
{
	struct xbb_req reqs[ENTRIES];

	clear(reqs);
	put(&reqs[0], XBB_REQ_ACCEPTED, 9, 0);
	CHECK_EQ(recover(reqs, 9, 9, 9), 0);
	CHECK_EQ(found.req_cons, 10);
	CHECK_EQ(recover(reqs, 8, 9, 9), -EINVAL);
	CHECK_EQ(recover(reqs, 11, 9, 9), -EINVAL);
}

/* The ring's index is one that nobody wrote. */
static void
check_lying_guest(void)
{
	struct xbb_req reqs[ENTRIES];

	clear(reqs);
	put(&reqs[0], XBB_REQ_ANSWERED, 9, 9);
	put(&reqs[1], XBB_REQ_ACCEPTED, 10, 0);
	CHECK_EQ(recover(reqs, 11, 9, 9), 0);
	CHECK_EQ(recover(reqs, 11, 9, 10), 0);
	CHECK_EQ(recover(reqs, 11, 9, 11), -EPROTO);
	CHECK_EQ(recover(reqs, 11, 9, 8), -EPROTO);
	CHECK_EQ(recover(reqs, 11, 9, 9 + (1U << 31)), -EPROTO);
}

/* Nor could these stand in a table of ours. */
static void
check_damaged(void)
{
	struct xbb_req reqs[ENTRIES];

	clear(reqs);
	put(&reqs[0], 5, 9, 0);
	CHECK_EQ(recover(reqs, 10, 9, 9), -EINVAL);
	put(&reqs[0], XBB_REQ_ACCEPTED, 10, 0);		/* not yet read */
	CHECK_EQ(recover(reqs, 10, 9, 9), -EINVAL);
	put(&reqs[0], XBB_REQ_ACCEPTED, 9, 0);
	CHECK_EQ(recover(reqs, 10, 9, 9), 0);
	put(&reqs[7], XBB_REQ_DISPATCHED, 9, 0);	/* read twice */
	CHECK_EQ(recover(reqs, 11, 9, 9), -EINVAL);
	clear(reqs);
	put(&reqs[0], XBB_REQ_DONE, 9, 0);
	reqs[0].status = 1;
	CHECK_EQ(recover(reqs, 10, 9, 9), -EINVAL);
	reqs[0].status = XBB_RSP_EOPNOTSUPP;
	CHECK_EQ(recover(reqs, 10, 9, 9), 0);
	put(&reqs[0], XBB_REQ_ACCEPTED, 9, 0);
	reqs[0].operation = XBB_OP_DISCARD;
	reqs[0].nseg = 1;
	CHECK_EQ(recover(reqs, 10, 9, 9), -EINVAL);
	/* But for one that was refused: so a guest may have written it. */
	put(&reqs[0], XBB_REQ_DONE, 9, 0);
	reqs[0].status = XBB_RSP_ERROR;
	CHECK_EQ(recover(reqs, 10, 9, 9), 0);
	put(&reqs[0], XBB_REQ_FREE, 9, 0);
	CHECK_EQ(recover(reqs, 10, 10, 10), 0);
	CHECK_EQ(found.nowed + found.npublished, 0);
}

/* What holds of whatever is let through, be it as it may. */
static void
check_sound(const struct xbb_req *reqs, uint32_t rsp_prod)
{
	bool seen[ENTRIES] = { false };
	uint32_t i;

	CHECK(found.nowed + found.npublished <= ENTRIES);
	CHECK_EQ(found.req_cons, rsp_prod + found.nowed);
	for (i = 0; i < found.nowed; i++) {
		CHECK(found.owed[i] < ENTRIES && !seen[found.owed[i]]);
		seen[found.owed[i]] = true;
		CHECK((int32_t)(reqs[found.owed[i]].ring_index -
		    found.req_cons) < 0);
		if (i > 0)
			CHECK((int32_t)(reqs[found.owed[i - 1]].ring_index -
			    reqs[found.owed[i]].ring_index) < 0);
	}
	for (i = 0; i < found.npublished; i++) {
		CHECK(found.published[i] < ENTRIES);
		CHECK(!seen[found.published[i]]);
		seen[found.published[i]] = true;
	}
	for (i = 0; i < ENTRIES; i++)
		CHECK_EQ(seen[i], reqs[i].state != XBB_REQ_FREE);
}

/* A table as one that was in use may be damaged: mostly it makes sense. */
static void
make_up(uint64_t *seed, struct xbb_req *req, uint32_t base)
{

	memset(req, 0, sizeof(*req));
	if (random_below(seed, 3) != 0)
		return;
	req->state = (uint8_t)random_below(seed, random_below(seed, 40) == 0 ?
	    256 : 5);
	req->ring_index = base - 8 + (uint32_t)random_below(seed, 16);
	req->rsp_index = base - 4 + (uint32_t)random_below(seed, 8);
	req->status = (int16_t)-random_below(seed, 3);
	req->operation = (uint8_t)random_below(seed, 8);
	req->sector = random_below(seed, 2 * SECTORS);
	req->nsectors = random_below(seed, 20);
	req->nseg = (uint16_t)random_below(seed, 16);
	req->indirect = (uint8_t)random_below(seed, 3);
	req->flags = (uint8_t)random_below(seed, 4);
	if (random_below(seed, 10) == 0)
		random_bytes(seed, &req->seg, sizeof(req->seg));
	if (random_below(seed, 50) == 0)
		random_bytes(seed, req, sizeof(*req));
}

static void
check_hostile_tables(uint64_t seed, uint32_t n)
{
	struct xbb_req reqs[ENTRIES];
	uint32_t base, good, i, rsp_prod, said_req, said_rsp;

	for (good = 0; n > 0; n--) {
		base = (uint32_t)random_next(&seed);
		for (i = 0; i < ENTRIES; i++)
			make_up(&seed, &reqs[i], base);
		said_rsp = base - 4 + (uint32_t)random_below(&seed, 4);
		rsp_prod = said_rsp + (uint32_t)random_below(&seed, 4);
		said_req = base + (uint32_t)random_below(&seed, 8);
		if (recover(reqs, said_req, said_rsp, rsp_prod) != 0)
			continue;
		check_sound(reqs, rsp_prod);
		good++;
	}
	CHECK(good > 0);
}

/*
 * What is neither twice on the ring nor beyond it, and adds up; of those that
 * are answered the guest has every other one.
 */
static uint32_t
repair(struct xbb_req *table, uint32_t n, uint32_t rsp_prod,
    uint32_t *publishedp)
{
	uint32_t i, owed;

	owed = *publishedp = 0;
	for (i = 0; i < n; i++) {
		table[i].state %= 5;
		table[i].status = (int16_t)(table[i].status % 3 > 0 ? 0 :
		    table[i].status % 3);
		if (table[i].operation == XBB_OP_DISCARD)
			table[i].nseg = 0;
		if (table[i].state == XBB_REQ_ANSWERED && i % 2 == 0) {
			table[i].rsp_index = rsp_prod - ++*publishedp;
			continue;
		}
		if (table[i].state == XBB_REQ_ANSWERED)
			table[i].rsp_index = rsp_prod;
		if (table[i].state != XBB_REQ_FREE)
			table[i].ring_index = rsp_prod + owed++;
	}
	return (owed);
}

/*
 * A queue takes up whatever a table asks of it that adds up: the guest's memory
 * and the disk are where they were, each entry is answered, no thread hangs.
 */
static void
check_hostile_adoption(uint64_t seed, uint32_t n)
{
	const struct pair_options options = {
		.workers = 2, .max_indirect_segments = 32, .discard = true,
		.persistent = 32,
	};
	struct xbb_queue_params params;
	struct xbb_ring_common *rc;
	struct xbb_error error;
	struct device device;
	struct xbb_req *table;
	struct guest guest;
	struct pair pair;
	uint32_t at, i, owed, published;

	device_open(&device, SECTORS, 1);
	pair_prepare(&pair, &device, 0, &options);
	guest_init(&guest, &pair);
	table = xbb_state_table(device.state, 0);
	rc = &pair.rs->common;
	for (; n > 0; n--) {
		at = guest_index(&guest, offsetof(struct xbb_sring, rsp_prod));
		for (i = 0; i < ENTRIES; i++)
			make_up(&seed, &table[i], at);
		owed = repair(table, ENTRIES, at, &published);
		XBB_SET(rc->rsp_prod, at - published);
		XBB_SET(rc->req_cons, at + owed);
		guest_set_index(&guest, offsetof(struct xbb_sring, req_prod),
		    at + owed);
		pair_connect(&pair);
		(void)xbb_front_wait(pair.front, 0);
		pair_params(&pair, &device, 0, &options, &params);
		params.conn.adopt = 1;
		CHECK_EQ(xbb_queue_open(&params, device.state, &error,
		    &pair.queue), 0);
		CHECK_EQ(xbb_queue_start(pair.queue, &error), 0);
		pair_drain(&pair);
		CHECK_EQ(guest_index(&guest, offsetof(struct xbb_sring,
		    rsp_prod)), at + owed);
		for (i = 0; i < ENTRIES; i++)
			CHECK_EQ(table[i].state, XBB_REQ_FREE);
		xbb_queue_close(pair.queue);
		pair.queue = NULL;
	}
	pair_close(&pair);
	device_close(&device);
}

/* One that cannot be adopted is as it was before. */
static void
check_refused(void)
{
	const struct pair_options options = { .workers = 1 };
	struct xbb_queue_params params;
	struct xbb_error error = { 0 };
	struct device device;
	struct xbb_req *table;
	struct pair pair;

	device_open(&device, SECTORS, 1);
	pair_prepare(&pair, &device, 0, &options);
	table = xbb_state_table(device.state, 0);
	put(&table[4], XBB_REQ_ACCEPTED, 1000, 0);
	pair_params(&pair, &device, 0, &options, &params);
	params.conn.adopt = 1;
	pair.queue = NULL;
	CHECK_EQ(xbb_queue_open(&params, device.state, &error, &pair.queue),
	    -EINVAL);
	CHECK_EQ(strcmp(error.operation, "recover requests"), 0);
	CHECK_EQ(table[4].state, XBB_REQ_ACCEPTED);
	CHECK_EQ(table[4].ring_index, 1000);
	pair_close(&pair);
	device_close(&device);
}

/*
 * The host is short when a ring is adopted, and it is to drain: what is owed
 * waits, and then is done; or the host stays short, and it ends all the same.
 */
static void
check_short(bool lasts)
{
	const struct pair_options options = {
		.workers = 1, .transport = XBB_TRANSPORT_MAP,
		.max_indirect_segments = 32,
	};
	struct xbb_queue_params params;
	struct xbb_error error;
	struct device device;
	struct xbb_req *table;
	struct pair pair;
	struct guest guest;

	hypervisor_reset();
	device_open(&device, SECTORS, 1);
	pair_prepare(&pair, &device, 0, &options);
	guest_init(&guest, &pair);
	table = xbb_state_table(device.state, 0);
	put(&table[2], XBB_REQ_DISPATCHED, 0, 0);
	table[2].operation = XBB_OP_READ;
	table[2].indirect = 1;
	table[2].nseg = 1;
	table[2].indirect_ref[0] = xbb_front_page_ref(pair.front, 1);
	((struct xbb_segment *)xbb_front_page(pair.front, 1))[0] =
	    guest_segment(&guest, 0, 0, 7);
	guest_set_index(&guest, offsetof(struct xbb_sring, req_prod), 1);
	pair_params(&pair, &device, 0, &options, &params);
	params.conn.adopt = 1;
	CHECK_EQ(xbb_queue_open(&params, device.state, &error, &pair.queue),
	    0);
	atomic_store(&hypervisor.map_errnum, ENOMEM);
	CHECK_EQ(xbb_queue_start(pair.queue, &error), 0);
	WAIT_UNTIL(COMMON(&pair, kva_shortages) != 0);
	CHECK_EQ(guest_answers(&guest), 0);
	xbb_queue_drain(pair.queue);
	if (!lasts)
		atomic_store(&hypervisor.map_errnum, 0);
	pair_wait_drained(&pair, XBB_STOP_NONE);
	CHECK_EQ(guest_answers(&guest), 1);
	CHECK_EQ(XBB_GET(pair.rs->counters.reqs_malformed), lasts);
	hypervisor_reset();
	pair_close(&pair);
	device_close(&device);
}

int
main(int argc, char **argv)
{
	const uint32_t n = (uint32_t)argument(argc, argv, 1, 200);
	const uint64_t seed = argument(argc, argv, 2, 1);

	scratch_enter();
	disk_reset();
	hypervisor_reset();
	check_quiet();
	check_unsaid();
	check_lying_guest();
	check_damaged();
	check_hostile_tables(seed, n * 500);
	check_hostile_adoption(seed, n);
	check_refused();
	check_short(false);
	check_short(true);
	scratch_leave();
	return (0);
}
