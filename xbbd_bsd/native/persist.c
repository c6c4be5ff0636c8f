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
#include <sys/mman.h>

#include <assert.h>
#include <stdlib.h>

#include "internal.h"

/*
 * Within this time a frontend has looked what is kept of what it does not use:
 * Linux's does so every 10 seconds.
 */
#define STALE_NS	10000000000

static uint32_t
hash(uint32_t ref)
{

	return ((ref * 2654435761U) >> 22);
}

_Static_assert(XBB_PERSIST_BUCKETS == 1U << (32 - 22), "bits of hash()");
_Static_assert(XBB_MAX_PERSISTENT < XBB_NONE, "pages are 16-bit numbers");

int
xbb_persist_open(struct xbb_queue *q, uint32_t nreqs)
{
	struct xbb_persist *p = &q->persist;
	uint32_t i;
	void *pinned;

	if (q->params.max_persistent == 0)
		return (0);
	p->page = calloc(q->params.max_persistent, sizeof(*p->page));
	p->chunk = calloc(q->params.max_persistent, sizeof(*p->chunk));
	if (p->page == NULL || p->chunk == NULL)
		return (-ENOMEM);
	p->pinned_size = (size_t)nreqs * q->max_segments * sizeof(*p->pinned);
	pinned = mmap(NULL, p->pinned_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	if (pinned == MAP_FAILED)
		return (-errno);
	p->pinned = pinned;
	p->max = q->params.max_persistent;
	for (i = 0; i < p->max; i++) {
		p->page[i].next = i + 1 < p->max ? (uint16_t)(i + 1) :
		    XBB_NONE;
		p->chunk[i].older = p->page[i].next;
	}
	for (i = 0; i < XBB_PERSIST_BUCKETS; i++)
		p->bucket[i] = XBB_NONE;
	p->oldest = p->newest = XBB_NONE;
	return (0);
}

static uint16_t
lookup(const struct xbb_persist *p, uint32_t ref)
{
	uint16_t n;

	for (n = p->bucket[hash(ref)]; n != XBB_NONE; n = p->page[n].next)
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

	assert(p->page[n].users == 0);
	for (at = &p->bucket[hash(p->page[n].ref)]; *at != n;
	    at = &p->page[*at].next)
		continue;
	*at = p->page[n].next;
	p->page[n].next = p->free_page;
	p->free_page = n;
	p->npages--;
}

/* Unmap a chunk that no batch uses. */
void
xbb_persist_unmap(struct xbb_queue *q, uint16_t c)
{
	struct xbb_persist *p = &q->persist;
	struct xbb_persist_chunk *chunk = &p->chunk[c];
	uint32_t refs[XBB_MAP_PAGES];
	struct xbb_map map = {
		.base = chunk->base, .token = chunk->token,
		.npages = chunk->npages, .refs = refs,
	};
	uint16_t n, next;
	uint32_t i;

	i = 0;
	for (n = chunk->first; n != XBB_NONE; n = next) {
		next = p->page[n].sibling;
		refs[i++] = p->page[n].ref;
		drop_page(p, n);
	}
	assert(i == chunk->npages);
	if (xbb_unmap(q, &map))
		XBB_COUNT(q->rs->counters.grants_unmapped_total,
		    chunk->npages);
	xbb_budget_give(q, chunk->npages, chunk->mappings);
	p->mappings -= chunk->mappings;
	unlink_chunk(p, c);
	chunk->older = p->free_chunk;
	p->free_chunk = c;
	XBB_SET(q->rs->grants_persistent, p->npages);
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
make_room(struct xbb_queue *q, uint32_t n, uint32_t mappings)
{
	struct xbb_persist *p = &q->persist;
	struct xbb_part part;
	uint16_t c, newer;
	bool own;

	if (n > p->max || n > XBB_MAP_PAGES || n > xbb_budget_most())
		return (false);
	for (c = first_unused(p, p->oldest);; c = first_unused(p, newer)) {
		own = false;
		if (p->npages + n <= p->max) {
			if (xbb_budget_take(q, n, mappings, &own))
				return (true);
			part = xbb_budget_part(q);
			if (p->npages + n <= part.grants &&
			    p->mappings + mappings <= part.mappings)
				xbb_budget_press(q, own);
		}
		if (c == XBB_NONE || (own &&
		    q->now_ns - p->chunk[c].used_ns < STALE_NS))
			return (false);
		newer = p->chunk[c].newer;
		xbb_persist_unmap(q, c);
	}
}

static bool
map_chunk(struct xbb_queue *q, const uint32_t *refs, uint32_t n)
{
	const uint32_t mappings = q->ops->maps_singly ? n : 1;
	struct xbb_map map = { .npages = n, .refs = refs };
	struct xbb_persist *p = &q->persist;
	struct xbb_persist_chunk *chunk;
	struct xbb_persist_page *page;
	uint16_t at, c;
	uint32_t i;
	int error;

	if (!make_room(q, n, mappings))
		return (false);
	error = q->ops->map(q->hv, &map, true);
	if (error != 0) {
		xbb_budget_give(q, n, mappings);
		if (error == -ENOMEM || error == -ENOSPC)
			xbb_persist_yield(q, true);
		return (false);
	}
	xbb_budget_give(q, 0, mappings - map.mappings);
	c = p->free_chunk;
	chunk = &p->chunk[c];
	p->free_chunk = chunk->older;
	chunk->base = map.base;
	chunk->token = map.token;
	chunk->npages = n;
	chunk->mappings = map.mappings;
	chunk->users = 0;
	chunk->used_ns = q->now_ns;
	chunk->first = XBB_NONE;
	for (i = n; i-- > 0;) {
		at = p->free_page;
		page = &p->page[at];
		p->free_page = page->next;
		page->base = map.base + (size_t)i * XBB_PAGE_SIZE;
		page->ref = refs[i];
		page->users = 0;
		page->chunk = c;
		page->sibling = chunk->first;
		chunk->first = at;
		page->next = p->bucket[hash(refs[i])];
		p->bucket[hash(refs[i])] = at;
	}
	p->npages += n;
	p->mappings += map.mappings;
	link_newest(p, c);
	XBB_COUNT(q->rs->counters.grants_mapped_total, n);
	XBB_SET(q->rs->grants_persistent, p->npages);
	return (true);
}

static void
pin(struct xbb_queue *q, uint16_t n)
{
	struct xbb_persist *p = &q->persist;
	const uint16_t c = p->page[n].chunk;

	p->page[n].users++;
	p->chunk[c].users++;
	p->chunk[c].used_ns = q->now_ns;
	if (p->newest != c) {
		unlink_chunk(p, c);
		link_newest(p, c);
	}
}

static void
unpin(struct xbb_persist *p, uint16_t n)
{

	assert(p->page[n].users > 0);
	p->page[n].users--;
	p->chunk[p->page[n].chunk].users--;
}

/*
 * Pin the pages of so many references, mapping what is not mapped yet; their
 * numbers go to pinned.  False, and nothing is pinned, if that cannot be.
 */
static bool
pin_all(struct xbb_queue *q, const uint32_t *refs, uint32_t n,
    uint16_t **pinned)
{
	struct xbb_counters *c = &q->rs->counters;
	uint32_t missing[XBB_MAP_PAGES];
	uint32_t i, m, nmissing;

	nmissing = 0;
	for (i = 0; i < n; i++) {
		*pinned[i] = lookup(&q->persist, refs[i]);
		if (*pinned[i] != XBB_NONE) {
			pin(q, *pinned[i]);
			continue;
		}
		for (m = 0; m < nmissing && missing[m] != refs[i]; m++)
			continue;
		if (m == nmissing)
			missing[nmissing++] = refs[i];
	}
	XBB_COUNT(c->persistent_hits, n - nmissing);
	XBB_COUNT(c->persistent_misses, nmissing);
	if (nmissing == 0)
		return (true);
	if (!map_chunk(q, missing, nmissing)) {
		for (i = 0; i < n; i++)
			if (*pinned[i] != XBB_NONE)
				unpin(&q->persist, *pinned[i]);
		return (false);
	}
	for (i = 0; i < n; i++)
		if (*pinned[i] == XBB_NONE) {
			*pinned[i] = lookup(&q->persist, refs[i]);
			pin(q, *pinned[i]);
		}
	return (true);
}

static uint16_t *
place(const struct xbb_queue *q, uint16_t r, uint32_t i)
{

	return (&q->persist.pinned[(size_t)r * q->max_segments + i]);
}

/* Pin all pages of a batch: then it is persistent, else it is to do without. */
bool
xbb_persist_pin_batch(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_walk walk = xbb_walk_batch(q, batch);
	uint16_t *pinned[XBB_MAX_BATCH_SEGMENTS];
	uint32_t refs[XBB_MAX_BATCH_SEGMENTS];
	uint32_t n;

	if (q->persist.max == 0 || batch->nseg == 0)
		return (false);
	for (n = 0; xbb_walk_next(&walk); n++) {
		assert(n < XBB_MAX_BATCH_SEGMENTS);
		refs[n] = walk.seg->gref;
		pinned[n] = place(q, walk.r, walk.i);
	}
	batch->persistent = pin_all(q, refs, n, pinned);
	return (batch->persistent);
}

void
xbb_persist_unpin_batch(struct xbb_queue *q, struct xbb_batch *batch)
{
	struct xbb_walk walk = xbb_walk_batch(q, batch);

	if (!batch->persistent)
		return;
	while (xbb_walk_next(&walk))
		unpin(&q->persist, *place(q, walk.r, walk.i));
	batch->persistent = false;
}

/* The page of a segment of a persistent batch.  Any thread of the queue. */
uint8_t *
xbb_persist_base(const struct xbb_queue *q, uint16_t r, uint32_t i)
{

	return (q->persist.page[*place(q, r, i)].base);
}

/* Pages to look at now: they stay mapped until the next call of this file. */
bool
xbb_persist_pages(struct xbb_queue *q, const uint32_t *refs, uint32_t n,
    const uint8_t **bases)
{
	uint16_t number[XBB_MAX_INDIRECT_PAGES];
	uint16_t *pinned[XBB_MAX_INDIRECT_PAGES];
	uint32_t i;

	if (q->persist.max == 0)
		return (false);
	for (i = 0; i < n; i++)
		pinned[i] = &number[i];
	if (!pin_all(q, refs, n, pinned))
		return (false);
	for (i = 0; i < n; i++) {
		bases[i] = q->persist.page[number[i]].base;
		unpin(&q->persist, number[i]);
	}
	return (true);
}

void
xbb_persist_close(struct xbb_queue *q)
{
	struct xbb_persist *p = &q->persist;

	xbb_persist_drop(q);
	if (p->pinned != NULL)
		munmap(p->pinned, p->pinned_size);
	free(p->page);
	free(p->chunk);
}
