/*
 * freebsd_xen.h - the ioctls of FreeBSD's /dev/xen/gntdev and /dev/xen/evtchn,
 * as its sys/xen/gntdev.h and sys/xen/evtchn.h have them.  FreeBSD does not
 * install these, so the arguments are laid out here once more; whatever does
 * not fit the kernel's numbers does not compile.  Names, numbers and layouts
 * only.
 */
#ifndef XBB_FREEBSD_XEN_H
#define XBB_FREEBSD_XEN_H

#include <sys/ioccom.h>

#include <stddef.h>
#include <stdint.h>

/* gntdev: the frontend's pages, by grant reference. */
struct ioctl_gntdev_grant_ref {
	uint32_t	domid;
	uint32_t	ref;
};

struct ioctl_gntdev_map_grant_ref {
	uint32_t	count;
	uint32_t	pad;
	uint64_t	index;		/* out */
	struct ioctl_gntdev_grant_ref *refs;
};

struct ioctl_gntdev_unmap_grant_ref {
	uint64_t	index;
	uint32_t	count;		/* both as the map had them */
	uint32_t	pad;
};

#define IOCTL_GNTDEV_MAP_GRANT_REF \
	_IOWR('E', 3, struct ioctl_gntdev_map_grant_ref)
#define IOCTL_GNTDEV_UNMAP_GRANT_REF \
	_IOW('E', 4, struct ioctl_gntdev_unmap_grant_ref)

_Static_assert(IOCTL_GNTDEV_MAP_GRANT_REF == 0xc0184503, "number");
_Static_assert(IOCTL_GNTDEV_UNMAP_GRANT_REF == 0x80104504, "number");

_Static_assert(offsetof(struct ioctl_gntdev_grant_ref, domid) == 0 &&
    offsetof(struct ioctl_gntdev_grant_ref, ref) == 4 &&
    sizeof(struct ioctl_gntdev_grant_ref) == 8, "layout");
_Static_assert(offsetof(struct ioctl_gntdev_map_grant_ref, count) == 0 &&
    sizeof(((struct ioctl_gntdev_map_grant_ref *)0)->count) == 4 &&
    offsetof(struct ioctl_gntdev_map_grant_ref, index) == 8 &&
    sizeof(((struct ioctl_gntdev_map_grant_ref *)0)->index) == 8 &&
    offsetof(struct ioctl_gntdev_map_grant_ref, refs) == 16 &&
    sizeof(struct ioctl_gntdev_map_grant_ref) == 24, "layout");
_Static_assert(offsetof(struct ioctl_gntdev_unmap_grant_ref, index) == 0 &&
    offsetof(struct ioctl_gntdev_unmap_grant_ref, count) == 8 &&
    sizeof(((struct ioctl_gntdev_unmap_grant_ref *)0)->count) == 4 &&
    sizeof(struct ioctl_gntdev_unmap_grant_ref) == 16, "layout");

/* evtchn: event channels; read(2) and write(2) carry port numbers. */
typedef uint32_t	evtchn_port_t;

struct ioctl_evtchn_bind_interdomain {
	uint32_t	remote_domain;
	uint32_t	remote_port;
	uint32_t	port;		/* out: Linux returns it instead */
};

struct ioctl_evtchn_unbind {
	uint32_t	port;
};

struct ioctl_evtchn_notify {
	uint32_t	port;
};

#define IOCTL_EVTCHN_BIND_INTERDOMAIN \
	_IOWR('E', 5, struct ioctl_evtchn_bind_interdomain)
#define IOCTL_EVTCHN_UNBIND	_IOW('E', 7, struct ioctl_evtchn_unbind)
#define IOCTL_EVTCHN_NOTIFY	_IOW('E', 8, struct ioctl_evtchn_notify)
#define IOCTL_EVTCHN_RESET	_IO('E', 9)

_Static_assert(IOCTL_EVTCHN_BIND_INTERDOMAIN == 0xc00c4505, "number");
_Static_assert(IOCTL_EVTCHN_UNBIND == 0x80044507, "number");
_Static_assert(IOCTL_EVTCHN_NOTIFY == 0x80044508, "number");
_Static_assert(IOCTL_EVTCHN_RESET == 0x20004509, "number");

_Static_assert(sizeof(evtchn_port_t) == 4, "layout");
_Static_assert(
    offsetof(struct ioctl_evtchn_bind_interdomain, remote_domain) == 0 &&
    offsetof(struct ioctl_evtchn_bind_interdomain, remote_port) == 4 &&
    offsetof(struct ioctl_evtchn_bind_interdomain, port) == 8 &&
    sizeof(struct ioctl_evtchn_bind_interdomain) == 12, "layout");
_Static_assert(sizeof(struct ioctl_evtchn_unbind) == 4 &&
    sizeof(struct ioctl_evtchn_notify) == 4, "layout");

#endif /* XBB_FREEBSD_XEN_H */
