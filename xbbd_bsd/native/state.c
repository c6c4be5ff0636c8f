/*
 * state.c - the state segment: a file that the data plane, the control plane
 * and, after a crash, whoever comes next all map.  Knows its layout and how to
 * refuse a file that is something else; not what the numbers mean.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include <unistd.h>

#include "internal.h"

#define MOST_ERRNO	4095	/* of Linux; FreeBSD's are fewer */

/*
 * Tables begin on a page behind the header, each ring's histograms right after
 * its table: both are multiples of eight bytes.
 */
static uint64_t
table_offset(uint32_t ring, uint32_t entries)
{
	uint64_t header, table;

	header = (sizeof(struct xbb_state) + XBB_PAGE_SIZE - 1) /
	    XBB_PAGE_SIZE * XBB_PAGE_SIZE;
	table = (uint64_t)entries * sizeof(struct xbb_req) +
	    XBB_DEVSTAT_KINDS * XBB_LATENCY_BUCKETS * sizeof(uint64_t);
	return (header + ring * table);
}

static uint64_t
latency_offset(uint32_t ring, uint32_t entries)
{

	return (table_offset(ring, entries) +
	    (uint64_t)entries * sizeof(struct xbb_req));
}

int
xbb_state_format(int fd, uint32_t nrings, uint32_t table_entries)
{
	struct xbb_state header = {
		.magic = XBB_STATE_MAGIC,
		.version = XBB_STATE_VERSION,
		.size = table_offset(nrings, table_entries),
		.nrings = nrings,
		.table_entries = table_entries,
		.tunables.poll_max_us = XBB_POLL_MAX_US,
		.tunables.persistent_grant_unused_seconds = XBB_UNUSED_SECONDS,
	};
	static const uint8_t zeros[XBB_PAGE_SIZE];
	uint64_t at;
	uint32_t i;
	ssize_t n;

	if (nrings < 1 || nrings > XBB_MAX_RINGS || table_entries < 1 ||
	    table_entries > XBB_MAX_REQUESTS)
		return (-EINVAL);
	for (i = 0; i < nrings; i++) {
		header.ring[i].reqs_offset = table_offset(i, table_entries);
		header.ring[i].latency_offset =
		    latency_offset(i, table_entries);
	}
	if (ftruncate(fd, 0) != 0 || ftruncate(fd, (off_t)header.size) != 0)
		return (-errno);
	if (pwrite(fd, &header, sizeof(header), 0) != sizeof(header))
		return (-EIO);
	/* A hole that cannot be filled later would kill whoever touches it. */
	for (at = sizeof(header); at < header.size; at += (uint64_t)n) {
		n = pwrite(fd, zeros, header.size - at < sizeof(zeros) ?
		    header.size - at : sizeof(zeros), (off_t)at);
		if (n <= 0)
			return (n < 0 ? -errno : -EIO);
	}
	return (0);
}

static bool
is_state(const struct xbb_state *header, uint64_t size)
{
	uint32_t i;

	if (header->magic != XBB_STATE_MAGIC ||
	    header->version != XBB_STATE_VERSION || header->size != size ||
	    header->nrings < 1 || header->nrings > XBB_MAX_RINGS ||
	    header->table_entries < 1 ||
	    header->table_entries > XBB_MAX_REQUESTS ||
	    size != table_offset(header->nrings, header->table_entries))
		return (false);
	for (i = 0; i < header->nrings; i++)
		if (header->ring[i].reqs_offset !=
		    table_offset(i, header->table_entries) ||
		    header->ring[i].latency_offset !=
		    latency_offset(i, header->table_entries))
			return (false);
	return (true);
}

/* By a copy of the header: another one may stand there a moment later. */
int
xbb_state_map(int fd, int writable, struct xbb_state **statep)
{
	struct xbb_state header;
	struct stat st;
	void *p;
	int error;

	if (fstat(fd, &st) != 0)
		return (-errno);
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    !is_state(&header, (uint64_t)st.st_size))
		return (-EINVAL);
	p = mmap(NULL, header.size, PROT_READ | (writable ? PROT_WRITE : 0),
	    MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return (-errno);
	error = xbb_mapping_add(p, header.size, header.nrings,
	    header.table_entries);
	if (error != 0) {
		munmap(p, header.size);
		return (error);
	}
	*statep = p;
	return (0);
}

void
xbb_state_unmap(struct xbb_state *state)
{

	xbb_mapping_remove(xbb_mapping_of(state));
}

int
xbb_state_damaged(const struct xbb_state *state)
{

	return (xbb_mapping_damaged(xbb_mapping_of(state)));
}

uint32_t
xbb_state_rings(const struct xbb_state *state)
{

	return (xbb_mapping_rings(xbb_mapping_of(state)));
}

uint32_t
xbb_state_entries(const struct xbb_state *state)
{

	return (xbb_mapping_entries(xbb_mapping_of(state)));
}

struct xbb_req *
xbb_state_table(struct xbb_state *state, uint32_t ring)
{

	if (ring >= xbb_state_rings(state))
		return (NULL);
	return ((struct xbb_req *)(void *)((uint8_t *)state +
	    table_offset(ring, xbb_state_entries(state))));
}

uint64_t *
xbb_state_latency(struct xbb_state *state, uint32_t ring)
{

	if (ring >= xbb_state_rings(state))
		return (NULL);
	return ((uint64_t *)(void *)((uint8_t *)state +
	    latency_offset(ring, xbb_state_entries(state))));
}

int
xbb_state_lost(const struct xbb_state *state)
{

	return (xbb_state_loss(xbb_mapping_of(state), state));
}

/*
 * Said by whoever has the segment mapped; what we said ourselves is known
 * here, too, and outlives the file.  Any other word than an errno is damage.
 */
int
xbb_state_loss(const struct xbb_mapping *mapping, const struct xbb_state *state)
{
	int errnum;

	errnum = xbb_mapping_lost(mapping);
	if (errnum != 0)
		return (errnum);
	errnum = __atomic_load_n(&state->lost_errno, __ATOMIC_ACQUIRE);
	return (errnum >= 0 && errnum <= MOST_ERRNO ? errnum : EIO);
}

void
xbb_state_lose(struct xbb_state *state, int errnum)
{
	int32_t none = 0;

	xbb_mapping_lose(xbb_mapping_of(state), errnum);
	__atomic_compare_exchange_n(&state->lost_errno, &none, errnum, false,
	    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

void
xbb_state_believe(struct xbb_state *state)
{

	xbb_mapping_lose(xbb_mapping_of(state), 0);
	XBB_SET(state->lost_errno, 0);
}

void
xbb_tunable_set(int32_t *tunable, int32_t value)
{

	XBB_SET(*tunable, value);
}

int
xbb_state_resize(struct xbb_state *state, uint64_t sectors)
{

	if (sectors > XBB_MAX_SECTORS)
		return (-EINVAL);
	xbb_mapping_resize(xbb_mapping_of(state), sectors);
	XBB_SET(state->sectors, sectors);
	return (0);
}
