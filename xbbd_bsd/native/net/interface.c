/*
 * interface.c - what both systems let do with a network interface by its name
 * alone.  Knows no frame and no ring.  Any thread.
 */
#include <string.h>
#include <unistd.h>

#include "net/interface.h"

/* False if no interface can be called so. */
bool
xbb_interface_named(struct ifreq *ifr, const char *name)
{
	size_t len = strlen(name);

	memset(ifr, 0, sizeof(*ifr));
	if (len == 0 || len >= IFNAMSIZ)
		return (false);
	memcpy(ifr->ifr_name, name, len);
	return (true);
}

/*
 * Ask or tell the kernel of an interface.  One that is not there is ENODEV to
 * Linux.
 */
int
xbb_interface_ask(unsigned long request, struct ifreq *ifr)
{
	int fd, error;

	if ((fd = socket(AF_LOCAL, SOCK_DGRAM | SOCK_CLOEXEC, 0)) < 0)
		return (-errno);
	error = ioctl(fd, request, ifr) == 0 ? 0 : -errno;
	close(fd);
	return (error == -ENODEV ? -ENXIO : error);
}

int
xbb_link_is_up(const char *name)
{
	struct ifreq ifr;
	int error;

	if (!xbb_interface_named(&ifr, name))
		return (-EINVAL);
	if ((error = xbb_interface_ask(SIOCGIFFLAGS, &ifr)) != 0)
		return (error);
	return ((ifr.ifr_flags & IFF_UP) != 0);
}

int
xbb_link_mtu(const char *name, uint32_t mtu, struct xbb_error *error)
{
	struct ifreq ifr;
	int e;

	if (!xbb_interface_named(&ifr, name) || mtu > INT32_MAX)
		return (xbb_fail(error, "set mtu of tap", EINVAL));
	ifr.ifr_mtu = (int)mtu;
	e = xbb_interface_ask(SIOCSIFMTU, &ifr);
	return (e == 0 ? 0 : xbb_fail(error, "set mtu of tap", -e));
}
