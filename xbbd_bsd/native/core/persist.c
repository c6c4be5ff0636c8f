/*
 * persist.c - grants that stay mapped, for frontends that use the same pages
 * again and again and say so (feature-persistent).  Pages are mapped in chunks,
 * all that one batch lacked at once, and a chunk is unmapped when its room is
 * wanted and it was used the longest ago, or when nobody wanted it for a while.
 * Room is what this ring may keep and what its guest and the service may
 * (budget.c).  When else a chunk is given back is reclaim.c's business.
 *
 * Whatever cannot be had this way is left to the ordinary one, mapping or
 * copying for a single batch, which finds out who is to blame: a hostile
 * frontend gains nothing, and one that grants more than we keep loses only
 * speed.  Ring thread; the threads that carry batches out only look at pages
 * that were pinned for them.
 */
#include <assert.h>
#include <stdlib.h>

#include "core/core.h"

/*
 * Within this time a frontend has looked what is kept of what it does not use:
 * Linux's does so every 10 seconds.
 */
#define STALE_NS	10000000000

/* Within this time it is all the same when it was used. */
#define SAME_TIME_NS	10000000

/* What was used since then is in use, and not for whoever presses. */
#define IN_USE_NS	1000000000

static uint32_t
hash_of(uint32_t ref)
{

	return ((ref * 2654435761U) >> 22);
}

_Static_assert(XBB_PERSIST_BUCKETS == 1U << (32 - 22), "bits of hash_of()");
_Static_assert(XBB_MAX_PERSISTENT < XBB_NONE, "pages are 16-bit numbers");

int
xbb_persist_open(struct xbb_persist *p, struct xbb_conn *conn)
{
	const uint32_t max = conn->params->max_persistent;
	uint32_t i;

	p->conn = conn;
	if (max == 0)
		return (0);
	p->page = calloc(max, sizeof(*p->page));
	p->chunk = calloc(max, sizeof(*p->chunk));
	if (p->page == NULL || p->chunk == NULL)
		return (-ENOMEM);
	p->max = max;
	for (i = 0; i < max; i++) {
		p->page[i].next = i + 1 < max ? (uint16_t)(i + 1) : XBB_NONE;
		p->chunk[i].older = p->page[i].next;
	}
	for (i = 0; i < XBB_PERSIST_BUCKETS; i++)
		p->bucket[i] = XBB_NONE;
	p->oldest = p->newest = XBB_NONE;
	return (0);
}

static uint16_t
look_up(const struct xbb_persist *p, uint32_t ref)
{
	uint16_t n;

	for (n = p->bucket[hash_of(ref)]; n != XBB_NONE; n = p->page[n].next)
		if (p->page[n].ref == ref)
			break;
	return (n);
}

static void
unlink_chunk(struct xbb_persist *p, uint16_t c)
{
	const struct xbb_persist_chunk *chunk = &p->chunk[c];

	if (chunk->older != XBB_NONE)
		p->chunk[chunk->older].newer = chunk->newer;
	else
		p->oldest = chunk->newer;
	if (chunk->newer != XBB_NONE)
		p->chunk[chunk->newer].older = chunk->older;
	else
		p->newest = chunk->older;
}

static void
link_newest(struct xbb_persist *p, uint16_t c)
{

	p->chunk[c].older = p->newest;
	p->chunk[c].newer = XBB_NONE;
	if (p->newest != XBB_NONE)
		p->chunk[p->newest].newer = c;
	else
		p->oldest = c;
	p->newest = c;
}

/* Forget a page: out of its bucket, onto the free list. */
static void
drop_page(struct xbb_persist *p, uint16_t n)
{
	uint16_t *at;

	for (at = &p->bucket[hash_of(p->page[n].ref)]; *at != n;
	    at = &p->page[*at].next)
		continue;
	*at = p->page[n].next;
	p->page[n].next = p->free_page;
	p->free_page = n;
	p->npages--;
}

/* Unmap a chunk that no batch uses. */
static void
unmap_chunk(struct xbb_persist *p, uint16_t c)
{
	struct xbb_ring_common *rc = p->conn->rc;
	struct xbb_persist_chunk *chunk = &p->chunk[c];
	uint32_t refs[XBB_MAP_PAGES];
	struct xbb_map map = {
		.base = chunk->base, .token = chunk->token,
		.npages = chunk->npages, .refs = refs,
	};
	uint16_t n, next;
	uint32_t i;

	assert(chunk->users == 0);
	i = 0;
	for (n = chunk->first; n != XBB_NONE; n = next) {
		next = p->page[n].sibling;
		refs[i++] = p->page[n].ref;
		drop_page(p, n);
	}
	assert(i == chunk->npages);
	if (xbb_grants_unmap(p->conn, &map))
		XBB_COUNT(rc->counters.grants_unmapped_total, chunk->npages);
	xbb_budget_give(&p->share, chunk->npages, chunk->mappings);
	p->mappings -= chunk->mappings;
	unlink_chunk(p, c);
	chunk->older = p->free_chunk;
	p->free_chunk = c;
	XBB_SET(rc->grants_persistent, p->npages);
}

