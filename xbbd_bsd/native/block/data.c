/*
 * data.c - a batch's data between the guest's pages and the disk: straight from
 * the pages, where they are mapped and the disk takes scattered memory, or by a
 * buffer, in which a disk with larger sectors than the guest sees gets whole
 * ones.  Runs on an I/O thread or on the ring's, and changes nothing of the
 * queue but the batch's tally.  Likewise that of several batches at once, on
 * the ring's thread, which counts for all of them what they map or copy.
 */
#include <string.h>

#include "block/block.h"

/* One more segment, in this page; neighbours become one vector. */
static inline struct iovec *
add_segment(const struct iovec *first, struct iovec *next, uint8_t *page,
    const struct xbb_segment *seg)
{
	uint8_t *const data = page + seg->first_sect * XBB_SECTOR_SIZE;
	const uint32_t n = xbb_segment_bytes(seg);

	if (next != first && data ==
	    (uint8_t *)next[-1].iov_base + next[-1].iov_len)
		next[-1].iov_len += n;
	else
		*next++ = (struct iovec){ data, n };
	return (next);
}

/*
 * Describe the segments of a batch, in pages that are pinned, or mapped one
 * after the other from base on.  Says how many vectors that takes.
 */
static inline int
list_segments(const struct xbb_queue *q, const struct xbb_batch *batch,
    bool pinned, uint8_t *base, struct iovec iov[XBB_MAX_BATCH_SEGMENTS])
{
	const struct xbb_persist_page *pages = q->own.persist.page;
	const struct xbb_segment *end, *seg;
	const uint16_t *number;
	struct iovec *next;
	uint32_t left;
	uint16_t r;

	next = iov;
	for (left = batch->nreq, r = batch->first; left > 0;
	    left--, r = q->set.reqs[r].next) {
		seg = xbb_req_segments(q, r);
		end = seg + q->set.reqs[r].nseg;
		number = pinned ? xbb_pages_pinned(q, r) : NULL;
		for (; seg < end; seg++) {
			next = add_segment(iov, next,
			    pinned ? pages[*number++].base : base, seg);
			if (!pinned)
				base += XBB_PAGE_SIZE;
		}
	}
	return ((int)(next - iov));
}

static struct xbb_outcome
move_straight(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	const uint64_t offset = batch->sector * XBB_SECTOR_SIZE;
	const uint64_t length = batch->nsectors * XBB_SECTOR_SIZE;
	struct iovec iov[XBB_MAX_BATCH_SEGMENTS];
	uint32_t refs[XBB_MAP_PAGES];
	struct xbb_map map;
	struct xbb_outcome done;

	if (batch->persistent)
		return (xbb_io_batch(q, batch, iov,
		    list_segments(q, batch, true, NULL, iov), offset, length,
		    thread));
	done = xbb_pages_map(q, batch, &map, refs);
	if (done.error != 0)
		return (done);
	done = xbb_io_batch(q, batch, iov,
	    list_segments(q, batch, false, map.base, iov), offset, length,
	    thread);
	xbb_pages_unmap(q, batch, &map);
	return (done);
}

/* By a buffer. */

/*
 * Whole pages as a kernel copies them: a string instruction, of which 128 KiB
 * are 16,400 where libc's loop takes 24,500.
 */
static void
copy_bytes(uint8_t *to, const uint8_t *from, size_t n)
{
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
	if (n % XBB_PAGE_SIZE == 0) {
		n /= 8;
		__asm__ volatile("rep movsq" : "+D" (to), "+S" (from),
		    "+c" (n) : : "memory");
		return;
	}
#endif
	memcpy(to, from, n);
}

/* One segment, in this page; where in the buffer the next one's data begins. */
static inline uint8_t *
copy_segment(uint8_t *page, const struct xbb_segment *seg, uint8_t *buffer,
    bool to_guest)
{
	uint8_t *const data = page + seg->first_sect * XBB_SECTOR_SIZE;
	const uint32_t n = xbb_segment_bytes(seg);

	if (to_guest)
		copy_bytes(data, buffer, n);
	else
		copy_bytes(buffer, data, n);
	return (buffer + n);
}

/* The data of a batch between such pages and a buffer, in a row. */
static inline void
copy_segments(const struct xbb_queue *q, const struct xbb_batch *batch,
    bool pinned, uint8_t *base, uint8_t *buffer, bool to_guest)
{
	const struct xbb_persist_page *pages = q->own.persist.page;
	const struct xbb_segment *end, *seg;
	const uint16_t *number;
	uint32_t left;
	uint16_t r;

	for (left = batch->nreq, r = batch->first; left > 0;
	    left--, r = q->set.reqs[r].next) {
		seg = xbb_req_segments(q, r);
		end = seg + q->set.reqs[r].nseg;
		number = pinned ? xbb_pages_pinned(q, r) : NULL;
		for (; seg < end; seg++) {
			buffer = copy_segment(pinned ? pages[*number++].base :
			    base, seg, buffer, to_guest);
			if (!pinned)
				base += XBB_PAGE_SIZE;
		}
	}
}

