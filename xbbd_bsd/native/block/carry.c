/*
 * carry.c - what a server has acknowledged, and not flushed, on its way from
 * one who served its disk to the next: in a file that both have, and, if the
 * next disk is another one, onto that.  Who reads such a file believes nothing
 * of it that he has not checked.  Any thread.
 */
#include <stdlib.h>
#include <unistd.h>

#include "block/block.h"
#include "block/libnbd.h"

#define MAGIC		0x4b425858	/* "XXBK" in memory */
#define MOST_BYTES	XBB_KEPT_SIZE	/* of such a file */
#define MOST_WRITE	((uint64_t)XBB_MAX_BATCH_SEGMENTS * XBB_PAGE_SIZE)

/* The file: this, then each write with its data.  Count 0: there is none. */
struct head {
	uint64_t	magic;
	uint64_t	count;
	uint64_t	bytes;		/* as struct xbb_unflushed has them */
};

struct record {
	uint64_t	offset;
	uint64_t	length;
	uint64_t	has_data;	/* or it is a discard */
};

static int
use_file(int fd, bool to_file, void *what, size_t size, uint64_t at)
{
	struct iovec iov = { .iov_base = what, .iov_len = size };
	bool was_short;

	if (size > MOST_BYTES || at > MOST_BYTES - size)
		return (-EFBIG);
	return (xbb_transfer(fd, to_file, &iov, 1, (off_t)at, &was_short));
}

/* Nothing is in it any more. */
int
xbb_unflushed_void(int fd)
{
	struct head head = { .magic = MAGIC };

	return (use_file(fd, true, &head, sizeof(head), 0));
}

/* Leave them in the file, in their order. */
int
xbb_unflushed_leave(const struct xbb_unflushed *kept, int fd)
{
	struct head head = { .magic = MAGIC, .bytes = kept->bytes };
	const struct xbb_unflushed_write *write;
	struct record record;
	uint64_t at;
	int error;

	error = xbb_unflushed_void(fd);
	at = sizeof(head);
	for (write = kept->oldest; write != NULL && error == 0;
	    write = write->next) {
		record = (struct record){ write->offset, write->length,
		    write->buffer != NULL };
		error = use_file(fd, true, &record, sizeof(record), at);
		at += sizeof(record);
		if (error == 0 && write->buffer != NULL) {
			error = use_file(fd, true, write->buffer,
			    write->length, at);
			at += write->length;
		}
		head.count++;
	}
	/* Only then it is said that there is something. */
	return (error != 0 ? error :
	    use_file(fd, true, &head, sizeof(head), 0));
}

/* The next one of the file, that ends at *at; of a disk of so many bytes. */
static int
find_one(struct xbb_unflushed *kept, int fd, uint64_t size, uint64_t *at)
{
	struct record record;
	uint8_t *buffer;
	int error;

	error = use_file(fd, false, &record, sizeof(record), *at);
	if (error != 0)
		return (error);
	*at += sizeof(record);
	if (record.offset > size || record.length > size - record.offset ||
	    record.length == 0 || (record.offset | record.length) %
	    XBB_SECTOR_SIZE != 0 || (record.has_data != 0 &&
	    record.length > MOST_WRITE))
		return (-EINVAL);
	buffer = NULL;
	if (record.has_data != 0) {
		/* A disk may want it aligned. */
		if (posix_memalign((void **)&buffer, XBB_PAGE_SIZE,
		    record.length) != 0)
			return (-ENOMEM);
		error = use_file(fd, false, buffer, record.length, *at);
		*at += record.length;
	}
	if (error == 0 && !xbb_unflushed_keep(kept, buffer, record.offset,
	    record.length))
		error = -ENOMEM;
	if (error != 0)
		free(buffer);
	return (error);
}

/* Keep what is in the file; all of it, or none and an errno. */
int
xbb_unflushed_find(struct xbb_unflushed *kept, int fd, uint64_t size)
{
	struct head head;
	uint64_t at, i;
	int error;

	/* A file that is none of ours has nothing. */
	if (pread(fd, &head, sizeof(head), 0) != sizeof(head) ||
	    head.magic != MAGIC)
		return (0);
	at = sizeof(head);
	error = 0;
	for (i = 0; i < head.count && error == 0; i++)
		error = find_one(kept, fd, size, &at);
	if (error == 0 && kept->bytes != head.bytes)
		error = -EINVAL;
	if (error != 0)
		xbb_unflushed_forget(kept, UINT64_MAX);
	return (error);
}

