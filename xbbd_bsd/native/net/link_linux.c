/*
 * link_linux.c - to be written.
 */
#include "net/net.h"

int
xbb_link_open(const char *name, int multi, int *fdp, struct xbb_error *error)
{

	(void)name;
	(void)multi;
	(void)fdp;
	return (xbb_fail(error, "open tap", ENOSYS));
}

int
xbb_link_remove(const char *name, struct xbb_error *error)
{

	(void)name;
	return (xbb_fail(error, "remove interface", ENOSYS));
}

int
xbb_link_up(const char *name, int up, struct xbb_error *error)
{

	(void)name;
	(void)up;
	return (xbb_fail(error, "bring interface up", ENOSYS));
}

int
xbb_link_carrier(int fd, int on, struct xbb_error *error)
{

	(void)fd;
	(void)on;
	return (xbb_fail(error, "set carrier", ENOSYS));
}

int
xbb_link_mtu(const char *name, uint32_t mtu, struct xbb_error *error)
{

	(void)name;
	(void)mtu;
	return (xbb_fail(error, "set mtu", ENOSYS));
}
