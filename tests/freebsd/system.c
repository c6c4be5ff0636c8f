/*
 * system.c - what the kernel says of itself, of its mounts, of processes and of
 * the other end of a socket: kenv(2), fstatfs(2), sysctl(3), LOCAL_PEERCRED,
 * and what the time is; and where a process runs: cpuset_setaffinity(2), and
 * how long: rctl_add_rule(2).  One thread sets; any thread asks.
 */
#include <sys/capsicum.h>
#include <sys/cpuset.h>
#include <sys/mount.h>
#include <sys/rctl.h>

#include <sys/socket.h>
#include <sys/sysctl.h>
#include <sys/ucred.h>
#include <sys/un.h>
#include <sys/user.h>

#include <errno.h>
#include <kenv.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"

int	__wrap_getsockopt(int fd, int level, int name, void *value,
	    socklen_t *sizep);
int	__wrap_clock_gettime(clockid_t clock, struct timespec *ts);

static const char *variable, *value_of_it, *file_system = "zfs";
static int64_t	ahead;		/* of the real clock, seconds */

void
kernel_setenv(const char *name, const char *value)
{

	variable = name;
	value_of_it = value;
}

void
kernel_mount(const char *name)
{

	file_system = name;
}

/* What does not fit is cut off, its NUL first (kern_environment.c). */
int
kenv(int action, const char *name, char *value, int len)
{
	int n;

	if (action != KENV_GET)
		kernel_panic("kenv: action %d", action);
	if (strlen(name) > KENV_MNAMELEN) {
		errno = ENAMETOOLONG;
		return (-1);
	}
	if (variable == NULL || strcmp(name, variable) != 0) {
		errno = ENOENT;
		return (-1);
	}
	n = (int)strlen(value_of_it) + 1;
	if (n > len)
		n = len;
	memcpy(value, value_of_it, (size_t)n);
	return (n);
}

int
kernel_fstatfs(int fd, struct statfs *buf)
{
	struct stat st;

	if (__real_fstat(fd, &st) != 0)
		return (-1);
	memset(buf, 0, sizeof(*buf));
	strncpy(buf->f_fstypename, file_system, MFSNAMELEN - 1);
	return (0);
}

/* Of a process, all of it; none may be meant that is not there. */
int
cpuset_setaffinity(cpulevel_t level, cpuwhich_t which, id_t id, size_t size,
    const cpuset_t *mask)
{
	size_t cpu, most = (size_t)sysconf(_SC_NPROCESSORS_CONF);

	if (level != CPU_LEVEL_WHICH || which != CPU_WHICH_PID ||
	    id != (id_t)-1 || size != sizeof(*mask))
		kernel_panic("cpuset_setaffinity: %d %d %ld, %zu bytes", level,
		    which, (long)id, size);
	for (cpu = most; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, mask)) {
			errno = EDEADLK;
			return (-1);
		}
	}
	if (CPU_COUNT(mask) == 0) {
		errno = EDEADLK;
		return (-1);
	}
	return (sched_setaffinity(0, size, mask));
}

static bool counts;
static unsigned int percent;

void
kernel_racct(bool enabled)
{

	counts = enabled;
}

unsigned int
kernel_pcpu(void)
{

	return (percent);
}

/* A rule of a process's own; its text has its NUL, and nothing is answered. */
int
rctl_add_rule(const char *inbufp, size_t inbuflen, char *outbufp,
    size_t outbuflen)
{
	char same[64];
	unsigned int most;
	long pid;

	if (!counts) {
		errno = ENOSYS;
		return (-1);
	}
	if (inbuflen == 0 || inbufp[inbuflen - 1] != '\0' ||
	    outbufp != NULL || outbuflen != 0 ||
	    sscanf(inbufp, "process:%ld:pcpu:deny=%u", &pid, &most) != 2 ||
	    pid != (long)getpid() || kernel_capability_mode())
		kernel_panic("rctl_add_rule: %zu bytes", inbuflen);
	snprintf(same, sizeof(same), "process:%ld:pcpu:deny=%u", pid, most);
	if (strcmp(same, inbufp) != 0 || strlen(same) + 1 != inbuflen)
		kernel_panic("rctl_add_rule: %s", inbufp);
	percent = most;
	return (0);
}