/* The batch's data between the guest's pages and a buffer. */
struct xbb_outcome
xbb_data_exchange(struct xbb_queue *q, struct xbb_batch *batch, uint8_t *buffer,
    bool to_guest)
{
	uint32_t refs[XBB_MAP_PAGES];
	struct xbb_map map;
	struct xbb_outcome done;

	if (batch->persistent) {
		copy_segments(q, batch, true, NULL, buffer, to_guest);
		return (XBB_WELL);
	}
	if (q->conn.copies)
		return (xbb_pages_copy(q, batch, buffer, to_guest));
	done = xbb_pages_map(q, batch, &map, refs);
	if (done.error != 0)
		return (done);
	copy_segments(q, batch, false, map.base, buffer, to_guest);
	xbb_pages_unmap(q, batch, &map);
	return (XBB_WELL);
}

/* The bytes of the disk that a batch makes us move: whole blocks. */
struct span {
	uint64_t	 offset;	/* on the disk */
	uint64_t	 length;
	uint64_t	 before;	/* bytes ahead of the batch's data */
	uint64_t	 after;		/* and behind it */
	uint8_t		*buffer;	/* for all of it, aligned */
	uint8_t		*scratch;	/* for one block */
};

/*
 * A buffer has room for one block, then for the longest span, from a page on:
 * the kernel takes the data a page at a time.
 */
static size_t
scratch_size(const struct xbb_queue_params *p)
{

	return (((size_t)p->block_size + XBB_PAGE_SIZE - 1) / XBB_PAGE_SIZE *
	    XBB_PAGE_SIZE);
}

size_t
xbb_data_buffer_size(const struct xbb_queue_params *p)
{

	return (scratch_size(p) + 2 * (size_t)p->block_size +
	    (size_t)p->max_batch_segments * XBB_PAGE_SIZE);
}

static struct span
span_of(const struct xbb_queue *q, const struct xbb_batch *batch,
    uint32_t thread)
{
	const uint64_t block = q->set.params.block_size;
	const uint64_t data = batch->sector * XBB_SECTOR_SIZE;
	const uint64_t size = batch->nsectors * XBB_SECTOR_SIZE;
	struct span span;

	span.before = data % block;
	span.offset = data - span.before;
	span.length = (span.before + size + block - 1) / block * block;
	span.after = span.length - span.before - size;
	span.scratch = thread == 0 ? q->set.buffer :
	    q->shared.pool.buffer[thread - 1];
	span.buffer = span.scratch + scratch_size(&q->set.params);
	return (span);
}

/* What lies around the data in its first and last block, from the disk. */
static struct xbb_outcome
read_around(struct xbb_queue *q, struct xbb_batch *batch,
    const struct span *span)
{
	const uint64_t block = q->set.params.block_size;
	const uint64_t last = span->length - block;
	struct iovec iov;
	struct xbb_outcome done;

	done = XBB_WELL;
	if (span->before != 0) {
		iov = (struct iovec){ span->scratch, block };
		done = xbb_io_part(q, batch, false, &iov, 1, span->offset);
		if (done.error != 0)
			return (done);
		memcpy(span->buffer, span->scratch, span->before);
	}
	if (span->after != 0) {
		if (span->before == 0 || last != 0) {
			iov = (struct iovec){ span->scratch, block };
			done = xbb_io_part(q, batch, false, &iov, 1,
			    span->offset + last);
		}
		memcpy(span->buffer + span->length - span->after,
		    span->scratch + block - span->after, span->after);
	}
	return (done);
}

/*
 * A write of less than whole blocks reads what is around it first.  Nothing of
 * this queue touches these blocks meanwhile (xbb_batch_overlaps()), and a disk
 * for which this is done has one queue.
 */
static struct xbb_outcome
move_bounced(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	const struct span span = span_of(q, batch, thread);
	struct iovec iov = { span.buffer, span.length };
	uint8_t *data = span.buffer + span.before;
	struct xbb_outcome done;

	batch->tally.io_bounced++;
	if (batch->operation == XBB_OP_READ) {
		done = xbb_io_batch(q, batch, &iov, 1, span.offset, span.length,
		    thread);
		if (done.error == 0)
			done = xbb_data_exchange(q, batch, data, true);
		return (done);
	}
	done = xbb_data_exchange(q, batch, data, false);
	if (done.error == 0 && (span.before != 0 || span.after != 0)) {
		batch->tally.io_read_modify_write++;
		done = read_around(q, batch, &span);
	}
	if (done.error == 0)
		done = xbb_io_batch(q, batch, &iov, 1, span.offset, span.length,
		    thread);
	return (done);
}

