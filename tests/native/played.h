/*
 * played.h - a librbd, and librados, without a cluster: played_rados.c, who
 * reaches which cluster and pool, played_rbd.c, images, and played_ops.c, what
 * these are asked for.  An image is a file beside the configuration's, at
 * POOL/IMAGE or POOL/NAMESPACE/IMAGE there.  What a caller must not do ends the
 * process.
 *
 * Beside the configuration there may be these files, for tests of whole
 * machines:
 *	silent		nothing is done as long as it is there, for the clients
 *			that have a line in it, or for all of them
 *	blocked		a line for each client that is shut out
 *	closed		nobody reaches the cluster
 *	plain		images have no lock
 *	caches		images set rbd_cache
 *	POOL/IMAGE.lock	who has the lock
 */
#ifndef PLAYED_H
#define PLAYED_H

#include <pthread.h>
#include <stdbool.h>

#define PATH	1024

struct cluster {
	char		 directory[PATH];
	char		 address[64];
	bool		 caches;
	bool		 keyless;	/* its keyring is not there */
};

struct pool {
	struct cluster	*cluster;
	char		 name[PATH];
	char		 space[PATH];
};

struct op;

struct image {
	struct pool	*pool;
	char		 path[2 * PATH];
	int		 fd;
	int		 notify;
	bool		 read_only;
	bool		 owner;
	pthread_t	 thread;
	pthread_mutex_t	 lock;
	pthread_cond_t	 changed;
	bool		 ends;		/* lock, as the next */
	struct op	*wanted;	/* newest first */
	struct op	*come;
	unsigned	 out;
	unsigned	 chance;	/* its thread's */
};

/* played_rados.c - what a caller must; files beside the configuration. */
void	played_must(bool holds, const char *what);
bool	played_exists(const struct cluster *cluster, const char *name);
bool	played_is_silent(const struct cluster *cluster);
bool	played_is_blocked(const struct cluster *cluster);

/* played_ops.c - the thread of an image; until its cluster speaks again. */
void	*played_work(void *image);
void	played_wait_while_silent(const struct image *im);

#endif /* PLAYED_H */
