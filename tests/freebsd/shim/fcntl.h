/*
 * fcntl.h - Linux's, and fspacectl(2).
 */
#ifndef SHIM_FCNTL_H
#define SHIM_FCNTL_H

#include_next <fcntl.h>

#define SPACECTL_DEALLOC	1

struct spacectl_range {
	off_t	r_offset;
	off_t	r_len;
};

int	fspacectl(int fd, int cmd, const struct spacectl_range *rqsr,
	    int flags, struct spacectl_range *rmsr);

#endif /* SHIM_FCNTL_H */
