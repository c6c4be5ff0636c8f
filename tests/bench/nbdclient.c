/*
 * nbdclient.c - libnbd and nothing else: so many random reads of 4 KiB, so many
 * of them at once.  Says how many there were a second.  Linked with libnbd,
 * without its header.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "block/libnbd.h"

#define MOST	64
#define SIZE	4096

struct nbd_handle *nbd_create(void);
int	nbd_connect_unix(struct nbd_handle *h, const char *path);
int64_t	nbd_get_size(struct nbd_handle *h);
int64_t	nbd_aio_pread(struct nbd_handle *h, void *to, size_t count,
	    uint64_t offset, struct nbd_completion done, uint32_t flags);
int	nbd_poll(struct nbd_handle *h, int timeout);
void	nbd_close(struct nbd_handle *h);

static unsigned ended;

static int
note_end(void *user, int *error)
{

	*(int *)user = 0;
	ended += *error == 0;
	return (1);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
}

int
main(int argc, char **argv)
{
	static uint8_t buffer[MOST][SIZE];
	static int busy[MOST];
	struct nbd_handle *h;
	unsigned begun, depth, i, operations;
	uint64_t blocks, seed;
	double begin;

	if (argc != 4 || (depth = (unsigned)atoi(argv[2])) > MOST)
		return (64);
	operations = (unsigned)atoi(argv[3]);
	h = nbd_create();
	if (h == NULL || nbd_connect_unix(h, argv[1]) != 0)
		return (1);
	blocks = (uint64_t)nbd_get_size(h) / SIZE;
	seed = 1;
	begin = now();
	for (begun = 0; ended < operations;) {
		for (i = 0; i < depth && begun < operations; i++) {
			if (busy[i])
				continue;
			busy[i] = 1;
			begun++;
			seed = seed * 6364136223846793005U + 1442695040888963407U;
			if (nbd_aio_pread(h, buffer[i], SIZE,
			    (seed >> 33) % blocks * SIZE,
			    (struct nbd_completion){ note_end, &busy[i], NULL },
			    0) < 0)
				return (1);
		}
		if (nbd_poll(h, -1) < 0)
			return (1);
	}
	printf("%.0f\n", operations / (now() - begin));
	nbd_close(h);
	return (0);
}
