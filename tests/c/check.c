/*
 * check.c - what every test needs: a way to fail, arguments, random numbers
 * that a seed repeats, and a scratch directory.  Any thread; the directory is
 * the main thread's business.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

static char scratch[256];

/* Other threads may be at work: leave at once, without cleaning up. */
void
check_failed(const char *file, int line, const char *what, int64_t a,
    int64_t b)
{

	fprintf(stderr, "%s:%d: not so: %s", file, line, what);
	if (a != b)
		fprintf(stderr, " (%jd, %jd)", (intmax_t)a, (intmax_t)b);
	fprintf(stderr, "\n");
	fflush(NULL);
	_exit(1);
}

/* Between two looks at something that is waited for. */
void
check_pause(void)
{

	usleep(100);
}

uint64_t
argument(int argc, char **argv, int n, uint64_t otherwise)
{

	return (n < argc ? strtoull(argv[n], NULL, 0) : otherwise);
}

/* splitmix64 */
uint64_t
random_next(uint64_t *state)
{
	uint64_t z;

	z = (*state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31));
}

uint64_t
random_below(uint64_t *state, uint64_t n)
{

	return (random_next(state) % n);
}

void
random_bytes(uint64_t *state, void *to, size_t size)
{
	uint8_t *bytes = to;
	uint64_t word;
	size_t n;

	for (; size > 0; size -= n, bytes += n) {
		n = size < sizeof(word) ? size : sizeof(word);
		word = random_next(state);
		memcpy(bytes, &word, n);
	}
}

bool
all_bytes(const uint8_t *from, size_t size, uint8_t value)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (from[i] != value)
			return (false);
	return (true);
}

/* Socket addresses are short: everything is named relative to here. */
void
scratch_enter(void)
{
	const char *parent = getenv("TMPDIR");

	snprintf(scratch, sizeof(scratch), "%s/xbb.XXXXXX",
	    parent != NULL ? parent : "/tmp");
	CHECK(mkdtemp(scratch) != NULL);
	CHECK(chdir(scratch) == 0);
}

/* That it is empty is part of every test. */
void
scratch_leave(void)
{

	CHECK(chdir("/") == 0);
	CHECK(rmdir(scratch) == 0);
}

int
scratch_file(uint64_t size)
{
	char name[] = "file.XXXXXX";
	int fd;

	fd = mkstemp(name);
	CHECK(fd >= 0);
	CHECK(unlink(name) == 0);
	CHECK(ftruncate(fd, (off_t)size) == 0);
	return (fd);
}
