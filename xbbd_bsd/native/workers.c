/*
 * workers.c - the pool of I/O threads of a queue, and the bound of all pools.
 * Threads are made when there is more to do than those that exist can take, so
 * an idle disk costs none.  The ring thread submits, wakes and takes a share
 * itself; workers only take.
 *
 * A queue is sure of its first worker: whoever opens queues counts those.  What
 * all of them have beyond it is bounded here.
 */
#include <sys/mman.h>

#include <assert.h>
#include <unistd.h>

#include "internal.h"

static atomic_uint bound_threads = UINT32_MAX, used_threads;
static _Atomic(uint64_t) bound_bytes = UINT64_MAX, used_bytes;
static _Atomic(uint64_t) over_bound, failed;

void
xbb_io_use(struct xbb_io_use *use)
{

	use->threads = atomic_load(&used_threads);
	use->bytes = atomic_load(&used_bytes);
	use->over_bound = atomic_load(&over_bound);
	use->failed = atomic_load(&failed);
}

void
xbb_io_bound(uint32_t threads, uint64_t bytes, struct xbb_io_use *use)
{

	atomic_store(&bound_threads, threads);
	atomic_store(&bound_bytes, bytes);
	xbb_io_use(use);
}

static void
give_back(uint32_t threads, uint64_t bytes)
{

	atomic_fetch_sub(&used_threads, threads);
	atomic_fetch_sub(&used_bytes, bytes);
}

/* Take bytes unless that goes beyond the bound. */
static bool
take_bytes(uint64_t bytes)
{
	uint64_t used = atomic_load(&used_bytes);

	do
		if (used + bytes > atomic_load(&bound_bytes))
			return (false);
	while (!atomic_compare_exchange_weak(&used_bytes, &used,
	    used + bytes));
	return (true);
}

/*
 * May a queue that has so many beyond its first make one more?  The more it has
 * the more must be left for others, so that no queue finds nothing.
 */
static bool
take_thread(uint32_t having)
{
	unsigned int used = atomic_load(&used_threads);

	do
		if ((uint64_t)used + 1 + having > atomic_load(&bound_threads))
			return (false);
	while (!atomic_compare_exchange_weak(&used_threads, &used, used + 1));
	return (true);
}

static bool
take(uint32_t having, uint64_t bytes)
{

	if (take_bytes(bytes)) {
		if (take_thread(having))
			return (true);
		atomic_fetch_sub(&used_bytes, bytes);
	}
	atomic_fetch_add(&over_bound, 1);
	return (false);
}

int
xbb_pool_init(struct xbb_pool *pool)
{
	int error;

	error = pthread_mutex_init(&pool->lock, NULL);
	if (error == 0) {
		error = pthread_cond_init(&pool->cond, NULL);
		if (error != 0)
			pthread_mutex_destroy(&pool->lock);
	}
	return (-error);
}

static void *
worker_main(void *arg)
{
	struct xbb_queue *q = arg;
	struct xbb_pool *pool = &q->pool;
	struct xbb_batch *batch;
	uint32_t self;

	pthread_mutex_lock(&pool->lock);
	self = ++pool->begun;
	pthread_mutex_unlock(&pool->lock);
	xbb_thread_is("xbbd%u io%u.%u", q->params.unit, q->params.ring, self);
	pthread_mutex_lock(&pool->lock);
	pool->waking--;
	for (;;) {
		batch = xbb_batch_list_take(&pool->run);
		if (batch != NULL) {
			pthread_mutex_unlock(&pool->lock);
			xbb_slept_elsewhere(q, self);
			(void)xbb_batch_run(q, batch, self);
			xbb_queue_done(q, batch);
			pthread_mutex_lock(&pool->lock);
			continue;
		}
		if (pool->stop)
			break;
		pool->idle++;
		while (pool->tokens == 0 && !pool->stop)
			pthread_cond_wait(&pool->cond, &pool->lock);
		if (pool->tokens > 0) {
			pool->tokens--;
			pool->waking--;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return (NULL);
}

/* Make the batch available to whoever takes it first. */
void
xbb_pool_submit(struct xbb_queue *q, struct xbb_batch *batch)
{

	pthread_mutex_lock(&q->pool.lock);
	xbb_batch_list_put(&q->pool.run, batch);
	pthread_mutex_unlock(&q->pool.lock);
}

static uint8_t *
make_buffer(size_t size)
{
	void *base;

	base = mmap(NULL, size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANON, -1, 0);
	return (base != MAP_FAILED ? base : NULL);
}

static void
free_buffer(struct xbb_pool *pool, uint32_t n)
{

	if (pool->buffer[n] != NULL)
		munmap(pool->buffer[n], pool->buffer_size);
	pool->buffer[n] = NULL;
}

/* One more, with its buffer; false if there is none to be had. */
static bool
make_worker(struct xbb_queue *q)
{
	struct xbb_pool *pool = &q->pool;
	const uint32_t n = pool->nthreads;

	if (n > 0 && !take(n - 1, pool->buffer_size))
		return (false);
	if (pool->buffer_size != 0)
		pool->buffer[n] = make_buffer(pool->buffer_size);
	if ((pool->buffer_size == 0 || pool->buffer[n] != NULL) &&
	    xbb_thread_start(&pool->thread[n], worker_main, q) == 0) {
		pool->nthreads++;
		return (true);
	}
	free_buffer(pool, n);
	if (n > 0)
		give_back(1, pool->buffer_size);
	atomic_fetch_add(&failed, 1);
	return (false);
}

/* Say once to whoever looks after the queue that it would want more threads. */
static void
tell_shortage(struct xbb_queue *q)
{
	ssize_t n;

	if (q->pool.short_of_threads)
		return;
	q->pool.short_of_threads = true;
	do
		n = write(q->params.wake_fd, "", 1);
	while (n < 0 && errno == EINTR);
}

/*
 * See to it that a worker is on its way for every batch in the run queue,
 * making new ones where too few are idle.  If a thread cannot be made the
 * others do the work; with none at all the ring thread does.
 */
void
xbb_pool_wake(struct xbb_queue *q)
{
	struct xbb_pool *pool = &q->pool;
	bool enough;

	enough = true;
	pthread_mutex_lock(&pool->lock);
	while (pool->waking < pool->run.count) {
		if (pool->idle > 0) {
			pool->idle--;
			pool->tokens++;
			pthread_cond_signal(&pool->cond);
		} else if (pool->nthreads == q->params.workers)
			break;
		else if (!make_worker(q)) {
			enough = false;
			break;
		}
		pool->waking++;
	}
	pthread_mutex_unlock(&pool->lock);
	if (!enough)
		tell_shortage(q);
}

struct xbb_batch *
xbb_pool_take(struct xbb_pool *pool)
{
	struct xbb_batch *batch;

	pthread_mutex_lock(&pool->lock);
	batch = xbb_batch_list_take(&pool->run);
	pthread_mutex_unlock(&pool->lock);
	return (batch);
}

/* End all workers; the run queue must be empty or no longer wanted. */
void
xbb_pool_stop(struct xbb_pool *pool)
{
	uint32_t i;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->cond);
	pthread_mutex_unlock(&pool->lock);
	for (i = 0; i < pool->nthreads; i++) {
		pthread_join(pool->thread[i], NULL);
		free_buffer(pool, i);
	}
	if (pool->nthreads > 1)
		give_back(pool->nthreads - 1,
		    (pool->nthreads - 1) * pool->buffer_size);
	pthread_cond_destroy(&pool->cond);
	pthread_mutex_destroy(&pool->lock);
}
