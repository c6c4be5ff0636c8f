/*
 * confine_freebsd.c - what FreeBSD leaves the process of a guest: capsicum(4),
 * in whose capability mode nothing with a path, an address or a process's
 * number can be had, and on each descriptor the rights that its use wants.
 * Knows no device.  The only thread, before all others.
 *
 * A socket and a fork(2) can still be made there, and come to nothing: there is
 * no name to connect to, and the child is as confined.  Whoever holds a grant
 * device may still map what any guest has granted to this domain: that is Xen's
 * to judge.
 */
#include <sys/param.h>
#include <sys/capsicum.h>

#include <unistd.h>

#include "guest/guest.h"

#define MOST_IOCTLS	32

static size_t
count_ioctls(const unsigned long *ioctls)
{
	size_t n;

	n = 0;
	while (ioctls != NULL && n < MOST_IOCTLS && ioctls[n] != 0)
		n++;
	return (n);
}

/* Rights, and of ioctl(2) the listed requests; NULL for none. */
static int
limit_rights(int fd, cap_rights_t *rights, const unsigned long *ioctls)
{
	const size_t n = count_ioctls(ioctls);

	if (n != 0)
		cap_rights_set(rights, CAP_IOCTL);
	if (cap_rights_limit(fd, rights) != 0)
		return (-errno);
	return (n != 0 && cap_ioctls_limit(fd, ioctls, n) != 0 ? -errno : 0);
}

static void
rights_of_use(enum xbb_use use, cap_rights_t *rights)
{

	switch (use) {
	case XBB_USE_LISTENER:	/* and whoever connects has no more than it */
		cap_rights_init(rights, CAP_ACCEPT, CAP_RECV, CAP_SEND,
		    CAP_EVENT, CAP_FCNTL, CAP_GETSOCKOPT);
		break;
	case XBB_USE_DAEMON:
	case XBB_USE_SERVER:
		cap_rights_init(rights, CAP_RECV, CAP_SEND, CAP_EVENT,
		    CAP_FCNTL, CAP_GETSOCKOPT);
		break;
	case XBB_USE_SEGMENT:
		cap_rights_init(rights, CAP_FLOCK, CAP_FSTAT, CAP_PREAD,
		    CAP_MMAP_RW);
		break;
	case XBB_USE_RATES:
		cap_rights_init(rights, CAP_FSTAT, CAP_PREAD, CAP_MMAP_RW);
		break;
	case XBB_USE_DISK:
		cap_rights_init(rights, CAP_PREAD, CAP_PWRITE, CAP_FSTAT,
		    CAP_FSYNC);
		break;
	case XBB_USE_LINK:
		cap_rights_init(rights, CAP_READ, CAP_WRITE, CAP_EVENT);
		break;
	case XBB_USE_GRANTS:
		cap_rights_init(rights, CAP_MMAP_RW, CAP_FCNTL);
		break;
	case XBB_USE_EVENTS:
		cap_rights_init(rights, CAP_READ, CAP_WRITE, CAP_EVENT,
		    CAP_FCNTL);
		break;
	default:
		cap_rights_init(rights);	/* to be closed */
	}
}

/* A filling that opens files does so by rights that its directory must keep. */
int
xbb_confine_fd(int fd, enum xbb_use use, const struct xbb_guest_params *params)
{
	const struct xbb_hv_ops *ops = xbb_hv_lookup(params->hv);
	const unsigned long *ioctls;
	cap_rights_t rights;

	if (!params->confined || fd < 0 || (ops->opens_files &&
	    (use == XBB_USE_GRANTS || use == XBB_USE_EVENTS)))
		return (0);
	ioctls = use == XBB_USE_DISK ? xbb_disk_ioctls :
	    use == XBB_USE_GRANTS ? ops->grant_ioctls :
	    use == XBB_USE_EVENTS ? ops->event_ioctls : NULL;
	rights_of_use(use, &rights);
	return (limit_rights(fd, &rights, ioctls));
}

int
xbb_confine(const struct xbb_guest_params *params)
{

	(void)params;
	return (cap_enter() == 0 ? 0 : -errno);
}