/* The oldest chunk from c on that no batch uses, or none. */
static uint16_t
first_unused(const struct xbb_persist *p, uint16_t c)
{

	while (c != XBB_NONE && p->chunk[c].users != 0)
		c = p->chunk[c].newer;
	return (c);
}

/*
 * Have room for n more pages and charge them, if need be by unmapping what
 * nobody uses.  A ring that keeps less than its part is not the only one to
 * give something back: the others hear of it.
 *
 * But where it is the guest that has no more, old is not exchanged for new:
 * what its frontend saw mapped when a request ended stays granted, used again
 * or not, until it looks once more, so that it would come to grant far more
 * than is kept.  What it sees unmapped it takes back at once.
 */
static bool
make_room(struct xbb_persist *p, uint32_t n, uint32_t mappings)
{
	struct xbb_part part;
	uint16_t c, newer;
	bool own;

	if (n > p->max || n > XBB_MAP_PAGES || n > xbb_budget_most())
		return (false);
	for (c = first_unused(p, p->oldest);; c = first_unused(p, newer)) {
		own = false;
		if (p->npages + n <= p->max) {
			if (xbb_budget_take(&p->share, n, mappings, &own))
				return (true);
			part = xbb_budget_part(&p->share);
			if (p->npages + n <= part.grants &&
			    p->mappings + mappings <= part.mappings)
				xbb_budget_press(&p->share, own);
		}
		if (c == XBB_NONE || (own &&
		    *p->now_ns - p->chunk[c].used_ns < STALE_NS))
			return (false);
		newer = p->chunk[c].newer;
		unmap_chunk(p, c);
	}
}

/*
 * Give back, the oldest first, what nobody uses and was not used since a time,
 * or is more than so many pages or mappings.
 */
void
xbb_persist_give_back(struct xbb_persist *p, uint64_t since_ns, uint32_t pages,
    uint32_t mappings)
{
	uint16_t c, newer;

	for (c = p->max == 0 ? XBB_NONE : p->oldest; c != XBB_NONE; c = newer) {
		newer = p->chunk[c].newer;
		if (p->chunk[c].users != 0)
			continue;
		if (p->npages <= pages && p->mappings <= mappings &&
		    p->chunk[c].used_ns >= since_ns)
			break;
		unmap_chunk(p, c);
	}
}

/* A quarter less of what is more than a part. */
static uint32_t
nearer_to(uint32_t part, uint32_t kept)
{

	return (kept <= part ? kept : kept - (kept - part + 3) / 4);
}

/*
 * Somebody else lacks what is kept here.  What is not in use goes, and a
 * quarter of what is more than our part, all of that if more is kept than may
 * be; half of everything if it is the host that is short.
 */
void
xbb_persist_yield(struct xbb_persist *p, bool hard)
{
	const struct xbb_part part = xbb_budget_part(&p->share);
	const uint64_t now = xbb_now_ns();
	const uint64_t since = now > IN_USE_NS ? now - IN_USE_NS : 0;

	if (hard)
		xbb_persist_give_back(p, since, p->npages / 2, p->mappings / 2);
	else if (xbb_budget_is_over(&p->share))
		xbb_persist_give_back(p, since, part.grants, part.mappings);
	else
		xbb_persist_give_back(p, since,
		    nearer_to(part.grants, p->npages),
		    nearer_to(part.mappings, p->mappings));
}

static bool
map_chunk(struct xbb_persist *p, const uint32_t *refs, uint32_t n)
{
	const struct xbb_hv_ops *ops = p->conn->ops;
	const uint32_t mappings = ops->maps_singly ? n : 1;
	struct xbb_map map = { .npages = n, .refs = refs };
	struct xbb_ring_common *rc = p->conn->rc;
	struct xbb_persist_chunk *chunk;
	struct xbb_persist_page *page;
	uint16_t at, c;
	uint32_t i;
	int error;

	if (!make_room(p, n, mappings))
		return (false);
	error = ops->map(p->conn->hv, &map, true);
	if (error != 0) {
		xbb_budget_give(&p->share, n, mappings);
		if (error == -ENOMEM || error == -ENOSPC)
			xbb_persist_yield(p, true);
		return (false);
	}
	xbb_budget_give(&p->share, 0, mappings - map.mappings);
	c = p->free_chunk;
	chunk = &p->chunk[c];
	p->free_chunk = chunk->older;
	chunk->base = map.base;
	chunk->token = map.token;
	chunk->npages = n;
	chunk->mappings = map.mappings;
	chunk->users = 0;
	chunk->used_ns = *p->now_ns;
	chunk->first = XBB_NONE;
	for (i = n; i-- > 0;) {
		at = p->free_page;
		page = &p->page[at];
		p->free_page = page->next;
		page->base = map.base + (size_t)i * XBB_PAGE_SIZE;
		page->ref = refs[i];
		page->chunk = c;
		page->sibling = chunk->first;
		chunk->first = at;
		page->next = p->bucket[hash_of(refs[i])];
		p->bucket[hash_of(refs[i])] = at;
	}
	p->npages += n;
	p->mappings += map.mappings;
	link_newest(p, c);
	XBB_COUNT(rc->counters.grants_mapped_total, n);
	XBB_SET(rc->grants_persistent, p->npages);
	return (true);
}

