/*
 * io.c - what a batch has the disk do: reads and writes of memory that is
 * ready, flushes, discards; and what went wrong.  Knows nothing of the guest's
 * pages.  Runs on an I/O thread or on the ring's, and changes nothing of the
 * queue but the batch's tally.
 */
#include <unistd.h>

#include "block/block.h"

/*
 * Move all bytes of iov, however many calls that takes; iov is used up.
 * Returns 0 or a negative errno; -EIO when the disk ends early, for a size
 * that was checked against it.
 */
inline int
xbb_transfer(int fd, bool to_disk, struct iovec *iov, int niov, off_t offset,
    bool *was_short)
{
	ssize_t n;

	while (niov > 0) {
		n = to_disk ? pwritev(fd, iov, niov, offset) :
		    preadv(fd, iov, niov, offset);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return (-errno);
		}
		if (n == 0)
			return (-EIO);
		offset += n;
		while (niov > 0 && (size_t)n >= iov->iov_len) {
			n -= iov->iov_len;
			iov++;
			niov--;
		}
		if (niov > 0) {
			*was_short = true;
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= n;
		}
	}
	return (0);
}

/* Is its end beyond that of the disk, which nobody checked it against? */
static bool
is_beyond_end(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	const struct xbb_queue_params *p = &q->set.params;
	uint64_t size;

	/* A device without a size is gone. */
	return (xbb_disk_size(p->disk_fd, p->disk_kind, &size) == 0 &&
	    (size != 0 || p->disk_kind == XBB_DISK_FILE) &&
	    (batch->sector + batch->nsectors) * XBB_SECTOR_SIZE > size);
}

/*
 * Note what the disk said, as opposed to what a guest did wrong.  A disk that
 * is gone may call it an error like any other (Linux).
 */
static struct xbb_outcome
note_error(const struct xbb_queue *q, struct xbb_batch *batch,
    enum xbb_disk_op operation, int error)
{
	const struct xbb_queue_params *p = &q->set.params;
	struct xbb_tally *tally = &batch->tally;

	if (error == 0)
		return (XBB_WELL);
	tally->io_errors++;
	if (tally->failed_errno == 0) {
		tally->failed_errno = (int16_t)-error;
		tally->failed_op = (uint8_t)operation;
		tally->shrunk = operation != XBB_DISK_OP_FLUSH &&
		    is_beyond_end(q, batch);
	}
	if (xbb_means_gone(error))
		tally->gone_errno = (int16_t)-error;
	else if (error == -EIO && tally->gone_errno == 0 &&
	    xbb_disk_is_gone(p->disk_fd, p->disk_kind))
		tally->gone_errno = ENXIO;
	return ((struct xbb_outcome){ error, XBB_BLAME_HOST });
}

/*
 * What the disk was given is durable afterwards.  What cannot be flushed says
 * so, which is no error of the disk.
 */
struct xbb_outcome
xbb_io_flush(struct xbb_queue *q, struct xbb_batch *batch, uint32_t thread)
{
	const struct xbb_queue_params *p = &q->set.params;
	uint64_t before;
	bool done;
	int error;

	xbb_speed_note(q, thread);
	before = xbb_now_ns();
	error = xbb_flush(q->set.flushes, p->disk_fd, p->disk_kind, &done);
	batch->tally.flushes += done;
	xbb_speed_judge_flush(q, xbb_now_ns() - before, thread);
	if (xbb_means_cannot(error))
		return ((struct xbb_outcome){ error, XBB_BLAME_NOBODY });
	batch->tally.lost_errno = (int16_t)-error;
	return (note_error(q, batch, XBB_DISK_OP_FLUSH, error));
}

int
xbb_file_can_punch(int fd)
{

	/* A whole page: some file systems want that. */
	return (xbb_disk_discard(fd, XBB_DISK_FILE, 0, XBB_PAGE_SIZE) == 0);
}

/* Bytes of one discard of the disk, which no signal and no drain interrupts. */
#define DISCARD_STEP	((uint64_t)1 << 30)

/*
 * Of a disk with larger sectors only those that lie in the range entirely.  As
 * it is only advice the rest is left out when somebody waits for us to end; but
 * for a secure one, which is a promise, and is not offered for such disks.
 */
