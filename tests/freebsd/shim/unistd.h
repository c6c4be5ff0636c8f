/*
 * unistd.h - Linux's, and what FreeBSD has there besides.
 */
#ifndef SHIM_UNISTD_H
#define SHIM_UNISTD_H

#include_next <unistd.h>

void	setproctitle(const char *fmt, ...)
	    __attribute__((format(printf, 1, 2)));

#endif /* SHIM_UNISTD_H */
