/*
 * gntdev.c - /dev/xen/gntdev: records of maps, indices from the top of 64 bits
 * down, and mappings whose grants go once record and mapping are gone.  The
 * grants are those of the simulated hypervisor.  Any thread; one lock.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/hv.h"
#include "kernel.h"

/* The kernel's own numbers, written down once more: these judge the product's. */
#define SET_UNMAP_NOTIFY	0x80104500
#define MAP_GRANT_REF		0xc0184503
#define UNMAP_GRANT_REF		0x80104504

struct record {
	struct record	*next;		/* by index, highest first */
	uint64_t	 index;
	uint32_t	 count;
	uint32_t	 domid;
	uint32_t	*refs;
	bool		 mapped;	/* the hypercall was made */
	bool		 foreign;	/* of several domains at once */
	uint8_t		*base;		/* the process's mapping, or NULL */
	struct xbb_map	 grants;	/* the hypervisor's, while mapped */
	long		 failed_for;	/* the thread that mmap(2) failed for */
};

/* A descriptor of the device, for as long as it has records. */
struct gntdev {
	struct gntdev	*next;
	int		 fd;
	struct xbb_hv	*sim;
	struct record	*records;
};

static struct gntdev *devices;		/* lock */
static int short_errnum;		/* lock */
/* Recursive: what the simulated hypervisor unmaps comes by here too. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static long
thread_id(void)
{

	return (syscall(SYS_gettid));
}

static int
fail(int errnum)
{

	errno = errnum;
	return (-1);
}

static struct gntdev *
find_device(int fd)
{
	struct gntdev *d;

	for (d = devices; d != NULL; d = d->next)
		if (d->fd == fd)
			return (d);
	return (NULL);
}

static struct gntdev *
make_device(int fd)
{
	struct gntdev *d;

	d = calloc(1, sizeof(*d));
	if (d == NULL || xbb_hv_sim.open(&d->sim, fd, -1, 0) != 0)
		kernel_panic("a gntdev that is no domain's directory");
	d->fd = fd;
	d->next = devices;
	devices = d;
	return (d);
}

static void
drop_device(struct gntdev *d)
{
	struct gntdev **link;

	for (link = &devices; *link != d; link = &(*link)->next)
		continue;
	*link = d->next;
	xbb_hv_sim.close(d->sim);
	free(d);
}

/* The first room from the top: what was given back is given out again. */
static void
place_record(struct gntdev *d, struct record *r)
{
	struct record **link;
	uint64_t size = (uint64_t)r->count * XBB_PAGE_SIZE;
	uint64_t top;

	top = 0;			/* that is 2^64 */
	for (link = &d->records; *link != NULL; link = &(*link)->next) {
		if (top - ((*link)->index + (*link)->count *
		    (uint64_t)XBB_PAGE_SIZE) >= size)
			break;
		top = (*link)->index;
	}
	r->index = top - size;
	r->next = *link;
	*link = r;
}

static int
map_grant_ref(int fd, uint8_t *arg)
{
	struct gntdev *d;
	struct record *r;
	uint32_t count, i, pair[2];
	const uint8_t *refs;

	memcpy(&count, arg, sizeof(count));
	memcpy(&refs, arg + 16, sizeof(refs));
	if (count == 0)
		return (fail(EINVAL));
	if (count > XBB_MAP_PAGES)
		kernel_panic("MAP of %u references", count);
	r = calloc(1, sizeof(*r));
	r->count = count;
	r->refs = calloc(count, sizeof(*r->refs));
	for (i = 0; i < count; i++) {
		memcpy(pair, refs + i * sizeof(pair), sizeof(pair));
		if (pair[0] == 0)
			kernel_panic("dom0 maps its own grant %u", pair[1]);
		r->foreign |= i != 0 && pair[0] != r->domid;
		r->domid = pair[0];
		r->refs[i] = pair[1];
	}
	pthread_mutex_lock(&lock);
	d = find_device(fd);
	if (d == NULL)
		d = make_device(fd);
	place_record(d, r);
	memcpy(arg + 8, &r->index, sizeof(r->index));
	for (r = d->records; r != NULL; r = r->next)
		if (r->failed_for == thread_id())
			kernel_panic("the record of a map that failed stays");
	pthread_mutex_unlock(&lock);
	return (0);
}

static int
unmap_grant_ref(int fd, const uint8_t *arg)
{
	struct record **link, *r;
	struct gntdev *d;
	uint64_t index;
	uint32_t count;

	memcpy(&index, arg, sizeof(index));
	memcpy(&count, arg + 8, sizeof(count));
	pthread_mutex_lock(&lock);
	d = find_device(fd);
	if (d == NULL)
		kernel_panic("UNMAP of a descriptor without a map");
	for (link = &d->records; (r = *link) != NULL; link = &r->next)
		if (r->index == index)
			break;
	if (r == NULL || r->count != count)
		kernel_panic("UNMAP of %#llx, %u: \"Can't find requested "
		    "grant-map.\"", (unsigned long long)index, count);
	if (r->base != NULL)
		kernel_panic("UNMAP before munmap(2)");
	if (r->mapped)
		(void)xbb_hv_sim.unmap(d->sim, &r->grants);
	*link = r->next;
	free(r->refs);
	free(r);
	if (d->records == NULL)
		drop_device(d);
	pthread_mutex_unlock(&lock);
	return (0);
}

