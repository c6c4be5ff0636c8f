/*
 * host_linux.c - what the control plane asks of Linux and Python has no call
 * for, and how a thread gets its name.  Knows no disk, no ring and no state. 
 * Any thread.
 */
#include <sys/vfs.h>

#include <stdio.h>
#include <string.h>

#include "internal.h"

#define TASK_COMM_LEN	16	/* with NUL (linux/sched.h) */

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

/* What is longer than the kernel's comm is not cut off there but refused. */
void
xbb_thread_name(const char *name)
{
	char comm[TASK_COMM_LEN];

	(void)snprintf(comm, sizeof(comm), "%s", name);
	(void)pthread_setname_np(pthread_self(), comm);
}
