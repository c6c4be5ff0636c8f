/*
 * ioctl.h - on FreeBSD it has requests of interfaces, too.
 */
#ifndef SHIM_SYS_IOCTL_H
#define SHIM_SYS_IOCTL_H

#include_next <sys/ioctl.h>
#include <sys/sockio.h>

#endif /* SHIM_SYS_IOCTL_H */
