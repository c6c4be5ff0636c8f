/*
 * freebsd.c - real Xen under FreeBSD for a backend's ring: grant_fd is an
 * open /dev/xen/gntdev, event_fd a /dev/xen/evtchn of the ring's own,
 * non-blocking.  The rules are those of the kernel's gntdev.c and evtchn_dev.c.
 *
 * There is no grant copy, so batches are mapped, or pages stay mapped.  Both
 * devices know poll(2) but no kqueue(2).
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <stdlib.h>
#include <unistd.h>

#include "hv/freebsd_xen.h"
#include "hv/hv.h"

struct xbb_hv {
	int		 grant_fd;	/* the caller's, as is the next */
	int		 event_fd;
	uint32_t	 domid;
	pthread_mutex_t	 lock;
	evtchn_port_t	 port;		/* lock: ours, 0 while not bound */
};

static int
freebsd_open(struct xbb_hv **hvp, int grant_fd, int event_fd, uint32_t domid)
{
	struct xbb_hv *hv;
	int error;

	hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return (-ENOMEM);
	error = pthread_mutex_init(&hv->lock, NULL);
	if (error != 0) {
		free(hv);
		return (-error);
	}
	hv->grant_fd = grant_fd;
	hv->event_fd = event_fd;
	hv->domid = domid;
	*hvp = hv;
	return (0);
}

/*
 * The kernel must never be asked to notify or unbind a port that this
 * descriptor has not bound: it answers ENOTCONN, keeps a mutex locked, and
 * panics at the next bind (seen of notify, read of unbind).  So it is asked
 * only for a port that bind gave us and that we have not given back, and never
 * for both at once.
 */
static int
freebsd_notify(struct xbb_hv *hv)
{
	struct ioctl_evtchn_notify notify;
	int error;

	pthread_mutex_lock(&hv->lock);
	notify.port = hv->port;
	if (notify.port == 0)
		error = -ENOTCONN;
	else
		error = ioctl(hv->event_fd, IOCTL_EVTCHN_NOTIFY,
		    &notify) == 0 ? 0 : -errno;
	pthread_mutex_unlock(&hv->lock);
	return (error);
}

static void
unbind(struct xbb_hv *hv)
{
	struct ioctl_evtchn_unbind unbind;

	pthread_mutex_lock(&hv->lock);
	unbind.port = hv->port;
	hv->port = 0;
	if (unbind.port != 0)
		(void)ioctl(hv->event_fd, IOCTL_EVTCHN_UNBIND, &unbind);
	pthread_mutex_unlock(&hv->lock);
}

static void
freebsd_close(struct xbb_hv *hv)
{

	unbind(hv);
	pthread_mutex_destroy(&hv->lock);
	free(hv);
}

static int
freebsd_bind(struct xbb_hv *hv, uint32_t remote_port)
{
	struct ioctl_evtchn_bind_interdomain bind = {
		.remote_domain = hv->domid, .remote_port = remote_port,
	};
	int error;

	error = 0;
	pthread_mutex_lock(&hv->lock);
	if (hv->port != 0)
		error = -EISCONN;
	else if (ioctl(hv->event_fd, IOCTL_EVTCHN_BIND_INTERDOMAIN,
	    &bind) != 0)
		error = -errno;
	else
		hv->port = bind.port;
	pthread_mutex_unlock(&hv->lock);
	return (error);
}

static int
freebsd_event_fd(struct xbb_hv *hv)
{

	return (hv->event_fd);
}

/*
 * The port is masked before it is queued, and stays so until it is written
 * back.  A queue that ran over gives nothing but EFBIG until it is emptied,
 * with what was in it: then there may have been an event.  (Read, not seen: the
 * queue of a descriptor with one port cannot run over.)
 */
static int
freebsd_take(struct xbb_hv *hv)
{
	evtchn_port_t port;
	ssize_t n;

	n = read(hv->event_fd, &port, sizeof(port));
	if (n == (ssize_t)sizeof(port))
		return (1);
	if (n < 0 && errno == EFBIG)
		return (ioctl(hv->event_fd, IOCTL_EVTCHN_RESET) == 0 ? 1 :
		    -errno);
	return (n >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -errno);
}

