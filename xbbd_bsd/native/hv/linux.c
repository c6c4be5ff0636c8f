/*
 * linux.c - real Xen under Linux for a backend's ring: grant_fd is an open
 * /dev/xen/gntdev, event_fd a /dev/xen/evtchn of the ring's own, non-blocking.
 * The rules are those of the kernel's gntdev.c and evtchn.c.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <stdlib.h>
#include <unistd.h>

#include "hv/hv.h"

/* What xen/gntdev.h and xen/evtchn.h take for granted. */
typedef uint32_t	grant_ref_t;
typedef uint16_t	domid_t;

#include <xen/evtchn.h>
#include <xen/gntdev.h>

#define GNTST_OKAY		0	/* xen/grant_table.h */
#define GNTST_NO_DEVICE_SPACE	(-7)
#define GNTST_EAGAIN		(-12)
#define GNTCOPY_SOURCE_GREF	1
#define GNTCOPY_DEST_GREF	2

struct xbb_hv {
	int		 grant_fd;	/* the caller's, as is the next */
	int		 event_fd;
	uint32_t	 domid;
	uint32_t	 port;		/* ours, 0 while not bound */
	bool		 can_copy;
};

/* Linux before 4.8 has no grant copy, and says so as to any unknown call. */
static bool
has_copy(int grant_fd)
{
	struct ioctl_gntdev_grant_copy none = { 0 };

	return (ioctl(grant_fd, IOCTL_GNTDEV_GRANT_COPY, &none) == 0);
}

static int
linux_open(struct xbb_hv **hvp, int grant_fd, int event_fd, uint32_t domid)
{
	struct xbb_hv *hv;

	hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return (-ENOMEM);
	hv->grant_fd = grant_fd;
	hv->event_fd = event_fd;
	hv->domid = domid;
	hv->can_copy = has_copy(grant_fd);
	*hvp = hv;
	return (0);
}

static void
linux_close(struct xbb_hv *hv)
{
	struct ioctl_evtchn_unbind unbind = { .port = hv->port };

	if (hv->port != 0)
		(void)ioctl(hv->event_fd, IOCTL_EVTCHN_UNBIND, &unbind);
	free(hv);
}

static int
linux_bind(struct xbb_hv *hv, uint32_t remote_port)
{
	struct ioctl_evtchn_bind_interdomain bind = {
		.remote_domain = hv->domid, .remote_port = remote_port,
	};
	int port;

	port = ioctl(hv->event_fd, IOCTL_EVTCHN_BIND_INTERDOMAIN, &bind);
	if (port < 0)
		return (-errno);
	hv->port = (uint32_t)port;
	return (0);
}

static int
linux_event_fd(struct xbb_hv *hv)
{

	return (hv->event_fd);
}

/* The port stays masked until it is written back. */
static int
linux_take(struct xbb_hv *hv)
{
	uint32_t port;
	ssize_t n;

	n = read(hv->event_fd, &port, sizeof(port));
	if (n == (ssize_t)sizeof(port))
		return (1);
	if (n < 0 && errno == EFBIG)	/* events were lost, so look */
		return (ioctl(hv->event_fd, IOCTL_EVTCHN_RESET) == 0 ? 1 :
		    -errno);
	return (n >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -errno);
}

static int
linux_unmask(struct xbb_hv *hv)
{

	return (write(hv->event_fd, &hv->port, sizeof(hv->port)) ==
	    (ssize_t)sizeof(hv->port) ? 0 : -errno);
}

static int
linux_notify(struct xbb_hv *hv)
{
	struct ioctl_evtchn_notify notify = { .port = hv->port };

	return (ioctl(hv->event_fd, IOCTL_EVTCHN_NOTIFY, &notify) == 0 ? 0 :
	    -errno);
}

static int
forget_map(struct xbb_hv *hv, const struct xbb_map *map)
{
	struct ioctl_gntdev_unmap_grant_ref unmap = {
		.index = map->token, .count = map->npages,
	};

	return (ioctl(hv->grant_fd, IOCTL_GNTDEV_UNMAP_GRANT_REF, &unmap) == 0 ?
	    0 : -errno);
}

