/*
 * played_rados.c - a librados without a cluster: clients, pools, and the files
 * beside the configuration that say how the cluster is (played.h).
 */
#include <sys/stat.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "played.h"

static atomic_uint clients;

void
played_must(bool holds, const char *what)
{

	if (holds)
		return;
	(void)fprintf(stderr, "played librbd: %s\n", what);
	abort();
}

bool
played_exists(const struct cluster *cluster, const char *name)
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

bool
played_is_silent(const struct cluster *cluster)
{

	return (is_in(cluster, "silent", true));
}

bool
played_is_blocked(const struct cluster *cluster)
{

	return (is_in(cluster, "blocked", false));
}

/* librados */

int
rados_create(void **made, const char *id)
{
	struct cluster *cluster;

	if (id != NULL && strcmp(id, "nobody") == 0)
		return (-EPERM);
	cluster = calloc(1, sizeof(*cluster));
	played_must(cluster != NULL, "no memory");
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
	played_must(slash != NULL, "the configuration's path is not absolute");
	*slash = '\0';
	return (0);
}

/* As of Ceph 15, which does not have all that later ones have. */
int
rados_conf_set(void *self, const char *option, const char *value)
{
	static const char *const others[] = {
		"log_to_stderr", "err_to_stderr", "client_mount_timeout",
		"rados_mon_op_timeout",
	};
	struct cluster *cluster = self;
	size_t i;

	if (strcmp(option, "rbd_cache") == 0) {
		cluster->caches = strcmp(value, "false") != 0;
		return (0);
	}
	if (strcmp(option, "keyring") == 0) {
		cluster->keyless = access(value, R_OK) != 0;
		return (0);
	}
	for (i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(option, others[i]) == 0)
			return (0);
	return (-ENOENT);
}

int
rados_connect(void *self)
{
	const struct cluster *cluster = self;

	if (cluster->keyless)
		return (-ENOENT);
	return (played_exists(cluster, "closed") ? -ETIMEDOUT : 0);
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

	if (!played_exists(self, name))
		return (-ENOENT);
	pool = calloc(1, sizeof(*pool));
	played_must(pool != NULL, "no memory");
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