struct xbb_outcome
xbb_io_discard(struct xbb_queue *q, struct xbb_batch *batch)
{
	const struct xbb_queue_params *p = &q->set.params;
	const uint64_t block = p->block_size;
	uint64_t end, n, start;
	int error;

	start = (batch->sector * XBB_SECTOR_SIZE + block - 1) / block * block;
	end = (batch->sector + batch->nsectors) * XBB_SECTOR_SIZE / block *
	    block;
	error = 0;
	for (; start < end && error == 0; start += n) {
		n = end - start < DISCARD_STEP ? end - start : DISCARD_STEP;
		error = batch->secure ?
		    xbb_disk_erase(p->disk_fd, (off_t)start, (off_t)n) :
		    xbb_disk_discard(p->disk_fd, p->disk_kind,
		    (off_t)start, (off_t)n);
		if (!batch->secure && atomic_load(&q->conn.draining))
			break;
	}
	return (note_error(q, batch, XBB_DISK_OP_DISCARD, error));
}

inline struct xbb_outcome
xbb_io_part(struct xbb_queue *q, struct xbb_batch *batch, bool to_disk,
    struct iovec *iov, int niov, uint64_t offset)
{
	bool was_short;
	int error;

	was_short = false;
	error = xbb_transfer(q->set.params.disk_fd, to_disk, iov, niov,
	    (off_t)offset, &was_short);
	batch->tally.io_short += was_short;
	if (error == 0)
		return (XBB_WELL);
	return (note_error(q, batch,
	    to_disk ? XBB_DISK_OP_WRITE : XBB_DISK_OP_READ, error));
}

/*
 * A write to a file.  One that somebody made shorter would grow again, and what
 * the guest had in the part that was cut off would read as zeros: so it must
 * end within the file as it is now.  No system call does both at once.  If the
 * file is shorter after the write than before, and ends where the write does
 * (or, if that failed, where it came to), it was cut off in between and may
 * have grown by us: then nothing of the disk is believed any more, as after a
 * flush that failed.
 */
static struct xbb_outcome
write_file(struct xbb_queue *q, struct xbb_batch *batch, struct iovec *iov,
    int niov, uint64_t offset, uint64_t end)
{
	const int fd = q->set.params.disk_fd;
	uint64_t after, before;
	struct xbb_outcome done;

	if (xbb_file_size(fd, &before) != 0 || end > before)
		return (note_error(q, batch, XBB_DISK_OP_WRITE, -EIO));
	done = xbb_io_part(q, batch, true, iov, niov, offset);
	if (xbb_file_size(fd, &after) != 0 || after >= before)
		return (done);
	if (after == end ||
	    (done.error != 0 && after > offset && after < end)) {
		xbb_flushes_lose(q->set.flushes, EFBIG);
		batch->tally.lost_errno = EFBIG;
		return (note_error(q, batch, XBB_DISK_OP_WRITE, -EIO));
	}
	return (done);
}

/* What a file lost must not be read as zeros. */
static struct xbb_outcome
read_disk(struct xbb_queue *q, struct xbb_batch *batch, struct iovec *iov,
    int niov, uint64_t offset)
{
	struct xbb_outcome done;

	done = xbb_io_part(q, batch, false, iov, niov, offset);
	if (done.error == 0 && xbb_flushes_lost(q->set.flushes) == EFBIG)
		done = note_error(q, batch, XBB_DISK_OP_READ, -EIO);
	return (done);
}

/*
 * The disk's part.  A barrier is durable too, as what was before it is already
 * (batch.c); if there is nothing to flush it is so by itself.
 */
struct xbb_outcome
xbb_io_batch(struct xbb_queue *q, struct xbb_batch *batch, struct iovec *iov,
    int niov, uint64_t offset, uint64_t length, uint32_t thread)
{
	struct xbb_outcome done;

	if (batch->operation == XBB_OP_READ)
		return (read_disk(q, batch, iov, niov, offset));
	if (q->set.params.disk_kind == XBB_DISK_FILE)
		done = write_file(q, batch, iov, niov, offset,
		    offset + length);
	else
		done = xbb_io_part(q, batch, true, iov, niov, offset);
	if (done.error == 0 && xbb_batch_is_barrier(batch)) {
		done = xbb_io_flush(q, batch, thread);
		if (xbb_means_cannot(done.error))
			done = XBB_WELL;
	}
	return (done);
}
