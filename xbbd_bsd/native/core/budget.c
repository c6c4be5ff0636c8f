/*
 * budget.c - how many grants may stay mapped, and how many mappings of this
 * process that may take: of each guest, all its disks together, and of the
 * whole service.  It knows who keeps how much, not what.  Any thread.
 *
 * The host gives a process so many mappings (Linux, vm.max_map_count) and the
 * hypervisor so many tracks of mapped grants; what one guest takes others lack.
 * And what stays mapped stays granted, so it is the guest's own table that
 * fills up: a frontend with no entry left waits, with nothing in flight that
 * could end that.
 *
 * Who finds a budget spent and keeps less than its part presses: rings look
 * when they are at work, those asleep are kicked, and what is unused or beyond
 * a ring's part is given back, a piece at a time.  A host that is short presses
 * harder.  What all of a ring's threads map for a moment, and their stacks, is
 * set aside when the ring is opened, so that it costs nothing when there is
 * work.
 */
#include <assert.h>
#include <stdlib.h>

#include "core/core.h"

/* Not more often than this: whoever is pressed needs time to give back. */
#define PRESS_NS	100000000

/*
 * Mappings that a ring takes without keeping a grant: itself, table, lists and
 * buffers; and of each thread a stack, the guard below it, and what it works
 * on.
 */
#define RING_MAPPINGS	8
#define THREAD_MAPPINGS	3

static struct {
	pthread_mutex_t	 lock;
	struct xbb_budget *guests;	/* lock */
	atomic_uint	 nguests;
	atomic_uint	 grants;	/* kept by all */
	atomic_uint	 mappings;	/* for that, and set aside */
	atomic_uint	 set_aside;	/* of these */
	atomic_uint	 most_grants, most_mappings, most_guest_grants;
	atomic_ullong	 pressed_ns, pressed_hard_ns;
} service = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.most_grants = XBB_SERVICE_GRANTS,
	.most_mappings = XBB_SERVICE_MAPPINGS,
	.most_guest_grants = XBB_GUEST_GRANTS,
};

static unsigned int
get_word(atomic_uint *word)
{

	return (atomic_load_explicit(word, memory_order_relaxed));
}

/* Take n, unless that would be more than most. */
static bool
grow_word(atomic_uint *used, uint32_t n, uint32_t most)
{
	unsigned int old;

	old = get_word(used);
	do
		if (n > most || old > most - n)
			return (false);
	while (!atomic_compare_exchange_weak(used, &old, old + n));
	return (true);
}

static void
shrink_word(atomic_uint *used, uint32_t n)
{
	unsigned int old;

	old = atomic_fetch_sub(used, n);
	assert(old >= n);
	(void)old;
}

static struct xbb_budget *
find_budget(const struct xbb_conn_params *params)
{
	struct xbb_budget *b;

	for (b = service.guests; b != NULL; b = b->next)
		if (b->hv == params->hv && b->domid == params->domid)
			break;
	return (b);
}

static struct xbb_budget *
make_budget(const struct xbb_conn_params *params)
{
	struct xbb_budget *b;

	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return (NULL);
	b->hv = params->hv;
	b->domid = params->domid;
	b->next = service.guests;
	service.guests = b;
	atomic_fetch_add(&service.nguests, 1);
	return (b);
}

/* Count a ring among its guest's; it can be kicked from now on. */
int
xbb_budget_join(struct xbb_share *share, struct xbb_conn *conn)
{
	const struct xbb_conn_params *params = conn->params;
	struct xbb_budget *b;

	share->rest = &conn->rest;
	share->set_aside = RING_MAPPINGS +
	    THREAD_MAPPINGS * (1 + params->workers);
	pthread_mutex_lock(&service.lock);
	b = find_budget(params);
	if (b == NULL)
		b = make_budget(params);
	if (b != NULL) {
		share->next = b->shares;
		b->shares = share;
		atomic_fetch_add(&b->nrings, 1);
		atomic_fetch_add(&service.set_aside, share->set_aside);
		atomic_fetch_add(&service.mappings, share->set_aside);
		share->pressure = atomic_load(&b->pressure);
		share->hard_pressure = atomic_load(&b->hard_pressure);
		share->budget = b;
	}
	pthread_mutex_unlock(&service.lock);
	return (b == NULL ? -ENOMEM : 0);
}

/* It keeps nothing any more, and is not kicked any more. */
void
xbb_budget_leave(struct xbb_share *share)
{
	struct xbb_budget *b = share->budget, **at;
	struct xbb_share **link;

	pthread_mutex_lock(&service.lock);
	for (link = &b->shares; *link != share; link = &(*link)->next)
		continue;
	*link = share->next;
	shrink_word(&service.set_aside, share->set_aside);
	shrink_word(&service.mappings, share->set_aside);
	if (atomic_fetch_sub(&b->nrings, 1) == 1) {
		assert(atomic_load(&b->grants) == 0);
		for (at = &service.guests; *at != b; at = &(*at)->next)
			continue;
		*at = b->next;
		shrink_word(&service.nguests, 1);
		free(b);
	}
	pthread_mutex_unlock(&service.lock);
	share->budget = NULL;
}

