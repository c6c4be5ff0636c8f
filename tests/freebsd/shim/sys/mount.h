/*
 * mount.h - FreeBSD's struct statfs, as far as it is read, under a name of its
 * own: Linux's libc has another fstatfs().
 */
#ifndef SHIM_SYS_MOUNT_H
#define SHIM_SYS_MOUNT_H

#include <stdint.h>

#define MFSNAMELEN	16

struct statfs {
	uint32_t	f_version;
	char		f_fstypename[MFSNAMELEN];
};

#define fstatfs		kernel_fstatfs

int	kernel_fstatfs(int fd, struct statfs *buf);

#endif /* SHIM_SYS_MOUNT_H */
