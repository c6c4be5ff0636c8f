/*
 * grants.c - pages of the guest's that are mapped with one hypervisor call and
 * given back with one, or copied with one.  Must not touch the ring.  Any
 * thread of the ring's; fetching on the ring's own.
 */
#include "core/core.h"

/*
 * Unmap pages of the guest's.  What fails stays mapped: then the ring stops,
 * which ends with its descriptors, since nobody could say any more whose a page
 * is.  False if so.
 */
bool
xbb_grants_unmap(struct xbb_conn *conn, struct xbb_map *map)
{
	int error, none = 0;

	error = conn->ops->unmap(conn->hv, map);
	if (error != 0)
		atomic_compare_exchange_strong(&conn->unmap_errnum, &none,
		    -error);
	return (error == 0);
}

/*
 * Is it the host that cannot, and not the guest who named what is none?
 * A hypervisor that can keep track of no more says so as to a bad reference
 * (Linux and FreeBSD make EINVAL of every status), and then not even a page can
 * be mapped that is: the ring's.  A guest that withdrew it only hurts itself.
 * Nor does the page of a dead guest map, so nobody waits for that to pass while
 * its ring ends.
 */
enum xbb_shortage
xbb_grants_shortage(struct xbb_conn *conn, int error, bool mapped)
{
	struct xbb_map map = { .refs = conn->params->ring_ref, .npages = 1 };

	if (error == -ENOMEM || error == -ENOSPC)
		return (XBB_SHORT_HOST);
	if (error == -EAGAIN)
		return (XBB_SHORT_GUEST);
	if (error != -EINVAL || !mapped || xbb_conn_ends(conn))
		return (XBB_SHORT_NONE);
	error = conn->ops->map(conn->hv, &map, false);
	if (error == 0)
		(void)xbb_grants_unmap(conn, &map);
	return (error == 0 ? XBB_SHORT_NONE : XBB_SHORT_GUEST);
}

/* What a copy came to: a bad reference, else a host that is short. */
static int
copy_pieces(struct xbb_conn *conn, struct xbb_copy *pieces, uint32_t n,
    bool to_guest)
{
	uint32_t i;
	int error;

	error = conn->ops->copy(conn->hv, pieces, n, to_guest);
	if (error != 0)
		return (error);
	for (i = 0; i < n && error != -EINVAL; i++)
		if (pieces[i].status != 0)
			error = pieces[i].status;
	return (error);
}

/*
 * Copy pieces, to the guest or from it.  If that fails, is the host short, or
 * the guest wrong?  Each piece has a status of its own then.
 */
int
xbb_grants_copy(struct xbb_conn *conn, struct xbb_copy *pieces, uint32_t n,
    bool to_guest, enum xbb_shortage *shortage)
{
	int error;

	error = copy_pieces(conn, pieces, n, to_guest);
	if (error != 0)
		*shortage = xbb_grants_shortage(conn, error, false);
	return (error);
}

/* Pages that hold something a request needs, to memory of ours. */

static size_t
bytes_in_page(size_t bytes, uint32_t page)
{

	bytes -= (size_t)page * XBB_PAGE_SIZE;
	return (bytes < XBB_PAGE_SIZE ? bytes : XBB_PAGE_SIZE);
}

static int
fetch_copied(struct xbb_conn *conn, const uint32_t *refs, uint32_t npages,
    uint8_t *to, size_t bytes)
{
	struct xbb_copy pieces[XBB_FETCH_PAGES];
	uint32_t i;
	int error;

	for (i = 0; i < npages; i++)
		pieces[i] = (struct xbb_copy){
			.local = to + (size_t)i * XBB_PAGE_SIZE,
			.ref = refs[i],
			.len = (uint16_t)bytes_in_page(bytes, i),
		};
	error = copy_pieces(conn, pieces, npages, false);
	if (error == 0)
		XBB_COUNT(conn->rc->counters.grants_copied_total, npages);
	return (error);
}

static int
fetch_mapped(struct xbb_conn *conn, const uint32_t *refs, uint32_t npages,
    uint8_t *to, size_t bytes)
{
	struct xbb_map map = { .refs = refs, .npages = npages };
	struct xbb_common_counters *c = &conn->rc->counters;
	uint32_t i;
	int error;

	error = conn->ops->map(conn->hv, &map, false);
	if (error != 0)
		return (error);
	XBB_COUNT(c->grants_mapped_total, npages);
	for (i = 0; i < npages; i++)
		xbb_grants_take_page(to,
		    map.base + (size_t)i * XBB_PAGE_SIZE, i, bytes);
	if (xbb_grants_unmap(conn, &map))
		XBB_COUNT(c->grants_unmapped_total, npages);
	return (0);
}

/* One page that is mapped: its part of so many bytes, each word once. */
void
xbb_grants_take_page(void *to, const uint8_t *page, uint32_t n, size_t bytes)
{
	uint8_t *at = (uint8_t *)to + (size_t)n * XBB_PAGE_SIZE;

	xbb_copy_words((uint32_t *)(void *)at,
	    (const uint32_t *)(const void *)page, bytes_in_page(bytes, n));
}

/*
 * Copy so many bytes out that begin at a page, once (XSA-155): what they say is
 * still the guest's word.  If the host is short nothing is known of them.
 */
int
xbb_grants_fetch(struct xbb_conn *conn, const uint32_t *refs, uint32_t npages,
    void *to, size_t bytes, enum xbb_shortage *shortage)
{
	int error;

	error = (conn->copies ? fetch_copied : fetch_mapped)(conn, refs,
	    npages, to, bytes);
	*shortage = xbb_grants_shortage(conn, error, !conn->copies);
	XBB_COUNT(conn->rc->counters.grant_errors,
	    error != 0 && *shortage == XBB_SHORT_NONE);
	return (error);
}
