/*
 * batch.h - requests that go to the disk together: what a batch is, and which
 * requests make one.  block.h includes it, and has who does what with one.
 */
#ifndef XBB_BLOCK_BATCH_H
#define XBB_BLOCK_BATCH_H

/* How far requests may be merged. */
struct xbb_coalesce {
	uint32_t	max_segments;
	bool		disabled;	/* no_coalesce_reqs */
};

/* What carrying a batch out came to; the ring's thread adds it up. */
struct xbb_tally {
	uint32_t	grants_mapped;
	uint32_t	grants_unmapped;
	uint32_t	grants_copied;
	uint32_t	grant_errors;
	uint32_t	flushes;
	uint32_t	io_short;
	uint32_t	io_errors;
	uint32_t	io_bounced;
	uint32_t	io_read_modify_write;
	int16_t		gone_errno;	/* the disk is gone; 0: it is not */
	int16_t		lost_errno;	/* of the disk's segment, as seen */
	int16_t		stop_errno;	/* for which all is to end; 0: none */
	int16_t		failed_errno;	/* of what failed first; 0: nothing */
	uint8_t		failed_op;	/* enum xbb_disk_op, then */
	bool		shrunk;		/* that was beyond its end */
	enum xbb_shortage shortage;	/* grants could not be had for now */
};

/* Adjacent requests of one operation that go to the disk together. */
struct xbb_batch {
	struct xbb_work	 work;		/* link of the list it is on */
	struct xbb_tally tally;		/* result */
	uint64_t	 sector;	/* first sector on the disk */
	uint64_t	 nsectors;
	uint64_t	 begun_ns;	/* when it was given to the disk */
	uint64_t	 ended_ns;	/* and was done */
	uint64_t	 order;		/* of starting; waiting: before it */
	uint16_t	 nseg;
	uint16_t	 nreq;
	uint16_t	 first, last;	/* requests, linked by xbb_req.next */
	uint8_t		 operation;
	bool		 secure;	/* a discard beyond recovery */
	bool		 faked;		/* a flush that tunables suppress */
	bool		 flushed;	/* a barrier, once flushed */
	bool		 persistent;	/* all its pages are pinned */
	bool		 starved;	/* some is to be tried again later */
	bool		 has_starved;	/* ever */
	/* Starved: the disk has failed, and that is not the end of it. */
	bool		 held;
	bool		 until_resumed;	/* held: no try before that */
	uint8_t		 tries;		/* that came to that, in a row */
	uint16_t	 held_req;	/* which it failed */
	struct xbb_verdict held_why;
	uint64_t	 held_ns;	/* since when; 0: it was not held */
	uint64_t	 again_ns;	/* when it is tried again */
	struct xbb_batch *prev_started, *next_started;
};

_Static_assert(offsetof(struct xbb_batch, work) == 0, "see xbb_batch_of()");

/* The batch of a link, NULL for none. */
static inline struct xbb_batch *
xbb_batch_of(struct xbb_work *work)
{

	return ((struct xbb_batch *)(void *)work);
}

/* coalesce.c - requests into batches, which batches must wait.  Pure. */
void	xbb_batch_begin(struct xbb_batch *batch, struct xbb_req *reqs,
	    uint16_t req);
bool	xbb_batch_admits(const struct xbb_batch *batch,
	    const struct xbb_req *req, const struct xbb_coalesce *limits);
void	xbb_batch_append(struct xbb_batch *batch, struct xbb_req *reqs,
	    uint16_t req);

static inline bool
xbb_batch_writes(const struct xbb_batch *batch)
{

	return (batch->operation != XBB_OP_READ && batch->nsectors != 0);
}

/*
 * A barrier proper, or a flush that carries data: that one is promised no
 * order, but gets the same treatment, since it is rare and must be durable.
 */
static inline bool
xbb_batch_is_barrier(const struct xbb_batch *batch)
{

	return (batch->operation == XBB_OP_WRITE_BARRIER ||
	    (batch->operation == XBB_OP_FLUSH_DISKCACHE && batch->nseg != 0));
}

/* A flush and nothing else, which waits for the writes before it. */
static inline bool
xbb_batch_is_flush(const struct xbb_batch *batch)
{

	return (batch->operation == XBB_OP_FLUSH_DISKCACHE && batch->nseg == 0);
}

/* Will it have the disk write its cache out?  That takes milliseconds. */
static inline bool
xbb_batch_flushes(const struct xbb_batch *batch)
{

	return (!batch->faked && (batch->operation == XBB_OP_WRITE_BARRIER ||
	    batch->operation == XBB_OP_FLUSH_DISKCACHE));
}

/*
 * Do two batches touch a common block?  Not sector: of a disk with larger
 * blocks, one that is written in part is read and written whole.  Sizes are
 * powers of two, and it is enough to look at the whole blocks of one.
 */
static inline bool
xbb_batch_overlaps(const struct xbb_batch *a, const struct xbb_batch *b,
    uint32_t block_size)
{
	const uint64_t mask = block_size / XBB_SECTOR_SIZE - 1;

	return (b->sector < ((a->sector + a->nsectors + mask) & ~mask) &&
	    b->sector + b->nsectors > (a->sector & ~mask) &&
	    a->nsectors != 0 && b->nsectors != 0);
}

#endif /* XBB_BLOCK_BATCH_H */
