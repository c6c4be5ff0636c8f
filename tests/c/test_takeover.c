/*
 * test_takeover.c - a backend that dies at each single store of the protocol,
 * and another that goes on.  The guest is this process, its backends are
 * children of it, one after another, which share guest, disk and segment with
 * it and nothing else.  Each request must be answered once, with its own
 * status; what is read must be as if all had been done in the order of the
 * ring, and so must be the disk at the end.  On some disks one transfer in a few
 * fails, and pauses them: then this process sees to it that they go on.
 */
#include <sys/wait.h>

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define SECTORS		24
#define BAD		16	/* sectors from here on fail, of a bad disk */
#define BYTES		(SECTORS * XBB_SECTOR_SIZE)
#define MOST		12		/* requests of a life */
#define REFUSED		77		/* no operation */

enum { DATA_PAGES = MOST, LIST_PAGES = MOST };

/* What is known of a request, by tag. */
struct wish {
	uint8_t		 operation;
	uint8_t		 first, n;	/* sectors in its page */
	int16_t		 status;
	uint8_t		 found[XBB_PAGE_SIZE];	/* if it reads */
};

struct life {
	struct device	 device;
	struct pair	 pair;
	struct guest	 guest;
	const struct pair_options *options;
	pid_t		 backend;	/* 0: none */
	int		 leave[2];	/* closed: it may end; written to: look */
	uint32_t	 deaths;
	uint32_t	 pauses;
	bool		 mortal;	/* whoever takes over may die, too */
	uint64_t	 random;
	uint8_t		 model[BYTES];
	struct wish	 wish[MOST];
};

/* A child: serves until told to leave, and gives everything back. */
static void
serve(struct life *life, bool adopt)
{
	struct xbb_queue_params params;
	struct xbb_queue *queue;
	struct xbb_state *state;
	struct xbb_error error;
	char byte;

	close(life->leave[1]);
	CHECK_EQ(xbb_state_map(life->device.state_fd, 1, &state), 0);
	pair_params(&life->pair, &life->device, 0, life->options, &params);
	params.conn.adopt = adopt;
	CHECK_EQ(xbb_queue_open(&params, state, &error, &queue), 0);
	CHECK_EQ(xbb_queue_start(queue, &error), 0);
	while (read(life->leave[0], &byte, 1) == 1)
		xbb_queue_look(queue);
	xbb_queue_close(queue);
	CHECK_EQ(xbb_state_damaged(state), 0);
	_exit(0);
}

static void
begin_backend(struct life *life, bool adopt)
{

	CHECK(pipe(life->leave) == 0);
	pair_connect(&life->pair);
	life->backend = fork();
	CHECK(life->backend >= 0);
	if (life->backend == 0)
		serve(life, adopt);
	close(life->leave[0]);
}

/* Another one in place of one that has died. */
static void
replace_backend(struct life *life, int status)
{

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGKILL);
	close(life->leave[1]);
	life->deaths++;
	begin_backend(life, true);
}

static void
go_on_if_paused(struct life *life)
{

	if (XBB_GET(life->device.state->pause.why) == 0)
		return;
	life->pauses++;
	xbb_state_resume(life->device.state);
	/* It may be dying. */
	(void)!write(life->leave[1], "", 1);
}

static void
look_after_backend(struct life *life)
{
	int status;

	if (waitpid(life->backend, &status, WNOHANG) == 0) {
		go_on_if_paused(life);
		return;
	}
	if (life->mortal && life->deaths < 20)
		atomic_store(&crash->left,
		    (long)random_below(&life->random, 40));
	replace_backend(life, status);
}

/* It gives everything back; or it is dying already, and the next one does. */
static void
end_backend(struct life *life)
{
	int status;

	atomic_store(&crash->left, -1);
	for (;;) {
		close(life->leave[1]);
		CHECK_EQ(waitpid(life->backend, &status, 0), life->backend);
		if (status == 0)
			return;
		life->leave[1] = -1;
		replace_backend(life, status);
	}
}

/* The page and its sectors that a request is about. */
static struct xbb_segment
choose_segment(struct life *life, uint32_t tag)
{
	struct wish *wish = &life->wish[tag];

	wish->first = (uint8_t)random_below(&life->random, 8);
	wish->n = (uint8_t)(1 + random_below(&life->random,
	    8U - wish->first));
	return (guest_segment(&life->guest, tag, wish->first,
	    wish->first + wish->n - 1));
}

static uint8_t *
page_of(struct life *life, uint32_t tag)
{

	return (xbb_front_page(life->pair.front, tag));
}

/* Does a transfer fail that ends before that sector? */
static bool
is_bad(const struct life *life, uint64_t end)
{
	const uint64_t block = life->options->block_size != 0 ?
	    life->options->block_size / XBB_SECTOR_SIZE : 1;

	return (atomic_load(&disk.errnum) != 0 &&
	    (end + block - 1) / block * block > BAD);
}

