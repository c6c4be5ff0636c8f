/*
 * allowance.c - where limits and the words that go with them are: limits in the
 * segment of each disk, which its guest's process may have, the words of a
 * guest and of a group in files that all have whose disks share them.  So
 * nobody can change another's limits.  Any thread.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include <unistd.h>

#include "block/block.h"

_Static_assert(sizeof(struct xbb_rate_file) <= XBB_RATE_FILE_SIZE,
    "it has room");
_Static_assert(XBB_MAX_RINGS <= XBB_RATE_SHARERS, "each ring has a place");

/* The words that queues of a disk go by, from when they are opened on. */
struct xbb_rate_words *
xbb_allowance_words(struct xbb_state *state, uint32_t level)
{
	struct xbb_rate_words *shared;

	shared = xbb_medium_words(xbb_mapping_of(state), level);
	return (shared != NULL ? shared : &state->words[level]);
}

static bool
is_limited(const struct xbb_rate_limits *limits)
{
	uint32_t kind;

	for (kind = 0; kind < XBB_RATE_KINDS; kind++)
		if (XBB_GET(limits->most[kind]) != 0)
			return (true);
	return (false);
}

void
xbb_rate_pardon(struct xbb_state *state)
{

	__atomic_fetch_add(&state->pardons, 1, __ATOMIC_RELEASE);
}

int
xbb_rate_set(struct xbb_state *state, uint32_t level, uint32_t kind,
    uint64_t value)
{
	struct xbb_rate_limits *limits;
	uint32_t limited;

	if (level >= XBB_RATE_LEVELS || kind > XBB_RATE_KINDS)
		return (-EINVAL);
	limits = &state->rates[level];
	if (kind == XBB_RATE_KINDS)
		XBB_SET(limits->burst_ms, value);
	else
		XBB_SET(limits->most[kind], value);
	xbb_rate_forgive(xbb_allowance_words(state, level),
	    XBB_GET(limits->burst_ms), xbb_now_ns());
	limited = 0;
	for (level = 0; level < XBB_RATE_LEVELS; level++)
		if (is_limited(&state->rates[level]))
			limited |= 1U << level;
	XBB_PUT(state->limited, limited);
	return (0);
}

int
xbb_rate_format(int fd)
{
	uint8_t page[XBB_RATE_FILE_SIZE] = { 0 };
	struct xbb_rate_file *file = (struct xbb_rate_file *)(void *)page;
	ssize_t n;

	file->magic = XBB_RATE_MAGIC;
	file->version = XBB_RATE_VERSION;
	if (ftruncate(fd, 0) != 0)
		return (-errno);
	n = pwrite(fd, page, sizeof(page), 0);
	return (n == (ssize_t)sizeof(page) ? 0 : n < 0 ? -errno : -EIO);
}

int
xbb_rate_map(int fd, struct xbb_rate_words **wordsp)
{
	struct xbb_rate_file *file;
	uint32_t head[2];
	struct stat st;
	int error;

	if (fstat(fd, &st) != 0)
		return (-errno);
	if (st.st_size != XBB_RATE_FILE_SIZE ||
	    pread(fd, head, sizeof(head), 0) != sizeof(head) ||
	    head[0] != XBB_RATE_MAGIC || head[1] != XBB_RATE_VERSION)
		return (-EINVAL);
	file = mmap(NULL, XBB_RATE_FILE_SIZE, PROT_READ | PROT_WRITE,
	    MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		return (-errno);
	error = xbb_mapping_add(file, XBB_RATE_FILE_SIZE, 0, 0);
	if (error != 0) {
		munmap(file, XBB_RATE_FILE_SIZE);
		return (error);
	}
	*wordsp = &file->words;
	return (0);
}

void
xbb_rate_unmap(struct xbb_rate_words *words)
{

	xbb_mapping_remove(xbb_mapping_of(words));
}

int
xbb_rate_share(struct xbb_state *state, uint32_t level,
    struct xbb_rate_words *words)
{

	if (level >= XBB_RATE_LEVELS)
		return (-EINVAL);
	xbb_medium_share(xbb_mapping_of(state), level, words);
	return (0);
}
