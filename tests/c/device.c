/*
 * device.c - a simulated domain, a disk file and a state segment, and between
 * them rings with a frontend and a queue each, all in this process.  Closing
 * checks that nothing stays mapped and no file is left.  The main thread's.
 */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

void
device_open(struct device *device, uint64_t sectors, uint32_t nrings)
{
	static unsigned int serial;

	snprintf(device->name, sizeof(device->name), "dom%u", serial++);
	CHECK(mkdir(device->name, 0700) == 0);
	device->domain_fd = open(device->name, O_RDONLY | O_DIRECTORY);
	CHECK(device->domain_fd >= 0);
	CHECK_EQ(xbb_sim_format(device->domain_fd, DOMAIN_PAGES), 0);
	device->sectors = sectors;
	device->disk_fd = scratch_file(sectors * XBB_SECTOR_SIZE);
	device->state_fd = scratch_file(0);
	CHECK_EQ(xbb_state_format(device->state_fd,
	    &(const struct xbb_identity){ 0 }, nrings, XBB_MAX_REQUESTS), 0);
	CHECK_EQ(xbb_state_map(device->state_fd, 1, &device->state), 0);
	CHECK_EQ(xbb_state_resize(device->state, sectors), 0);
}

void
device_close(struct device *device)
{
	uint32_t mapped;

	CHECK_EQ(xbb_sim_mapped(device->domain_fd, &mapped), 0);
	CHECK_EQ(mapped, 0);
	xbb_state_unmap(device->state);
	close(device->state_fd);
	close(device->disk_fd);
	CHECK(unlinkat(device->domain_fd, "memory", 0) == 0);
	CHECK(unlinkat(device->domain_fd, "grants", 0) == 0);
	close(device->domain_fd);
	CHECK(rmdir(device->name) == 0);
}

void
device_read(const struct device *device, uint64_t sector, uint64_t nsectors,
    void *to)
{

	CHECK_EQ(pread(device->disk_fd, to, nsectors * XBB_SECTOR_SIZE,
	    (off_t)(sector * XBB_SECTOR_SIZE)), nsectors * XBB_SECTOR_SIZE);
}

void
device_write(const struct device *device, uint64_t sector, uint64_t nsectors,
    const void *from)
{

	CHECK_EQ(pwrite(device->disk_fd, from, nsectors * XBB_SECTOR_SIZE,
	    (off_t)(sector * XBB_SECTOR_SIZE)), nsectors * XBB_SECTOR_SIZE);
}

static uint32_t
either(uint32_t value, uint32_t otherwise)
{

	return (value != 0 ? value : otherwise);
}

