/*
 * hv_linux.c - real Xen under Linux for a frontend's ring, in dom0 or any
 * other domain: grant_fd is an open /dev/xen/gntalloc, event_fd a
 * /dev/xen/evtchn on which port was allocated.  What a reference permits is
 * said once, when it is made.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/hvfront.h"

/* What xen/evtchn.h takes for granted. */
typedef uint16_t	domid_t;

#include <xen/evtchn.h>
#include <xen/gntalloc.h>

/* Pages granted in one call, which are given back in one too. */
struct area {
	struct area	*next;
	uint8_t		*base;
	uint64_t	 index;
	uint32_t	 npages;
};

struct xbb_hvfront {
	int		 grant_fd;	/* the caller's, as is the next */
	int		 event_fd;
	uint32_t	 port;
	uint32_t	 backend_domid;
	struct area	*areas;
};

static int
linuxfront_open(struct xbb_hvfront **hvp, int grant_fd, int event_fd,
    uint32_t port, uint32_t backend_domid)
{
	struct xbb_hvfront *hv;

	hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return (-ENOMEM);
	hv->grant_fd = grant_fd;
	hv->event_fd = event_fd;
	hv->port = port;
	hv->backend_domid = backend_domid;
	*hvp = hv;
	return (0);
}

static void
linuxfront_close(struct xbb_hvfront *hv)
{

	free(hv);
}

static void
deallocate(struct xbb_hvfront *hv, uint64_t index, uint32_t npages)
{
	struct ioctl_gntalloc_dealloc_gref call = {
		.index = index, .count = npages,
	};

	(void)ioctl(hv->grant_fd, IOCTL_GNTALLOC_DEALLOC_GREF, &call);
}

/* Fresh pages come zeroed from the kernel. */
static int
linux_grant(struct xbb_hvfront *hv, uint32_t npages, uint8_t **basep,
    uint32_t *refs)
{
	struct ioctl_gntalloc_alloc_gref *call;
	struct area *area;
	void *base;
	int error;

	area = calloc(1, sizeof(*area));
	call = calloc(1, sizeof(*call) + npages * sizeof(call->gref_ids[0]));
	if (area == NULL || call == NULL) {
		error = -ENOMEM;
		goto fail;
	}
	call->domid = (uint16_t)hv->backend_domid;
	call->flags = GNTALLOC_FLAG_WRITABLE;
	call->count = npages;
	if (ioctl(hv->grant_fd, IOCTL_GNTALLOC_ALLOC_GREF, call) != 0) {
		error = -errno;
		goto fail;
	}
	base = mmap(NULL, (size_t)npages * XBB_PAGE_SIZE,
	    PROT_READ | PROT_WRITE, MAP_SHARED, hv->grant_fd,
	    (off_t)call->index);
	if (base == MAP_FAILED) {
		error = -errno;
		deallocate(hv, call->index, npages);
		goto fail;
	}
	memcpy(refs, call->gref_ids, npages * sizeof(*refs));
	*area = (struct area){ hv->areas, base, call->index, npages };
	hv->areas = area;
	*basep = base;
	free(call);
	return (0);
fail:
	free(call);
	free(area);
	return (error);
}

/* The kernel keeps pages that are still mapped until they are not. */
static void
linux_release(struct xbb_hvfront *hv, uint8_t *base, uint32_t npages,
    const uint32_t *refs)
{
	struct area *area, **link;

	(void)refs;
	for (link = &hv->areas; (area = *link) != NULL; link = &area->next) {
		if (area->base != base)
			continue;
		munmap(base, (size_t)npages * XBB_PAGE_SIZE);
		deallocate(hv, area->index, npages);
		*link = area->next;
		free(area);
		return;
	}
}

static int
linux_descriptors(struct xbb_hvfront *hv, int fds[2])
{

	fds[0] = hv->event_fd;
	return (1);
}

static int
linux_wait(struct xbb_hvfront *hv, int timeout_ms)
{
	struct pollfd pfd = { .fd = hv->event_fd, .events = POLLIN };
	int n;

	n = poll(&pfd, 1, timeout_ms);
	return (n > 0 ? 1 : n == 0 || errno == EINTR ? 0 : -errno);
}

static int
linuxfront_take(struct xbb_hvfront *hv)
{
	uint32_t port;
	ssize_t n;

	n = read(hv->event_fd, &port, sizeof(port));
	if (n < 0)
		return (errno == EAGAIN || errno == EINTR ? 0 : -errno);
	if (write(hv->event_fd, &hv->port, sizeof(hv->port)) < 0)
		return (-errno);
	return (1);
}

static int
linuxfront_notify(struct xbb_hvfront *hv)
{
	struct ioctl_evtchn_notify notify = { .port = hv->port };

	return (ioctl(hv->event_fd, IOCTL_EVTCHN_NOTIFY, &notify) == 0 ? 0 :
	    -errno);
}

static const struct xbb_hvfront_ops linux_ops = {
	.open = linuxfront_open,
	.close = linuxfront_close,
	.grant = linux_grant,
	.release = linux_release,
	.descriptors = linux_descriptors,
	.wait = linux_wait,
	.take = linuxfront_take,
	.notify = linuxfront_notify,
};
const struct xbb_hvfront_ops *const xbb_hvfront_xen = &linux_ops;
