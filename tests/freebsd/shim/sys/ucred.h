/*
 * ucred.h - FreeBSD's struct xucred.
 */
#ifndef SHIM_SYS_UCRED_H
#define SHIM_SYS_UCRED_H

#include <sys/types.h>

#define XU_NGROUPS	16
#define XUCRED_VERSION	0

struct xucred {
	u_int		cr_version;
	uid_t		cr_uid;
	short		cr_ngroups;
	gid_t		cr_groups[XU_NGROUPS];
	union {
		void	*_cr_unused1;
		pid_t	 cr_pid;
	};
};

#endif /* SHIM_SYS_UCRED_H */