/* The ioctl only takes note; mmap(2) maps, all references or none. */
static int
linux_map(struct xbb_hv *hv, struct xbb_map *map, bool writable)
{
	union {
		struct ioctl_gntdev_map_grant_ref call;
		uint8_t room[sizeof(struct ioctl_gntdev_map_grant_ref) +
		    XBB_MAP_PAGES * sizeof(struct ioctl_gntdev_grant_ref)];
	} u = { .call.count = map->npages };
	uint32_t i;
	void *base;
	int error;

	map->base = NULL;
	if (map->npages == 0 || map->npages > XBB_MAP_PAGES)
		return (-EINVAL);
	for (i = 0; i < map->npages; i++) {
		u.call.refs[i].domid = hv->domid;
		u.call.refs[i].ref = map->refs[i];
	}
	if (ioctl(hv->grant_fd, IOCTL_GNTDEV_MAP_GRANT_REF, &u.call) != 0)
		return (-errno);
	map->token = u.call.index;
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

static int
linux_unmap(struct xbb_hv *hv, struct xbb_map *map)
{

	if (munmap(map->base, (size_t)map->npages * XBB_PAGE_SIZE) != 0)
		return (-errno);
	map->base = NULL;
	return (forget_map(hv, map));
}

/* What the copy of a piece came to. */
static int
error_of_status(int16_t status)
{

	switch (status) {
	case GNTST_OKAY:
		return (0);
	case GNTST_NO_DEVICE_SPACE:
		return (-ENOSPC);
	case GNTST_EAGAIN:
		return (-EAGAIN);
	default:
		return (-EINVAL);
	}
}

static int
linux_copy(struct xbb_hv *hv, struct xbb_copy *pieces, uint32_t n,
    bool to_guest)
{
	struct gntdev_grant_copy_segment segments[XBB_MAP_PAGES];
	struct ioctl_gntdev_grant_copy call = {
		.count = n, .segments = segments,
	};
	struct gntdev_grant_copy_segment *s;
	uint32_t i;

	for (i = 0; i < n; i++) {
		s = &segments[i];
		*s = (struct gntdev_grant_copy_segment){
			.len = pieces[i].len,
			.flags = to_guest ? GNTCOPY_DEST_GREF :
			    GNTCOPY_SOURCE_GREF,
			.status = GNTST_OKAY,
		};
		if (to_guest) {
			s->source.virt = pieces[i].local;
			s->dest.foreign.ref = pieces[i].ref;
			s->dest.foreign.offset = pieces[i].offset;
			s->dest.foreign.domid = (domid_t)hv->domid;
		} else {
			s->source.foreign.ref = pieces[i].ref;
			s->source.foreign.offset = pieces[i].offset;
			s->source.foreign.domid = (domid_t)hv->domid;
			s->dest.virt = pieces[i].local;
		}
	}
	if (ioctl(hv->grant_fd, IOCTL_GNTDEV_GRANT_COPY, &call) != 0)
		return (-errno);
	for (i = 0; i < n; i++)
		pieces[i].status = error_of_status(segments[i].status);
	return (0);
}

static bool
linux_can_copy(struct xbb_hv *hv)
{

	return (hv->can_copy);
}

static int
linux_guard(struct xbb_hv *hv, const struct xbb_map *map, uint32_t byte)
{
	struct ioctl_gntdev_unmap_notify notify = {
		.index = map->token + byte,
		.action = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT,
		.event_channel_port = hv->port,
	};

	return (ioctl(hv->grant_fd, IOCTL_GNTDEV_SET_UNMAP_NOTIFY,
	    &notify) == 0 ? 0 : -errno);
}

static const unsigned long linux_grant_ioctls[] = {
	IOCTL_GNTDEV_GRANT_COPY, IOCTL_GNTDEV_MAP_GRANT_REF,
	IOCTL_GNTDEV_UNMAP_GRANT_REF, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, 0,
};
static const unsigned long linux_event_ioctls[] = {
	IOCTL_EVTCHN_NOTIFY, IOCTL_EVTCHN_BIND_INTERDOMAIN,
	IOCTL_EVTCHN_UNBIND, IOCTL_EVTCHN_RESET, 0,
};

static const struct xbb_hv_ops linux_ops = {
	.open = linux_open,
	.close = linux_close,
	.bind = linux_bind,
	.event_fd = linux_event_fd,
	.take = linux_take,
	.take_waits = true,
	.unmask = linux_unmask,
	.notify = linux_notify,
	.map = linux_map,
	.unmap = linux_unmap,
	.copy = linux_copy,
	.can_copy = linux_can_copy,
	.prefers_copy = true,
	.guard = linux_guard,
	.grant_ioctls = linux_grant_ioctls,
	.event_ioctls = linux_event_ioctls,
};
const struct xbb_hv_ops *const xbb_hv_xen = &linux_ops;
