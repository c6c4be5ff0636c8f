/*
 * probe_log.c - preloaded, stands in for a tracer: what would be probed is
 * written to standard error, a line each.
 */
#include <stdint.h>
#include <stdio.h>

#define FLUSH(name) \
void	name(int unit); \
void	name(int unit) \
{ \
	fprintf(stderr, #name " %d\n", unit); \
}

#define TRANSFER(name) \
void	name(int unit, uint64_t offset, uint64_t length); \
void	name(int unit, uint64_t offset, uint64_t length) \
{ \
	fprintf(stderr, #name " %d %ju %ju\n", unit, (uintmax_t)offset, \
	    (uintmax_t)length); \
}

FLUSH(xbb_dispatch_dev_flush)
TRANSFER(xbb_dispatch_dev_read)
TRANSFER(xbb_dispatch_dev_write)
FLUSH(xbb_dispatch_file_flush)
TRANSFER(xbb_dispatch_file_read)
TRANSFER(xbb_dispatch_file_write)
