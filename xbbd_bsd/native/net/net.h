/*
 * net.h - the room of network cards, from inside: its parts that are pure
 * (netif.h, offload.h) on top of what any ring has.
 */
#ifndef XBB_NET_H
#define XBB_NET_H

#include "core/core.h"

#include "net/offload.h"

extern const struct xbb_family xbb_net_family;

#endif /* XBB_NET_H */
