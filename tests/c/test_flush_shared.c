/*
 * test_flush_shared.c - flushes of several threads at once: those that came
 * while another was under way have one of their own together, which is later.
 */
#include "harness.h"

#define THREADS		3
#define TRIES		300

static struct device device;
static struct xbb_flushes *flushes;

static void *
flush(void *arg)
{

	CHECK_EQ(xbb_flush(flushes, device.disk_fd, XBB_DISK_FILE, arg), 0);
	return (NULL);
}

/* Flushes that it took; so many threads say that it was theirs. */
static unsigned int
flush_at_once(uint32_t pauses)
{
	const unsigned int before = atomic_load(&disk.syncs);
	pthread_t threads[THREADS];
	bool done[THREADS];
	unsigned int own;
	uint32_t i;

	disk_hold_syncs();
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, flush, &done[i]),
		    0);
	disk_wait_held(1);
	for (i = 0; i < pauses; i++)
		check_pause();
	CHECK_EQ(atomic_load(&disk.syncs), before + 1);
	disk_release();
	own = 0;
	for (i = 0; i < THREADS; i++) {
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
		own += done[i];
	}
	CHECK_EQ(atomic_load(&disk.syncs), before + own);
	return (own);
}

int
main(void)
{
	uint32_t tries;

	scratch_enter();
	disk_reset();
	device_open(&device, 1024, 1);
	CHECK_EQ(xbb_flushes_join(device.state, &flushes), 0);
	/* Some may have come too late, on a busy machine. */
	for (tries = 0; flush_at_once(tries) != 2; tries++)
		CHECK(tries < TRIES);
	xbb_flushes_leave(flushes);
	device_close(&device);
	scratch_leave();
	return (0);
}
