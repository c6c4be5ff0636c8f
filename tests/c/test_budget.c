/*
 * test_budget.c - what rings keep mapped, together: within what their guest and
 * the service may, however the guest uses its pages; in parts that nobody has
 * to beg for; and most of it given back by a ring at rest, since a guest whose
 * grants are all kept waits without a word.
 */
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define SECTORS		16384
#define RINGS		3

static const struct xbb_budget_limits usual = {
	.mappings = XBB_SERVICE_MAPPINGS, .grants = XBB_SERVICE_GRANTS,
	.guest_grants = XBB_GUEST_GRANTS,
};

/* A disk for each ring, of one guest or of as many. */
struct site {
	struct device	 device[RINGS];
	struct pair	 pair[RINGS];
	struct guest	 guest[RINGS];
	uint32_t	 nrings;
	uint32_t	 aside;		/* mappings that are set aside */
};

static uint32_t
kept(const struct site *site, uint32_t ring)
{

	return (XBB_GET(site->pair[ring].rs->common.grants_persistent));
}

static uint32_t
kept_by_all(const struct site *site)
{
	uint32_t i, n;

	for (n = 0, i = 0; i < site->nrings; i++)
		n += kept(site, i);
	return (n);
}

struct use {
	uint32_t	mappings;
	uint32_t	grants;
};

static struct use
in_use(void)
{
	struct use use;

	xbb_budget_used(&use.mappings, &use.grants);
	return (use);
}

static void
site_open(struct site *site, uint32_t nrings, bool one_guest,
    uint32_t max_persistent)
{
	struct pair_options options = {
		.ring_pages = 4, .workers = 2,
		.transport = XBB_TRANSPORT_MAP,
		.persistent = max_persistent,
	};
	uint32_t i;

	disk_reset();
	hypervisor_reset();
	xbb_budget_set(&usual);
	CHECK_EQ(in_use().grants, 0);
	CHECK_EQ(in_use().mappings, 0);
	site->nrings = nrings;
	for (i = 0; i < nrings; i++) {
		options.domid = one_guest ? 1 : 1 + i;
		device_open(&site->device[i], SECTORS, 1);
		pair_open(&site->pair[i], &site->device[i], 0, &options);
		guest_init(&site->guest[i], &site->pair[i]);
	}
	site->aside = in_use().mappings;
	CHECK(site->aside >= nrings * (1 + options.workers));
}

static void
site_close(struct site *site)
{
	uint32_t i;

	for (i = 0; i < site->nrings; i++) {
		CHECK_EQ(COUNTER(&site->pair[i], reqs_completed_with_error),
		    0);
		pair_drain(&site->pair[i]);
		pair_close(&site->pair[i]);
		device_close(&site->device[i]);
	}
	CHECK_EQ(in_use().grants, 0);
	CHECK_EQ(in_use().mappings, 0);
	CHECK_EQ(atomic_load(&hypervisor.mappings), 0);
}

/* Pages [first, first + n) of a guest, each by a request of its own. */
static void
use_singly(struct site *site, uint32_t ring, uint32_t first, uint32_t n)
{
	struct guest *guest = &site->guest[ring];
	struct xbb_segment seg;
	uint32_t i;

	for (i = first; i < first + n; i++) {
		seg = guest_segment(guest, i, 0, 7);
		CHECK_EQ(guest_do(guest, XBB_OP_READ, 0, &seg, 1),
		    XBB_RSP_OKAY);
	}
}

/* As many as there are, eleven by a request. */
static void
use_all(struct site *site, uint32_t ring)
{
	struct guest *guest = &site->guest[ring];
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	uint32_t i, page;

	for (page = 0; page + XBB_MAX_SEGMENTS <=
	    xbb_front_pages(guest->front); page += XBB_MAX_SEGMENTS) {
		for (i = 0; i < XBB_MAX_SEGMENTS; i++)
			seg[i] = guest_segment(guest, page + i, 0, 7);
		CHECK_EQ(guest_do(guest, XBB_OP_READ, 0, seg,
		    XBB_MAX_SEGMENTS), XBB_RSP_OKAY);
	}
}

/* The disks of a guest count together, and no less is kept than may be. */
static void
check_guest(void)
{
	struct xbb_budget_limits limits = usual;
	struct site site;
	uint32_t i, round;

	site_open(&site, RINGS, true, 256);
	limits.guest_grants = 60;
	xbb_budget_set(&limits);
	for (round = 0; round < 4; round++)
		for (i = 0; i < RINGS; i++) {
			do {
				use_singly(&site, i, round * 50, 50);
				CHECK(kept_by_all(&site) <= 60);
			} while (kept(&site, i) == 0);
		}
	CHECK_EQ(kept_by_all(&site), in_use().grants);
	CHECK(kept_by_all(&site) > 40);
	site_close(&site);
}

