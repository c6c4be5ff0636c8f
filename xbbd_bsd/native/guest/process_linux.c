/*
 * process_linux.c - what the process of a guest asks of Linux, beside being
 * confined: its name, where it runs, to close what it has not been given.
 * Knows no device.  One thread.
 */
#include <sys/syscall.h>

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

_Static_assert(CPU_SETSIZE == XBB_GUEST_CPUS, "as many as libc knows");

/* Of this thread and of those that it makes; EINVAL if none is there. */
int
xbb_process_cpus(const uint64_t *cpus)
{
	cpu_set_t set;
	size_t cpu;

	CPU_ZERO(&set);
	for (cpu = 0; cpu < XBB_GUEST_CPUS; cpu++)
		if (xbb_has_cpu(cpus, cpu))
			CPU_SET(cpu, &set);
	return (sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno);
}

/* A control group has it, to which it is too late to go from here. */
int
xbb_process_quota(const struct xbb_guest_params *params)
{

	return (params->placed ? 0 : -EOPNOTSUPP);
}

/*
 * Where the arguments of this process lie, which ps(1) shows: fields 48 and 49
 * of /proc/self/stat, behind the name in brackets that may have spaces.
 */
static int
find_arguments(char **fromp, char **endp)
{
	unsigned long long end, from;
	char text[2048];
	char *at;
	ssize_t n;
	int fd, field;

	fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return (-EIO);
	text[n] = '\0';
	at = strrchr(text, ')');
	for (field = 2; at != NULL && field < 48; field++)
		at = strchr(at + 1, ' ');
	if (at == NULL || sscanf(at, "%llu %llu", &from, &end) != 2 ||
	    from == 0 || end <= from)
		return (-EINVAL);
	*fromp = (char *)(uintptr_t)from;
	*endp = (char *)(uintptr_t)end;
	return (0);
}

/*
 * ps(1) shows what stands where the arguments were put, and top(1) the name of
 * the first thread.  Zeros after the title: what is there was somebody else's.
 */
void
xbb_process_title(const char *title)
{
	char *end, *from;
	size_t n, room;

	xbb_thread_name(title);
	if (find_arguments(&from, &end) != 0)
		return;
	room = (size_t)(end - from);
	memset(from, 0, room);
	n = strlen(title);
	memcpy(from, title, n < room ? n : room - 1);
}

/* Linux before 5.9 has no such call, and closes them one by one. */
void
xbb_close_from(int first)
{
	long fd, most;

#ifdef SYS_close_range
	if (syscall(SYS_close_range, (unsigned int)first, ~0U, 0) == 0)
		return;
#endif
	most = sysconf(_SC_OPEN_MAX);
	for (fd = first; fd < most; fd++)
		(void)close((int)fd);
}
