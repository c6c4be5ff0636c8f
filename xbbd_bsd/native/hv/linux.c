/*
 * linux.c - real Xen under Linux for a backend's ring: grant_fd is an open
 * /dev/xen/gntdev, event_fd a /dev/xen/evtchn of the ring's own, non-blocking.
 * The rules are those of the kernel's gntdev.c and evtchn.c.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <fcntl.h>
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

/* As Linux has it, in a header that wants others of its own. */
struct privcmd_hypercall {
	uint64_t	 op;
	uint64_t	 arg[5];
};
#define PRIVCMD_HYPERCALL \
	_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))

#define HYPERVISOR_SCHED_OP	29	/* xen.h */
#define SCHEDOP_POLL		3	/* sched.h, as the next two */
#define POLL_MOST_PORTS		128

#define LAYOUT_IS_XENS		(sizeof(void *) == 8)
struct sched_poll {
	uint64_t	 ports;
	atomic_uint	 nr_ports;
	uint64_t	 timeout;
};

struct xbb_hv {
	int		 grant_fd;	/* the caller's, as is the next */
	int		 event_fd;
	uint32_t	 domid;
	uint32_t	 port;		/* ours, 0 while not bound */
	struct sched_poll poll;		/* Xen's too, and end_doze()'s */
	bool		 dozes;		/* it has a part in privcmd_fd */
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
	hv->poll.ports = (uint64_t)(uintptr_t)&hv->port;
	atomic_store(&hv->poll.nr_ports, 1);
	*hvp = hv;
	return (0);
}

/*
 * The device that takes any hypercall, for all objects of the process that ever
 * doze.  One that is confined opens no such thing.
 */
static pthread_mutex_t privcmd_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t privcmd_users;		/* lock */
static int privcmd_fd;			/* lock; of those */

static int
open_privcmd(void)
{
	int error;

	error = 0;
	pthread_mutex_lock(&privcmd_lock);
	if (privcmd_users == 0) {
		privcmd_fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
		error = privcmd_fd < 0 ? -errno : 0;
	}
	privcmd_users += error == 0;
	pthread_mutex_unlock(&privcmd_lock);
	return (error);
}

static void
close_privcmd(void)
{

	pthread_mutex_lock(&privcmd_lock);
	if (--privcmd_users == 0)
		close(privcmd_fd);
	pthread_mutex_unlock(&privcmd_lock);
}

static void
linux_close(struct xbb_hv *hv)
{
	struct ioctl_evtchn_unbind unbind = { .port = hv->port };

	if (hv->dozes)
		close_privcmd();
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
	uint32_t ports[64];
	ssize_t n;

	n = read(hv->event_fd, ports, sizeof(ports));
	if (n > 0)
		return (1);
	if (n < 0 && errno == EFBIG)	/* events were lost, so look */
		return (ioctl(hv->event_fd, IOCTL_EVTCHN_RESET) == 0 ? 1 :
		    -errno);
	return (n == 0 || errno == EAGAIN || errno == EINTR ? 0 : -errno);
}

static int
linux_unmask(struct xbb_hv *hv)
{

	return (write(hv->event_fd, &hv->port, sizeof(hv->port)) ==
	    (ssize_t)sizeof(hv->port) ? 0 : -errno);
}

/*
 * SCHEDOP_poll blocks this virtual processor, whether the port is masked or
 * not; any interrupt of it ends that.  More ports than Xen takes are an error,
 * which is how it is ended that did not begin yet.  Xen may find a page of ours
 * away that the kernel is just moving.
 */
static int
linux_doze(struct xbb_hv *hv)
{
	struct privcmd_hypercall call = {
		.op = HYPERVISOR_SCHED_OP,
		.arg = { SCHEDOP_POLL, (uint64_t)(uintptr_t)&hv->poll },
	};
	int error;

	if (!hv->dozes) {
		error = open_privcmd();
		if (error != 0)
			return (error);
		hv->dozes = true;
	}
	error = ioctl(privcmd_fd, PRIVCMD_HYPERCALL, &call) < 0 ? errno : 0;
	atomic_store(&hv->poll.nr_ports, 1);
	return (error == EINVAL || error == EINTR || error == EFAULT ? 0 :
	    -error);
}

static void
linux_end_doze(struct xbb_hv *hv)
{

	atomic_store(&hv->poll.nr_ports, POLL_MOST_PORTS + 1);
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
	.doze = LAYOUT_IS_XENS ? linux_doze : NULL,
	.end_doze = linux_end_doze,
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
