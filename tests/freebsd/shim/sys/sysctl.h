/*
 * sysctl.h - sysctl(3), as far as a process is asked for.
 */
#ifndef SHIM_SYS_SYSCTL_H
#define SHIM_SYS_SYSCTL_H

#include <stddef.h>

#define CTL_KERN	1
#define KERN_PROC	14
#define KERN_PROC_PID	1

int	sysctl(const int *name, unsigned int namelen, void *oldp,
	    size_t *oldlenp, const void *newp, size_t newlen);

#endif /* SHIM_SYS_SYSCTL_H */