/*
 * May the ring keep so many more grants, in so many mappings?  Then they are
 * charged.  Else own says whether it is its guest that has no more.
 */
bool
xbb_budget_take(struct xbb_share *share, uint32_t grants, uint32_t mappings,
    bool *own)
{

	*own = true;
	if (!grow_word(&share->budget->grants, grants,
	    get_word(&service.most_guest_grants)))
		return (false);
	*own = false;
	if (grow_word(&service.grants, grants,
	    get_word(&service.most_grants))) {
		if (grow_word(&service.mappings, mappings,
		    get_word(&service.most_mappings)))
			return (true);
		shrink_word(&service.grants, grants);
	}
	shrink_word(&share->budget->grants, grants);
	return (false);
}

void
xbb_budget_give(struct xbb_share *share, uint32_t grants, uint32_t mappings)
{

	shrink_word(&share->budget->grants, grants);
	shrink_word(&service.grants, grants);
	shrink_word(&service.mappings, mappings);
}

/* Is more kept than may be?  Limits change. */
bool
xbb_budget_is_over(const struct xbb_share *share)
{

	return (get_word(&share->budget->grants) >
	    get_word(&service.most_guest_grants) ||
	    get_word(&service.grants) > get_word(&service.most_grants) ||
	    get_word(&service.mappings) > get_word(&service.most_mappings));
}

/* Most grants that a guest may keep: no batch with more is kept at all. */
uint32_t
xbb_budget_most(void)
{

	return (get_word(&service.most_guest_grants));
}

static uint32_t
least_of(uint32_t a, uint32_t b)
{

	return (a < b ? a : b);
}

/*
 * A ring's part of what its guest may keep, and of what that guest may of the
 * service's.  More is anybody's who finds it free; this much is nobody else's.
 */
struct xbb_part
xbb_budget_part(const struct xbb_share *share)
{
	const uint32_t rings = get_word(&share->budget->nrings);
	const uint32_t guests = get_word(&service.nguests);
	const uint32_t aside = get_word(&service.set_aside);
	const uint32_t mappings = get_word(&service.most_mappings);

	return ((struct xbb_part){
		.grants = least_of(get_word(&service.most_guest_grants),
		    get_word(&service.most_grants) / guests) / rings,
		.mappings = mappings < aside ? 0 :
		    (mappings - aside) / guests / rings,
	});
}

/* A part of n that is the ring's, as its guest's rings share it. */
uint32_t
xbb_budget_ring_part(const struct xbb_share *share, uint32_t n)
{

	return (n / get_word(&share->budget->nrings));
}

static bool
is_time(atomic_ullong *last)
{
	unsigned long long before;
	uint64_t now;

	now = xbb_now_ns();
	before = atomic_load(last);
	return (now - before >= PRESS_NS &&
	    atomic_compare_exchange_strong(last, &before, now));
}

/* Locked. */
static void
press_guest(struct xbb_budget *b, bool hard)
{
	struct xbb_share *share;

	if (hard)
		atomic_fetch_add(&b->hard_pressure, 1);
	atomic_fetch_add(&b->pressure, 1);
	for (share = b->shares; share != NULL; share = share->next)
		xbb_kick(share->rest);
}

static void
press_all(bool hard)
{
	struct xbb_budget *b;

	for (b = service.guests; b != NULL; b = b->next)
		press_guest(b, hard);
}

/*
 * There was no budget, of its guest's own or of the service, for a ring that
 * keeps less than its part: have those give back who keep more.
 */
void
xbb_budget_press(struct xbb_share *share, bool own)
{
	struct xbb_budget *b = share->budget;

	if (!is_time(own ? &b->pressed_ns : &service.pressed_ns))
		return;
	pthread_mutex_lock(&service.lock);
	if (own)
		press_guest(b, false);
	else
		press_all(false);
	pthread_mutex_unlock(&service.lock);
}

/* The host is short: all give back, or only the guest it may be about. */
void
xbb_budget_press_hard(struct xbb_budget *own)
{

	if (!is_time(own != NULL ? &own->pressed_hard_ns :
	    &service.pressed_hard_ns))
		return;
	pthread_mutex_lock(&service.lock);
	if (own != NULL)
		press_guest(own, true);
	else
		press_all(true);
	pthread_mutex_unlock(&service.lock);
}

/*
 * A ring could not be opened for this error, or could for 0: if the host was
 * short the next try finds more.
 */
void
xbb_budget_lacked(int error)
{

	if (error == -ENOMEM || error == -ENOSPC || error == -EAGAIN)
		xbb_budget_press_hard(NULL);
}

void
xbb_budget_set(const struct xbb_budget_limits *limits)
{

	atomic_store(&service.most_mappings, limits->mappings);
	atomic_store(&service.most_grants, limits->grants);
	atomic_store(&service.most_guest_grants, limits->guest_grants);
	pthread_mutex_lock(&service.lock);
	press_all(false);
	pthread_mutex_unlock(&service.lock);
}

void
xbb_budget_used(uint32_t *mappingsp, uint32_t *grantsp)
{

	*mappingsp = get_word(&service.mappings);
	*grantsp = get_word(&service.grants);
}
