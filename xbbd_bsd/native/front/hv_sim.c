/*
 * hv_sim.c - the simulated hypervisor for a frontend's ring.  grant_fd is
 * the directory of the own domain, event_fd a listening socket: a backend that
 * connects is the other end of the event channel until it goes away.
 *
 * Page and reference of the same number belong together here; entries that
 * tests write may of course point anywhere.
 */
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/hvfront.h"
#include "hv/sim_memory.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL	0
#endif

struct xbb_hvfront {
	struct sim_domain domain;
	uint32_t	 backend_domid;
	int		 listen_fd;	/* the caller's */
	int		 peer_fd;	/* connected backend, -1 for none */
	bool		 lost;		/* there was one, and it was told */
	uint32_t	 generation;	/* of the ledgers below */
	uint32_t	 nledgers;
	_Atomic uint32_t *ledger[SIM_LEDGERS];	/* those of live mappers */
};

static void
forget_ledgers(struct xbb_hvfront *hv)
{
	uint32_t i;

	for (i = 0; i < hv->nledgers; i++)
		munmap((void *)hv->ledger[i],
		    hv->domain.npages * sizeof(*hv->ledger[i]));
	hv->nledgers = 0;
}

static int
learn_ledger(struct xbb_hvfront *hv, const char *name)
{
	const size_t size = hv->domain.npages * sizeof(**hv->ledger);
	struct stat st;
	void *p;
	int fd;

	if (hv->nledgers == SIM_LEDGERS)
		return (-ENOSPC);
	fd = openat(hv->domain.fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return (errno == ENOENT ? 0 : -errno);
	/* One that is still being made has mapped nothing yet. */
	if (fstat(fd, &st) != 0 || (uint64_t)st.st_size < size ||
	    flock(fd, LOCK_EX | LOCK_NB) == 0) {
		close(fd);
		return (0);
	}
	p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return (-errno);
	hv->ledger[hv->nledgers++] = p;
	return (0);
}

/* Map the ledgers of all live mappers, if a new one has appeared. */
static int
learn_ledgers(struct xbb_hvfront *hv)
{
	struct dirent *entry;
	uint32_t generation;
	DIR *dir;
	int error, fd;

	generation = atomic_load(&hv->domain.grants->generation);
	if (generation == hv->generation)
		return (0);
	forget_ledgers(hv);
	fd = openat(hv->domain.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return (-errno);
	dir = fdopendir(fd);
	if (dir == NULL) {
		error = -errno;
		close(fd);
		return (error);
	}
	error = 0;
	while (error == 0 && (entry = readdir(dir)) != NULL)
		if (strncmp(entry->d_name, "maps.", 5) == 0)
			error = learn_ledger(hv, entry->d_name);
	closedir(dir);
	if (error == 0)
		hv->generation = generation;
	return (error);
}

/*
 * Is the reference mapped?  A count that stays may be that of a mapper which
 * died: the files tell, and the dead one's ledger goes.
 */
static int
is_mapped(struct xbb_hvfront *hv, uint32_t ref)
{
	uint32_t count, i;
	int error;

	error = learn_ledgers(hv);
	if (error != 0)
		return (error);
	for (i = 0; i < hv->nledgers; i++)
		if (atomic_load(&hv->ledger[i][ref]) != 0)
			break;
	if (i == hv->nledgers)
		return (0);
	error = sim_ledgers_count(hv->domain.fd, hv->domain.npages, ref,
	    &count);
	if (error != 0 || count != 0)
		return (error != 0 ? error : 1);
	/* Look again without it. */
	hv->generation--;
	return (0);
}

static int
sim_set_access(struct xbb_hvfront *hv, uint32_t ref, int access)
{
	_Atomic uint64_t *entry;
	uint64_t old;
	uint32_t flags;
	int error;

	if (ref < SIM_FIRST_REF || ref >= hv->domain.npages)
		return (-EINVAL);
	entry = &hv->domain.grants->entry[ref];
	old = atomic_load(entry);
	flags = access == 0 ? SIM_RESERVED :
	    access == 1 ? SIM_PERMIT | SIM_READONLY : SIM_PERMIT;
	atomic_store(entry, SIM_GRANT(hv->backend_domid, flags,
	    SIM_GRANT_FRAME(old)));
	if (access != 0)
		return (0);
	error = is_mapped(hv, ref);
	if (error == 0)
		return (0);
	atomic_store(entry, old);
	return (error > 0 ? -EBUSY : error);
}

static void
simfront_close(struct xbb_hvfront *hv)
{

	forget_ledgers(hv);
	if (hv->peer_fd >= 0)
		close(hv->peer_fd);
	sim_domain_close(&hv->domain);
	free(hv);
}

static int
simfront_open(struct xbb_hvfront **hvp, int grant_fd, int event_fd,
    uint32_t port, uint32_t backend_domid)
{
	struct xbb_hvfront *hv;
	int error;

	(void)port;			/* the socket says which */
	hv = calloc(1, sizeof(*hv));
	if (hv == NULL)
		return (-ENOMEM);
	hv->peer_fd = -1;
	hv->listen_fd = event_fd;
	hv->backend_domid = backend_domid;
	error = sim_domain_open(&hv->domain, grant_fd);
	if (error != 0) {
		simfront_close(hv);
		return (error);
	}
	hv->generation = atomic_load(&hv->domain.grants->generation) - 1;
	*hvp = hv;
	return (0);
}

/* Reserve n entries in a row; other rings of the domain may do the same. */
static int
reserve_refs(struct xbb_hvfront *hv, uint32_t n, uint32_t *firstp)
{
	_Atomic uint64_t *entry = hv->domain.grants->entry;
	uint32_t first, i, skip;
	uint64_t none;

	for (first = SIM_FIRST_REF; first + n <= hv->domain.npages;
	    first += skip) {
		for (i = 0; i < n; i++) {
			none = 0;
			if (!atomic_compare_exchange_strong(&entry[first + i],
			    &none, SIM_GRANT(hv->backend_domid, SIM_RESERVED,
			    first + i)))
				break;
		}
		if (i == n) {
			*firstp = first;
			return (0);
		}
		skip = i + 1;
		while (i > 0)
			atomic_store(&entry[first + --i], 0);
	}
	return (-ENOSPC);
}

static int
sim_grant(struct xbb_hvfront *hv, uint32_t npages, uint8_t **basep,
    uint32_t *refs)
{
	uint32_t first, i;
	int error;

	error = reserve_refs(hv, npages, &first);
	if (error != 0)
		return (error);
	*basep = hv->domain.memory + (size_t)first * XBB_PAGE_SIZE;
	memset(*basep, 0, (size_t)npages * XBB_PAGE_SIZE);
	for (i = 0; i < npages; i++) {
		refs[i] = first + i;
		atomic_store(&hv->domain.grants->entry[first + i],
		    SIM_GRANT(hv->backend_domid, SIM_PERMIT, first + i));
	}
	return (0);
}

/* A page that cannot be withdrawn stays reserved: lost, but not reused. */
static void
sim_release(struct xbb_hvfront *hv, uint8_t *base, uint32_t npages,
    const uint32_t *refs)
{
	uint32_t i;

	(void)base;
	for (i = 0; i < npages; i++)
		if (sim_set_access(hv, refs[i], 0) == 0)
			atomic_store(&hv->domain.grants->entry[refs[i]], 0);
}

/*
 * The latest backend that connected is the peer.  Xen marks the port of who
 * binds as pending, so that an event sent before is not lost.
 */
static bool
accept_peer(struct xbb_hvfront *hv)
{
	bool accepted;
	int fd;

	accepted = false;
	while ((fd = accept(hv->listen_fd, NULL, NULL)) >= 0) {
		if (hv->peer_fd >= 0)
			close(hv->peer_fd);
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		fcntl(fd, F_SETFL, O_NONBLOCK);
		(void)send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		hv->peer_fd = fd;
		accepted = true;
	}
	return (accepted);
}

static int
sim_descriptors(struct xbb_hvfront *hv, int fds[2])
{

	fds[0] = hv->listen_fd;
	fds[1] = hv->peer_fd;
	return (2);
}

static int
sim_wait(struct xbb_hvfront *hv, int timeout_ms)
{
	struct pollfd pfd[2];
	int n;

	pfd[0] = (struct pollfd){ .fd = hv->listen_fd, .events = POLLIN };
	pfd[1] = (struct pollfd){ .fd = hv->peer_fd, .events = POLLIN };
	n = poll(pfd, 2, timeout_ms);
	return (n > 0 ? 1 : n == 0 || errno == EINTR ? 0 : -errno);
}

static int
simfront_take(struct xbb_hvfront *hv)
{
	char drop[64];
	ssize_t n;
	int event;

	event = 0;
	if (hv->peer_fd >= 0) {
		while ((n = recv(hv->peer_fd, drop, sizeof(drop), 0)) > 0)
			event = 1;
		if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK &&
		    errno != EINTR)) {
			close(hv->peer_fd);
			hv->peer_fd = -1;
			event = -EPIPE;
		}
	}
	/*
	 * Nobody is told of one that binds; but it makes up for a loss, and one
	 * that was told is over.
	 */
	if (!accept_peer(hv)) {
		hv->lost = hv->lost || event < 0;
		return (event);
	}
	if (hv->lost)
		event = 1;
	hv->lost = false;
	return (event < 0 ? 0 : event);
}

static int
simfront_notify(struct xbb_hvfront *hv)
{

	if (hv->peer_fd >= 0)
		(void)send(hv->peer_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	return (0);
}

const struct xbb_hvfront_ops xbb_hvfront_sim = {
	.open = simfront_open,
	.close = simfront_close,
	.grant = sim_grant,
	.release = sim_release,
	.set_access = sim_set_access,
	.descriptors = sim_descriptors,
	.wait = sim_wait,
	.take = simfront_take,
	.notify = simfront_notify,
};
