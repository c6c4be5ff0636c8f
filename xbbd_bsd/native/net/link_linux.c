/*
 * link_linux.c - the link of a card on Linux: a tap whose frames have
 * a header before them, kept by the kernel when its last descriptor is closed.
 * While none is open it has no carrier and drops what it is sent.  Knows no
 * ring.  Any thread.
 */
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "net/net.h"

_Static_assert(XBB_NET_NAME == IFNAMSIZ, "fits the name of an interface");

/*
 * As netback's, and set by Xen's scripts too: another one than the guest's, and
 * so high that a bridge does not take it for its own.
 */
static const uint8_t address[XBB_NET_ADDRESS] = {
	0xfe, 0xff, 0xff, 0xff, 0xff, 0xff,
};

/* Frames of several segments of TCP, and sums that are left to us. */
#define OFFLOADS	(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)

static bool
name_interface(struct ifreq *ifr, const char *name)
{
	size_t len = strlen(name);

	memset(ifr, 0, sizeof(*ifr));
	if (len == 0 || len >= IFNAMSIZ)
		return (false);
	memcpy(ifr->ifr_name, name, len);
	return (true);
}

/* Attach to an interface of that name, which comes into being if it must. */
static int
attach_to(int fd, const char *name, bool multi)
{
	struct ifreq ifr;

	if (!name_interface(&ifr, name))
		return (-EINVAL);
	ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (multi)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	return (ioctl(fd, TUNSETIFF, &ifr) == 0 ? 0 : -errno);
}

/* Ask or tell the kernel of an interface. */
static int
ask_interface(unsigned long request, struct ifreq *ifr)
{
	int fd, error;

	if ((fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
		return (-errno);
	error = ioctl(fd, request, ifr) == 0 ? 0 : -errno;
	close(fd);
	return (error == -ENODEV ? -ENXIO : error);
}

/* What is said once, of one that was made just now. */
static int
settle_new(int fd, const char *name)
{
	struct ifreq ifr;
	int error;

	if (!name_interface(&ifr, name))
		return (-EINVAL);
	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, address, sizeof(address));
	if ((error = ask_interface(SIOCSIFHWADDR, &ifr)) != 0)
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

int
xbb_link_up(const char *name, struct xbb_error *error)
{
	struct ifreq ifr;
	int e;

	if (!name_interface(&ifr, name))
		return (xbb_fail(error, "bring tap up", EINVAL));
	if ((e = ask_interface(SIOCGIFFLAGS, &ifr)) == 0) {
		ifr.ifr_flags |= IFF_UP;
		e = ask_interface(SIOCSIFFLAGS, &ifr);
	}
	return (e == 0 ? 0 : xbb_fail(error, "bring tap up", -e));
}

int
xbb_link_is_up(const char *name)
{
	struct ifreq ifr;
	int error;

	if (!name_interface(&ifr, name))
		return (-EINVAL);
	if ((error = ask_interface(SIOCGIFFLAGS, &ifr)) != 0)
		return (error);
	return ((ifr.ifr_flags & IFF_UP) != 0);
}

int
xbb_link_mtu(const char *name, uint32_t mtu, struct xbb_error *error)
{
	struct ifreq ifr;
	int e;

	if (!name_interface(&ifr, name) || mtu > INT32_MAX)
		return (xbb_fail(error, "set mtu of tap", EINVAL));
	ifr.ifr_mtu = (int)mtu;
	e = ask_interface(SIOCSIFMTU, &ifr);
	return (e == 0 ? 0 : xbb_fail(error, "set mtu of tap", -e));
}
