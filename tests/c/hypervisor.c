/*
 * hypervisor.c - the simulated hypervisor, whose event channels and unmapping can
 * be made to fail, or to take long, and which can be short of mappings, of memory for
 * large ones, or of everything: it counts each map as one mapping of the process, as a gntdev
 * does.  The linker puts __wrap_xbb_hv_lookup() in the place of the function of
 * that name (test_native.py).  And threads that cannot be made, and how long others
 * have waited for a processor.  Any thread.
 */
#include "harness.h"

struct hypervisor hypervisor;

const struct xbb_hv_ops *__real_xbb_hv_lookup(uint32_t kind);
const struct xbb_hv_ops *__wrap_xbb_hv_lookup(uint32_t kind);

static struct xbb_hv_ops real, ops;
static pthread_once_t made = PTHREAD_ONCE_INIT;

static int
either(atomic_int *errnum, int (*call)(struct xbb_hv *), struct xbb_hv *hv)
{
	int e = atomic_load(errnum);

	return (e != 0 ? -e : call(hv));
}

/* Stay in a call for as long as it is held. */
static void
stay(atomic_bool *hold)
{

	if (!atomic_load(hold))
		return;
	atomic_fetch_add(&hypervisor.held, 1);
	while (atomic_load(hold))
		check_pause();
	atomic_fetch_sub(&hypervisor.held, 1);
}

static int
notify(struct xbb_hv *hv)
{

	stay(&hypervisor.hold_notify);
	return (either(&hypervisor.notify_errnum, real.notify, hv));
}

static int
unmask(struct xbb_hv *hv)
{

	return (either(&hypervisor.unmask_errnum, real.unmask, hv));
}

static int
take(struct xbb_hv *hv)
{

	return (either(&hypervisor.take_errnum, real.take, hv));
}

/* Room for one more mapping, of so many pages?  0, and it is counted. */
static int
admit(uint32_t npages)
{
	unsigned int most, n;
	int e;

	atomic_fetch_add(&hypervisor.map_calls, 1);
	e = atomic_load(&hypervisor.map_errnum);
	if (e != 0)
		return (-e);
	most = atomic_load(&hypervisor.most_pages);
	if (most != 0 && npages > most)
		return (-ENOMEM);
	most = atomic_load(&hypervisor.most_mappings);
	n = atomic_load(&hypervisor.mappings);
	do
		if (most != 0 && n >= most)
			return (-ENOMEM);
	while (!atomic_compare_exchange_weak(&hypervisor.mappings, &n, n + 1));
	return (0);
}

static int
map(struct xbb_hv *hv, struct xbb_map *map, bool writable)
{
	int error;

	map->base = NULL;
	stay(&hypervisor.hold_map);
	error = admit(map->npages);
	if (error != 0)
		return (error);
	error = real.map(hv, map, writable);
	if (error != 0)
		atomic_fetch_sub(&hypervisor.mappings, 1);
	map->mappings = 1;
	return (error);
}

/* What is not unmapped stays so, until its object is closed. */
static int
unmap(struct xbb_hv *hv, struct xbb_map *map)
{
	int e = atomic_load(&hypervisor.unmap_errnum);

	if (e != 0)
		return (-e);
	e = real.unmap(hv, map);
	if (e == 0)
		atomic_fetch_sub(&hypervisor.mappings, 1);
	return (e);
}

static int
copy(struct xbb_hv *hv, struct xbb_copy *pieces, uint32_t n, bool to_guest)
{
	int e = atomic_load(&hypervisor.copy_errnum);

	atomic_fetch_add(&hypervisor.copy_calls, 1);
	return (e != 0 ? -e : real.copy(hv, pieces, n, to_guest));
}

static void
make(void)
{

	real = ops = *__real_xbb_hv_lookup(XBB_HV_SIM);
	ops.notify = notify;
	ops.unmask = unmask;
	ops.take = take;
	ops.map = map;
	ops.unmap = unmap;
	ops.copy = copy;
	ops.maps_singly = false;
}

const struct xbb_hv_ops *
__wrap_xbb_hv_lookup(uint32_t kind)
{

	if (kind != XBB_HV_SIM)
		return (__real_xbb_hv_lookup(kind));
	pthread_once(&made, make);
	return (&ops);
}

/* Does each page take a mapping?  Rings to come are told. */
void
hypervisor_map_singly(bool singly)
{

	pthread_once(&made, make);
	ops.maps_singly = singly;
}

void
hypervisor_reset(void)
{

	atomic_store(&hypervisor.notify_errnum, 0);
	atomic_store(&hypervisor.unmask_errnum, 0);
	atomic_store(&hypervisor.take_errnum, 0);
	atomic_store(&hypervisor.map_errnum, 0);
	atomic_store(&hypervisor.copy_errnum, 0);
	atomic_store(&hypervisor.most_mappings, 0);
	atomic_store(&hypervisor.most_pages, 0);
	atomic_store(&hypervisor.hold_notify, false);
	atomic_store(&hypervisor.hold_map, false);
	atomic_store(&hypervisor.host_waited_ns, 0);
	atomic_store(&hypervisor.host_errnum, 0);
}

static atomic_bool no_threads;

void
threads_forbid(bool forbid)
{

	atomic_store(&no_threads, forbid);
}

int	__real_xbb_thread_start(pthread_t *thread, void *(*main)(void *),
	    void *arg);
int	__wrap_xbb_thread_start(pthread_t *thread, void *(*main)(void *),
	    void *arg);

int
__wrap_xbb_thread_start(pthread_t *thread, void *(*main)(void *), void *arg)
{

	return (atomic_load(&no_threads) ? -EAGAIN :
	    __real_xbb_thread_start(thread, main, arg));
}

int	__wrap_xbb_host_waited(uint64_t *nsp);

int
__wrap_xbb_host_waited(uint64_t *nsp)
{

	*nsp = atomic_load(&hypervisor.host_waited_ns);
	return (-atomic_load(&hypervisor.host_errnum));
}
