/*
 * link_linux.c - the link of a card on Linux: a tap whose frames have
 * a header before them, kept by the kernel when its last descriptor is closed.
 * While none is open it has no carrier and drops what it is sent.  Knows no
 * ring.  Any thread.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "net/interface.h"

#include <linux/if_tun.h>
#include <net/if_arp.h>

/*
 * As netback's, and set by Xen's scripts too: another one than the guest's, and
 * so high that a bridge does not take it for its own.
 */
static const uint8_t address[XBB_NET_ADDRESS] = {
	0xfe, 0xff, 0xff, 0xff, 0xff, 0xff,
};

/* Frames of several segments of TCP, and sums that are left to us. */
#define OFFLOADS	(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)

/* Attach to an interface of that name, which comes into being if it must. */
static int
attach_to(int fd, const char *name, bool multi)
{
	struct ifreq ifr;

	if (!xbb_interface_named(&ifr, name))
		return (-EINVAL);
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (multi)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	return (ioctl(fd, TUNSETIFF, &ifr) == 0 ? 0 : -errno);
}

/* What is said once, of one that was made just now. */
static int
settle_new(int fd, const char *name)
{
	struct ifreq ifr;
	int error;

	if (!xbb_interface_named(&ifr, name))
		return (-EINVAL);
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, address, sizeof(address));
	if ((error = xbb_interface_ask(SIOCSIFHWADDR, &ifr)) != 0)
		return (error);
	return (ioctl(fd, TUNSETPERSIST, 1UL) == 0 ? 0 : -errno);
}

static int
set_header(int fd)
{
	int size = XBB_NET_LINK_HEADER, little = 1;

	if (ioctl(fd, TUNSETVNETHDRSZ, &size) != 0 ||
	    ioctl(fd, TUNSETVNETLE, &little) != 0 ||
	    ioctl(fd, TUNSETOFFLOAD, (unsigned long)OFFLOADS) != 0)
		return (-errno);
	return (0);
}

int
xbb_link_open(const char *name, int multi, int *fdp, struct xbb_error *error)
{
	bool new = if_nametoindex(name) == 0;
	int fd, e;

	if ((fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
		return (xbb_fail(error, "open /dev/net/tun", errno));
	if ((e = attach_to(fd, name, multi != 0)) != 0)
		xbb_fail(error, "attach to tap", -e);
	else if (new && (e = settle_new(fd, name)) != 0)
		xbb_fail(error, "make tap", -e);
	else if ((e = set_header(fd)) != 0)
		xbb_fail(error, "set header of tap", -e);
	if (e != 0) {
		close(fd);
		return (e);
	}
	*fdp = fd;
	return (0);
}

/* It goes with its last descriptor once it is not kept any more. */
int
xbb_link_remove(const char *name, struct xbb_error *error)
{
	int fd, e;

	if (if_nametoindex(name) == 0)
		return (xbb_fail(error, "remove tap", ENXIO));
	if ((fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC)) < 0)
		return (xbb_fail(error, "open /dev/net/tun", errno));
	if ((e = attach_to(fd, name, true)) == -EINVAL)
		e = attach_to(fd, name, false);
	if (e == 0 && ioctl(fd, TUNSETPERSIST, 0UL) != 0)
		e = -errno;
	close(fd);
	return (e == 0 ? 0 : xbb_fail(error, "remove tap", -e));
}

static int
add_flags(const char *name, uint32_t flags)
{
	struct ifreq ifr;
	int error;

	if (!xbb_interface_named(&ifr, name))
		return (-EINVAL);
	if ((error = xbb_interface_ask(SIOCGIFFLAGS, &ifr)) != 0)
		return (error);
	ifr.ifr_flags |= (short)flags;
	return (xbb_interface_ask(SIOCSIFFLAGS, &ifr));
}

int
xbb_link_up(const char *name, struct xbb_error *error)
{
	int e = add_flags(name, IFF_UP);

	return (e == 0 ? 0 : xbb_fail(error, "bring tap up", -e));
}
