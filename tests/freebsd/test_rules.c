/*
 * test_rules.c - what FreeBSD wants of hv/freebsd.c and disk_freebsd.c, one
 * function a device; of host_freebsd.c test_questions.c has it, of
 * link_freebsd.c test_links.c.  kernel.h ends the process where it would not be
 * content.  Main thread.
 */
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "kernel.h"

#define PAGES	16

/* A frontend with some pages, and our end of its event channel. */
struct guest_end {
	int		 domain_fd, listen_fd, event_fd;
	struct xbb_hvfront *front;
	uint8_t		*memory;
	uint32_t	 refs[PAGES];
	struct xbb_hv	*hv;
};

static const struct xbb_hv_ops *ops;

static void
begin(struct guest_end *g)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	CHECK(mkdir("domain", 0700) == 0);
	g->domain_fd = open("domain", O_RDONLY | O_DIRECTORY);
	CHECK_EQ(xbb_sim_format(g->domain_fd, 64), 0);
	strcpy(address.sun_path, "port");
	g->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CHECK(bind(g->listen_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
	CHECK(listen(g->listen_fd, 1) == 0);
	CHECK_EQ(xbb_hvfront_sim.open(&g->front, g->domain_fd, g->listen_fd, 1,
	    0), 0);
	CHECK_EQ(xbb_hvfront_sim.grant(g->front, PAGES, &g->memory, g->refs),
	    0);
	g->event_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CHECK(connect(g->event_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
	CHECK_EQ(xbb_hvfront_sim.take(g->front), 0);	/* nobody is told */
	CHECK_EQ(ops->open(&g->hv, g->domain_fd, g->event_fd, 1), 0);
}

static void
end(struct guest_end *g)
{
	uint32_t mapped;

	ops->close(g->hv);
	CHECK_EQ(kernel_records(), 0);
	CHECK_EQ(xbb_sim_mapped(g->domain_fd, &mapped), 0);
	CHECK_EQ(mapped, 0);
	xbb_hvfront_sim.release(g->front, g->memory, PAGES, g->refs);
	xbb_hvfront_sim.close(g->front);
	close(g->event_fd);
	close(g->listen_fd);
	unlink("port");
	CHECK(unlinkat(g->domain_fd, "memory", 0) == 0);
	CHECK(unlinkat(g->domain_fd, "grants", 0) == 0);
	close(g->domain_fd);
	CHECK(rmdir("domain") == 0);
}

/* Several pages in one go, each seen on both sides; indices come from the top. */
static void
check_maps(void)
{
	struct guest_end g;
	struct xbb_map one, many;
	uint32_t i, scattered[3];

	begin(&g);
	one = (struct xbb_map){ .npages = 1, .refs = g.refs };
	CHECK_EQ(ops->map(g.hv, &one, true), 0);
	CHECK(one.token == 0xfffffffffffff000);
	scattered[0] = g.refs[5];
	scattered[1] = g.refs[2];
	scattered[2] = g.refs[9];
	many = (struct xbb_map){ .npages = 3, .refs = scattered };
	CHECK_EQ(ops->map(g.hv, &many, true), 0);
	CHECK(many.token == 0xffffffffffffc000);
	for (i = 0; i < 3; i++) {
		many.base[i * XBB_PAGE_SIZE + 7] = (uint8_t)(1 + i);
		CHECK_EQ(g.memory[(scattered[i] - g.refs[0]) * XBB_PAGE_SIZE +
		    7], 1 + i);
	}
	ops->unmap(g.hv, &one);
	CHECK(one.base == NULL);
	g.memory[5 * XBB_PAGE_SIZE] = 0x5a;
	CHECK_EQ(many.base[0], 0x5a);
	ops->unmap(g.hv, &many);
	CHECK_EQ(kernel_records(), 0);
	end(&g);
}

static void
check_bad_grants(void)
{
	struct guest_end g;
	uint32_t refs[3];
	struct xbb_map map = { .npages = 3, .refs = refs };
	uint32_t bad;

	begin(&g);
	for (bad = 0; bad < 3; bad++) {
		memcpy(refs, g.refs, sizeof(refs));
		refs[bad] = 60;
		CHECK_EQ(ops->map(g.hv, &map, true), -EINVAL);
		CHECK(map.base == NULL);
		CHECK_EQ(kernel_records(), 0);
		refs[bad] = g.refs[bad];
		CHECK_EQ(ops->map(g.hv, &map, true), 0);
		ops->unmap(g.hv, &map);
	}
	CHECK_EQ(xbb_hvfront_sim.set_access(g.front, refs[1], 1), 0);
	CHECK_EQ(ops->map(g.hv, &map, true), -EINVAL);
	CHECK_EQ(ops->map(g.hv, &map, false), 0);
	ops->unmap(g.hv, &map);
	map.npages = 0;
	CHECK_EQ(ops->map(g.hv, &map, true), -EINVAL);
	map.npages = XBB_MAP_PAGES + 1;
	CHECK_EQ(ops->map(g.hv, &map, true), -EINVAL);
	end(&g);
}

/* A kernel that is short says so, nothing stays, and later it works. */
static void
check_short(void)
{
	static const int errnums[] = { ENOMEM, EINVAL };
	struct guest_end g;
	struct xbb_map map = { .npages = 3 };
	uint32_t i;

	begin(&g);
	map.refs = g.refs;
	for (i = 0; i < COUNTOF(errnums); i++) {
		kernel_gntdev_short(errnums[i]);
		CHECK_EQ(ops->map(g.hv, &map, true), -errnums[i]);
		CHECK(map.base == NULL);
		CHECK_EQ(kernel_records(), 0);
		kernel_gntdev_short(0);
		CHECK_EQ(ops->map(g.hv, &map, true), 0);
		CHECK_EQ(map.mappings, 1);
		ops->unmap(g.hv, &map);
	}
	CHECK(!ops->maps_singly);
	end(&g);
}

static int
readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return (poll(&pfd, 1, 0));
}

static void
check_events(void)
{
	struct guest_end g;

	begin(&g);
	CHECK_EQ(ops->notify(g.hv), -ENOTCONN);
	CHECK_EQ(ops->bind(g.hv, 0), -EINVAL);
	CHECK_EQ(ops->notify(g.hv), -ENOTCONN);
	CHECK_EQ(ops->bind(g.hv, 1), 0);
	CHECK_EQ(ops->bind(g.hv, 1), -EISCONN);
	CHECK_EQ(ops->event_fd(g.hv), g.event_fd);
	CHECK_EQ(readable(g.event_fd), 1);
	CHECK_EQ(ops->take(g.hv), 1);
	CHECK_EQ(ops->take(g.hv), 0);

	/* Masked until it is written back. */
	CHECK_EQ(xbb_hvfront_sim.notify(g.front), 0);
	CHECK_EQ(readable(g.event_fd), 0);
	CHECK_EQ(ops->take(g.hv), 0);
	CHECK_EQ(ops->unmask(g.hv), 0);
	CHECK_EQ(readable(g.event_fd), 1);
	CHECK_EQ(ops->take(g.hv), 1);
	CHECK_EQ(ops->unmask(g.hv), 0);
	CHECK_EQ(ops->take(g.hv), 0);

	/* A queue that ran over has had an event, and works again. */
	kernel_overflow(g.event_fd);
	CHECK_EQ(ops->take(g.hv), 1);
	CHECK_EQ(ops->unmask(g.hv), 0);
	CHECK_EQ(ops->take(g.hv), 0);
	CHECK_EQ(xbb_hvfront_sim.notify(g.front), 0);
	CHECK_EQ(ops->take(g.hv), 1);

	CHECK_EQ(xbb_hvfront_sim.take(g.front), 0);
	CHECK_EQ(ops->notify(g.hv), 0);
	CHECK_EQ(xbb_hvfront_sim.take(g.front), 1);
	end(&g);

	begin(&g);			/* closed without ever being bound */
	end(&g);
}

/* What must never be called, and cannot even be tried on a first map. */
static void
check_no_guard(void)
{
	uint64_t notify[2] = { 0, 1 };
	struct guest_end g;
	struct xbb_map map;

	CHECK(ops->guard == NULL);
	begin(&g);
	map = (struct xbb_map){ .npages = 1, .refs = g.refs };
	CHECK_EQ(ops->map(g.hv, &map, true), 0);
	notify[0] = map.token + XBB_RING_ALIVE;
	CHECK_EQ(ioctl(g.domain_fd, 0x80104500, notify), -1);
	CHECK_EQ(errno, EINVAL);
	ops->unmap(g.hv, &map);
	end(&g);
}

/* Discarding on a thread as those that carry batches out are. */
struct discard {
	off_t	offset, len;
	int	fd;
	uint32_t kind;
	int	error;
};

static void *
discard_main(void *arg)
{
	struct discard *d = arg;

	xbb_thread_name("discard");
	d->error = xbb_disk_discard(d->fd, d->kind, d->offset, d->len);
	return (NULL);
}

static int
discard(int fd, uint32_t kind, off_t offset, off_t len)
{
	struct discard d = { offset, len, fd, kind, 0 };
	pthread_t thread;

	CHECK_EQ(xbb_thread_start(&thread, discard_main, &d), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return (d.error);
}

#define MEDIA	((1 << 20) + 4096)
#define TAIL	1536		/* bytes of a file behind its last whole page */

/* Everything but [from, to) is as it was, and that is zeros; then as before. */
static void
check_hole(int fd, off_t size, off_t from, off_t to)
{
	static uint8_t data[MEDIA + TAIL];

	CHECK_EQ(lseek(fd, 0, SEEK_END), size);
	CHECK_EQ(pread(fd, data, (size_t)size, 0), size);
	CHECK(all_bytes(data, (size_t)from, 0x5a));
	CHECK(all_bytes(data + from, (size_t)(to - from), 0));
	CHECK(all_bytes(data + to, (size_t)(size - to), 0x5a));
	memset(data, 0x5a, (size_t)size);
	CHECK_EQ(pwrite(fd, data, (size_t)size, 0), size);
}

/*
 * A file whose last page is not whole: wherever a discard begins and ends, it
 * reads as zeros, as long as before; and its whole pages are given back.
 */
static void
check_file(void)
{
	static const off_t edges[] = { 0, 512, 3584, 4096, 4608, 8192, 9216,
	    MEDIA - 4096, MEDIA - 512, MEDIA, MEDIA + 512, MEDIA + TAIL };
	const off_t size = MEDIA + TAIL;
	uint32_t from, to;
	int fd, reader;

	fd = open("disk", O_RDWR | O_CREAT | O_EXCL, 0600);
	reader = open("disk", O_RDONLY);
	CHECK(fd >= 0 && reader >= 0);
	CHECK_EQ(ftruncate(fd, size), 0);
	check_hole(fd, size, 0, size);
	CHECK_EQ(xbb_disk_flush(fd, XBB_DISK_FILE), 0);
	CHECK_EQ(kernel_flushes(), 0);
	for (from = 0; from < COUNTOF(edges) - 1; from++)
		for (to = from + 1; to < COUNTOF(edges); to++) {
			CHECK_EQ(discard(fd, XBB_DISK_FILE, edges[from],
			    edges[to] - edges[from]), 0);
			check_hole(fd, size, edges[from], edges[to]);
		}
	/* Beyond the end is nothing, and nothing comes to be there. */
	CHECK_EQ(discard(fd, XBB_DISK_FILE, 8192, 2 * MEDIA), 0);
	check_hole(fd, size, 8192, size);
	CHECK_EQ(discard(fd, XBB_DISK_FILE, size, 4096), 0);
	check_hole(fd, size, 0, 0);
	CHECK_EQ(discard(reader, XBB_DISK_FILE, 0, 4096), -EBADF);
	CHECK_EQ(discard(reader, XBB_DISK_FILE, 0, 512), -EBADF);

	CHECK_EQ(discard(fd, XBB_DISK_FILE, 512, 1 << 20), 0);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 4096);
	close(fd);
	close(reader);
	CHECK(unlink("disk") == 0);
}

static void
check_disks(void)
{
	static uint8_t data[8192];
	struct iovec iov = { data, sizeof(data) };
	bool was_short;
	int fd, reader;

	fd = open("disk", O_RDWR | O_CREAT | O_EXCL, 0600);
	reader = open("disk", O_RDONLY);
	CHECK(fd >= 0 && reader >= 0);
	CHECK_EQ(ftruncate(fd, MEDIA), 0);
	check_hole(fd, MEDIA, 0, MEDIA);
	kernel_provider(fd, 4096);
	kernel_provider(reader, 4096);
	CHECK_EQ(xbb_disk_flush(fd, XBB_DISK_DEVICE), 0);
	CHECK_EQ(kernel_flushes(), 1);
	CHECK_EQ(xbb_disk_flush(reader, XBB_DISK_DEVICE), -EPERM);
	CHECK_EQ(discard(fd, XBB_DISK_DEVICE, 8192, 65536), 0);
	check_hole(fd, MEDIA, 8192, 73728);
	CHECK_EQ(discard(fd, XBB_DISK_DEVICE, 512, 4096), -EINVAL);
	CHECK_EQ(discard(fd, XBB_DISK_DEVICE, 4096, 512), -EINVAL);
	CHECK_EQ(discard(reader, XBB_DISK_DEVICE, 4096, 4096), -EPERM);

	/* Across the end what there is, then the end: an error, not silence. */
	was_short = false;
	CHECK_EQ(xbb_transfer(fd, true, &iov, 1, MEDIA - 4096, &was_short),
	    -EIO);
	CHECK(was_short);
	iov = (struct iovec){ data, 4096 };
	CHECK_EQ(xbb_transfer(fd, false, &iov, 1, MEDIA, &was_short), -EIO);
	iov = (struct iovec){ data, 512 };
	CHECK_EQ(xbb_transfer(fd, false, &iov, 1, 0, &was_short), -EINVAL);
	CHECK_EQ(close(fd), 0);
	CHECK_EQ(close(reader), 0);
	CHECK(unlink("disk") == 0);
}

/*
 * A disk destroyed under us is gone for whatever we do, however the kernel
 * spells it; what it is like otherwise is as one was seen.
 */
static void
check_destroyed(void)
{
	static uint8_t data[4096];
	struct iovec iov;
	bool was_short;
	struct stat st;
	int fd, i;

	fd = open("disk", O_RDWR | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, MEDIA), 0);
	kernel_provider(fd, 512);
	/* One without such a call is not gone. */
	CHECK_EQ(xbb_can_flush(fd, XBB_DISK_DEVICE), 1);
	kernel_provider_without_flush(fd);
	CHECK_EQ(xbb_disk_flush(fd, XBB_DISK_DEVICE), -ENOTTY);
	CHECK_EQ(xbb_can_flush(fd, XBB_DISK_DEVICE), 0);
	kernel_provider_destroy(fd);
	was_short = false;
	for (i = 0; i < 4; i++) {
		iov = (struct iovec){ data, 4096 };
		CHECK_EQ(xbb_transfer(fd, i % 2 != 0, &iov, 1, 0, &was_short),
		    -ENXIO);
		CHECK_EQ(xbb_disk_flush(fd, XBB_DISK_DEVICE), -ENXIO);
		CHECK_EQ(xbb_can_flush(fd, XBB_DISK_DEVICE), -ENXIO);
		CHECK_EQ(discard(fd, XBB_DISK_DEVICE, 0, 4096), -ENXIO);
	}
	CHECK_EQ(fstat(fd, &st), -1);
	CHECK_EQ(errno, EBADF);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(close(fd), -1);
	CHECK_EQ(errno, ENXIO);
	CHECK_EQ(fcntl(fd, F_GETFD), -1);
	CHECK(unlink("disk") == 0);
}

int
main(void)
{

	ops = xbb_hv_lookup(XBB_HV_XEN);
	CHECK(ops != NULL && ops != &xbb_hv_sim);
	CHECK(ops->copy == NULL && ops->can_copy == NULL);
	CHECK(xbb_hvfront_lookup(XBB_HV_XEN) == NULL);
	scratch_enter();
	check_maps();
	check_bad_grants();
	check_short();
	check_events();
	check_no_guard();
	check_questions();
	check_links();
	check_file();
	check_disks();
	check_destroyed();
	scratch_leave();
	return (0);
}
