/*
 * host_freebsd.c - what the control plane asks of FreeBSD and Python has no
 * call for, and how a thread gets its name.  Knows no disk, no ring and no
 * state.  Any thread.
 */
#include <sys/param.h>
#include <sys/mount.h>

#include <kenv.h>
#include <pthread_np.h>
#include <string.h>

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

void
xbb_thread_name(const char *name)
{

	pthread_set_name_np(pthread_self(), name);
}