/* Does data go by a buffer? */
bool
xbb_data_is_bounced(const struct xbb_queue *q)
{

	return (q->set.params.bounce || q->conn.copies);
}

/*
 * Does the kernel copy the data of such a batch anyhow, from and to wherever it
 * is to be?  A file's, between its cache and pages that stay mapped.
 */
static bool
is_copied_anyhow(const struct xbb_queue *q, const struct xbb_batch *batch)
{

	return (batch->persistent && !q->set.params.bounce &&
	    q->set.params.disk_kind == XBB_DISK_FILE);
}

/*
 * Move the data of a batch that has some.  0 or a negative errno.  Where
 * copying is preferred pages that stay mapped are copied too: Linux has to look
 * up each page of a guest's that the disk is to work on, the slow way, which
 * takes longer than to copy it.
 */
struct xbb_outcome
xbb_data_move(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{

	if (xbb_data_is_bounced(q) && !is_copied_anyhow(q, batch))
		return (move_bounced(q, batch, thread));
	return (move_straight(q, batch, thread));
}

/*
 * Of a sweep, on the ring's thread: batches of whole blocks, whose pages are
 * mapped one after the other, or whose data has its place in the buffer.
 */

static uint8_t *
sweep_buffer(const struct xbb_queue *q)
{

	return (q->set.buffer + scratch_size(&q->set.params));
}

/* The data of all of it between the guest's pages and the buffer. */
static int
exchange_all(struct xbb_queue *q, struct xbb_sweep *sweep)
{
	uint32_t refs[XBB_MAP_PAGES];
	struct xbb_batch *batch;
	struct xbb_map map;
	uint8_t *buffer, *page;
	uint32_t i;
	int error;

	buffer = sweep_buffer(q);
	if (sweep->kept) {
		for (i = 0; i < sweep->n; i++)
			copy_segments(q, sweep->part[i].batch, true, NULL,
			    buffer +
			    (size_t)sweep->part[i].page * XBB_PAGE_SIZE,
			    !sweep->writes);
		return (0);
	}
	if (q->conn.copies)
		return (xbb_pages_copy_all(q, sweep, buffer));
	error = xbb_pages_map_all(q, sweep, &map, refs);
	if (error != 0)
		return (error);
	page = map.base;
	for (i = 0; i < sweep->n; i++) {
		batch = sweep->part[i].batch;
		copy_segments(q, batch, false, page, buffer +
		    (size_t)sweep->part[i].page * XBB_PAGE_SIZE,
		    !sweep->writes);
		page += (size_t)batch->nseg * XBB_PAGE_SIZE;
	}
	xbb_pages_unmap_all(q, &map);
	return (0);
}

/* Before the disk is asked for any of it. */
int
xbb_data_sweep_begin(struct xbb_queue *q, struct xbb_sweep *sweep)
{

	if (!xbb_data_is_bounced(q))
		return (xbb_pages_map_all(q, sweep, &sweep->map, sweep->refs));
	return (sweep->writes ? exchange_all(q, sweep) : 0);
}

/* Where a part has its place, and on the disk. */
struct xbb_bulk_piece
xbb_data_sweep_piece(struct xbb_queue *q, const struct xbb_sweep_part *part)
{

	return ((struct xbb_bulk_piece){
		.data = sweep_buffer(q) + (size_t)part->page * XBB_PAGE_SIZE,
		.offset = part->batch->sector * XBB_SECTOR_SIZE,
		.length = (uint32_t)part->batch->nsectors * XBB_SECTOR_SIZE,
	});
}

/* A part of it. */
struct xbb_outcome
xbb_data_sweep_part(struct xbb_queue *q, const struct xbb_sweep *sweep,
    const struct xbb_sweep_part *part)
{
	const size_t at = (size_t)part->page * XBB_PAGE_SIZE;
	struct iovec iov[XBB_MAX_BATCH_SEGMENTS];
	struct xbb_batch *batch = part->batch;
	uint64_t length;
	int niov;

	length = batch->nsectors * XBB_SECTOR_SIZE;
	niov = 1;
	if (xbb_data_is_bounced(q))
		iov[0] = (struct iovec){ sweep_buffer(q) + at, length };
	else
		niov = list_segments(q, batch, false,
		    sweep->map.base + at, iov);
	return (xbb_io_batch(q, batch, iov, niov,
	    batch->sector * XBB_SECTOR_SIZE, length, 0));
}

/* Afterwards; read is what the disk has read, all in the buffer, or NULL. */
int
xbb_data_sweep_end(struct xbb_queue *q, struct xbb_sweep *sweep,
    struct xbb_sweep *read)
{

	if (!xbb_data_is_bounced(q)) {
		xbb_pages_unmap_all(q, &sweep->map);
		return (0);
	}
	return (read == NULL || read->n == 0 ? 0 : exchange_all(q, read));
}
