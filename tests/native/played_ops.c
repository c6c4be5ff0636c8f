/*
 * played_ops.c - what images of a cluster that is played are asked for: carried
 * out by a thread of each, in any order, as a cluster may.  played_fail() has
 * all of a kind fail in this process, or refused, if its errno is negative.
 */
#include <sys/stat.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "played.h"

#define KINDS	4		/* read, write, flush, zeroes */

static atomic_int failures[KINDS];

struct op {
	struct op	*next;
	void		*arg;
	int		 kind;
	uint64_t	 offset;
	size_t		 length;
	char		*data;
	int64_t		 result;
};

void
played_fail(int kind, int errnum)
{

	atomic_store(&failures[kind], errnum);
}

static void
carry_out(const struct image *im, struct op *op)
{
	struct stat status;
	char *zeros;
	ssize_t n;

	op->result = played_is_blocked(im->pool->cluster) ? -ESHUTDOWN :
	    -atomic_load(&failures[op->kind]);
	if (op->result != 0)
		return;
	played_must(fstat(im->fd, &status) == 0, "its file is not looked at");
	n = 0;
	if (op->kind == 0) {
		n = pread(im->fd, op->data, op->length, (off_t)op->offset);
	} else if (op->kind != 2 &&
	    op->offset + op->length > (uint64_t)status.st_size) {
		op->result = -EINVAL;
		return;
	} else if (op->kind == 1) {
		n = pwrite(im->fd, op->data, op->length, (off_t)op->offset);
		n = n == (ssize_t)op->length ? 0 : -1;
	} else if (op->kind == 3) {
		zeros = calloc(1, op->length);
		played_must(zeros != NULL, "no memory");
		n = pwrite(im->fd, zeros, op->length, (off_t)op->offset);
		free(zeros);
		n = n == (ssize_t)op->length ? 0 : -1;
	}
	op->result = n < 0 ? -EIO : n;
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

void
played_wait_while_silent(const struct image *im)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	while (played_is_silent(im->pool->cluster))
		(void)nanosleep(&ms, NULL);
}

void *
played_work(void *self)
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
		played_wait_while_silent(im);
		pthread_mutex_lock(&im->lock);
		op = pick(im);
		pthread_mutex_unlock(&im->lock);
		carry_out(im, op);
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

	played_must(op != NULL && done == NULL, "nobody is called here");
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

	played_must(zero_flags == 0 && op_flags == 0, "unknown flags");
	return (ask(self, completion, 3, offset, length, NULL));
}

int
rbd_aio_flush(void *self, void *completion)
{

	return (ask(self, completion, 2, 0, 0, NULL));
}
