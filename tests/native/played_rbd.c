/*
 * played_rbd.c - a librbd without a cluster (played.h): images, from opening to
 * close, and who has the lock of one.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "played.h"

#define EXCLUSIVE_LOCK	((uint64_t)1 << 2)

struct option {
	char	*name;
	char	*value;
	int	 source;
};

static int
open_file(void *io, const char *name, void **made, const char *snapshot,
    bool read_only)
{
	struct image *im = calloc(1, sizeof(*im));
	struct pool *pool = io;
	bool in = pool->space[0] != '\0';
	int error;

	played_must(im != NULL, "no memory");
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
		error = -errno;
		free(im);
		return (error);
	}
	pthread_mutex_init(&im->lock, NULL);
	pthread_cond_init(&im->changed, NULL);
	im->notify = -1;
	played_must(pthread_create(&im->thread, NULL, played_work, im) == 0,
	    "no thread");
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
	played_must(im->out == 0, "closed with something at the cluster");
	im->ends = true;
	pthread_cond_signal(&im->changed);
	pthread_mutex_unlock(&im->lock);
	pthread_join(im->thread, NULL);
	if (im->owner && !played_is_blocked(im->pool->cluster)) {
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

	played_wait_while_silent(im);
	if (fstat(im->fd, &status) != 0)
		return (-errno);
	*size = (uint64_t)status.st_size;
	return (0);
}

int
rbd_get_features(void *self, uint64_t *features)
{
	struct image *im = self;

	*features = 1;
	if (!played_exists(im->pool->cluster, "plain"))
		*features |= EXCLUSIVE_LOCK;
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

	played_must(*count > 1, "no room");
	options[0] = (struct option){ strdup("rbd_cache_size"), strdup("1"),
	    0 };
	options[1] = (struct option){ strdup("rbd_cache"),
	    strdup(im->pool->cluster->caches ||
	    played_exists(im->pool->cluster, "caches") ? "true" : "false"), 2 };
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
	played_must(fgets(owner, 64, file) != NULL, "a lock of nobody");
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
	played_must(file != NULL, "nobody can be shut out");
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

	played_must(sscanf(owner, "played/%d/", &pid) == 1, "whose lock?");
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

	played_must(type == 2, "it is not told by an eventfd");
	im->notify = fd;
	return (0);
}
