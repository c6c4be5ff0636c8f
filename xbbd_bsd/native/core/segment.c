/*
 * segment.c - the file of a state segment, which the data plane, the control
 * plane and, after a crash, whoever comes next all map.  Knows its head, where
 * its parts lie and how to refuse a file that is something else; not what the
 * parts mean.  Any thread.
 *
 *	head and the family's part | ring 0: table, histograms | ring 1 ...
 *
 * Rings begin on a page.  Where they are is computed from what the family and
 * the head say of sizes and counts, and never read.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include <string.h>
#include <unistd.h>

#include "core/core.h"

#define HISTOGRAMS	(XBB_DEVSTAT_KINDS * XBB_LATENCY_BUCKETS * \
	sizeof(uint64_t))

/* Bytes from the start to the table of a ring, multiples of eight. */
static uint64_t
table_offset(const struct xbb_segment_shape *shape, uint32_t ring,
    uint32_t entries)
{
	uint64_t header, table;

	header = (shape->header_size + XBB_PAGE_SIZE - 1) / XBB_PAGE_SIZE *
	    XBB_PAGE_SIZE;
	table = (uint64_t)entries * shape->entry_size + HISTOGRAMS;
	return (header + ring * table);
}

/* Bytes of the whole segment. */
static uint64_t
size_of(const struct xbb_segment_shape *shape,
    const struct xbb_segment_head *head)
{

	return (table_offset(shape, head->nrings, head->table_entries));
}

static bool
counts_are_possible(const struct xbb_segment_shape *shape,
    const struct xbb_segment_head *head)
{

	return (head->nrings >= 1 && head->nrings <= XBB_MAX_RINGS &&
	    head->table_entries >= 1 &&
	    head->table_entries <= shape->most_entries);
}

/*
 * Make a fresh one; of the head the family has filled in what it is for and the
 * counts, the rest is done here.
 */
int
xbb_segment_format(int fd, const struct xbb_segment_shape *shape,
    struct xbb_segment_head *head)
{
	static const uint8_t zeros[XBB_PAGE_SIZE];
	uint64_t at;
	ssize_t n;

	if (!counts_are_possible(shape, head) ||
	    memchr(head->identity.kind, '\0', XBB_KIND_NAME) == NULL)
		return (-EINVAL);
	head->magic = XBB_STATE_MAGIC;
	head->version = XBB_STATE_VERSION;
	head->family = shape->family;
	head->table_version = shape->table_version;
	head->size = size_of(shape, head);
	if (ftruncate(fd, 0) != 0 || ftruncate(fd, (off_t)head->size) != 0)
		return (-errno);
	if (pwrite(fd, head, shape->header_size, 0) !=
	    (ssize_t)shape->header_size)
		return (-EIO);
	/* A hole that cannot be filled later would kill whoever touches it. */
	for (at = shape->header_size; at < head->size; at += (uint64_t)n) {
		n = pwrite(fd, zeros, head->size - at < sizeof(zeros) ?
		    head->size - at : sizeof(zeros), (off_t)at);
		if (n <= 0)
			return (n < 0 ? -errno : -EIO);
	}
	return (0);
}

static bool
is_segment(const struct xbb_segment_shape *shape,
    const struct xbb_segment_head *head, uint64_t size)
{

	return (head->magic == XBB_STATE_MAGIC &&
	    head->version == XBB_STATE_VERSION &&
	    head->family == shape->family &&
	    head->table_version == shape->table_version &&
	    head->size == size && counts_are_possible(shape, head) &&
	    size == size_of(shape, head));
}

/* By a copy of the head: another one may stand there a moment later. */
int
xbb_segment_map(int fd, bool writable, const struct xbb_segment_shape *shape,
    void **segmentp)
{
	struct xbb_segment_head head;
	struct stat st;
	void *p;
	int error;

	if (fstat(fd, &st) != 0)
		return (-errno);
	if (pread(fd, &head, sizeof(head), 0) != sizeof(head) ||
	    !is_segment(shape, &head, (uint64_t)st.st_size))
		return (-EINVAL);
	p = mmap(NULL, head.size, PROT_READ | (writable ? PROT_WRITE : 0),
	    MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return (-errno);
	error = xbb_mapping_add(p, head.size, head.nrings, head.table_entries);
	if (error != 0) {
		munmap(p, head.size);
		return (error);
	}
	*segmentp = p;
	return (0);
}

/* The table of a ring; NULL if there is no such ring. */
void *
xbb_segment_table(void *segment, const struct xbb_segment_shape *shape,
    uint32_t ring)
{
	const struct xbb_mapping *mapping = xbb_mapping_of(segment);

	if (ring >= xbb_mapping_rings(mapping))
		return (NULL);
	return ((uint8_t *)segment + table_offset(shape, ring,
	    xbb_mapping_entries(mapping)));
}

/* And the histograms, XBB_LATENCY_BUCKETS by enum xbb_devstat_kind. */
uint64_t *
xbb_segment_latency(void *segment, const struct xbb_segment_shape *shape,
    uint32_t ring)
{
	uint8_t *table = xbb_segment_table(segment, shape, ring);

	if (table == NULL)
		return (NULL);
	return ((uint64_t *)(void *)(table + shape->entry_size *
	    (size_t)xbb_mapping_entries(xbb_mapping_of(segment))));
}

void
xbb_tunable_set(int32_t *tunable, int32_t value)
{

	XBB_SET(*tunable, value);
}
