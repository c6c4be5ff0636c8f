/*
 * devstat.h - records as devstat(9) keeps them (subr_devstat.c of FreeBSD):
 * begun and ended transactions, bytes and time by kind, and how long there was
 * anything to do.  Ring thread; others read.  Inline, since each request comes
 * here four times.
 */
#ifndef XBB_DEVSTAT_H
#define XBB_DEVSTAT_H

static inline void
xbb_devstat_start(struct xbb_devstat *stat, uint64_t now_ns)
{

	if (stat->start_count == stat->end_count)
		XBB_SET(stat->busy_from_ns, now_ns);
	XBB_COUNT(stat->start_count, 1);
}

/* Bytes: what was moved; what an error left out is the residual. */
static inline void
xbb_devstat_end(struct xbb_devstat *stat, enum xbb_devstat_kind kind,
    bool ordered, uint64_t bytes, uint64_t begun_ns, uint64_t now_ns)
{

	XBB_COUNT(stat->operations[kind], 1);
	XBB_COUNT(stat->bytes[kind], bytes);
	/* The clock was read before: by another thread, maybe later. */
	if (now_ns > begun_ns)
		XBB_COUNT(stat->duration_ns[kind], now_ns - begun_ns);
	if (ordered)
		XBB_COUNT(stat->tag_ordered, 1);
	else
		XBB_COUNT(stat->tag_simple, 1);
	if (now_ns > stat->busy_from_ns) {
		XBB_COUNT(stat->busy_ns, now_ns - stat->busy_from_ns);
		XBB_SET(stat->busy_from_ns, now_ns);
	}
	XBB_COUNT(stat->end_count, 1);
}

#endif /* XBB_DEVSTAT_H */
