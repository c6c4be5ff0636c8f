/*
 * direct.c - the yardstick: the reads of an exercise without ring and backend,
 * by one thread for each that is in flight.
 */
#include <stdlib.h>

#include "front/front.h"

struct direct {
	const struct xbb_workload *load;
	struct xbb_progress mine;
	uint64_t	 begun_ns;
	uint64_t	 seed;
	int		 fd;
	int		 error;
	pthread_t	 thread;
};

static void *
direct_main(void *arg)
{
	struct direct *d = arg;
	const struct xbb_workload *load = d->load;
	struct iovec iov;
	uint64_t at, before, cpu, now, quota;
	uint32_t n;
	bool was_short;
	void *buffer;

	n = load->max_sectors;
	if (posix_memalign(&buffer, XBB_PAGE_SIZE,
	    (size_t)n * XBB_SECTOR_SIZE) != 0) {
		d->error = -ENOMEM;
		return (NULL);
	}
	quota = (load->operations + load->depth - 1) / load->depth;
	cpu = xbb_thread_cpu_ns();
	before = xbb_now_ns();
	for (;;) {
		at = xbb_random(&d->seed) %
		    ((load->sectors - n) / load->align_sectors + 1) *
		    load->align_sectors;
		iov = (struct iovec){ buffer, (size_t)n * XBB_SECTOR_SIZE };
		d->error = xbb_transfer(d->fd, false, &iov, 1,
		    (off_t)((load->first_sector + at) * XBB_SECTOR_SIZE),
		    &was_short);
		if (d->error != 0)
			break;
		now = xbb_now_ns();
		xbb_latency_add(d->mine.latency, now - before);
		before = now;
		d->mine.reads++;
		d->mine.sectors_read += n;
		if ((quota != 0 && d->mine.reads >= quota) ||
		    (load->seconds > 0 &&
		    (double)(now - d->begun_ns) >= load->seconds * 1e9))
			break;
	}
	d->mine.cpu_ns = xbb_thread_cpu_ns() - cpu;
	free(buffer);
	return (NULL);
}

int
xbb_direct_reads(int disk_fd, const struct xbb_workload *load,
    struct xbb_progress *progress)
{
	struct direct *threads;
	uint64_t begun;
	uint32_t i, j, started;
	int error;

	if (!xbb_workload_is_sane(load, XBB_MAX_REQUESTS,
	    XBB_MAX_INDIRECT_SEGMENTS * XBB_SECTORS_PER_PAGE))
		return (-EINVAL);
	threads = calloc(load->depth, sizeof(*threads));
	if (threads == NULL)
		return (-ENOMEM);
	begun = xbb_now_ns();
	error = 0;
	for (started = 0; started < load->depth; started++) {
		threads[started].load = load;
		threads[started].fd = disk_fd;
		threads[started].begun_ns = begun;
		threads[started].seed = load->seed + started;
		error = xbb_thread_start(&threads[started].thread, direct_main,
		    &threads[started]);
		if (error != 0)
			break;
	}
	for (i = 0; i < started; i++) {
		pthread_join(threads[i].thread, NULL);
		progress->reads += threads[i].mine.reads;
		progress->sectors_read += threads[i].mine.sectors_read;
		progress->cpu_ns += threads[i].mine.cpu_ns;
		for (j = 0; j < XBB_LATENCY_BUCKETS; j++)
			progress->latency[j] += threads[i].mine.latency[j];
		if (error == 0)
			error = threads[i].error;
	}
	progress->elapsed_ns = xbb_now_ns() - begun;
	free(threads);
	return (error);
}