/* Guests do not count together, but what they take of this process does. */
static void
check_service(bool mappings)
{
	struct xbb_budget_limits limits = usual;
	struct site site;
	uint32_t i;

	site_open(&site, RINGS, false, 256);
	if (mappings)
		limits.mappings = site.aside + 100;
	else
		limits.grants = 100;
	xbb_budget_set(&limits);
	for (i = 0; i < RINGS; i++) {
		do {
			use_singly(&site, i, 0, 80);
			CHECK(kept_by_all(&site) <= 100);
		} while (kept(&site, i) == 0);
	}
	/* The first two have spent it all, and the third has got some of it. */
	CHECK(kept_by_all(&site) > 80);
	CHECK_EQ(in_use().mappings, site.aside + kept_by_all(&site));
	/* Each has its ring mapped, and what it keeps: no more. */
	CHECK_EQ(atomic_load(&hypervisor.mappings),
	    RINGS + kept_by_all(&site));
	site_close(&site);
}

/* Many pages in one mapping are one mapping. */
static void
check_chunks(void)
{
	struct site site;

	site_open(&site, 1, true, 256);
	use_all(&site, 0);
	CHECK(kept(&site, 0) > 200);
	CHECK_EQ(in_use().mappings - site.aside,
	    kept(&site, 0) / XBB_MAX_SEGMENTS);
	site_close(&site);
}

/*
 * One ring has taken all that its guest may keep, and sleeps.  Another that
 * needs some gets it, up to its part, but not what is in use.
 */
static void
check_pressure(void)
{
	struct xbb_budget_limits limits = usual;
	struct site site;

	site_open(&site, 2, true, 256);
	limits.guest_grants = 64;
	xbb_budget_set(&limits);
	use_singly(&site, 0, 0, 64);
	CHECK_EQ(kept(&site, 0), 64);
	do
		use_singly(&site, 1, 0, 20);
	while (kept(&site, 1) < 20);
	CHECK(kept_by_all(&site) <= 64);
	CHECK(kept(&site, 0) > 0);
	/* Nothing is lacking now, so nobody gives more. */
	CHECK_EQ(COMMON(&site.pair[1], kva_shortages), 0);
	site_close(&site);
}

/* Limits that become less hold for rings that sleep, and for what they keep. */
static void
check_limits_change(void)
{
	struct xbb_budget_limits limits = usual;
	struct site site;

	site_open(&site, 2, true, 256);
	use_singly(&site, 0, 0, 100);
	use_singly(&site, 1, 0, 100);
	CHECK_EQ(kept_by_all(&site), 200);
	limits.guest_grants = 50;
	xbb_budget_set(&limits);
	WAIT_UNTIL(kept_by_all(&site) <= 50);
	limits.guest_grants = 0;
	xbb_budget_set(&limits);
	WAIT_UNTIL(kept_by_all(&site) == 0);
	use_singly(&site, 0, 0, 10);
	CHECK_EQ(kept_by_all(&site), 0);
	xbb_budget_set(&usual);
	use_singly(&site, 0, 0, 10);
	CHECK_EQ(kept_by_all(&site), 10);
	site_close(&site);
}

/*
 * A guest that has nothing in flight may wait for what is kept of its other
 * disks: it gets most of it back long before that counts as unused, and can
 * withdraw it.
 */
static void
check_rest(void)
{
	struct xbb_budget_limits limits = usual;
	uint32_t i, mapped, withdrawn;
	struct site site;
	struct guest *guest = &site.guest[0];

	site_open(&site, 2, true, 1408);
	limits.guest_grants = 4096;
	xbb_budget_set(&limits);
	XBB_SET(site.device[0].state->tunables.persistent_grant_unused_seconds,
	    0);
	do
		use_all(&site, 0);
	while (kept(&site, 0) <= 1000);
	WAIT_UNTIL(kept(&site, 0) <= 512);
	/* Those used last are still there for who comes back soon. */
	CHECK(kept(&site, 0) > 512 - XBB_MAX_SEGMENTS);
	CHECK_EQ(xbb_sim_mapped(site.device[0].domain_fd, &mapped), 0);
	CHECK_EQ(mapped, kept(&site, 0) + 4);
	for (withdrawn = 0, i = 0; i < xbb_front_pages(guest->front); i++)
		withdrawn += xbb_front_set_access(guest->front,
		    xbb_front_page_ref(guest->front, i), 0) == 0;
	CHECK_EQ(withdrawn, xbb_front_pages(guest->front) - kept(&site, 0));
	site_close(&site);
}

/*
 * A table of grants, as a frontend has one for all its disks, and for each ring a
 * list of those that stay granted since the backend keeps them mapped: Linux's
 * blkfront.
 */
struct table {
	uint32_t	 nfree;
	bool		*granted[RINGS];	/* by page */
	uint32_t	 next[RINGS];		/* page that was not used for longest */
};

/* A page that the backend does not keep any more is free again. */
static void
table_look(struct site *site, struct table *table, uint32_t ring,
    uint32_t page)
{
	struct xbb_front *front = site->guest[ring].front;

	if (table->granted[ring][page] && xbb_front_set_access(front,
	    xbb_front_page_ref(front, page), 0) == 0) {
		table->granted[ring][page] = false;
		table->nfree++;
	}
}

