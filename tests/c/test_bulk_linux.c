/*
 * test_bulk_linux.c - a device that is quick has all of a sweep by one system
 * call, where there is such a one: what it leaves undone is done the ordinary
 * way, and the lock that says who serves is not free before the kernel is done.
 */
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define N		16		/* requests, which nothing merges */
#define STEP		(2 * XBB_SECTORS_PER_PAGE)
#define SECTORS		((N + 1) * STEP)
#define BUFFER		(64 * XBB_PAGE_SIZE)

static const struct pair_options ways[] = {
	{ .transport = XBB_TRANSPORT_COPY, .device = true },
	{ .transport = XBB_TRANSPORT_COPY, .device = true, .persistent = 64 },
	{ .transport = XBB_TRANSPORT_MAP, .device = true, .bounce = true },
};

/* As if no thread had ever to wait: then any disk is a quick one. */
int
getrusage(__rusage_who_t who, struct rusage *usage)
{

	(void)who;
	memset(usage, 0, sizeof(*usage));
	return (0);
}

/* Of what it is given next the kernel takes so many, and then no more. */
#define ALL		UINT_MAX

static atomic_uint takes = ALL;

long
syscall(long number, ...)
{
	static _Atomic(long (*)(long, ...)) real;
	unsigned int left;
	unsigned long arg[6];
	va_list list;
	int i;

	if (real == NULL)
		real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (i = 0; i < 6; i++)
		arg[i] = va_arg(list, unsigned long);
	va_end(list);
	left = atomic_load(&takes);
	if (number == SYS_io_uring_enter && arg[1] != 0 && left != ALL) {
		if (left == 0) {
			errno = EAGAIN;
			return (-1);
		}
		if (arg[1] > left)
			arg[1] = arg[2] = left;
		atomic_store(&takes, left - (unsigned int)arg[1]);
	}
	return (real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]));
}

/* A file that goes by no cache; -1: where that cannot be. */
static int
direct_file(uint64_t size)
{
	const int fd = scratch_file(size);

	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT) == 0)
		return (fd);
	close(fd);
	return (-1);
}

static uint8_t *
make_buffer(void)
{
	void *base;

	base = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(base != MAP_FAILED);
	return (base);
}

/* Is there such a call here, for a file there? */
static bool
is_possible(void)
{
	uint8_t *buffer = make_buffer();
	const int fd = direct_file(BUFFER);
	struct xbb_bulk *bulk;

	bulk = NULL;
	if (fd >= 0) {
		bulk = xbb_bulk_open(fd, XBB_SECTOR_SIZE, fd, buffer, BUFFER);
		CHECK_EQ(close(fd), 0);
	}
	if (bulk != NULL)
		xbb_bulk_close(bulk);
	munmap(buffer, BUFFER);
	return (bulk != NULL);
}

/* A sector in the middle of a page each, published at once. */
static void
put_all(struct rig *rig, uint8_t operation)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < N; i++) {
		seg = guest_segment(&rig->guest, i, i % 2, 6 + i % 2);
		guest_put(&rig->guest, operation, i * STEP, &seg, 1);
	}
	guest_publish(&rig->guest);
}

static void
do_all(struct rig *rig, uint8_t operation)
{

	put_all(rig, operation);
	guest_collect(&rig->guest);
}

static void
fill(struct rig *rig, uint8_t value)
{
	uint32_t i;

	for (i = 0; i < N; i++)
		memset(xbb_front_page(rig->guest.front, i), value + (int)i,
		    XBB_PAGE_SIZE);
}

static void
check_page(struct rig *rig, uint32_t i, uint8_t around, uint8_t value)
{
	uint8_t *page = xbb_front_page(rig->guest.front, i);

	CHECK(all_bytes(page, i % 2 * XBB_SECTOR_SIZE, around));
	CHECK(all_bytes(page + i % 2 * XBB_SECTOR_SIZE, 7 * XBB_SECTOR_SIZE,
	    value));
	CHECK(all_bytes(page + (7 + i % 2) * XBB_SECTOR_SIZE,
	    (1 - i % 2) * XBB_SECTOR_SIZE, around));
}

static void
open_direct(struct rig *rig, const struct pair_options *way)
{
	const int fd = direct_file(SECTORS * XBB_SECTOR_SIZE);

	rig_open(rig, SECTORS, way);
	CHECK_EQ(dup2(fd, rig->device.disk_fd), rig->device.disk_fd);
	close(fd);
}

