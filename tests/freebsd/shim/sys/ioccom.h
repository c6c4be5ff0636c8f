/*
 * ioccom.h - how FreeBSD numbers its ioctls, for its files compiled on Linux.
 */
#ifndef SHIM_SYS_IOCCOM_H
#define SHIM_SYS_IOCCOM_H

#include <sys/ioctl.h>

#undef _IO
#undef _IOR
#undef _IOW
#undef _IOWR
#undef _IOC

#define _IOC(direction, group, number, size) \
	((unsigned int)(direction) | ((unsigned int)(size) & 0x1fff) << 16 | \
	(unsigned int)(group) << 8 | (unsigned int)(number))
#define _IO(g, n)	_IOC(0x20000000, g, n, 0)
#define _IOR(g, n, t)	_IOC(0x40000000, g, n, sizeof(t))
#define _IOW(g, n, t)	_IOC(0x80000000, g, n, sizeof(t))
#define _IOWR(g, n, t)	_IOC(0xc0000000, g, n, sizeof(t))

#endif /* SHIM_SYS_IOCCOM_H */
