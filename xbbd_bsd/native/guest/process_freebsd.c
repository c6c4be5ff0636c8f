/*
 * process_freebsd.c - what the process of a guest asks of FreeBSD, beside being
 * confined: its name, where it runs, to close what it has not been given.
 * Knows no device.  One thread.
 */
#include <sys/param.h>
#include <sys/cpuset.h>
#include <sys/rctl.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

/*
 * EDEADLK if one of them is not there.  capsicum(4) lets a process change this
 * for itself: it says where a guest's I/O runs, and keeps nobody in.
 */
int
xbb_process_cpus(const uint64_t *cpus)
{
	cpuset_t set;
	size_t cpu;

	CPU_ZERO(&set);
	for (cpu = 0; cpu < XBB_GUEST_CPUS; cpu++) {
		if (!xbb_has_cpu(cpus, cpu))
			continue;
		if (cpu >= CPU_SETSIZE)
			return (-EDEADLK);
		CPU_SET(cpu, &set);
	}
	return (cpuset_setaffinity(CPU_LEVEL_WHICH, CPU_WHICH_PID, -1,
	    sizeof(set), &set) == 0 ? 0 : -errno);
}

/* The rule ends with the process.  ENOSYS: the kernel does not count. */
int
xbb_process_quota(const struct xbb_guest_params *params)
{
	char rule[64];

	(void)snprintf(rule, sizeof(rule), "process:%ld:pcpu:deny=%u",
	    (long)getpid(), params->cpu_percent);
	return (rctl_add_rule(rule, strlen(rule) + 1, NULL, 0) == 0 ? 0 :
	    -errno);
}

/* The dash leaves out the name of the program, which is Python's. */
void
xbb_process_title(const char *title)
{

	setproctitle("-%s", title);
	xbb_thread_name(title);
}

void
xbb_close_from(int first)
{

	closefrom(first);
}
