/*
 * host_linux.c - what the control plane asks of Linux and Python has no call
 * for, and how a thread gets its name.  Knows no disk, no ring and no state. 
 * Any thread.
 */
#include <sys/socket.h>
#include <sys/vfs.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define TASK_COMM_LEN	16	/* with NUL (linux/sched.h) */
#define PEER_FIELDS	3	/* struct ucred: pid, uid, gid */

/*
 * Files that are no storage but the kernel's answers, whatever size they claim;
 * linux/magic.h, and the sources of those file systems that are not in it.
 */
static const struct {
	uint32_t	magic;
	const char	*name;
} pseudo[] = {
	{ 0x9fa0,	"proc" },
	{ 0x62656572,	"sysfs" },
	{ 0x64626720,	"debugfs" },
	{ 0x74726163,	"tracefs" },
	{ 0x73636673,	"securityfs" },
	{ 0x5a3c69f0,	"apparmorfs" },
	{ 0xf97cff8c,	"selinuxfs" },
	{ 0x43415d53,	"smackfs" },
	{ 0x27e0eb,	"cgroup" },
	{ 0x63677270,	"cgroup2" },
	{ 0x7655821,	"resctrl" },
	{ 0x62656570,	"configfs" },
	{ 0xcafe4a11,	"bpf" },
	{ 0x6165676c,	"pstore" },
	{ 0xde5e81e4,	"efivarfs" },
	{ 0x42494e4d,	"binfmt_misc" },
	{ 0x19800202,	"mqueue" },
	{ 0x65735543,	"fusectl" },
	{ 0x6e736673,	"nsfs" },
	{ 0x50494446,	"pidfs" },
	{ 0x1cd1,	"devpts" },
	{ 0x67596969,	"rpc_pipefs" },
	{ 0x6e667364,	"nfsd" },
	{ 0xabba1974,	"xenfs" },
	{ 0x958458f6,	"hugetlbfs" },
};

int
xbb_pseudo_file_system(int fd, char name[XBB_FILE_SYSTEM_NAME])
{
	struct statfs st;
	uint32_t i;

	if (fstatfs(fd, &st) != 0)
		return (-errno);
	for (i = 0; i < sizeof(pseudo) / sizeof(pseudo[0]); i++)
		if ((uint32_t)st.f_type == pseudo[i].magic) {
			strncpy(name, pseudo[i].name, XBB_FILE_SYSTEM_NAME - 1);
			name[XBB_FILE_SYSTEM_NAME - 1] = '\0';
			return (1);
		}
	return (0);
}

/* There is none here. */
int
xbb_kernel_environment(const char *variable, char value[XBB_KERNEL_VALUE])
{

	(void)variable;
	(void)value;
	return (-ENOSYS);
}

int
xbb_peer(int fd, int32_t *pidp, uint32_t *uidp)
{
	uint32_t credentials[PEER_FIELDS];
	socklen_t size = sizeof(credentials);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, &size) != 0)
		return (-errno);
	*pidp = (int32_t)credentials[0];
	*uidp = credentials[1];
	return (0);
}

/*
 * Fields 22 and 24 of /proc/PID/stat, ticks since the system began and pages,
 * and field 3; behind the name in brackets that may have spaces.
 */
static int
read_stat(int32_t pid, char *statep, unsigned long long *ticksp, long *pagesp)
{
	char path[32], text[1024];
	char *at;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (errno == ENOENT ? -ESRCH : -errno);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)	/* it ended in between */
		return (-ESRCH);
	text[n] = '\0';
	at = strrchr(text, ')');
	if (at == NULL || sscanf(at, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u"
	    " %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu %*u %ld", statep,
	    ticksp, pagesp) != 3 || *pagesp < 0)
		return (-EINVAL);
	return (0);
}

int
xbb_process_look(int32_t pid, struct xbb_process *process)
{
	struct timespec now;
	unsigned long long ticks;
	uint64_t now_ms;
	long pages;
	int error;
	char state;

	error = read_stat(pid, &state, &ticks, &pages);
	if (error != 0)
		return (error);
	if (state == 'Z' || state == 'X')
		return (-ESRCH);
	if (clock_gettime(CLOCK_BOOTTIME, &now) != 0)
		return (-errno);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	process->rss_kb = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) /
	    1024;
	process->began_ms = ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
	process->age_ms = now_ms > process->began_ms ?
	    now_ms - process->began_ms : 0;
	return (0);
}

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS" */
int
xbb_host_waited(uint64_t *nsp)
{
	unsigned long long us;
	char text[256];
	ssize_t n;
	int fd;

	fd = open("/proc/pressure/cpu", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)	/* a kernel that was told not to count */
		return (-EOPNOTSUPP);
	text[n] = '\0';
	if (sscanf(text, "some %*s %*s %*s total=%llu", &us) != 1)
		return (-EINVAL);
	*nsp = us * 1000;
	return (0);
}

/* What is longer than the kernel's comm is not cut off there but refused. */
void
xbb_thread_name(const char *name)
{
	char comm[TASK_COMM_LEN];

	(void)snprintf(comm, sizeof(comm), "%s", name);
	(void)pthread_setname_np(pthread_self(), comm);
}
