/*
 * sim.c - the simulated hypervisor for a backend's ring.  grant_fd is the
 * directory of the frontend's domain, event_fd a connected stream socket whose
 * bytes are notifications.  Grants are checked as Xen checks them: a free or
 * foreign entry does not map, one for reading maps read-only or not at all.
 */
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/sim_memory.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL	0
#endif

#define SIM_BACKEND_DOMID	0	/* backends live in domain 0 */

struct xbb_hv {
	struct sim_domain domain;
	_Atomic uint32_t *ledger;	/* how often each reference is mapped */
	char		 ledger_name[32];
	int		 ledger_fd;	/* holds the lock */
	int		 event_fd;	/* the caller's, -1 after end of file */
	bool		 masked;
};

/* Token of a map: a view of the whole memory, or pages placed one by one. */
enum { SIM_VIEW, SIM_PLACED };

static int
ledger_open(struct xbb_hv *hv)
{
	static atomic_uint serial;
	char making[32];
	unsigned int n;
	size_t size;
	void *p;

	/* Only one that is locked may be seen: the others are swept away. */
	n = atomic_fetch_add(&serial, 1);
	snprintf(making, sizeof(making), "new.%ld.%u", (long)getpid(), n);
	snprintf(hv->ledger_name, sizeof(hv->ledger_name), "maps.%ld.%u",
	    (long)getpid(), n);
	hv->ledger_fd = openat(hv->domain.fd, making,
	    O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (hv->ledger_fd < 0)
		return (-errno);
	size = hv->domain.npages * sizeof(*hv->ledger);
	if (flock(hv->ledger_fd, LOCK_EX | LOCK_NB) != 0 ||
	    ftruncate(hv->ledger_fd, (off_t)size) != 0 ||
	    renameat(hv->domain.fd, making, hv->domain.fd,
	    hv->ledger_name) != 0)
		return (-errno);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, hv->ledger_fd,
	    0);
	if (p == MAP_FAILED)
		return (-errno);
	hv->ledger = p;
	atomic_fetch_add(&hv->domain.grants->generation, 1);
	return (0);
}

static void
sim_close(struct xbb_hv *hv)
{

	if (hv->ledger != NULL)
		munmap((void *)hv->ledger,
		    hv->domain.npages * sizeof(*hv->ledger));
	if (hv->ledger_fd >= 0) {
		unlinkat(hv->domain.fd, hv->ledger_name, 0);
		close(hv->ledger_fd);
	}
	sim_domain_close(&hv->domain);
	free(hv);
}

static int
sim_open(struct xbb_hv **hvp, int grant_fd, int event_fd, uint32_t domid)
{
	struct xbb_hv *hv;
	int error;

	(void)domid;			/* the directory says which domain */
	hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return (-ENOMEM);
	hv->ledger_fd = -1;
	hv->event_fd = event_fd;
	error = sim_domain_open(&hv->domain, grant_fd);
	if (error == 0)
		error = ledger_open(hv);
	if (error != 0) {
		sim_close(hv);
		return (error);
	}
	*hvp = hv;
	return (0);
}

/* The socket was connected to the frontend's port by whoever opened it. */
static int
sim_bind(struct xbb_hv *hv, uint32_t remote_port)
{

	(void)remote_port;
	return (hv->event_fd >= 0 &&
	    fcntl(hv->event_fd, F_SETFL, O_NONBLOCK) == 0 ? 0 : -EBADF);
}

static int
sim_event_fd(struct xbb_hv *hv)
{

	return (hv->event_fd);
}

/*
 * A masked channel delivers nothing, so that forgetting to unmask shows here
 * too.  At end of file the frontend is gone: as in Xen no event tells of it.
 */
static int
sim_take(struct xbb_hv *hv)
{
	char drop[4096];
	ssize_t n;

	if (hv->masked || hv->event_fd < 0)
		return (0);
	/*
	 * Once: a guest may send as fast as we read.  The rest is another
	 * event.
	 */
	n = recv(hv->event_fd, drop, sizeof(drop), 0);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK &&
	    errno != EINTR))
		hv->event_fd = -1;
	hv->masked = n > 0;
	return (hv->masked);
}

static int
sim_unmask(struct xbb_hv *hv)
{

	hv->masked = false;
	return (0);
}

/*
 * A full socket means that events are pending; a dead one, that nobody cares.
 */
