/*
 * pieces.c - what a sweep moves between the guest's pages and our frames, with
 * one call of the hypervisor: copied, or mapped, copied by ourselves and
 * unmapped, so that nobody ever parses what the guest can still change
 * (XSA-155).  A piece that cannot be moved costs its packet, and no other.
 * Must not know which way is which ring.  Ring thread.
 */
#include <assert.h>
#include <string.h>

#include "net/net.h"

/* Where the next frame goes: after those that end there. */
uint8_t *
xbb_net_place(const struct xbb_net_queue *q, const uint8_t *end)
{
	const uintptr_t align = 16;
	size_t at;

	at = (size_t)(end - q->arena) + XBB_NET_LINK_HEADER;
	return (q->arena + (at + align - 1) / align * align + 2);
}

/* Likewise, and so far into a page. */
uint8_t *
xbb_net_place_in_page(const struct xbb_net_queue *q, const uint8_t *end,
    uint32_t offset)
{
	size_t at, into;

	at = (size_t)(end - q->arena) + XBB_NET_LINK_HEADER;
	into = at % XBB_PAGE_SIZE;
	return (q->arena + at - into + offset +
	    (into > offset ? XBB_PAGE_SIZE : 0));
}

/* One more; local is ours. */
void
xbb_net_piece(struct xbb_net_queue *q, uint32_t ref, uint32_t offset,
    uint8_t *local, uint32_t len)
{

	assert(q->npieces < XBB_NET_SLOTS && offset + len <= XBB_PAGE_SIZE);
	q->piece[q->npieces++] = (struct xbb_copy){
		.local = local,
		.ref = ref,
		.offset = (uint16_t)offset,
		.len = (uint16_t)len,
	};
}

/* All of them have this status. */
static void
set_statuses(struct xbb_net_queue *q, int32_t status)
{
	uint32_t i;

	for (i = 0; i < q->npieces; i++)
		q->piece[i].status = status;
}

static enum xbb_shortage
copy_sweep(struct xbb_net_queue *q, bool to_guest)
{
	enum xbb_shortage shortage = XBB_SHORT_NONE;

	/* If the call itself fails nothing is known of any. */
	set_statuses(q, -EIO);
	if (xbb_grants_copy(&q->conn, q->piece, q->npieces, to_guest,
	    &shortage) == 0)
		XBB_COUNT(q->conn.rc->counters.grants_copied_total,
		    q->npieces);
	return (shortage);
}

/* Some of them, which are mapped one behind the other. */
static void
carry_mapped(struct xbb_copy *piece, uint32_t n, uint8_t *base, bool to_guest)
{
	uint8_t *page;
	uint32_t i;

	for (i = 0; i < n; i++) {
		page = base + (size_t)i * XBB_PAGE_SIZE + piece[i].offset;
		if (to_guest)
			memcpy(page, piece[i].local, piece[i].len);
		else
			memcpy(piece[i].local, page, piece[i].len);
	}
}

/* Map some, move them, unmap. */
static int
map_pieces(struct xbb_net_queue *q, uint32_t first, uint32_t n, bool to_guest)
{
	struct xbb_common_counters *c = &q->conn.rc->counters;
	uint32_t refs[XBB_NET_SLOTS];
	struct xbb_map map = { .refs = refs, .npages = n };
	uint32_t i;
	int error;

	for (i = 0; i < n; i++)
		refs[i] = q->piece[first + i].ref;
	error = q->conn.ops->map(q->conn.hv, &map, to_guest);
	if (error != 0)
		return (error);
	XBB_COUNT(c->grants_mapped_total, n);
	carry_mapped(&q->piece[first], n, map.base, to_guest);
	if (xbb_grants_unmap(&q->conn, &map))
		XBB_COUNT(c->grants_unmapped_total, n);
	return (0);
}

/* One bad reference fails all that are mapped with it: which is it? */
static enum xbb_shortage
map_sweep(struct xbb_net_queue *q, bool to_guest)
{
	enum xbb_shortage shortage;
	uint32_t i;
	int error;

	error = map_pieces(q, 0, q->npieces, to_guest);
	set_statuses(q, error);
	if (error == 0)
		return (XBB_SHORT_NONE);
	shortage = xbb_grants_shortage(&q->conn, error, true);
	if (shortage != XBB_SHORT_NONE)
		return (shortage);
	for (i = 0; i < q->npieces; i++)
		q->piece[i].status = q->npieces == 1 ? error :
		    map_pieces(q, i, 1, to_guest);
	return (XBB_SHORT_NONE);
}

/*
 * Move all pieces, each of which has a status then.  False if the host is short
 * of what that takes: nothing was moved, and it is to be tried again later.
 */
bool
xbb_net_move(struct xbb_net_queue *q, bool to_guest)
{
	enum xbb_shortage shortage;

	if (q->npieces == 0)
		return (true);
	shortage = q->conn.copies ? copy_sweep(q, to_guest) :
	    map_sweep(q, to_guest);
	if (shortage != XBB_SHORT_NONE) {
		if (q->retry.wait_ms == 0)
			XBB_COUNT(q->conn.rc->counters.kva_shortages, 1);
		xbb_shortage_begin(&q->retry, &q->persist, shortage);
		return (false);
	}
	xbb_shortage_passed(&q->retry);
	return (true);
}
