/*
 * bulk_linux.c - several reads or writes of a device by one system call, from
 * and to memory that the kernel has looked up once for good: io_uring(7).
 * Knows offsets and bytes, no batch.  The ring's thread, from open to close.
 *
 * A thread that is killed ends at once, and what it began goes on without it:
 * so the fence, whose lock says that nobody is at the disk any more, is one of
 * the files that are registered.  The kernel lets go of them, and with the last
 * reference of the lock, when all has come back.
 *
 * Whatever is not done is left to its caller, who has the ordinary way.  There
 * is no such ring in a process that is confined: a filter of system calls does
 * not see what goes by it.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/io_uring.h>

#include "block/block.h"

/*
 * A buffer stays in memory, and takes a descriptor: those few are out of what
 * is never for disks.
 */
#define MOST_OPEN	32

#define DISK_FILE	0		/* of the registered ones */

#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_SINGLE_ISSUER	(1U << 12)
#define IORING_SETUP_DEFER_TASKRUN	(1U << 13)
#endif

struct xbb_bulk {
	int		 fd;
	void		*rings;		/* the kernel's too, as the next */
	size_t		 rings_size;	/* bytes */
	struct io_uring_sqe *sqes;
	size_t		 sqes_size;	/* bytes */
	const struct io_uring_cqe *cqes;
	uint32_t	*sq_tail, *cq_head, *cq_tail;
	uint32_t	 sq_mask, cq_mask;
};

static atomic_uint nopen;

static int
make_uring(unsigned int entries, struct io_uring_params *params)
{

	return ((int)syscall(SYS_io_uring_setup, entries, params));
}

static int
enter_uring(int fd, unsigned int submit, unsigned int wait)
{

	return ((int)syscall(SYS_io_uring_enter, fd, submit, wait,
	    IORING_ENTER_GETEVENTS, NULL, 0));
}

static int
register_uring(int fd, unsigned int what, const void *list, unsigned int n)
{

	return ((int)syscall(SYS_io_uring_register, fd, what, list, n));
}

/*
 * Does the device take what it would have to wait for, and say so?  Else the
 * kernel does it by threads of its own, which takes longer.
 */
static bool
never_waits(int fd, void *buffer, uint32_t size)
{
	const struct iovec iov = { buffer, size };

	if ((fcntl(fd, F_GETFL) & O_DIRECT) == 0)
		return (false);
	return (preadv2(fd, &iov, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN);
}

static bool
map_rings(struct xbb_bulk *bulk, const struct io_uring_params *p)
{
	const size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	const size_t cq = p->cq_off.cqes +
	    p->cq_entries * sizeof(struct io_uring_cqe);
	uint32_t *array, i;
	uint8_t *base;

	if ((p->features & IORING_FEAT_SINGLE_MMAP) == 0)
		return (false);
	bulk->rings_size = sq > cq ? sq : cq;
	bulk->rings = mmap(NULL, bulk->rings_size, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_POPULATE, bulk->fd, IORING_OFF_SQ_RING);
	if (bulk->rings == MAP_FAILED)
		return (false);
	bulk->sqes_size = p->sq_entries * sizeof(struct io_uring_sqe);
	bulk->sqes = mmap(NULL, bulk->sqes_size, PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_POPULATE, bulk->fd, IORING_OFF_SQES);
	if (bulk->sqes == MAP_FAILED)
		return (false);
	base = bulk->rings;
	bulk->sq_tail = (uint32_t *)(void *)(base + p->sq_off.tail);
	bulk->cq_head = (uint32_t *)(void *)(base + p->cq_off.head);
	bulk->cq_tail = (uint32_t *)(void *)(base + p->cq_off.tail);
	bulk->cqes = (const struct io_uring_cqe *)(const void *)(base +
	    p->cq_off.cqes);
	bulk->sq_mask = p->sq_entries - 1;
	bulk->cq_mask = p->cq_entries - 1;
	array = (uint32_t *)(void *)(base + p->sq_off.array);
	for (i = 0; i < p->sq_entries; i++)
		array[i] = i;
	return (true);
}

static bool
open_bulk(struct xbb_bulk *bulk, int disk_fd, int fence_fd, void *buffer,
    size_t size)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER |
		    IORING_SETUP_DEFER_TASKRUN,
	};
	const struct iovec iov = { buffer, size };
	const int32_t files[] = { disk_fd, fence_fd };

	bulk->rings = bulk->sqes = MAP_FAILED;
	bulk->fd = make_uring(XBB_SWEEP_MOST, &params);
	return (bulk->fd >= 0 && map_rings(bulk, &params) &&
	    register_uring(bulk->fd, IORING_REGISTER_BUFFERS, &iov, 1) == 0 &&
	    register_uring(bulk->fd, IORING_REGISTER_FILES, files, 2) == 0);
}

