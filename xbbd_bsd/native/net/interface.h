/*
 * interface.h - a network interface by its name, as the kernel is asked and
 * told of it.
 */
#ifndef XBB_NET_INTERFACE_H
#define XBB_NET_INTERFACE_H

#include <sys/types.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <net/if.h>

#include "net/net.h"

_Static_assert(XBB_NET_NAME == IFNAMSIZ, "fits the name of an interface");

/* interface.c - what both systems have alike.  Any thread. */
bool	xbb_interface_named(struct ifreq *ifr, const char *name);
int	xbb_interface_ask(unsigned long request, struct ifreq *ifr);

#endif /* XBB_NET_INTERFACE_H */