/*
 * Nobody can use it.  The end of a descriptor's first map is 2^64, which the
 * kernel takes for 0, so that no index lies before it; and for the others it
 * writes a record of 24 bytes to memory of 16.
 */
static int
set_unmap_notify(int fd, const uint8_t *arg)
{
	const struct gntdev *d;
	const struct record *r;
	uint64_t end, index;
	uint32_t action;

	memcpy(&index, arg, sizeof(index));
	memcpy(&action, arg + 8, sizeof(action));
	if ((action & ~3U) != 0)
		return (fail(EINVAL));
	pthread_mutex_lock(&lock);
	d = find_device(fd);
	for (r = d == NULL ? NULL : d->records; r != NULL; r = r->next) {
		end = r->index + (uint64_t)r->count * XBB_PAGE_SIZE;
		if (index >= r->index && index < end)
			kernel_panic("SET_UNMAP_NOTIFY writes beyond the "
			    "kernel's memory");
	}
	pthread_mutex_unlock(&lock);
	return (fail(EINVAL));
}

int
gntdev_ioctl(int fd, unsigned long cmd, void *arg)
{

	switch (cmd) {
	case SET_UNMAP_NOTIFY:
		return (set_unmap_notify(fd, arg));
	case MAP_GRANT_REF:
		return (map_grant_ref(fd, arg));
	case UNMAP_GRANT_REF:
		return (unmap_grant_ref(fd, arg));
	default:
		return (fail(ENOSYS));
	}
}

/* The hypervisor's pages once more, as a mapping that is the process's own. */
static uint8_t *
own_mapping(const struct xbb_map *grants)
{
	const size_t size = (size_t)grants->npages * XBB_PAGE_SIZE;
	/* Pages in a row are one mapping; others have one each. */
	const size_t step = grants->token == 0 ? size : XBB_PAGE_SIZE;
	uint8_t *base;
	size_t at;

	base = __real_mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0);
	for (at = 0; base != MAP_FAILED && at < size; at += step)
		if (mremap(grants->base + at, 0, step,
		    MREMAP_MAYMOVE | MREMAP_FIXED, base + at) == MAP_FAILED)
			kernel_panic("mremap: %s", strerror(errno));
	return (base);
}

void *
gntdev_mmap(int fd, void *addr, size_t len, int prot, int flags, off_t offset)
{
	struct gntdev *d;
	struct record *r;
	int error;

	if ((flags & MAP_PRIVATE) != 0) {
		errno = (prot & PROT_WRITE) != 0 ? EACCES : EINVAL;
		return (MAP_FAILED);
	}
	if (addr != NULL || flags != MAP_SHARED ||
	    (prot & ~PROT_WRITE) != PROT_READ)
		kernel_panic("mmap(2) with flags %#x, prot %#x", flags, prot);
	pthread_mutex_lock(&lock);
	d = find_device(fd);
	for (r = d == NULL ? NULL : d->records; r != NULL; r = r->next)
		if (r->index == (uint64_t)offset &&
		    (size_t)r->count * XBB_PAGE_SIZE == len)
			break;
	error = EINVAL;
	if (r != NULL) {
		if (r->mapped)
			kernel_panic("the same grants are mapped twice");
		r->grants = (struct xbb_map){
			.npages = r->count, .refs = r->refs,
		};
		if (short_errnum != 0) {
			error = short_errnum;
			r->failed_for = thread_id();
		} else if (!r->foreign && xbb_hv_sim.map(d->sim, &r->grants,
		    (prot & PROT_WRITE) != 0) == 0) {
			r->mapped = true;
			r->base = own_mapping(&r->grants);
			error = 0;
		} else
			r->failed_for = thread_id();
	}
	addr = error == 0 ? r->base : MAP_FAILED;
	pthread_mutex_unlock(&lock);
	if (error != 0)
		errno = error;
	return (addr);
}

/* Somebody unmaps something: if it is ours, all of it. */
void
gntdev_munmap(void *addr, size_t len)
{
	const uint8_t *from = addr;
	struct gntdev *d;
	struct record *r;
	size_t size;

	pthread_mutex_lock(&lock);
	for (d = devices; d != NULL; d = d->next)
		for (r = d->records; r != NULL; r = r->next) {
			size = (size_t)r->count * XBB_PAGE_SIZE;
			if (r->base == NULL || from >= r->base + size ||
			    r->base >= from + len)
				continue;
			if (r->base != from || size != len)
				kernel_panic("munmap(2) of a part of a map");
			r->base = NULL;
		}
	pthread_mutex_unlock(&lock);
}

/*
 * ENOMEM of a kernel without a range of physical addresses for the grants, or
 * of a process without room; EINVAL of a Xen that can keep track of no more.
 */
void
kernel_gntdev_short(int errnum)
{

	pthread_mutex_lock(&lock);
	short_errnum = errnum;
	pthread_mutex_unlock(&lock);
}

int
kernel_records(void)
{
	const struct gntdev *d;
	const struct record *r;
	int n;

	n = 0;
	pthread_mutex_lock(&lock);
	for (d = devices; d != NULL; d = d->next)
		for (r = d->records; r != NULL; r = r->next)
			n++;
	pthread_mutex_unlock(&lock);
	return (n);
}

__attribute__((destructor)) static void
nothing_may_be_left(void)
{

	if (kernel_records() != 0)
		kernel_panic("%d records of maps are left", kernel_records());
}