/*
 * For the device, whose sectors are so large, and a buffer; NULL if there is no
 * such thing, or none to be had.
 */
struct xbb_bulk *
xbb_bulk_open(int disk_fd, uint32_t sector_size, int fence_fd, void *buffer,
    size_t size)
{
	struct xbb_bulk *bulk;

	if (fence_fd < 0 || !never_waits(disk_fd, buffer, sector_size))
		return (NULL);
	if (atomic_fetch_add(&nopen, 1) >= MOST_OPEN) {
		atomic_fetch_sub(&nopen, 1);
		return (NULL);
	}
	bulk = calloc(1, sizeof(*bulk));
	if (bulk == NULL)
		atomic_fetch_sub(&nopen, 1);
	else if (!open_bulk(bulk, disk_fd, fence_fd, buffer, size)) {
		xbb_bulk_close(bulk);
		bulk = NULL;
	}
	return (bulk);
}

/* Nothing is under way: the files are let go of before it returns. */
void
xbb_bulk_close(struct xbb_bulk *bulk)
{

	if (bulk->fd >= 0) {
		(void)register_uring(bulk->fd, IORING_UNREGISTER_FILES, NULL,
		    0);
		(void)register_uring(bulk->fd, IORING_UNREGISTER_BUFFERS, NULL,
		    0);
	}
	if (bulk->sqes != MAP_FAILED)
		munmap(bulk->sqes, bulk->sqes_size);
	if (bulk->rings != MAP_FAILED)
		munmap(bulk->rings, bulk->rings_size);
	if (bulk->fd >= 0)
		close(bulk->fd);
	free(bulk);
	atomic_fetch_sub(&nopen, 1);
}

static void
put_pieces(struct xbb_bulk *bulk, bool to_disk,
    const struct xbb_bulk_piece *pieces, uint32_t n)
{
	uint32_t i, tail;

	tail = *bulk->sq_tail;
	for (i = 0; i < n; i++)
		bulk->sqes[tail++ & bulk->sq_mask] = (struct io_uring_sqe){
			.opcode = to_disk ? IORING_OP_WRITE_FIXED :
			    IORING_OP_READ_FIXED,
			.flags = IOSQE_FIXED_FILE,
			.fd = DISK_FILE,
			.off = pieces[i].offset,
			.addr = (uint64_t)(uintptr_t)pieces[i].data,
			.len = pieces[i].length,
			.user_data = i,
		};
	__atomic_store_n(bulk->sq_tail, tail, __ATOMIC_RELEASE);
}

/* Note what has come back; how many. */
static uint32_t
take_results(struct xbb_bulk *bulk, struct xbb_bulk_piece *pieces)
{
	const struct io_uring_cqe *cqe;
	struct xbb_bulk_piece *piece;
	uint32_t begin, head, tail;

	begin = head = *bulk->cq_head;
	tail = __atomic_load_n(bulk->cq_tail, __ATOMIC_ACQUIRE);
	for (; head != tail; head++) {
		cqe = &bulk->cqes[head & bulk->cq_mask];
		piece = &pieces[cqe->user_data];
		piece->moved = cqe->res >= 0 &&
		    (uint32_t)cqe->res == piece->length;
	}
	__atomic_store_n(bulk->cq_head, head, __ATOMIC_RELEASE);
	return (head - begin);
}

/*
 * Move all pieces, at most XBB_SWEEP_MOST; which of them were moved as a whole
 * they say.  Of the others nothing is known, but that it is over.  False if the
 * kernel did not take them all: then it is to be closed.
 */
bool
xbb_bulk_move(struct xbb_bulk *bulk, bool to_disk,
    struct xbb_bulk_piece *pieces, uint32_t n)
{
	uint32_t away, left;
	bool refused;
	int taken;

	put_pieces(bulk, to_disk, pieces, n);
	refused = false;
	away = 0;
	for (left = n; left + away != 0; away -= take_results(bulk, pieces)) {
		taken = enter_uring(bulk->fd, left, left + away);
		if (taken > 0) {
			left -= (uint32_t)taken;
			away += (uint32_t)taken;
		} else if (left != 0 && (taken == 0 || errno != EINTR)) {
			/* What it has not taken by now is not there. */
			refused = true;
			left = 0;
		} else if (taken < 0)
			/* What is under way has our buffer: no way out. */
			assert(errno == EINTR || errno == EAGAIN ||
			    errno == EBUSY);
	}
	return (!refused);
}
