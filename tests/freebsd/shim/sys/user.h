/*
 * user.h - FreeBSD's struct kinfo_proc, as far as it is read.
 */
#ifndef SHIM_SYS_USER_H
#define SHIM_SYS_USER_H

#include <sys/time.h>
#include <sys/types.h>

#define SRUN	2
#define SZOMB	5

struct kinfo_proc {
	int		ki_structsize;
	pid_t		ki_pid;
	struct timeval	ki_start;
	long		ki_rssize;	/* pages */
	char		ki_stat;
};

#endif /* SHIM_SYS_USER_H */
