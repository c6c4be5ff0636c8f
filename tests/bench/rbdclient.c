/*
 * rbdclient.c - librbd and nothing else: so many random reads or writes of 4
 * KiB on an image, so many of them at once, told by a descriptor when they are
 * done.  Says how many there were a second.  Linked with librbd and librados,
 * without their headers.
 */
#include <sys/eventfd.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "block/librbd.h"

#define MOST	64
#define SIZE	4096

int	rados_create(xbb_rados_t *cluster, const char *id);
int	rados_conf_read_file(xbb_rados_t cluster, const char *path);
int	rados_conf_set(xbb_rados_t cluster, const char *option,
	    const char *value);
int	rados_connect(xbb_rados_t cluster);
void	rados_shutdown(xbb_rados_t cluster);
int	rados_ioctx_create(xbb_rados_t cluster, const char *pool,
	    xbb_rados_ioctx_t *io);
void	rados_ioctx_destroy(xbb_rados_ioctx_t io);
int	rbd_open(xbb_rados_ioctx_t io, const char *name, xbb_rbd_t *image,
	    const char *snapshot);
int	rbd_close(xbb_rbd_t image);
int	rbd_get_size(xbb_rbd_t image, uint64_t *size);
int	rbd_set_image_notification(xbb_rbd_t image, int fd, int type);
int	rbd_poll_io_events(xbb_rbd_t image, xbb_rbd_completion_t *completions,
	    int count);
int	rbd_aio_create_completion(void *arg,
	    void (*done)(xbb_rbd_completion_t completion, void *arg),
	    xbb_rbd_completion_t *completion);
void	rbd_aio_release(xbb_rbd_completion_t completion);
void	*rbd_aio_get_arg(xbb_rbd_completion_t completion);
ssize_t	rbd_aio_get_return_value(xbb_rbd_completion_t completion);
int	rbd_aio_read(xbb_rbd_t image, uint64_t offset, size_t length, char *to,
	    xbb_rbd_completion_t completion);
int	rbd_aio_write(xbb_rbd_t image, uint64_t offset, size_t length,
	    const char *from, xbb_rbd_completion_t completion);

static char buffer[MOST][SIZE];
static uint64_t seed = 1;

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
}

static int
begin_one(xbb_rbd_t image, uint64_t blocks, char *data, int writes)
{
	xbb_rbd_completion_t completion;
	uint64_t offset;

	seed = seed * 6364136223846793005U + 1442695040888963407U;
	offset = (seed >> 33) % blocks * SIZE;
	if (rbd_aio_create_completion(data, NULL, &completion) != 0)
		return (-1);
	return (writes ? rbd_aio_write(image, offset, SIZE, data, completion) :
	    rbd_aio_read(image, offset, SIZE, data, completion));
}

static int
run(xbb_rbd_t image, int fd, unsigned depth, unsigned operations, int writes)
{
	xbb_rbd_completion_t come[MOST];
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	unsigned begun, ended;
	uint64_t drop, size;
	int i, n;
	char *data;

	if (rbd_get_size(image, &size) != 0)
		return (1);
	for (begun = 0; begun < depth; begun++)
		if (begin_one(image, size / SIZE, buffer[begun], writes) != 0)
			return (1);
	for (ended = 0; ended < operations;) {
		(void)poll(&pfd, 1, -1);
		(void)!read(pfd.fd, &drop, sizeof(drop));
		n = rbd_poll_io_events(image, come, MOST);
		for (i = 0; i < n; i++, ended++) {
			if (rbd_aio_get_return_value(come[i]) < 0)
				return (1);
			data = rbd_aio_get_arg(come[i]);
			rbd_aio_release(come[i]);
			if (begun < operations && begun++ >= depth &&
			    begin_one(image, size / SIZE, data, writes) != 0)
				return (1);
		}
	}
	return (0);
}

int
main(int argc, char **argv)
{
	xbb_rados_t cluster;
	xbb_rados_ioctx_t io;
	xbb_rbd_t image;
	unsigned depth, operations;
	double begin;
	int fd, writes;

	if (argc != 7 || (depth = (unsigned)atoi(argv[4])) > MOST)
		return (64);
	operations = (unsigned)atoi(argv[5]);
	if (rados_create(&cluster, NULL) != 0 ||
	    rados_conf_read_file(cluster, argv[1]) != 0 ||
	    rados_conf_set(cluster, "rbd_cache", "false") != 0 ||
	    rados_connect(cluster) != 0 ||
	    rados_ioctx_create(cluster, argv[2], &io) != 0 ||
	    rbd_open(io, argv[3], &image, NULL) != 0)
		return (1);
	writes = argv[6][0] == 'w';
	fd = eventfd(0, EFD_NONBLOCK);
	if (rbd_set_image_notification(image, fd, RBD_NOTIFY_EVENTFD) != 0 ||
	    run(image, fd, depth, operations / 10, writes) != 0)
		return (1);
	begin = now();
	if (run(image, fd, depth, operations, writes) != 0)
		return (1);
	printf("%.0f\n", operations / (now() - begin));
	rbd_close(image);
	rados_ioctx_destroy(io);
	rados_shutdown(cluster);
	return (0);
}
