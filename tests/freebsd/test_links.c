/*
 * test_links.c - how FreeBSD's taps want to be made, opened and removed, and
 * link_freebsd.c does; a part of test_rules.c.  Main thread.
 */
#include <net/if.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "net/net.h"

#include "harness.h"
#include "kernel.h"

#define NAME	"xnb5.0"

static struct xbb_error why;

static void
check_life(void)
{
	int fd, second;

	CHECK_EQ(xbb_link_is_up(NAME), -ENXIO);
	CHECK_EQ(xbb_link_remove(NAME, &why), -ENXIO);
	CHECK_EQ(xbb_link_open(NAME, 1, &fd, &why), -EOPNOTSUPP);
	CHECK_EQ(xbb_link_open(NAME, 0, &fd, &why), 0);
	CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
	CHECK_EQ(kernel_tap_header(NAME), XBB_NET_LINK_HEADER);
	CHECK_EQ(xbb_link_is_up(NAME), 0);
	CHECK_EQ(xbb_link_open(NAME, 0, &second, &why), -EBUSY);
	CHECK_EQ(xbb_link_up(NAME, &why), 0);
	CHECK_EQ(xbb_link_is_up(NAME), 1);
	CHECK_EQ(kernel_interface_flags(NAME) & IFF_PPROMISC, IFF_PPROMISC);
	CHECK_EQ(xbb_link_mtu(NAME, 9000, &why), 0);
	CHECK_EQ(kernel_interface_mtu(NAME), 9000);
	CHECK_EQ(xbb_link_mtu(NAME, 71, &why), -EINVAL);
	/* It would not come back from destroying what it has open itself. */
	CHECK_EQ(xbb_link_remove(NAME, &why), -EBUSY);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(kernel_tap_header(NAME), 0);
	CHECK_EQ(xbb_link_is_up(NAME), 1);
	CHECK_EQ(xbb_link_open(NAME, 0, &fd, &why), 0);
	CHECK_EQ(kernel_tap_header(NAME), XBB_NET_LINK_HEADER);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(xbb_link_remove(NAME, &why), 0);
	CHECK_EQ(xbb_link_is_up(NAME), -ENXIO);
	CHECK_EQ(xbb_link_is_up("tap0"), -ENXIO);
}

/* What an interface that is down is given is lost, and it says no errno. */
static void
check_frames(void)
{
	static uint8_t frame[XBB_NET_LINK_HEADER + 60];
	static struct xbb_net_queue q;
	struct iovec iov = { .iov_base = frame, .iov_len = sizeof(frame) };

	CHECK_EQ(xbb_link_open(NAME, 0, &q.params.link_fd, &why), 0);
	errno = ENXIO;	/* somebody else's */
	CHECK(!xbb_net_write(&q, &iov, 1));
	CHECK_EQ(atomic_load(&q.conn.reason), XBB_STOP_NONE);
	CHECK_EQ(xbb_link_up(NAME, &why), 0);
	CHECK(xbb_net_write(&q, &iov, 1));
	CHECK_EQ(close(q.params.link_fd), 0);
	CHECK_EQ(xbb_link_remove(NAME, &why), 0);
}

/* None that is no tap, and no name that is none, which leaves nothing. */
static void
check_others(void)
{
	static const char *const names[] = { "", "x23456789.123456", "lo0" };
	uint32_t i;
	int fd;

	for (i = 0; i < COUNTOF(names); i++) {
		CHECK_EQ(xbb_link_open(names[i], 0, &fd, &why), -EINVAL);
		CHECK_EQ(xbb_link_remove(names[i], &why), -EINVAL);
	}
	CHECK_EQ(xbb_link_is_up("lo0"), 1);
	CHECK_EQ(xbb_link_is_up("tap0"), -ENXIO);
	CHECK_EQ(xbb_link_up("nobodys", &why), -ENXIO);
	CHECK_EQ(xbb_link_mtu("nobodys", 1500, &why), -ENXIO);
}

/* Something else in devfs has its name: it cannot be found again. */
static void
check_hidden(void)
{
	int fd;

	CHECK_EQ(xbb_link_open("zero", 0, &fd, &why), 0);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(xbb_link_open("zero", 0, &fd, &why), -EINVAL);
	CHECK_EQ(xbb_link_remove("zero", &why), -EINVAL);
	CHECK_EQ(xbb_link_is_up("zero"), 0);
}

void
check_links(void)
{

	check_life();
	check_frames();
	check_others();
	check_hidden();
}