/* As if it were done when it is asked for. */
static void
foresee(struct life *life, uint32_t tag, uint64_t sector)
{
	struct wish *wish = &life->wish[tag];
	uint8_t *page = page_of(life, tag) + wish->first * XBB_SECTOR_SIZE;
	uint8_t *at = life->model + sector * XBB_SECTOR_SIZE;
	const size_t size = (size_t)wish->n * XBB_SECTOR_SIZE;

	wish->status = is_bad(life, sector + wish->n) ? XBB_RSP_ERROR :
	    XBB_RSP_OKAY;
	if (wish->status != XBB_RSP_OKAY)
		return;
	if (wish->operation == XBB_OP_READ)
		memcpy(wish->found, at, size);
	else {
		random_bytes(&life->random, page, size);
		memcpy(at, page, size);
	}
}

/* Its segments in a page of their own. */
static void
put_indirect(struct life *life, uint8_t operation, uint64_t sector,
    const struct xbb_segment *seg)
{
	const uint32_t list = DATA_PAGES + life->guest.ntags;
	const uint32_t ref = xbb_front_page_ref(life->pair.front, list);
	const uint16_t one = 1;
	uint8_t *slot;

	memcpy(xbb_front_page(life->pair.front, list), seg, sizeof(*seg));
	guest_put(&life->guest, XBB_OP_INDIRECT, sector, NULL, operation);
	slot = guest_slot(&life->guest, life->guest.req_prod - 1);
	guest_store(slot + 2, (const uint8_t *)&one, sizeof(one));
	guest_store(slot + life->guest.layout.seg + 4, (const uint8_t *)&ref,
	    sizeof(ref));
}

static void
put_transfer(struct life *life, uint8_t operation)
{
	const uint32_t tag = life->guest.ntags;
	const struct xbb_segment seg = choose_segment(life, tag);
	uint64_t sector;

	sector = random_below(&life->random, SECTORS + 1U - life->wish[tag].n);
	life->wish[tag].operation = operation;
	foresee(life, tag, sector);
	if (life->options->max_indirect_segments != 0 &&
	    random_below(&life->random, 2) == 0)
		put_indirect(life, operation, sector, &seg);
	else
		guest_put(&life->guest, operation, sector, &seg, 1);
}

static void
put_discard(struct life *life)
{
	const uint64_t nsectors = 8, sector = 8 * random_below(&life->random,
	    SECTORS / 8);
	uint8_t *slot;

	memset(life->model + sector * XBB_SECTOR_SIZE, 0,
	    nsectors * XBB_SECTOR_SIZE);
	guest_put(&life->guest, XBB_OP_DISCARD, sector, NULL, 0);
	slot = guest_slot(&life->guest, life->guest.req_prod - 1);
	guest_store(slot + life->guest.layout.seg,
	    (const uint8_t *)&nsectors, sizeof(nsectors));
}

/* Refused, and yet of an operation that there is, by fields that it has not. */
static void
put_odd_discard(struct life *life)
{
	const struct pair_options *options = life->options;
	const struct xbb_segment none = { 0 };

	life->wish[life->guest.ntags].status = options->discard &&
	    options->max_indirect_segments != 0 ? XBB_RSP_ERROR :
	    XBB_RSP_EOPNOTSUPP;
	put_indirect(life, XBB_OP_DISCARD, 0, &none);
}

static void
put_request(struct life *life)
{
	const uint64_t kind = random_below(&life->random, 17);
	struct wish *wish = &life->wish[life->guest.ntags];

	wish->operation = XBB_OP_FLUSH_DISKCACHE;
	wish->status = XBB_RSP_OKAY;
	if (kind < 6)
		put_transfer(life, XBB_OP_READ);
	else if (kind < 11)
		put_transfer(life, XBB_OP_WRITE);
	else if (kind < 12)
		put_transfer(life, XBB_OP_WRITE_BARRIER);
	else if (kind < 13)
		guest_put(&life->guest, XBB_OP_FLUSH_DISKCACHE, 0, NULL, 0);
	else if (kind < 14 && life->options->discard)
		put_discard(life);
	else if (kind < 15) {
		wish->status = XBB_RSP_ERROR;
		guest_put(&life->guest, XBB_OP_READ, SECTORS, NULL, 1);
	} else if (kind < 16)
		put_odd_discard(life);
	else {
		wish->status = XBB_RSP_EOPNOTSUPP;
		guest_put(&life->guest, REFUSED, 0, NULL, 200);
	}
}

static void
check_answers(struct life *life, uint32_t n)
{
	const struct wish *wish;
	uint32_t tag;

	for (tag = 0; tag < n; tag++) {
		wish = &life->wish[tag];
		CHECK_EQ(life->guest.status[tag], wish->status);
		if (wish->operation == XBB_OP_READ &&
		    wish->status == XBB_RSP_OKAY)
			CHECK(memcmp(page_of(life, tag) + wish->first *
			    XBB_SECTOR_SIZE, wish->found,
			    (size_t)wish->n * XBB_SECTOR_SIZE) == 0);
	}
}

/*
 * As a guest's kernel does: look once more after asking for an event, then
 * sleep until there is one.
 */