/* So many pages of a chunk are pinned now. */
static void
use_chunk(struct xbb_persist *p, uint16_t c, uint32_t n)
{
	struct xbb_persist_chunk *chunk = &p->chunk[c];

	chunk->users += n;
	if (*p->now_ns - chunk->used_ns < SAME_TIME_NS)
		return;
	chunk->used_ns = *p->now_ns;
	if (p->newest != c) {
		unlink_chunk(p, c);
		link_newest(p, c);
	}
}

static void
leave_chunk(struct xbb_persist *p, uint16_t c, uint32_t n)
{

	assert(p->chunk[c].users >= n);
	p->chunk[c].users -= n;
}

/* Pages that are mapped together are used together: a chunk at a time. */
static void
for_chunks(struct xbb_persist *p, const uint16_t *pages, uint32_t n,
    void (*count)(struct xbb_persist *p, uint16_t c, uint32_t n))
{
	uint32_t begin, i;
	uint16_t c;

	for (i = 0; i < n;) {
		if (pages[i] == XBB_NONE) {
			i++;
			continue;
		}
		c = p->page[pages[i]].chunk;
		begin = i++;
		while (i < n && pages[i] != XBB_NONE &&
		    p->page[pages[i]].chunk == c)
			i++;
		count(p, c, i - begin);
	}
}

void
xbb_persist_unpin(struct xbb_persist *p, const uint16_t *pinned, uint32_t n)
{

	for_chunks(p, pinned, n, leave_chunk);
}

/* The references that are not mapped, each once; how many. */
static uint32_t
list_missing(const uint32_t *refs, uint32_t n, const uint16_t *pinned,
    uint32_t *missing)
{
	uint32_t i, m, nmissing;

	nmissing = 0;
	for (i = 0; i < n; i++) {
		if (pinned[i] != XBB_NONE)
			continue;
		for (m = 0; m < nmissing && missing[m] != refs[i]; m++)
			continue;
		if (m == nmissing)
			missing[nmissing++] = refs[i];
	}
	return (nmissing);
}

/* Have those that were not mapped mapped and pinned too. */
static bool
pin_missing(struct xbb_persist *p, const uint32_t *refs, uint32_t n,
    uint16_t *pinned)
{
	struct xbb_common_counters *c = &p->conn->rc->counters;
	uint32_t missing[XBB_MAP_PAGES];
	uint32_t i, nmissing;

	nmissing = list_missing(refs, n, pinned, missing);
	XBB_COUNT(c->persistent_hits, n - nmissing);
	XBB_COUNT(c->persistent_misses, nmissing);
	if (!map_chunk(p, missing, nmissing))
		return (false);
	for (i = 0; i < n; i++)
		if (pinned[i] == XBB_NONE) {
			pinned[i] = look_up(p, refs[i]);
			use_chunk(p, p->page[pinned[i]].chunk, 1);
		}
	return (true);
}

/*
 * Pin the pages of so many references, mapping what is not mapped yet; their
 * numbers go to pinned.  They stay mapped until they are unpinned, and those
 * unpinned at once until the next call of this file.  False, and nothing is
 * pinned, if that cannot be.
 */
bool
xbb_persist_pin(struct xbb_persist *p, const uint32_t *refs, uint32_t n,
    uint16_t *pinned)
{
	uint16_t page;
	uint32_t i;
	bool all;

	all = true;
	page = XBB_NONE;
	for (i = 0; i < n; i++) {
		/* Those that were mapped together come so again. */
		if (page != XBB_NONE)
			page = p->page[page].sibling;
		if (page == XBB_NONE || p->page[page].ref != refs[i])
			page = look_up(p, refs[i]);
		pinned[i] = page;
		all &= page != XBB_NONE;
	}
	for_chunks(p, pinned, n, use_chunk);
	if (all)
		XBB_COUNT(p->conn->rc->counters.persistent_hits, n);
	else if (!pin_missing(p, refs, n, pinned)) {
		for_chunks(p, pinned, n, leave_chunk);
		return (false);
	}
	return (true);
}

/*
 * Unmap everything; no batch is under way.  By the ring thread at its end:
 * there may be thousands of chunks, and the control plane has other guests.
 */
void
xbb_persist_drop(struct xbb_persist *p)
{

	while (p->max != 0 && p->oldest != XBB_NONE)
		unmap_chunk(p, p->oldest);
}

void
xbb_persist_close(struct xbb_persist *p)
{

	xbb_persist_drop(p);
	free(p->page);
	free(p->chunk);
}
