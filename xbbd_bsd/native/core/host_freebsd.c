/*
 * host_freebsd.c - what the control plane asks of FreeBSD and Python has no
 * call for, and how a thread gets its name.  Knows no disk, no ring and no
 * state.  Any thread.
 */
#include <sys/param.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#include <sys/ucred.h>
#include <sys/un.h>
#include <sys/user.h>

#include <kenv.h>
#include <pthread_np.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

_Static_assert(XBB_FILE_SYSTEM_NAME >= MFSNAMELEN, "fits f_fstypename");
_Static_assert(XBB_KERNEL_VALUE > KENV_MVALLEN, "fits a value and a NUL");

/*
 * Files that are no storage but the kernel's answers, whatever size they claim.
 */
static const char *const pseudo[] = {
	"procfs", "linprocfs", "linsysfs", "devfs", "fdescfs", "mqueuefs",
};

int
xbb_pseudo_file_system(int fd, char name[XBB_FILE_SYSTEM_NAME])
{
	struct statfs st;
	uint32_t i;

	if (fstatfs(fd, &st) != 0)
		return (-errno);
	for (i = 0; i < sizeof(pseudo) / sizeof(pseudo[0]); i++)
		if (strncmp(st.f_fstypename, pseudo[i], MFSNAMELEN) == 0) {
			strcpy(name, pseudo[i]);
			return (1);
		}
	return (0);
}

/*
 * kenv(2), and not kenv(1): while grants are mapped this process must not fork.
 * A value that does not fit comes without its NUL.
 */
int
xbb_kernel_environment(const char *variable, char value[XBB_KERNEL_VALUE])
{

	memset(value, 0, XBB_KERNEL_VALUE);
	if (kenv(KENV_GET, variable, value, XBB_KERNEL_VALUE - 1) < 0)
		return (-errno);
	return (0);
}

int
xbb_peer(int fd, int32_t *pidp, uint32_t *uidp)
{
	struct xucred credentials;
	socklen_t size = sizeof(credentials);

	if (getsockopt(fd, SOL_LOCAL, LOCAL_PEERCRED, &credentials, &size) != 0)
		return (-errno);
	if (size != sizeof(credentials) ||
	    credentials.cr_version != XUCRED_VERSION)
		return (-EINVAL);
	*pidp = credentials.cr_pid;
	*uidp = credentials.cr_uid;
	return (0);
}

static uint64_t
milliseconds(clockid_t clock)
{
	struct timespec now = { 0 };

	(void)clock_gettime(clock, &now);
	return ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

/*
 * The kernel knows when a process began by the clock that is never set, and
 * says it by the one that may be: what is between that and now is the same.
 */
int
xbb_process_look(int32_t pid, struct xbb_process *process)
{
	int name[] = { CTL_KERN, KERN_PROC, KERN_PROC_PID, pid };
	struct kinfo_proc found;
	size_t size = sizeof(found);
	uint64_t age_ms, began_ms, now_ms;

	if (sysctl(name, sizeof(name) / sizeof(name[0]), &found, &size, NULL,
	    0) != 0)
		return (-errno);
	if (size != sizeof(found) || found.ki_structsize != sizeof(found))
		return (-EINVAL);
	if (found.ki_stat == SZOMB)
		return (-ESRCH);
	began_ms = (uint64_t)found.ki_start.tv_sec * 1000 +
	    (uint64_t)found.ki_start.tv_usec / 1000;
	now_ms = milliseconds(CLOCK_REALTIME);
	age_ms = now_ms > began_ms ? now_ms - began_ms : 0;
	now_ms = milliseconds(CLOCK_MONOTONIC);
	process->rss_kb = (uint64_t)found.ki_rssize * (uint64_t)getpagesize() /
	    1024;
	process->began_ms = now_ms > age_ms ? now_ms - age_ms : 0;
	process->age_ms = age_ms;
	return (0);
}

/* There is no such count. */
int
xbb_host_waited(uint64_t *nsp)
{

	(void)nsp;
	return (-ENOSYS);
}

void
xbb_thread_name(const char *name)
{

	pthread_set_name_np(pthread_self(), name);
}