static void
sleep_for_event(struct life *life)
{
	const uint64_t limit = xbb_now_ns() + LIMIT_MS * 1000000ULL;
	struct guest *guest = &life->guest;

	guest_set_index(guest, offsetof(struct xbb_sring, rsp_event),
	    guest->rsp_cons + 1);
	if (guest_answers(guest) != 0)
		return;
	do {
		CHECK(xbb_now_ns() < limit);
		look_after_backend(life);
	} while (xbb_front_wait(guest->front, 1) <= 0);
}

/* Some requests at once, until all are answered, by whomever. */
static void
do_requests(struct life *life)
{
	struct guest *guest = &life->guest;
	uint32_t i, n;

	n = 1 + (uint32_t)random_below(&life->random, MOST);
	for (i = 0; i < n; i++)
		put_request(life);
	guest_publish(guest);
	while (guest->outstanding > 0) {
		sleep_for_event(life);
		guest_take(guest);
	}
	guest->ntags = 0;
	check_answers(life, n);
}

static void
check_end(struct life *life)
{
	const struct xbb_req *table = xbb_state_table(life->device.state, 0);
	const struct xbb_counters *c = &life->pair.rs->counters;
	static uint8_t found[BYTES];
	uint32_t i;

	device_read(&life->device, 0, SECTORS, found);
	CHECK(memcmp(found, life->model, BYTES) == 0);
	for (i = 0; i < XBB_MAX_REQUESTS; i++)
		CHECK_EQ(table[i].state, XBB_REQ_FREE);
	CHECK_EQ(c->reqs_received, c->reqs_completed);
	CHECK_EQ(c->reqs_queued_for_completion, 0);
	CHECK_EQ(life->pair.rs->inflight, 0);
	CHECK_EQ(life->pair.rs->received.start_count,
	    life->pair.rs->received.end_count);
}

static uint32_t pauses;		/* of all lives */

/*
 * A guest whose first backend dies before the store of that number; how often
 * one did.
 */
static uint32_t
live(const struct pair_options *options, uint64_t seed, long left,
    uint32_t rounds, bool mortal)
{
	static struct life life;

	memset(&life, 0, sizeof(life));
	life.options = options;
	life.random = seed;
	life.mortal = mortal;
	device_open(&life.device, SECTORS, 1);
	if (atomic_load(&disk.failing) != 0)
		xbb_tunable_set(&life.device.state->tunables.on_error,
		    XBB_POLICY_PAUSE);
	random_bytes(&life.random, life.model, BYTES);
	device_write(&life.device, 0, SECTORS, life.model);
	pair_prepare(&life.pair, &life.device, 0, options);
	guest_init(&life.guest, &life.pair);
	atomic_store(&crash->left, left);
	begin_backend(&life, false);
	for (; rounds > 0; rounds--)
		do_requests(&life);
	end_backend(&life);
	check_end(&life);
	pauses += life.pauses;
	pair_close(&life.pair);
	device_close(&life.device);
	return (life.deaths);
}

static const struct pair_options variants[] = {
	{ .workers = 1, .transport = XBB_TRANSPORT_MAP, .discard = true },
	{ .workers = 4, .transport = XBB_TRANSPORT_COPY,
	  .max_indirect_segments = 32 },
	{ .workers = 2, .transport = XBB_TRANSPORT_MAP, .persistent = 64,
	  .max_indirect_segments = 32, .discard = true },
	{ .workers = 2, .block_size = 4096, .abi = XBB_ABI_X86_32 },
};

/*
 * Each variant: a death before the first store, before the second, and so on,
 * until a backend outlives the whole of it.
 */
static void
check_each_store(const struct pair_options *options, uint64_t seed)
{
	long left;

	for (left = 0; live(options, seed, left, 1, false) != 0; left++)
		CHECK(left < 2000);
	CHECK(left > 10);
}

/* And many deaths, at random, on a disk quick and slow. */
static void
check_many_deaths(const struct pair_options *options, uint64_t seed,
    uint32_t rounds)
{

	CHECK(live(options, seed, 5, rounds, true) > 1);
}

int
main(int argc, char **argv)
{
	const uint32_t rounds = (uint32_t)argument(argc, argv, 1, 8);
	const uint64_t seed = argument(argc, argv, 2, 1);
	uint32_t i;

	scratch_enter();
	crash_prepare();
	disk_reset();
	hypervisor_reset();
	(void)signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < COUNTOF(variants); i++) {
		atomic_store(&disk.delay_us, 0);
		check_each_store(&variants[i], seed + i);
		check_many_deaths(&variants[i], seed + i, rounds);
		/* By workers, several at once, some of them in vain. */
		atomic_store(&disk.delay_us, 500);
		atomic_store(&disk.from, BAD * XBB_SECTOR_SIZE);
		atomic_store(&disk.errnum, EIO);
		check_many_deaths(&variants[i], seed + i, rounds);
		atomic_store(&disk.errnum, 0);
		/* Each error is a pause, and nobody's to hear of. */
		atomic_store(&disk.delay_us, 0);
		atomic_store(&disk.failing, 5);
		check_each_store(&variants[i], seed + i);
		check_many_deaths(&variants[i], seed + i, rounds);
		atomic_store(&disk.failing, 0);
	}
	CHECK(pauses > 100);
	scratch_leave();
	return (0);
}