static int
sim_notify(struct xbb_hv *hv)
{

	if (hv->event_fd >= 0)
		(void)send(hv->event_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	return (0);
}

/* Count the mapping, then look whether it is allowed (see sim_memory.h). */
static int
check_in(struct xbb_hv *hv, uint32_t ref, bool writable, uint32_t *framep)
{
	uint64_t entry;

	if (ref >= hv->domain.npages)
		return (-EINVAL);
	atomic_fetch_add(&hv->ledger[ref], 1);
	entry = atomic_load(&hv->domain.grants->entry[ref]);
	*framep = SIM_GRANT_FRAME(entry);
	if ((SIM_GRANT_FLAGS(entry) & SIM_PERMIT) != 0 &&
	    SIM_GRANT_DOMID(entry) == SIM_BACKEND_DOMID &&
	    *framep < hv->domain.npages &&
	    !(writable && (SIM_GRANT_FLAGS(entry) & SIM_READONLY) != 0))
		return (0);
	atomic_fetch_sub(&hv->ledger[ref], 1);
	return (-EINVAL);
}

static void
check_out(struct xbb_hv *hv, const struct xbb_map *map, uint32_t nrefs)
{
	uint32_t i;

	for (i = 0; i < nrefs; i++)
		atomic_fetch_sub(&hv->ledger[map->refs[i]], 1);
}

/* Scattered frames, each mapped to its place in one range of addresses. */
static int
place_pages(struct xbb_hv *hv, const uint32_t *frames, uint32_t n,
    bool writable, uint8_t **basep)
{
	const int prot = PROT_READ | (writable ? PROT_WRITE : 0);
	uint8_t *base;
	uint32_t i;
	int error, fd;

	fd = openat(hv->domain.fd, "memory", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	base = mmap(NULL, (size_t)n * XBB_PAGE_SIZE, PROT_NONE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	error = base == MAP_FAILED ? -errno : 0;
	for (i = 0; error == 0 && i < n; i++)
		if (mmap(base + (size_t)i * XBB_PAGE_SIZE, XBB_PAGE_SIZE, prot,
		    MAP_SHARED | MAP_FIXED, fd,
		    (off_t)frames[i] * XBB_PAGE_SIZE) == MAP_FAILED) {
			error = -errno;
			munmap(base, (size_t)n * XBB_PAGE_SIZE);
		}
	close(fd);
	*basep = base;
	return (error);
}

static int
sim_map(struct xbb_hv *hv, struct xbb_map *map, bool writable)
{
	uint32_t frames[XBB_MAP_PAGES];
	uint32_t i;
	int error;

	map->base = NULL;
	map->token = SIM_VIEW;
	map->mappings = 0;
	if (map->npages == 0 || map->npages > XBB_MAP_PAGES)
		return (-EINVAL);
	for (i = 0; i < map->npages; i++) {
		error = check_in(hv, map->refs[i], writable, &frames[i]);
		if (error != 0) {
			check_out(hv, map, i);
			return (error);
		}
		if (frames[i] != frames[0] + i)
			map->token = SIM_PLACED;
	}
	if (map->token == SIM_PLACED) {
		error = place_pages(hv, frames, map->npages, writable,
		    &map->base);
		if (error != 0) {
			check_out(hv, map, map->npages);
			map->base = NULL;
			return (error);
		}
		map->mappings = map->npages;
	} else
		map->base = (writable ? hv->domain.memory :
		    hv->domain.memory_ro) + (size_t)frames[0] * XBB_PAGE_SIZE;
	return (0);
}

static int
sim_unmap(struct xbb_hv *hv, struct xbb_map *map)
{

	if (map->token == SIM_PLACED &&
	    munmap(map->base, (size_t)map->npages * XBB_PAGE_SIZE) != 0)
		return (-errno);
	check_out(hv, map, map->npages);
	map->base = NULL;
	return (0);
}

/* Checked and counted as a mapping is, for as long as it takes. */
static int
sim_copy(struct xbb_hv *hv, struct xbb_copy *pieces, uint32_t n, bool to_guest)
{
	struct xbb_copy *piece;
	uint32_t frame, i;
	uint8_t *page;

	for (i = 0; i < n; i++) {
		piece = &pieces[i];
		piece->status = check_in(hv, piece->ref, to_guest, &frame);
		if (piece->status != 0)
			continue;
		page = hv->domain.memory + (size_t)frame * XBB_PAGE_SIZE;
		if (to_guest)
			memcpy(page + piece->offset, piece->local, piece->len);
		else
			memcpy(piece->local, page + piece->offset, piece->len);
		atomic_fetch_sub(&hv->ledger[piece->ref], 1);
	}
	return (0);
}

static bool
sim_can_copy(struct xbb_hv *hv)
{

	(void)hv;
	return (true);
}

const struct xbb_hv_ops xbb_hv_sim = {
	.open = sim_open,
	.close = sim_close,
	.descriptors = 2,		/* the directory, and its ledger */
	.bind = sim_bind,
	.event_fd = sim_event_fd,
	.take = sim_take,
	.take_waits = true,
	.unmask = sim_unmask,
	.notify = sim_notify,
	.map = sim_map,
	.maps_singly = true,
	.unmap = sim_unmap,
	.copy = sim_copy,
	.can_copy = sim_can_copy,
	.opens_files = true,
};
