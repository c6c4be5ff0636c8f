/*
 * played_rbd.c - a librbd, and librados, without a cluster: an image is a file
 * beside the configuration's, at POOL/IMAGE or POOL/NAMESPACE/IMAGE there.  Its
 * thread carries out what it is asked for in any order, as a cluster may.
 *
 * Beside the configuration there may be these files, for tests of whole
 * machines:
 *	silent		nothing is done as long as it is there, for the clients
 *			that have a line in it, or for all of them
 *	blocked		a line for each client that is shut out
 *	POOL/IMAGE.lock	who has the lock
 * played_fail() has all of a kind fail in this process, or refused, if its
 * errno is negative.  What a caller must not
 * do ends the process.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH	1024
#define KINDS	4		/* read, write, flush, zeroes */
#define EXCLUSIVE_LOCK	((uint64_t)1 << 2)

static atomic_int failures[KINDS];
static atomic_uint clients;

struct cluster {
	char		 directory[PATH];
	char		 address[64];
	bool		 caches;
};

struct pool {
	struct cluster	*cluster;
	char		 name[PATH];
	char		 space[PATH];
};

struct op {
	struct op	*next;
	void		*arg;
	int		 kind;
	uint64_t	 offset;
	size_t		 length;
	char		*data;
	int64_t		 result;
};

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

struct option {
	char	*name;
	char	*value;
	int	 source;
};

void
played_fail(int kind, int errnum)
{

	atomic_store(&failures[kind], errnum);
}

static void
must(bool holds, const char *what)
{

	if (holds)
		return;
	(void)fprintf(stderr, "played librbd: %s\n", what);
	abort();
}

static bool
exists(const struct cluster *cluster, const char *name)
{
	char path[2 * PATH];

	(void)snprintf(path, sizeof(path), "%s/%s", cluster->directory, name);
	return (access(path, F_OK) == 0);
}

/* Is this client in that file, or may it be empty, and is? */
static bool
is_in(const struct cluster *cluster, const char *name, bool or_empty)
{
	char line[128], path[2 * PATH];
	struct stat status;
	FILE *file;
	bool found;

	(void)snprintf(path, sizeof(path), "%s/%s", cluster->directory, name);
	file = fopen(path, "re");
	if (file == NULL)
		return (false);
	found = or_empty && fstat(fileno(file), &status) == 0 &&
	    status.st_size == 0;
	while (!found && fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		found = strcmp(line, cluster->address) == 0;
	}
	(void)fclose(file);
	return (found);
}

static bool
is_blocked(const struct cluster *cluster)
{

	return (is_in(cluster, "blocked", false));
}

/* librados */

int
rados_create(void **made, const char *id)
{
	struct cluster *cluster = calloc(1, sizeof(*cluster));

	must(cluster != NULL, "no memory");
	if (id != NULL && strcmp(id, "nobody") == 0)
		return (-EPERM);
	(void)snprintf(cluster->address, sizeof(cluster->address),
	    "played/%d/%u", (int)getpid(), atomic_fetch_add(&clients, 1));
	*made = cluster;
	return (0);
}

int
rados_conf_read_file(void *self, const char *path)
{
	struct cluster *cluster = self;
	char *slash;

	cluster->caches = true;
	if (path == NULL || access(path, R_OK) != 0)
		return (-ENOENT);
	(void)snprintf(cluster->directory, sizeof(cluster->directory), "%s",
	    path);
	slash = strrchr(cluster->directory, '/');
	must(slash != NULL, "the configuration's path is not absolute");
	*slash = '\0';
	return (0);
}

int
rados_conf_set(void *self, const char *option, const char *value)
{
	struct cluster *cluster = self;

	if (strcmp(option, "rbd_cache") == 0)
		cluster->caches = strcmp(value, "false") != 0;
	return (0);
}

int
rados_connect(void *self)
{

	return (exists(self, "closed") ? -ETIMEDOUT : 0);
}

void
rados_shutdown(void *self)
{

	free(self);
}

