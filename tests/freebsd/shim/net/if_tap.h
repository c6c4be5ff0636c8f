/*
 * if_tap.h - ioctls of a tap(4), as far as the data plane uses them.
 */
#ifndef SHIM_NET_IF_TAP_H
#define SHIM_NET_IF_TAP_H

#include <sys/ioccom.h>

#include <net/if.h>

#define TAPSVNETHDR	_IOW('t', 91, int)
#define TAPGIFNAME	_IOR('t', 93, struct ifreq)

#endif /* SHIM_NET_IF_TAP_H */
