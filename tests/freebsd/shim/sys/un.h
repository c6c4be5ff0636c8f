/*
 * un.h - Linux's, and what FreeBSD has there besides.
 */
#ifndef SHIM_SYS_UN_H
#define SHIM_SYS_UN_H

#include_next <sys/un.h>

#define SOL_LOCAL	0
#define LOCAL_PEERCRED	1

#endif /* SHIM_SYS_UN_H */