int
rados_cluster_fsid(void *self, char *text, size_t size)
{
	struct cluster *cluster = self;
	struct stat status;

	if (stat(cluster->directory, &status) != 0)
		return (-errno);
	return (snprintf(text, size, "%ju", (uintmax_t)status.st_ino));
}

int
rados_ioctx_create(void *self, const char *name, void **made)
{
	struct pool *pool;

	if (!exists(self, name))
		return (-ENOENT);
	pool = calloc(1, sizeof(*pool));
	must(pool != NULL, "no memory");
	pool->cluster = self;
	(void)snprintf(pool->name, sizeof(pool->name), "%s", name);
	*made = pool;
	return (0);
}

void
rados_ioctx_destroy(void *self)
{

	free(self);
}

void
rados_ioctx_set_namespace(void *self, const char *name)
{
	struct pool *pool = self;

	(void)snprintf(pool->space, sizeof(pool->space), "%s", name);
}

int64_t
rados_ioctx_get_id(void *self)
{
	struct pool *pool = self;

	return (pool->name[0]);
}

/* What is asked for, done by a thread. */

static bool
is_done(struct image *im, struct op *op)
{
	struct stat status;
	char *zeros;
	ssize_t n;

	op->result = is_blocked(im->pool->cluster) ? -ESHUTDOWN :
	    -atomic_load(&failures[op->kind]);
	if (op->result != 0)
		return (true);
	must(fstat(im->fd, &status) == 0, "its file cannot be looked at");
	n = 0;
	if (op->kind == 0) {
		n = pread(im->fd, op->data, op->length, (off_t)op->offset);
	} else if (op->kind != 2 &&
	    op->offset + op->length > (uint64_t)status.st_size) {
		op->result = -EINVAL;
		return (true);
	} else if (op->kind == 1) {
		n = pwrite(im->fd, op->data, op->length, (off_t)op->offset);
		n = n == (ssize_t)op->length ? 0 : -1;
	} else if (op->kind == 3) {
		zeros = calloc(1, op->length);
		must(zeros != NULL, "no memory");
		n = pwrite(im->fd, zeros, op->length, (off_t)op->offset);
		free(zeros);
		n = n == (ssize_t)op->length ? 0 : -1;
	}
	op->result = n < 0 ? -EIO : n;
	return (true);
}

/* Any of those that are wanted; locked. */
static struct op *
pick(struct image *im)
{
	struct op **at, *op;

	for (at = &im->wanted; (*at)->next != NULL; at = &(*at)->next) {
		im->chance = im->chance * 1103515245 + 12345;
		if ((im->chance & 0x10000) != 0)
			break;
	}
	op = *at;
	*at = op->next;
	return (op);
}

static void
wait_while_silent(const struct image *im)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	while (is_in(im->pool->cluster, "silent", true))
		(void)nanosleep(&ms, NULL);
}

static void *
work(void *self)
{
	const uint64_t one = 1;
	struct image *im = self;
	struct op *op;

	pthread_mutex_lock(&im->lock);
	for (;;) {
		while (im->wanted == NULL && !im->ends)
			pthread_cond_wait(&im->changed, &im->lock);
		if (im->wanted == NULL)
			break;
		pthread_mutex_unlock(&im->lock);
		wait_while_silent(im);
		pthread_mutex_lock(&im->lock);
		op = pick(im);
		pthread_mutex_unlock(&im->lock);
		(void)is_done(im, op);
		pthread_mutex_lock(&im->lock);
		op->next = im->come;
		im->come = op;
		(void)!write(im->notify, &one, sizeof(one));
	}
	pthread_mutex_unlock(&im->lock);
	return (NULL);
}

static int
ask(struct image *im, struct op *op, int kind, uint64_t offset, size_t length,
    char *data)
{

	if (im->read_only && (kind == 1 || kind == 3))
		return (-EROFS);
	if (atomic_load(&failures[kind]) < 0)
		return (atomic_load(&failures[kind]));
	op->kind = kind;
	op->offset = offset;
	op->length = length;
	op->data = data;
	pthread_mutex_lock(&im->lock);
	op->next = im->wanted;
	im->wanted = op;
	im->out++;
	pthread_cond_signal(&im->changed);
	pthread_mutex_unlock(&im->lock);
	return (0);
}

