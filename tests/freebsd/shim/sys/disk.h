/*
 * disk.h - ioctls of FreeBSD's disks, as far as the data plane uses them.
 */
#ifndef SHIM_SYS_DISK_H
#define SHIM_SYS_DISK_H

#include <sys/types.h>

#include <sys/ioccom.h>

#define DIOCGMEDIASIZE	_IOR('d', 129, off_t)
#define DIOCGFLUSH	_IO('d', 135)
#define DIOCGDELETE	_IOW('d', 136, off_t[2])

#endif /* SHIM_SYS_DISK_H */
