/*
 * link_freebsd.c - the link of a card on FreeBSD: a tap(4) with a virtio-net
 * header before its frames, under a name of ours, by which devfs has it too.
 * While nobody has it open it drops what it is sent.  Knows no ring.  Any
 * thread.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/interface.h"

#include <net/if_tap.h>

/* They have two halves, and what is not said is gone. */
static int
add_flags(const char *name, uint32_t flags)
{
	struct ifreq ifr;
	int error;

	if (!xbb_interface_named(&ifr, name))
		return (-EINVAL);
	if ((error = xbb_interface_ask(SIOCGIFFLAGS, &ifr)) != 0)
		return (error);
	flags |= (uint16_t)ifr.ifr_flags |
	    (uint32_t)(uint16_t)ifr.ifr_flagshigh << 16;
	ifr.ifr_flags = (short)(flags & 0xffff);
	ifr.ifr_flagshigh = (short)(flags >> 16);
	return (xbb_interface_ask(SIOCSIFFLAGS, &ifr));
}

/* The device of an interface that there is, if that is a tap. */
static int
open_existing(const char *name)
{
	char path[sizeof("/dev/") + IFNAMSIZ];
	struct ifreq ifr;
	int fd;

	snprintf(path, sizeof(path), "/dev/%s", name);
	if ((fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
		return (errno == ENOENT ? -EINVAL : -errno);
	memset(&ifr, 0, sizeof(ifr));
	if (ioctl(fd, TAPGIFNAME, &ifr) != 0 ||
	    strncmp(ifr.ifr_name, name, IFNAMSIZ) != 0) {
		close(fd);
		return (-EINVAL);
	}
	return (fd);
}

/*
 * A new one: it gets its name before anybody sees it as up.  IFF_LINK0 has it
 * stay up when it is closed (tap(4)).
 */
static int
open_new(const char *name)
{
	struct ifreq ifr;
	int fd, error;

	if ((fd = open("/dev/tap", O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0)
		return (-errno);
	memset(&ifr, 0, sizeof(ifr));
	if (ioctl(fd, TAPGIFNAME, &ifr) != 0) {
		error = -errno;
		close(fd);
		return (error);
	}
	ifr.ifr_data = (caddr_t)(uintptr_t)name;
	if ((error = xbb_interface_ask(SIOCSIFNAME, &ifr)) != 0) {
		close(fd);	/* or destroying it would wait for us */
		(void)xbb_interface_ask(SIOCIFDESTROY, &ifr);
		return (error);
	}
	if ((error = add_flags(name, IFF_LINK0)) != 0) {
		close(fd);
		if (xbb_interface_named(&ifr, name))
			(void)xbb_interface_ask(SIOCIFDESTROY, &ifr);
		return (error);
	}
	return (fd);
}

/* It has one queue. */
int
xbb_link_open(const char *name, int multi, int *fdp, struct xbb_error *error)
{
	struct ifreq ifr;
	int fd, size = XBB_NET_LINK_HEADER;

	if (multi)
		return (xbb_fail(error, "open tap", EOPNOTSUPP));
	if (!xbb_interface_named(&ifr, name))
		return (xbb_fail(error, "open tap", EINVAL));
	fd = if_nametoindex(name) != 0 ? open_existing(name) : open_new(name);
	if (fd < 0)
		return (xbb_fail(error, "open tap", -fd));
	if (ioctl(fd, TAPSVNETHDR, &size) != 0) {
		xbb_fail(error, "set header of tap", errno);
		close(fd);
		return (-error->errnum);
	}
	*fdp = fd;
	return (0);
}

/*
 * The kernel waits until one that it destroys is closed, and would wait for
 * ever for us.
 */
int
xbb_link_remove(const char *name, struct xbb_error *error)
{
	struct ifreq ifr;
	int fd, e;

	if (!xbb_interface_named(&ifr, name))
		return (xbb_fail(error, "remove tap", EINVAL));
	if (if_nametoindex(name) == 0)
		return (xbb_fail(error, "remove tap", ENXIO));
	if ((fd = open_existing(name)) < 0)
		return (xbb_fail(error, "remove tap", -fd));
	close(fd);
	e = xbb_interface_ask(SIOCIFDESTROY, &ifr);
	return (e == 0 ? 0 : xbb_fail(error, "remove tap", -e));
}

int
xbb_link_up(const char *name, struct xbb_error *error)
{
	int e = add_flags(name, IFF_UP);

	return (e == 0 ? 0 : xbb_fail(error, "bring tap up", -e));
}