/* librbd */

static int
open_file(void *io, const char *name, void **made, const char *snapshot,
    bool read_only)
{
	struct image *im = calloc(1, sizeof(*im));
	struct pool *pool = io;
	bool in = pool->space[0] != '\0';

	must(im != NULL, "no memory");
	im->pool = pool;
	im->read_only = read_only || snapshot != NULL;
	(void)snprintf(im->path, sizeof(im->path),
	    "%.500s/%.200s/%.200s%s%.200s%s%.200s",
	    pool->cluster->directory, pool->name, in ? pool->space : "",
	    in ? "/" : "", name, snapshot != NULL ? "@" : "",
	    snapshot != NULL ? snapshot : "");
	im->fd = open(im->path,
	    (im->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (im->fd < 0) {
		free(im);
		return (-errno);
	}
	pthread_mutex_init(&im->lock, NULL);
	pthread_cond_init(&im->changed, NULL);
	im->notify = -1;
	must(pthread_create(&im->thread, NULL, work, im) == 0, "no thread");
	*made = im;
	return (0);
}

int
rbd_open(void *io, const char *name, void **made, const char *snapshot)
{

	return (open_file(io, name, made, snapshot, false));
}

int
rbd_open_read_only(void *io, const char *name, void **made,
    const char *snapshot)
{

	return (open_file(io, name, made, snapshot, true));
}

static void
lock_path(const struct image *im, char path[3 * PATH])
{

	(void)snprintf(path, 3 * PATH, "%s.lock", im->path);
}

int
rbd_close(void *self)
{
	struct image *im = self;
	char path[3 * PATH];

	pthread_mutex_lock(&im->lock);
	must(im->out == 0, "closed with something at the cluster");
	im->ends = true;
	pthread_cond_signal(&im->changed);
	pthread_mutex_unlock(&im->lock);
	pthread_join(im->thread, NULL);
	if (im->owner && !is_blocked(im->pool->cluster)) {
		lock_path(im, path);
		(void)unlink(path);
	}
	pthread_cond_destroy(&im->changed);
	pthread_mutex_destroy(&im->lock);
	(void)close(im->fd);
	free(im);
	return (0);
}

int
rbd_get_size(void *self, uint64_t *size)
{
	struct image *im = self;
	struct stat status;

	wait_while_silent(im);
	if (fstat(im->fd, &status) != 0)
		return (-errno);
	*size = (uint64_t)status.st_size;
	return (0);
}

int
rbd_get_features(void *self, uint64_t *features)
{
	struct image *im = self;

	*features = exists(im->pool->cluster, "plain") ? 1 : 1 | EXCLUSIVE_LOCK;
	return (0);
}

int
rbd_get_stripe_unit(void *self, uint64_t *size)
{

	(void)self;
	*size = 4 << 20;
	return (0);
}

int
rbd_get_id(void *self, char *id, size_t size)
{
	struct image *im = self;
	struct stat status;

	if (fstat(im->fd, &status) != 0)
		return (-errno);
	(void)snprintf(id, size, "%ju", (uintmax_t)status.st_ino);
	return (0);
}

int
rbd_config_image_list(void *self, struct option *options, int *count)
{
	struct image *im = self;

	must(*count > 1, "no room");
	options[0] = (struct option){ strdup("rbd_cache_size"), strdup("1"),
	    0 };
	options[1] = (struct option){ strdup("rbd_cache"),
	    strdup(im->pool->cluster->caches ||
	    exists(im->pool->cluster, "caches") ? "true" : "false"), 2 };
	*count = 2;
	return (0);
}

void
rbd_config_image_list_cleanup(struct option *options, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		free(options[i].name);
		free(options[i].value);
	}
}

static bool
read_owner(const struct image *im, char owner[64])
{
	char path[3 * PATH];
	FILE *file;

	lock_path(im, path);
	file = fopen(path, "re");
	if (file == NULL)
		return (false);
	must(fgets(owner, 64, file) != NULL, "a lock of nobody");
	(void)fclose(file);
	return (true);
}

int
rbd_lock_break(void *self, int mode, const char *owner)
{
	struct image *im = self;
	char has[64], path[3 * PATH];
	FILE *file;

	(void)mode;
	if (!read_owner(im, has) || strcmp(has, owner) != 0)
		return (-ENOENT);
	(void)snprintf(path, sizeof(path), "%s/blocked",
	    im->pool->cluster->directory);
	file = fopen(path, "ae");
	must(file != NULL, "nobody can be shut out");
	(void)fprintf(file, "%s\n", owner);
	(void)fclose(file);
	lock_path(im, path);
	(void)unlink(path);
	return (0);
}

static bool
lives(const char *owner)
{
	int pid;

	must(sscanf(owner, "played/%d/", &pid) == 1, "whose lock?");
	return (pid == (int)getpid() || kill(pid, 0) == 0);
}

int
rbd_lock_acquire(void *self, int mode)
{
	struct image *im = self;
	char has[64], path[3 * PATH];
	FILE *file;

	if (mode != 0 || im->read_only)
		return (-EINVAL);
	if (read_owner(im, has)) {
		if (lives(has))
			return (-EROFS);
		(void)rbd_lock_break(im, 0, has);
	}
	lock_path(im, path);
	file = fopen(path, "wxe");
	if (file == NULL)
		return (-EROFS);
	(void)fputs(im->pool->cluster->address, file);
	(void)fclose(file);
	im->owner = true;
	return (0);
}

int
rbd_lock_get_owners(void *self, int *mode, char **owners, size_t *count)
{
	char has[64];

	*mode = 0;
	*count = 0;
	if (read_owner(self, has)) {
		*count = 1;
		owners[0] = strdup(has);
	}
	return (0);
}

void
rbd_lock_get_owners_cleanup(char **owners, size_t count)
{

	if (count != 0)
		free(owners[0]);
}

int
rbd_set_image_notification(void *self, int fd, int type)
{
	struct image *im = self;

	must(type == 2, "it is not told by an eventfd");
	im->notify = fd;
	return (0);
}

int
rbd_poll_io_events(void *self, void **come, int count)
{
	struct image *im = self;
	int n;

	pthread_mutex_lock(&im->lock);
	for (n = 0; n < count && im->come != NULL; n++) {
		come[n] = im->come;
		im->come = im->come->next;
		im->out--;
	}
	pthread_mutex_unlock(&im->lock);
	return (n);
}

int
rbd_aio_create_completion(void *arg, void (*done)(void *, void *), void **made)
{
	struct op *op = calloc(1, sizeof(*op));

	must(op != NULL && done == NULL, "nobody is called here");
	op->arg = arg;
	*made = op;
	return (0);
}

void
rbd_aio_release(void *completion)
{

	free(completion);
}

void *
rbd_aio_get_arg(void *completion)
{
	struct op *op = completion;

	return (op->arg);
}

int64_t
rbd_aio_get_return_value(void *completion)
{
	struct op *op = completion;

	return (op->result);
}

int
rbd_aio_read(void *self, uint64_t offset, size_t length, char *to,
    void *completion)
{

	return (ask(self, completion, 0, offset, length, to));
}

int
rbd_aio_write(void *self, uint64_t offset, size_t length, const char *from,
    void *completion)
{

	return (ask(self, completion, 1, offset, length,
	    (char *)(uintptr_t)from));
}

int
rbd_aio_write_zeroes(void *self, uint64_t offset, size_t length,
    void *completion, int zero_flags, int op_flags)
{

	must(zero_flags == 0 && op_flags == 0, "unknown flags");
	return (ask(self, completion, 3, offset, length, NULL));
}

int
rbd_aio_flush(void *self, void *completion)
{

	return (ask(self, completion, 2, 0, 0, NULL));
}