/* Connect a backend to the frontend's port, in place of the one before. */
void
pair_connect(struct pair *pair)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, pair->port);
	if (pair->event_fd >= 0)
		close(pair->event_fd);
	pair->event_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(pair->event_fd >= 0);
	CHECK(connect(pair->event_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
}

/* The frontend, listening at an address of its own. */
static void
open_front(struct pair *pair, const struct device *device,
    const struct pair_options *options)
{
	static unsigned int serial;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct xbb_front_params params = {
		.grant_fd = device->domain_fd,
		.hv = XBB_HV_SIM,
		.abi = options->abi,
		.ring_pages = either(options->ring_pages, 1),
		.max_segments = either(options->max_segments,
		    XBB_MAX_SEGMENTS),
		.persistent = options->persistent != 0,
	};
	struct xbb_error error;

	params.depth = either(options->depth,
	    xbb_max_requests(options->abi, params.ring_pages));
	snprintf(pair->port, sizeof(pair->port), "port%u", serial++);
	strcpy(address.sun_path, pair->port);
	pair->listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(pair->listen_fd >= 0);
	CHECK(bind(pair->listen_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
	CHECK(listen(pair->listen_fd, 8) == 0);
	CHECK(fcntl(pair->listen_fd, F_SETFL, O_NONBLOCK) == 0);
	params.event_fd = pair->listen_fd;
	CHECK_EQ(xbb_front_open(&params, &error, &pair->front), 0);
	pair->event_fd = -1;
	pair_connect(pair);
}

/* What the queue of a pair is made of, once there is a frontend. */
void
pair_params(const struct pair *pair, const struct device *device,
    uint32_t ring, const struct pair_options *options,
    struct xbb_queue_params *params)
{

	*params = (struct xbb_queue_params){
		.conn.grant_fd = device->domain_fd,
		.disk_fd = device->disk_fd,
		.conn.event_fd = pair->event_fd,
		.conn.wake_fd = pair->wake[1],
		.conn.hv = XBB_HV_SIM,
		.conn.domid = either(options->domid, 1),
		.conn.remote_port = 1,
		.abi = options->abi,
		.conn.ring = ring,
		.conn.ring_pages = either(options->ring_pages, 1),
		.disk_kind = options->device ? XBB_DISK_DEVICE : XBB_DISK_FILE,
		.discard = options->secure ? 2 : options->discard,
		.conn.max_persistent = options->persistent,
		.conn.transport = options->transport,
		.read_only = options->read_only,
		.sector_size = either(options->sector_size, XBB_SECTOR_SIZE),
		.block_size = either(options->block_size,
		    either(options->sector_size, 512)),
		.bounce = options->bounce ||
		    options->block_size > either(options->sector_size, 512),
		.conn.workers = either(options->workers, 4),
		.max_batch_segments = either(options->max_batch_segments, 64),
		.max_grants = either(options->max_grants, 2816),
		.max_indirect_segments = options->max_indirect_segments,
	};
	xbb_front_ring_refs(pair->front, params->conn.ring_ref);
}

/* A frontend and what tells of the queue, but no queue yet. */
void
pair_prepare(struct pair *pair, const struct device *device, uint32_t ring,
    const struct pair_options *options)
{

	open_front(pair, device, options);
	CHECK(pipe(pair->wake) == 0);
	CHECK(fcntl(pair->wake[1], F_SETFL, O_NONBLOCK) == 0);
	pair->abi = options->abi;
	pair->rs = &device->state->ring[ring];
}

/* 0, or why there is no queue yet: then it may be tried again. */
int
pair_try(struct pair *pair, struct device *device, uint32_t ring,
    const struct pair_options *options)
{
	struct xbb_queue_params params;
	struct xbb_error error;
	int e;

	if (pair->front == NULL)
		pair_prepare(pair, device, ring, options);
	pair_params(pair, device, ring, options, &params);
	memset(&pair->rs->counters, 0, sizeof(pair->rs->counters));
	memset(&pair->rs->common.counters, 0,
	    sizeof(pair->rs->common.counters));
	memset(&pair->rs->faults, 0, sizeof(pair->rs->faults));
	e = xbb_queue_open(&params, device->state, &error, &pair->queue);
	if (e == 0) {
		e = xbb_queue_start(pair->queue, &error);
		if (e != 0)
			xbb_queue_close(pair->queue);
	}
	return (e);
}

void
pair_open(struct pair *pair, struct device *device, uint32_t ring,
    const struct pair_options *options)
{

	pair->front = NULL;
	CHECK_EQ(pair_try(pair, device, ring, options), 0);
}

/* The queue has stopped, by itself or on demand, and its books balance. */
void
pair_wait_drained(struct pair *pair, enum xbb_stop_reason reason)
{
	struct pollfd pfd = { .fd = pair->wake[0], .events = POLLIN };
	struct xbb_queue_status status;
	uint64_t word;

	do {	/* a word may say that threads are short */
		CHECK_EQ(poll(&pfd, 1, LIMIT_MS), 1);
		CHECK_EQ(read(pair->wake[0], &word, sizeof(word)),
		    sizeof(word));
		xbb_queue_status(pair->queue, &status);
	} while (status.state != XBB_QUEUE_DRAINED);
	CHECK_EQ(status.reason, reason);
	CHECK_EQ(XBB_GET(pair->rs->common.status.state), XBB_QUEUE_DRAINED);
	CHECK_EQ(XBB_GET(pair->rs->common.status.reason), reason);
	CHECK_EQ(XBB_GET(pair->rs->common.status.errnum), status.errnum);
	CHECK_EQ(XBB_GET(pair->rs->common.connected), 0);
	CHECK_EQ(XBB_GET(pair->rs->inflight), 0);
	CHECK_EQ(XBB_GET(pair->rs->grants_mapped), 0);
	CHECK_EQ(COUNTER(pair, reqs_queued_for_completion), 0);
	CHECK_EQ(COUNTER(pair, reqs_received), COUNTER(pair, reqs_completed));
	CHECK_EQ(COMMON(pair, grants_mapped_total),
	    COMMON(pair, grants_unmapped_total));
	CHECK_EQ(COUNTER(pair, total_dispatch), COUNTER(pair, forced_dispatch) +
	    COUNTER(pair, normal_dispatch));
}

void
pair_drain(struct pair *pair)
{

	xbb_queue_drain(pair->queue);
	pair_wait_drained(pair, XBB_STOP_NONE);
}

void
pair_close(struct pair *pair)
{

	if (pair->queue != NULL)
		xbb_queue_close(pair->queue);
	if (pair->front != NULL)
		xbb_front_close(pair->front);
	CHECK(unlink(pair->port) == 0);
	close(pair->listen_fd);
	close(pair->event_fd);
	close(pair->wake[0]);
	close(pair->wake[1]);
}