/* A disk that has its call, once nobody had to wait for it for a while. */
static void
open_quick(struct rig *rig, const struct pair_options *way)
{
	uint32_t before, n;

	open_direct(rig, way);
	xbb_state_fence(rig->device.state, rig->device.state_fd);
	fill(rig, 0x20);
	for (n = 0;; n++) {
		CHECK(n < 1000);
		before = atomic_load(&disk.transfers);
		do_all(rig, XBB_OP_WRITE);
		guest_check_okay(&rig->guest, N);
		if (atomic_load(&disk.transfers) == before)
			return;
	}
}

static void
check_moves(const struct pair_options *way)
{
	struct rig rig;
	uint8_t sectors[STEP * XBB_SECTOR_SIZE];
	uint32_t i;

	open_quick(&rig, way);
	fill(&rig, 0x40);
	do_all(&rig, XBB_OP_WRITE);
	guest_check_okay(&rig.guest, N);
	fill(&rig, 0x80);
	do_all(&rig, XBB_OP_READ);
	guest_check_okay(&rig.guest, N);
	for (i = 0; i < N; i++)
		check_page(&rig, i, (uint8_t)(0x80 + i), (uint8_t)(0x40 + i));
	pair_drain(&rig.pair);
	CHECK_EQ(COUNTER(&rig.pair, io_inline),
	    COUNTER(&rig.pair, total_dispatch));
	CHECK_EQ(COUNTER(&rig.pair, io_bounced),
	    COUNTER(&rig.pair, total_dispatch));
	CHECK_EQ(fcntl(rig.device.disk_fd, F_SETFL,
	    fcntl(rig.device.disk_fd, F_GETFL) & ~O_DIRECT), 0);
	for (i = 0; i < N; i++) {
		device_read(&rig.device, i * STEP, STEP, sectors);
		CHECK(all_bytes(sectors, 7 * XBB_SECTOR_SIZE,
		    (uint8_t)(0x40 + i)));
		CHECK(all_bytes(sectors + 7 * XBB_SECTOR_SIZE,
		    (STEP - 7) * XBB_SECTOR_SIZE, 0));
	}
	rig_close(&rig);
}

