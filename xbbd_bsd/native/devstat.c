/*
 * devstat.c - records as devstat(9) keeps them (subr_devstat.c of FreeBSD):
 * begun and ended transactions, bytes and time by kind, and how long there was
 * anything to do.  Ring thread; others read.
 */
#include "internal.h"

enum xbb_devstat_kind
xbb_devstat_kind(uint8_t operation, uint64_t nsectors)
{

	if (operation == XBB_OP_DISCARD)
		return (XBB_DEVSTAT_FREE);
	if (nsectors == 0)
		return (XBB_DEVSTAT_NO_DATA);
	return (operation == XBB_OP_READ ? XBB_DEVSTAT_READ :
	    XBB_DEVSTAT_WRITE);
}

void
xbb_devstat_start(struct xbb_devstat *stat, uint64_t now_ns)
{

	if (stat->start_count == stat->end_count)
		XBB_SET(stat->busy_from_ns, now_ns);
	XBB_COUNT(stat->start_count, 1);
}

/* Of nsectors so many were moved; the rest is the residual of an error. */
void
xbb_devstat_end(struct xbb_devstat *stat, uint8_t operation,
    uint64_t nsectors, uint64_t moved, uint64_t begun_ns, uint64_t now_ns)
{
	const enum xbb_devstat_kind kind =
	    xbb_devstat_kind(operation, nsectors);

	XBB_COUNT(stat->operations[kind], 1);
	XBB_COUNT(stat->bytes[kind], moved * XBB_SECTOR_SIZE);
	/* The clock was read before: by another thread, maybe later. */
	if (now_ns > begun_ns)
		XBB_COUNT(stat->duration_ns[kind], now_ns - begun_ns);
	/* As the kernel driver has it: both wait for what was before them. */
	if (operation == XBB_OP_WRITE_BARRIER ||
	    operation == XBB_OP_FLUSH_DISKCACHE)
		XBB_COUNT(stat->tag_ordered, 1);
	else
		XBB_COUNT(stat->tag_simple, 1);
	if (now_ns > stat->busy_from_ns) {
		XBB_COUNT(stat->busy_ns, now_ns - stat->busy_from_ns);
		XBB_SET(stat->busy_from_ns, now_ns);
	}
	XBB_COUNT(stat->end_count, 1);
}
