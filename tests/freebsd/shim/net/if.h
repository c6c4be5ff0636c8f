/*
 * if.h - interfaces as FreeBSD has them, as far as the data plane asks for
 * them; Linux's would be another struct ifreq.
 */
#ifndef SHIM_NET_IF_H
#define SHIM_NET_IF_H

#include <sys/socket.h>
#include <sys/types.h>

#define IFNAMSIZ	16
#define IFF_UP		0x1
#define IFF_BROADCAST	0x2
#define IFF_SIMPLEX	0x800
#define IFF_LINK0	0x1000
#define IFF_MULTICAST	0x8000
#define IFF_PPROMISC	0x20000

struct ifreq {
	char	ifr_name[IFNAMSIZ];
	union {
		struct sockaddr ifru_addr;
		short	ifru_flags[2];
		int	ifru_mtu;
		caddr_t	ifru_data;
	} ifr_ifru;
#define ifr_flags	ifr_ifru.ifru_flags[0]
#define ifr_flagshigh	ifr_ifru.ifru_flags[1]
#define ifr_mtu		ifr_ifru.ifru_mtu
#define ifr_data	ifr_ifru.ifru_data
};

unsigned int if_nametoindex(const char *ifname);

#endif /* SHIM_NET_IF_H */
