/*
 * discards_freebsd.c - the call by which FreeBSD makes a hole in a file, as
 * disk.c has it fail or wait.  Nothing there erases.  Any thread.
 */
#include <dlfcn.h>
#include <fcntl.h>

#include "harness.h"

typedef int	space_call(int fd, int cmd, const struct spacectl_range *range,
		    int flags, struct spacectl_range *left);

static space_call *real_fspacectl;
static pthread_once_t found = PTHREAD_ONCE_INIT;

static void
find(void)
{

	real_fspacectl = (space_call *)dlsym(RTLD_NEXT, "fspacectl");
	CHECK(real_fspacectl != NULL);
}

int
fspacectl(int fd, int cmd, const struct spacectl_range *range, int flags,
    struct spacectl_range *left)
{

	pthread_once(&found, find);
	errno = disk_discards((uint64_t)range->r_offset,
	    (uint64_t)range->r_len);
	if (errno != 0)
		return (-1);
	return (real_fspacectl(fd, cmd, range, flags, left));
}