/* Who connected, or called listen(2) last (uipc_usrreq.c). */
int
__wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *sizep)
{
	struct xucred xucred = { .cr_version = XUCRED_VERSION };
	uint32_t credentials[3];
	socklen_t size = sizeof(credentials);

	kernel_must(fd, CAP_GETSOCKOPT, "getsockopt");
	if (level != SOL_LOCAL || name != LOCAL_PEERCRED)
		return (__real_getsockopt(fd, level, name, value, sizep));
	if (__real_getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials,
	    &size) != 0)
		return (-1);
	if (credentials[0] == 0) {
		errno = ENOTCONN;
		return (-1);
	}
	xucred.cr_pid = (pid_t)credentials[0];
	xucred.cr_uid = credentials[1];
	xucred.cr_ngroups = 1;
	xucred.cr_groups[0] = credentials[2];
	if (*sizep > sizeof(xucred))
		*sizep = sizeof(xucred);
	memcpy(value, &xucred, *sizep);
	return (0);
}

void
kernel_set_clock(int64_t seconds)
{

	ahead = seconds;
}

int
__wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
	int error;

	error = __real_clock_gettime(clock, ts);
	if (error == 0 && clock == CLOCK_REALTIME)
		ts->tv_sec += (time_t)ahead;
	return (error);
}

/*
 * When a process began is told by the clock that is set: what the kernel keeps,
 * and when it thinks by that clock that it began itself (kern_proc.c).
 */
static void
tell_start(struct kinfo_proc *found, unsigned long long ticks)
{
	struct timespec now, up;
	long long hz = sysconf(_SC_CLK_TCK), us;

	__wrap_clock_gettime(CLOCK_REALTIME, &now);
	__real_clock_gettime(CLOCK_BOOTTIME, &up);
	us = ((long long)now.tv_sec - up.tv_sec) * 1000000 +
	    (now.tv_nsec - up.tv_nsec) / 1000 +
	    (long long)ticks * 1000000 / hz;
	found->ki_start.tv_sec = us / 1000000;
	found->ki_start.tv_usec = us % 1000000;
}

int
sysctl(const int *name, unsigned int namelen, void *oldp, size_t *oldlenp,
    const void *newp, size_t newlen)
{
	struct kinfo_proc found = { .ki_structsize = sizeof(found) };
	unsigned long long ticks;
	char path[32], text[1024];
	FILE *file;
	char *at, state;

	if (namelen != 4 || name[0] != CTL_KERN || name[1] != KERN_PROC ||
	    name[2] != KERN_PROC_PID || oldp == NULL || newp != NULL ||
	    newlen != 0)
		kernel_panic("sysctl of %u numbers", namelen);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", name[3]);
	file = fopen(path, "r");
	at = file != NULL ? fgets(text, sizeof(text), file) : NULL;
	if (file != NULL)
		fclose(file);
	if (at == NULL || (at = strrchr(text, ')')) == NULL) {
		errno = ESRCH;
		return (-1);
	}
	if (sscanf(at, ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
	    " %*s %*s %*s %*s %*s %*s %llu %*s %ld", &state, &ticks,
	    &found.ki_rssize) != 3)
		kernel_panic("what is in %s", path);
	if (*oldlenp < sizeof(found)) {
		errno = ENOMEM;
		return (-1);
	}
	found.ki_pid = name[3];
	found.ki_stat = state == 'Z' ? SZOMB : SRUN;
	tell_start(&found, ticks);
	memcpy(oldp, &found, sizeof(found));
	*oldlenp = sizeof(found);
	return (0);
}

/* What ps(1) shows here is no part of what is played. */
void
setproctitle(const char *fmt, ...)
{

	(void)fmt;
}
