/*
 * data.h - the data of a batch, or of a sweep of them, between the guest's
 * pages and the disk: pages.c, data.c, io.c, sweep.c, bulk_*.c.  block.h
 * includes it, where a queue is known.
 */
#ifndef XBB_BLOCK_DATA_H
#define XBB_BLOCK_DATA_H

/*
 * Batches, all to be read or all to be written, whose grants are mapped or
 * copied by one call, or stay mapped: no more pages than the largest batch may
 * have.
 */
#define XBB_SWEEP_MOST	32

struct xbb_sweep_part {
	struct xbb_batch *batch;
	uint32_t	 page;		/* where its own begin among all */
	bool		 ended;		/* the disk has had it */
	bool		 waited;	/* the thread, for that */
	struct xbb_outcome done;	/* what it came to then */
	uint64_t	 took;		/* and how long, nanoseconds */
};

struct xbb_sweep {
	uint32_t	 n;
	uint32_t	 npages;
	bool		 writes;
	bool		 kept;		/* pages of all are pinned */
	struct xbb_sweep_part part[XBB_SWEEP_MOST];
	struct xbb_map	 map;		/* if the disk works on the pages */
	uint32_t	 refs[XBB_MAP_PAGES];	/* of that */
};

/* Bytes of a device, and where they are in memory (bulk_*.c). */
struct xbb_bulk_piece {
	void		*data;
	uint64_t	 offset;	/* on the device */
	uint32_t	 length;
	bool		 moved;		/* all of it, by xbb_bulk_move() */
};

/*
 * pages.c - the pages of a batch and of a request's list of segments: pinned,
 * mapped, copied.  Pinning and fetching on the ring's thread.
 */
void	xbb_pages_pin_kept(struct xbb_queue *q, struct xbb_batch *batch);
void	xbb_pages_unpin_kept(struct xbb_queue *q, struct xbb_batch *batch);
struct xbb_outcome xbb_pages_map(struct xbb_queue *q,
	    struct xbb_batch *batch, struct xbb_map *map,
	    uint32_t refs[XBB_MAP_PAGES]);
void	xbb_pages_unmap(struct xbb_queue *q, struct xbb_batch *batch,
	    struct xbb_map *map);
struct xbb_outcome xbb_pages_copy(struct xbb_queue *q,
	    struct xbb_batch *batch, uint8_t *buffer, bool to_guest);
int	xbb_pages_map_all(struct xbb_queue *q, struct xbb_sweep *sweep,
	    struct xbb_map *map, uint32_t refs[XBB_MAP_PAGES]);
void	xbb_pages_unmap_all(struct xbb_queue *q, struct xbb_map *map);
int	xbb_pages_copy_all(struct xbb_queue *q, struct xbb_sweep *sweep,
	    uint8_t *buffer);
int	xbb_pages_fetch(struct xbb_queue *q, const struct xbb_req *req,
	    struct xbb_segment *to, enum xbb_shortage *shortage);

/* All that it costs where grants do not stay mapped. */
static inline void
xbb_pages_pin(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (q->own.persist.max != 0 && batch->nseg != 0)
		xbb_pages_pin_kept(q, batch);
}

static inline void
xbb_pages_unpin(struct xbb_queue *q, struct xbb_batch *batch)
{

	if (batch->persistent)
		xbb_pages_unpin_kept(q, batch);
}

/* io.c - what a batch has the disk do.  Any thread of the queue's. */
int	xbb_transfer(int fd, bool to_disk, struct iovec *iov, int niov,
	    off_t offset, bool *was_short);
struct xbb_outcome xbb_io_part(struct xbb_queue *q,
	    struct xbb_batch *batch, bool to_disk, struct iovec *iov,
	    int niov, uint64_t offset);
struct xbb_outcome xbb_io_batch(struct xbb_queue *q,
	    struct xbb_batch *batch, struct iovec *iov, int niov,
	    uint64_t offset, uint64_t length, uint32_t thread);
struct xbb_outcome xbb_io_flush(struct xbb_queue *q,
	    struct xbb_batch *batch, uint32_t thread);
struct xbb_outcome xbb_io_discard(struct xbb_queue *q,
	    struct xbb_batch *batch);

/* data.c - a batch's data between the guest's pages and the disk. */
struct xbb_outcome xbb_data_move(struct xbb_queue *q,
	    struct xbb_batch *batch, uint32_t thread);
struct xbb_outcome xbb_data_exchange(struct xbb_queue *q,
	    struct xbb_batch *batch, uint8_t *buffer, bool to_guest);
int	xbb_data_sweep_begin(struct xbb_queue *q, struct xbb_sweep *sweep);
struct xbb_outcome xbb_data_sweep_part(struct xbb_queue *q,
	    const struct xbb_sweep *sweep, const struct xbb_sweep_part *part);
struct xbb_bulk_piece xbb_data_sweep_piece(struct xbb_queue *q,
	    const struct xbb_sweep_part *part);
int	xbb_data_sweep_end(struct xbb_queue *q, struct xbb_sweep *sweep,
	    struct xbb_sweep *read);
size_t	xbb_data_buffer_size(const struct xbb_queue_params *params);
bool	xbb_data_is_bounced(const struct xbb_queue *q);

/*
 * bulk_linux.c, bulk_freebsd.c - several transfers of a device by one system
 * call.  Ring thread.
 */
struct xbb_bulk *xbb_bulk_open(int disk_fd, uint32_t sector_size,
	    int fence_fd, void *buffer, size_t size);
void	xbb_bulk_close(struct xbb_bulk *bulk);
bool	xbb_bulk_move(struct xbb_bulk *bulk, bool to_disk,
	    struct xbb_bulk_piece *pieces, uint32_t n);

/* sweep.c - batches whose grants go by one call.  Ring thread. */
void	xbb_sweep_begin(struct xbb_sweep *sweep, bool writes);
bool	xbb_sweep_admits(const struct xbb_queue *q,
	    const struct xbb_batch *batch);
bool	xbb_sweep_add(const struct xbb_queue *q, struct xbb_sweep *sweep,
	    struct xbb_batch *batch);
void	xbb_sweep_run(struct xbb_queue *q, struct xbb_sweep *sweep);

#endif /* XBB_BLOCK_DATA_H */
