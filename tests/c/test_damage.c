/*
 * test_damage.c - state segments that somebody cuts off or overwrites: the disk
 * whose segment it is ends with a reason, or goes on as if nothing had happened;
 * others notice nothing, and the process lives.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define SECTORS		8192
#define OPERATIONS	2000

static const struct pair_options usual = { .workers = 2 };

/* Its counters mean nothing any more, so that its own word has to do. */
static void
wait_stopped(const struct pair *pair, enum xbb_stop_reason reason)
{
	struct pollfd pfd = { .fd = pair->wake[0], .events = POLLIN };
	struct xbb_queue_status status;

	CHECK_EQ(poll(&pfd, 1, LIMIT_MS), 1);
	xbb_queue_status(pair->queue, &status);
	CHECK_EQ(status.state, XBB_QUEUE_DRAINED);
	CHECK_EQ(status.reason, reason);
}

/* With a write at the disk and others behind it. */
static void
check_cut_off(off_t size)
{
	struct xbb_segment seg;
	struct rig other, rig;
	uint32_t i;

	rig_open(&rig, SECTORS, &usual);
	rig_open(&other, SECTORS, &usual);
	rig_teach_slowness(&rig);
	disk_hold();
	for (i = 0; i < 4; i++) {
		seg = guest_segment(&rig.guest, i, 0, 7);
		guest_put(&rig.guest, XBB_OP_WRITE, 16 * i, &seg, 1);
	}
	guest_publish(&rig.guest);
	disk_wait_held(2);
	CHECK_EQ(ftruncate(rig.device.state_fd, size), 0);
	disk_release();
	guest_collect(&rig.guest);
	guest_check_okay(&rig.guest, 4);
	wait_stopped(&rig.pair, XBB_STOP_SEGMENT);
	CHECK(xbb_state_damaged(rig.device.state));

	CHECK(!xbb_state_damaged(other.device.state));
	CHECK_EQ(guest_read_page(&other.guest), XBB_RSP_OKAY);
	pair_drain(&other.pair);
	rig_close(&other);
	rig_close(&rig);
}

/* What an operator asks for meanwhile, and a queue that is opened all the same. */
static void
check_cut_off_at_rest(void)
{
	struct device device;
	struct pair pair;

	device_open(&device, SECTORS, 2);
	xbb_state_lose(device.state, EIO);
	CHECK_EQ(ftruncate(device.state_fd, 0), 0);
	CHECK_EQ(xbb_state_lost(device.state), EIO);
	CHECK_EQ(xbb_state_rings(device.state), 2);
	CHECK_EQ(xbb_state_entries(device.state), XBB_MAX_REQUESTS);
	CHECK(xbb_state_table(device.state, 2) == NULL);
	CHECK(xbb_state_latency(device.state, 2) == NULL);
	CHECK(!xbb_state_damaged(device.state));
	xbb_tunable_set(&device.state->tunables.poll_max_us, 1);
	CHECK(xbb_state_damaged(device.state));
	pair_open(&pair, &device, 1, &usual);
	wait_stopped(&pair, XBB_STOP_SEGMENT);
	pair_close(&pair);
	device_close(&device);
}

/* Overwrites a segment with anything, but for what an operator may say. */
struct vandal {
	const struct device *device;
	atomic_bool	 stop;
};

static void
overwrite(int fd, uint64_t *seed, off_t from, off_t to)
{
	uint8_t garbage[XBB_PAGE_SIZE];
	size_t n;

	for (; from < to; from += (off_t)n) {
		n = to - from < XBB_PAGE_SIZE ? (size_t)(to - from) :
		    XBB_PAGE_SIZE;
		random_bytes(seed, garbage, n);
		CHECK_EQ(pwrite(fd, garbage, n, from), (ssize_t)n);
	}
}

