/*
 * disk_linux.c - what Linux names differently: how a disk's cache is flushed
 * and how a thread gets its name.
 */
#include <unistd.h>

#include "internal.h"

/* fdatasync(2) also flushes the write cache of a block device. */
int
xbb_disk_flush(int fd, uint32_t disk_kind)
{

	(void)disk_kind;
	while (fdatasync(fd) != 0)
		if (errno != EINTR)
			return (-errno);
	return (0);
}

void
xbb_thread_name(const char *name)
{

	(void)pthread_setname_np(pthread_self(), name);
}
