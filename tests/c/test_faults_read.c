/*
 * test_faults_read.c - what is told of failed requests is read by others while
 * it is written, and may be damaged by them: nothing is read in halves, and
 * nobody waits for ever.
 */
#include <sys/mman.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"

#define SECTORS		1024
#define ENOUGH		200	/* faults that a reader is to see */

static const struct pair_options usual = { .workers = 4 };

/* A reader gets no half of one and half of another, however quickly they come. */
struct reader {
	const struct rig *rig;
	atomic_bool	 stop;
	uint32_t	 seen;
};

static void *
read_on(void *arg)
{
	struct reader *reader = arg;
	struct xbb_faults faults;
	const struct xbb_fault *last = &faults.last_disk;
	uint32_t before;

	for (before = 0; !atomic_load(&reader->stop);) {
		if (xbb_state_faults(reader->rig->device.state, 0,
		    &faults) != 0 || last->sequence == 0)
			continue;
		CHECK_EQ(last->nsectors, last->sector % 1000);
		CHECK_EQ(last->operation, last->sector % 2);
		CHECK_EQ(last->errnum, last->sector % 77 + 1);
		CHECK(last->sequence >= before);
		XBB_COUNT(reader->seen, last->sequence != before);
		before = last->sequence;
	}
	return (NULL);
}

static void
check_whole(void)
{
	static struct xbb_queue queue;	/* as much of it as counting needs */
	struct xbb_verdict why = { .blame = XBB_BLAME_HOST };
	struct xbb_req req = { 0 };
	struct reader reader;
	struct rig rig;
	pthread_t thread;
	uint64_t limit;
	uint32_t n;

	rig_open(&rig, SECTORS, &usual);
	pair_drain(&rig.pair);
	queue.set.rs = rig.pair.rs;
	reader = (struct reader){ .rig = &rig };
	CHECK_EQ(pthread_create(&thread, NULL, read_on, &reader), 0);
	limit = xbb_now_ns() + LIMIT_MS * 1000000ULL;
	for (n = 0; XBB_GET(reader.seen) < ENOUGH; n++) {
		CHECK(n % 1000 != 0 || xbb_now_ns() < limit);
		req.sector = n;
		req.nsectors = n % 1000;
		why.operation = n % 2;
		why.errnum = (int)(n % 77) + 1;
		xbb_faults_count(&queue, &req, &why);
	}
	atomic_store(&reader.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(xbb_state_failures(rig.device.state), n);
	printf("%u of %u seen\n", reader.seen, n);
	rig_close(&rig);
}

/*
 * Half written, it says so: the second half lies on a page that cannot be written,
 * and who is told of the attempt looks at the first.
 */
static uint8_t *second_half;
static const uint32_t *watched;
static atomic_uint seen_amid;

static void
on_fault(int sig)
{

	(void)sig;
	atomic_store(&seen_amid, XBB_GET(*watched));
	mprotect(second_half, XBB_PAGE_SIZE, PROT_READ | PROT_WRITE);
}

static void
check_half_written(void)
{
	static struct xbb_queue queue;	/* as much of it as counting needs */
	const struct sigaction action = { .sa_handler = on_fault };
	const struct xbb_verdict why = { .blame = XBB_BLAME_HOST, .errnum = 5 };
	const struct xbb_req req = { .sector = 8, .nsectors = 8 };
	const size_t half = offsetof(struct xbb_ring_state,
	    faults.last_disk.sector);
	struct sigaction former;
	uint8_t *pages;
	uint32_t n;

	CHECK(half < XBB_PAGE_SIZE && sizeof(*queue.set.rs) - half < XBB_PAGE_SIZE);
	pages = mmap(NULL, 2 * XBB_PAGE_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	CHECK(pages != MAP_FAILED);
	second_half = pages + XBB_PAGE_SIZE;
	queue.set.rs = (struct xbb_ring_state *)(void *)(second_half - half);
	watched = &queue.set.rs->faults.last_disk.sequence;
	CHECK_EQ(sigaction(SIGSEGV, &action, &former), 0);
	for (n = 0; n < 3; n++) {
		CHECK_EQ(mprotect(second_half, XBB_PAGE_SIZE, PROT_READ), 0);
		xbb_faults_count(&queue, &req, &why);
		CHECK_EQ(atomic_load(&seen_amid), 2 * n + 1);
		CHECK_EQ(*watched, 2 * n + 2);
	}
	CHECK_EQ(sigaction(SIGSEGV, &former, NULL), 0);
	munmap(pages, 2 * XBB_PAGE_SIZE);
}

/* Whatever somebody writes there, a reader ends, and so does the ring's thread. */
static void
check_damaged(void)
{
	struct xbb_faults *at, faults;
	struct xbb_segment seg;
	struct rig rig;

	rig_open(&rig, SECTORS, &usual);
	at = &rig.device.state->ring[0].faults;
	XBB_SET(at->last_guest.sequence, 7);
	CHECK_EQ(xbb_state_faults(rig.device.state, 0, &faults), -EAGAIN);
	memset(at, 0xff, sizeof(*at));
	CHECK_EQ(xbb_state_faults(rig.device.state, 0, &faults), -EAGAIN);
	CHECK_EQ(faults.last_disk.sequence, 0);
	CHECK_EQ(faults.last_guest.sequence, 0);
	CHECK_EQ(xbb_state_faults(rig.device.state, 1, &faults), -EINVAL);
	atomic_store(&disk.errnum, EIO);
	CHECK_EQ(guest_read_page(&rig.guest), XBB_RSP_ERROR);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_READ, SECTORS, &seg, 1),
	    XBB_RSP_ERROR);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_whole();
	check_half_written();
	check_damaged();
	scratch_leave();
	return (0);
}