static void
table_look_at_all(struct site *site, struct table *table, uint32_t ring)
{
	uint32_t i;

	for (i = 0; i < xbb_front_pages(site->guest[ring].front); i++)
		table_look(site, table, ring, i);
}

/* A request of pages that are not granted; false if the table is too full. */
static bool
table_use(struct site *site, struct table *table, uint32_t ring)
{
	struct guest *guest = &site->guest[ring];
	struct xbb_segment seg[XBB_MAX_SEGMENTS];
	uint32_t i, page[XBB_MAX_SEGMENTS], *next = &table->next[ring];

	if (table->nfree < XBB_MAX_SEGMENTS)
		return (false);
	for (i = 0; i < XBB_MAX_SEGMENTS; i++) {
		while (table->granted[ring][*next])
			*next = (*next + 1) % xbb_front_pages(guest->front);
		CHECK_EQ(xbb_front_set_access(guest->front,
		    xbb_front_page_ref(guest->front, *next), 2), 0);
		table->granted[ring][*next] = true;
		table->nfree--;
		page[i] = *next;
		seg[i] = guest_segment(guest, *next, 0, 7);
	}
	CHECK_EQ(guest_do(guest, XBB_OP_READ, 0, seg, XBB_MAX_SEGMENTS),
	    XBB_RSP_OKAY);
	for (i = 0; i < XBB_MAX_SEGMENTS; i++)
		table_look(site, table, ring, page[i]);
	return (true);
}

static void
table_open(struct site *site, struct table *table, uint32_t entries)
{
	struct xbb_front *front;
	uint32_t i, j;

	*table = (struct table){ .nfree = entries };
	for (i = 0; i < site->nrings; i++) {
		front = site->guest[i].front;
		table->granted[i] = calloc(xbb_front_pages(front),
		    sizeof(bool));
		for (j = 0; j < xbb_front_pages(front); j++)
			CHECK_EQ(xbb_front_set_access(front,
			    xbb_front_page_ref(front, j), 0), 0);
	}
}

static void
table_close(const struct site *site, struct table *table)
{
	uint32_t i;

	for (i = 0; i < site->nrings; i++)
		free(table->granted[i]);
}

/* A guest whose table is twice what may be kept of it never waits. */
static void
check_small_table(void)
{
	struct xbb_budget_limits limits = usual;
	struct table table;
	struct site site;
	uint32_t i, round;

	site_open(&site, RINGS, true, 1056);
	limits.guest_grants = 256;
	xbb_budget_set(&limits);
	table_open(&site, &table, 512);
	for (round = 0; round < 40; round++)
		for (i = 0; i < RINGS; i++)
			CHECK(table_use(&site, &table, i));
	CHECK(kept_by_all(&site) > 128);
	table_close(&site, &table);
	site_close(&site);
}

/*
 * One whose table is smaller than that waits, with nothing in flight, and goes on
 * once it looks what is kept: long before anything counts as unused.
 */
static void
check_smaller_table(void)
{
	struct xbb_budget_limits limits = usual;
	struct table table;
	struct site site;
	uint32_t i;

	site_open(&site, 2, true, 1408);
	limits.guest_grants = 4096;
	xbb_budget_set(&limits);
	for (i = 0; i < 2; i++)
		XBB_SET(site.device[i].state->tunables.
		    persistent_grant_unused_seconds, 0);
	table_open(&site, &table, 1200);
	for (i = 0; i < 3; i++) {
		while (table_use(&site, &table, 0))
			continue;
		WAIT_UNTIL(kept(&site, 0) < 600);
		table_look_at_all(&site, &table, 0);
		CHECK(table_use(&site, &table, 1));
	}
	table_close(&site, &table);
	site_close(&site);
}

/* What is in use stays, however hard somebody presses. */
static void
check_in_use(void)
{
	struct xbb_budget_limits limits = usual;
	struct guest *guest;
	struct site site;
	struct xbb_segment seg;
	uint32_t i;

	site_open(&site, 1, true, 256);
	guest = &site.guest[0];
	disk_hold();
	for (i = 0; i < 3; i++) {
		seg = guest_segment(guest, i, 0, 7);
		guest_put(guest, XBB_OP_READ, i * 16, &seg, 1);
	}
	guest_publish(guest);
	disk_wait_held(1);
	CHECK(kept(&site, 0) > 0);
	limits.guest_grants = 0;
	xbb_budget_set(&limits);
	xbb_budget_press_hard(NULL);
	disk_release();
	guest_collect(guest);
	guest_check_okay(guest, 3);
	WAIT_UNTIL(kept(&site, 0) == 0);
	site_close(&site);
}

int
main(void)
{

	scratch_enter();
	check_guest();
	check_service(true);
	check_service(false);
	check_chunks();
	check_pressure();
	check_limits_change();
	check_rest();
	check_small_table();
	check_smaller_table();
	check_in_use();
	scratch_leave();
	return (0);
}
