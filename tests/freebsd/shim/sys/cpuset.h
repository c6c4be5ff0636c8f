/*
 * cpuset.h - what FreeBSD has for sets of processors; the sets are Linux's,
 * whose macros have the same names.
 */
#ifndef SHIM_SYS_CPUSET_H
#define SHIM_SYS_CPUSET_H

#include <sys/types.h>

#include <sched.h>

#define CPU_LEVEL_WHICH	3
#define CPU_WHICH_PID	2

typedef int cpulevel_t;
typedef int cpuwhich_t;
typedef cpu_set_t cpuset_t;

int	cpuset_setaffinity(cpulevel_t level, cpuwhich_t which, id_t id,
	    size_t size, const cpuset_t *mask);

#endif /* SHIM_SYS_CPUSET_H */
