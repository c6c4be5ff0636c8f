/*
 * system.c - what the kernel says of itself, of its mounts and of the other end
 * of a socket: kenv(2), fstatfs(2), getpeereid(3); and where a process runs:
 * cpuset_setaffinity(2), and how long: rctl_add_rule(2).  One thread.
 */
#include <sys/cpuset.h>
#include <sys/mount.h>
#include <sys/rctl.h>

#include <sys/socket.h>

#include <errno.h>
#include <kenv.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"

static const char *variable, *value_of_it, *file_system = "zfs";

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

int
getpeereid(int fd, uid_t *uid, gid_t *gid)
{
	uint32_t credentials[3];	/* Linux's: pid, uid, gid */
	socklen_t size = sizeof(credentials);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, &size) != 0)
		return (-1);
	*uid = credentials[1];
	*gid = credentials[2];
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

/* What ps(1) shows here is no part of what is played. */
void
setproctitle(const char *fmt, ...)
{

	(void)fmt;
}