static int
freebsd_unmask(struct xbb_hv *hv)
{

	return (write(hv->event_fd, &hv->port, sizeof(hv->port)) ==
	    (ssize_t)sizeof(hv->port) ? 0 : -errno);
}

/* A record goes only by the index and count that it was made with. */
static int
forget_map(struct xbb_hv *hv, const struct xbb_map *map)
{
	struct ioctl_gntdev_unmap_grant_ref unmap = {
		.index = map->token, .count = map->npages,
	};

	return (ioctl(hv->grant_fd, IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap) == 0 ?
	    0 : -errno);
}

/*
 * The ioctl only takes note; mmap(2) of exactly that range maps, all
 * references or, with EINVAL, none: batch.c finds out who is to blame.  Which
 * access is asked for counts, since a frontend may grant a page for reading
 * only.  Indices come from the top of 64 bits and are negative as an off_t.
 */
static int
freebsd_map(struct xbb_hv *hv, struct xbb_map *map, bool writable)
{
	struct ioctl_gntdev_grant_ref refs[XBB_MAP_PAGES];
	struct ioctl_gntdev_map_grant_ref call = {
		.count = map->npages, .refs = refs,
	};
	uint32_t i;
	void *base;
	int error;

	map->base = NULL;
	if (map->npages == 0 || map->npages > XBB_MAP_PAGES)
		return (-EINVAL);
	for (i = 0; i < map->npages; i++) {
		refs[i].domid = hv->domid;
		refs[i].ref = map->refs[i];
	}
	if (ioctl(hv->grant_fd, IOCTL_GNTDEV_MAP_GRANT_REF, &call) != 0)
		return (-errno);
	map->token = call.index;
	base = mmap(NULL, (size_t)map->npages * XBB_PAGE_SIZE,
	    PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, hv->grant_fd,
	    (off_t)map->token);
	if (base == MAP_FAILED) {
		error = -errno;
		(void)forget_map(hv, map);
		return (error);
	}
	map->base = base;
	map->mappings = 1;
	return (0);
}

/* Grants go once there is neither mapping nor record, in this order. */
static int
freebsd_unmap(struct xbb_hv *hv, struct xbb_map *map)
{

	if (munmap(map->base, (size_t)map->npages * XBB_PAGE_SIZE) != 0)
		return (-errno);
	map->base = NULL;
	return (forget_map(hv, map));
}

static const unsigned long freebsd_grant_ioctls[] = {
	IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF, 0,
};
static const unsigned long freebsd_event_ioctls[] = {
	IOCTL_EVTCHN_BIND_INTERDOMAIN, IOCTL_EVTCHN_UNBIND,
	IOCTL_EVTCHN_NOTIFY, IOCTL_EVTCHN_RESET, 0,
};

/*
 * There is no guard.  SET_UNMAP_NOTIFY says EINVAL for the first map of a
 * descriptor (seen) and writes beyond the kernel's memory for any other (read,
 * 13.2 and 15.1), so nothing here may ever call it.
 */
static const struct xbb_hv_ops freebsd_ops = {
	.open = freebsd_open,
	.close = freebsd_close,
	.bind = freebsd_bind,
	.event_fd = freebsd_event_fd,
	.take = freebsd_take,
	.unmask = freebsd_unmask,
	.notify = freebsd_notify,
	.map = freebsd_map,
	.unmap = freebsd_unmap,
	.grant_ioctls = freebsd_grant_ioctls,
	.event_ioctls = freebsd_event_ioctls,
};
const struct xbb_hv_ops *const xbb_hv_xen = &freebsd_ops;

/*
 * No frontends: one in dom0 could only be our own backend's, and a dom0 that
 * maps its own grants and frees them has holes in its memory afterwards, or
 * panics.
 */