/* A disk that ends amid them: whose requests are beyond that is found out. */
static void
check_bad_place(const struct pair_options *way)
{
	const uint32_t good = 9;
	struct rig rig;
	uint32_t i;

	open_quick(&rig, way);
	CHECK_EQ(ftruncate(rig.device.disk_fd,
	    (off_t)(good * STEP * XBB_SECTOR_SIZE)), 0);
	fill(&rig, 0x60);
	do_all(&rig, XBB_OP_READ);
	for (i = 0; i < N; i++) {
		CHECK_EQ(rig.guest.status[i],
		    i < good ? XBB_RSP_OKAY : XBB_RSP_ERROR);
		if (i < good)
			check_page(&rig, i, (uint8_t)(0x60 + i),
			    (uint8_t)(0x20 + i));
	}
	CHECK_EQ(COUNTER(&rig.pair, io_errors), N - good);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* A page that is not granted for that, amid the others. */
static void
check_bad_grant(const struct pair_options *way)
{
	const uint32_t bad = 5;
	struct rig rig;
	uint32_t i;

	if (way->persistent != 0)
		return;
	open_quick(&rig, way);
	fill(&rig, 0x60);
	CHECK_EQ(xbb_front_set_access(rig.guest.front,
	    xbb_front_page_ref(rig.guest.front, bad), 1), 0);
	do_all(&rig, XBB_OP_READ);
	for (i = 0; i < N; i++) {
		CHECK_EQ(rig.guest.status[i],
		    i == bad ? XBB_RSP_ERROR : XBB_RSP_OKAY);
		if (i != bad)
			check_page(&rig, i, (uint8_t)(0x60 + i),
			    (uint8_t)(0x20 + i));
	}
	CHECK_EQ(COMMON(&rig.pair, grant_errors), 1);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Grants that were mapped or copied so far, each time they were. */
static uint64_t
grants_used(struct rig *rig)
{

	return (COMMON(&rig->pair, grants_copied_total) +
	    COMMON(&rig->pair, grants_mapped_total));
}

/*
 * A kernel that takes no more, or no more after some: all is done, and from then
 * on the ordinary way and no other.
 */
static void
check_refused(const struct pair_options *way, unsigned int some)
{
	struct rig rig;
	uint64_t used;
	uint32_t before, i;

	open_quick(&rig, way);
	fill(&rig, 0x40);
	atomic_store(&takes, some);
	do_all(&rig, XBB_OP_WRITE);
	guest_check_okay(&rig.guest, N);
	atomic_store(&takes, ALL);
	fill(&rig, 0x80);
	before = atomic_load(&disk.transfers);
	do_all(&rig, XBB_OP_READ);
	guest_check_okay(&rig.guest, N);
	CHECK_EQ(atomic_load(&disk.transfers), before + N);
	for (i = 0; i < N; i++)
		check_page(&rig, i, (uint8_t)(0x80 + i), (uint8_t)(0x40 + i));
	fill(&rig, 0x60);
	used = grants_used(&rig);
	do_all(&rig, XBB_OP_WRITE);
	guest_check_okay(&rig.guest, N);
	CHECK_EQ(grants_used(&rig) - used, way->persistent != 0 ? 0 : N);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

/* Whoever has no lock that the kernel could keep goes without. */
static void
check_no_fence(const struct pair_options *way)
{
	struct rig rig;
	uint32_t before, n;

	open_direct(&rig, way);
	fill(&rig, 0x20);
	for (n = 0; n < 20; n++) {
		before = atomic_load(&disk.transfers);
		do_all(&rig, XBB_OP_WRITE);
		guest_check_okay(&rig.guest, N);
		CHECK_EQ(atomic_load(&disk.transfers), before + N);
	}
	pair_drain(&rig.pair);
	rig_close(&rig);
}

static bool
is_locked(const char *name)
{
	const int fd = open(name, O_RDWR | O_CLOEXEC);
	bool locked;

	CHECK(fd >= 0);
	locked = flock(fd, LOCK_EX | LOCK_NB) != 0;
	CHECK(!locked || errno == EWOULDBLOCK);
	close(fd);
	return (locked);
}

/*
 * The lock outlives its descriptor, and its process, but not for long; and not
 * what is closed.
 */
static void
check_fence(bool killed)
{
	static const char name[] = "segment";
	uint8_t *buffer = make_buffer();
	const int disk_fd = direct_file(BUFFER);
	struct xbb_bulk_piece piece = { .data = buffer, .length = BUFFER };
	struct xbb_bulk *bulk;
	int fd, status;
	pid_t pid;

	pid = killed ? fork() : 0;
	CHECK(pid >= 0);
	if (pid == 0) {
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		CHECK(fd >= 0);
		CHECK_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
		bulk = xbb_bulk_open(disk_fd, XBB_SECTOR_SIZE, fd, buffer,
		    BUFFER);
		CHECK(bulk != NULL);
		close(fd);
		CHECK(is_locked(name));
		memset(buffer, 0x55, BUFFER);
		xbb_bulk_move(bulk, true, &piece, 1);
		CHECK(piece.moved);
		piece.length -= XBB_PAGE_SIZE;
		piece.offset = 2 * XBB_PAGE_SIZE;
		xbb_bulk_move(bulk, false, &piece, 1);
		CHECK(!piece.moved);	/* it ends before that */
		CHECK(is_locked(name));
		if (killed)
			kill(getpid(), SIGKILL);
		xbb_bulk_close(bulk);
		CHECK(!is_locked(name));
	} else {
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status));
	}
	WAIT_UNTIL(!is_locked(name));
	CHECK_EQ(unlink(name), 0);
	munmap(buffer, BUFFER);
	close(disk_fd);
}

int
main(void)
{
	uint32_t i;

	scratch_enter();
	if (is_possible()) {
		for (i = 0; i < COUNTOF(ways); i++) {
			check_moves(&ways[i]);
			check_bad_place(&ways[i]);
			check_bad_grant(&ways[i]);
			check_refused(&ways[i], 0);
			check_refused(&ways[i], 5);
			check_no_fence(&ways[i]);
		}
		check_fence(false);
		check_fence(true);
	} else
		printf("nothing tested: there is no such call here\n");
	scratch_leave();
	return (0);
}