static void *
vandal_main(void *arg)
{
	struct vandal *vandal = arg;
	const int fd = vandal->device->state_fd;
	uint64_t seed = 1;
	struct stat st;

	CHECK_EQ(fstat(fd, &st), 0);
	while (!atomic_load(&vandal->stop)) {
		overwrite(fd, &seed, 0, offsetof(struct xbb_state, sectors));
		overwrite(fd, &seed, offsetof(struct xbb_state, medium),
		    offsetof(struct xbb_state, pause));
		overwrite(fd, &seed, offsetof(struct xbb_state, ring),
		    st.st_size);
	}
	return (NULL);
}

static void
check_overwritten(void)
{
	struct xbb_workload load = {
		.seed = 1,
		.operations = OPERATIONS,
		.depth = 32,
		.read_percent = 50,
		.flush_every = 50,
		.barrier_every = 20,
		.sectors = SECTORS,
		.min_sectors = 1,
		.max_sectors = XBB_MAX_SEGMENTS * XBB_SECTORS_PER_PAGE,
		.align_sectors = 1,
	};
	struct xbb_progress progress = { 0 };
	struct vandal vandal = { 0 };
	struct device device;
	struct pair pair;
	pthread_t thread;

	device_open(&device, SECTORS, 1);
	pair_open(&pair, &device, 0, &usual);
	vandal.device = &device;
	CHECK_EQ(pthread_create(&thread, NULL, vandal_main, &vandal), 0);
	load.model = calloc(SECTORS, XBB_SECTOR_SIZE);
	CHECK(load.model != NULL);
	CHECK_EQ(xbb_front_exercise(pair.front, &load, &progress, LIMIT_MS),
	    0);
	CHECK_EQ(progress.mismatches, 0);
	CHECK_EQ(progress.errors, 0);
	CHECK_EQ(progress.bad_responses, 0);
	xbb_queue_drain(pair.queue);
	wait_stopped(&pair, XBB_STOP_NONE);
	atomic_store(&vandal.stop, true);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(xbb_state_rings(device.state), 1);
	free(load.model);
	pair_close(&pair);
	device_close(&device);
}

/* A size that no disk has lets nobody write behind the end of this one. */
static void
check_impossible_size(void)
{
	struct xbb_segment seg;
	struct rig rig;
	struct stat st;

	rig_open(&rig, SECTORS, &usual);
	XBB_SET(rig.device.state->sectors, UINT64_MAX);
	seg = guest_segment(&rig.guest, 0, 0, 7);
	CHECK_EQ(guest_do(&rig.guest, XBB_OP_WRITE, SECTORS, &seg, 1),
	    XBB_RSP_ERROR);
	CHECK_EQ(fstat(rig.device.disk_fd, &st), 0);
	CHECK_EQ(st.st_size, SECTORS * XBB_SECTOR_SIZE);
	XBB_SET(rig.device.state->lost_errno, INT32_MIN);
	CHECK_EQ(xbb_state_lost(rig.device.state), EIO);
	xbb_state_believe(rig.device.state);
	CHECK_EQ(xbb_state_lost(rig.device.state), 0);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

static void
touch_missing(void)
{
	const int fd = scratch_file(XBB_PAGE_SIZE);
	volatile uint8_t *p;

	p = mmap(NULL, XBB_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(ftruncate(fd, 0), 0);
	(void)*p;
}

static void
send_signal(void)
{

	raise(SIGBUS);
}

/* What is not about a segment of ours kills as it always did. */
static void
check_others_kill(void (*fault)(void))
{
	struct device device;
	int status;
	pid_t child;

	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		close(STDERR_FILENO);	/* a sanitizer has much to say */
		device_open(&device, SECTORS, 1);
		fault();
		_exit(0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS :
	    WEXITSTATUS(status) != 0);
	CHECK_EQ(system("rm -r dom0"), 0);
}

int
main(void)
{
	static const off_t sizes[] = { 0, 1, XBB_PAGE_SIZE, 4 * XBB_PAGE_SIZE };
	uint32_t i;

	scratch_enter();
	check_others_kill(touch_missing);
	check_others_kill(send_signal);
	for (i = 0; i < COUNTOF(sizes); i++)
		check_cut_off(sizes[i]);
	check_cut_off_at_rest();
	check_overwritten();
	check_impossible_size();
	scratch_leave();
	return (0);
}