/* Onto another disk. */

static int
write_local(int fd, uint32_t disk_kind,
    const struct xbb_unflushed_write *write)
{
	struct iovec iov = {
		.iov_base = write->buffer, .iov_len = write->length,
	};
	bool was_short;
	int error;

	if (write->buffer != NULL)
		return (xbb_transfer(fd, true, &iov, 1, (off_t)write->offset,
		    &was_short));
	/* It is only advice. */
	error = xbb_disk_discard(fd, disk_kind, (off_t)write->offset,
	    (off_t)write->length);
	return (xbb_means_cannot(error) ? 0 : error);
}

static int
carry_to_local(const struct xbb_unflushed *kept,
    const struct xbb_kept_target *to)
{
	const struct xbb_unflushed_write *write;
	int error;

	error = 0;
	for (write = kept->oldest; write != NULL && error == 0;
	    write = write->next)
		error = write_local(to->fd, to->disk_kind, write);
	if (error == 0)
		error = xbb_disk_flush(to->fd, to->disk_kind);
	return (xbb_means_cannot(error) ? 0 : error);
}

static int
take_answer(void *user, int *error)
{

	*(int *)user = -*error;
	return (1);
}

#define NO_ANSWER	1

/* Have a server do one thing, and wait for that. */
static int
have_done(struct nbd_handle *h, const struct xbb_unflushed_write *write,
    uint64_t end_ns)
{
	const struct xbb_libnbd *lib = &xbb_libnbd;
	int answer = NO_ANSWER;
	const struct nbd_completion done = {
		.callback = take_answer, .user = &answer,
	};
	int64_t cookie;
	int error;

	if (write == NULL)
		cookie = lib->aio_flush(h, done, 0);
	else if (write->buffer != NULL)
		cookie = lib->aio_pwrite(h, write->buffer, write->length,
		    write->offset, done, 0);
	else
		cookie = lib->aio_trim(h, write->length, write->offset, done,
		    0);
	if (cookie < 0)
		return (lib->get_errno() != 0 ? -lib->get_errno() : -EIO);
	error = 0;
	while (answer == NO_ANSWER && error == 0)
		error = xbb_nbd_step(h, end_ns);
	if (answer != NO_ANSWER)
		return (answer);
	return (error);
}

static int
carry_to_server(const struct xbb_unflushed *kept, struct nbd_handle *h,
    uint32_t limit_ms)
{
	const uint64_t limit_ns = (uint64_t)limit_ms * 1000000;
	const struct xbb_unflushed_write *write;
	struct xbb_nbd_found found;
	int error;

	error = 0;
	while (error == 0 && xbb_libnbd.aio_is_connecting(h) == 1)
		error = xbb_nbd_step(h, xbb_now_ns() + limit_ns);
	if (error == 0)
		error = xbb_nbd_agreed(h, &found);
	if (error != 0)
		return (error);
	for (write = kept->oldest; write != NULL && error == 0;
	    write = write->next)
		if (write->buffer != NULL || found.can_trim)
			error = have_done(h, write, xbb_now_ns() + limit_ns);
	return (error != 0 || !found.can_flush ? error :
	    have_done(h, NULL, xbb_now_ns() + limit_ns));
}

static int
carry_all(const struct xbb_unflushed *kept, const struct xbb_kept_target *to)
{
	char words[XBB_NBD_WORDS];
	struct nbd_handle *h;
	int error;

	if (to->disk_kind != XBB_DISK_NBD)
		return (carry_to_local(kept, to));
	h = xbb_nbd_begin(to->fd, &to->wanted, words, sizeof(words));
	if (h == NULL)
		return (-EPROTO);
	error = carry_to_server(kept, h, to->limit_ms);
	xbb_nbd_end(h);
	return (error);
}

int
xbb_kept_carry(int kept_fd, uint64_t bytes, const struct xbb_kept_target *to)
{
	struct xbb_unflushed kept = { .oldest = NULL };
	int error;

	error = kept_fd < 0 ? 0 :
	    xbb_unflushed_find(&kept, kept_fd, to->size);
	if (error == 0 && kept.bytes != bytes)
		error = -EBADMSG;
	if (error == 0)
		error = carry_all(&kept, to);
	else if (to->disk_kind == XBB_DISK_NBD)
		close(to->fd);
	xbb_unflushed_forget(&kept, UINT64_MAX);
	return (error);
}
