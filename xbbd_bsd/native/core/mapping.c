/*
 * mapping.c - the state segments that this process has mapped, and what it
 * keeps of each in its own memory: where it lies, what it was made for, whether
 * a part was missing, and what its family adds.  Segments are files, which
 * others may cut off or overwrite at any time; whoever touches a page that is
 * no more there gets a SIGBUS, and finds zeros instead of dying with all
 * guests.  Knows nothing of rings and requests.  Any thread; the handler runs
 * on the one that touched the page.
 *
 * It is SIGBUS on both systems: BUS_ADRERR on Linux, BUS_OBJERR on FreeBSD
 * (vm_fault.c: KERN_OUT_OF_BOUNDS; read there, not seen), where
 * machdep.prot_fault_translation is about protection only.
 */
#include <sys/mman.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/core.h"

/*
 * Entries are used again, never freed, and linked once: the handler goes
 * through them without a lock.
 */
struct xbb_mapping {
	struct xbb_mapping *next;
	atomic_uintptr_t base;
	atomic_size_t	 size;		/* bytes; 0: free */
	atomic_bool	 damaged;
	uint32_t	 nrings;	/* what it was made for */
	uint32_t	 table_entries;
	atomic_int	 fence;		/* see xbb_mapping_fence() */
	_Alignas(8) uint8_t own[XBB_MAPPING_OWN];	/* the family's */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* who adds, removes */
static _Atomic(struct xbb_mapping *) mappings;
static struct sigaction former;
static uintptr_t page_size;

static struct xbb_mapping *
mapping_at(uintptr_t at)
{
	struct xbb_mapping *m;
	size_t size;

	for (m = atomic_load(&mappings); m != NULL; m = m->next) {
		size = atomic_load(&m->size);
		if (at - atomic_load(&m->base) < size)
			return (m);
	}
	return (NULL);
}

/* Put zeros of our own in place of one page; others may be there still. */
static bool
replace_page(uintptr_t at)
{
	void *page;

	page = (void *)(at & ~(page_size - 1));
	return (mmap(page, page_size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON | MAP_FIXED, -1, 0) != MAP_FAILED);
}

static void
on_fault(int sig, siginfo_t *info, void *context)
{
	const uintptr_t at = (uintptr_t)info->si_addr;
	const int saved = errno;
	struct xbb_mapping *m;

	(void)context;
	m = NULL;
	if (info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR)
		m = mapping_at(at);
	if (m != NULL && replace_page(at))
		atomic_store(&m->damaged, true);
	else {
		/*
		 * Not ours: it comes again as we leave, and does what it did.
		 */
		sigaction(sig, &former, NULL);
		raise(sig);
	}
	errno = saved;
}

static void
install_handler(void)
{
	struct sigaction action = {
		.sa_sigaction = on_fault,
		.sa_flags = SA_SIGINFO | SA_ONSTACK,
	};

	page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, &former);
}

static struct xbb_mapping *
unused_entry(void)
{
	struct xbb_mapping *m;

	for (m = atomic_load(&mappings); m != NULL; m = m->next)
		if (atomic_load(&m->size) == 0)
			return (m);
	m = calloc(1, sizeof(*m));
	if (m != NULL) {
		m->next = atomic_load(&mappings);
		atomic_store(&mappings, m);
	}
	return (m);
}

/* Watch over a mapping of a segment that was made for so much; ENOMEM. */
int
xbb_mapping_add(void *base, size_t size, uint32_t nrings,
    uint32_t table_entries)
{
	struct xbb_mapping *m;

	pthread_once(&once, install_handler);
	pthread_mutex_lock(&lock);
	m = unused_entry();
	if (m != NULL) {
		m->nrings = nrings;
		m->table_entries = table_entries;
		atomic_store(&m->damaged, false);
		atomic_store(&m->fence, -1);
		memset(m->own, 0, sizeof(m->own));
		atomic_store(&m->base, (uintptr_t)base);
		atomic_store(&m->size, size);
	}
	pthread_mutex_unlock(&lock);
	return (m != NULL ? 0 : -ENOMEM);
}

/* Nobody touches the segment any more: unmap it. */
void
xbb_mapping_remove(struct xbb_mapping *m)
{
	size_t size;

	pthread_mutex_lock(&lock);
	size = atomic_load(&m->size);
	munmap((void *)atomic_load(&m->base), size);
	atomic_store(&m->size, 0);
	pthread_mutex_unlock(&lock);
}

/* What is kept of a segment, NULL if it is not one that is mapped. */
struct xbb_mapping *
xbb_mapping_of(const void *segment)
{

	return (mapping_at((uintptr_t)segment));
}

uint32_t
xbb_mapping_rings(const struct xbb_mapping *m)
{

	return (m->nrings);
}

uint32_t
xbb_mapping_entries(const struct xbb_mapping *m)
{

	return (m->table_entries);
}

/* Was a page of it missing?  What stands in it means nothing any more. */
bool
xbb_mapping_damaged(const struct xbb_mapping *m)
{

	return (atomic_load_explicit(&m->damaged, memory_order_relaxed));
}

/* So its lock is held, by whoever opened that descriptor. */
void
xbb_mapping_set_fence(struct xbb_mapping *m, int fd)
{

	atomic_store(&m->fence, fd);
}

/*
 * The descriptor of the lock that is free once nobody of ours serves the device
 * any more; -1: this process has none that would be let go of only then.
 */
int
xbb_mapping_fence(const struct xbb_mapping *m)
{

	return (atomic_load(&m->fence));
}

/* What the family keeps of it, zeros at first: XBB_MAPPING_OWN bytes. */
void *
xbb_mapping_own(struct xbb_mapping *m)
{

	return (m->own);
}
