/*
 * workers.c - the pool of I/O threads of a ring, and the bound of all pools.
 * Threads are made when there is more to do than those that exist can take, so
 * an idle ring costs none.  The ring's thread submits, wakes and takes a share
 * itself; workers only take, and the family does what there is to do.
 *
 * A ring is sure of its first worker: whoever opens rings counts those.  What
 * all of them have beyond it is bounded here.
 */
#include <sys/mman.h>

#include "core/core.h"

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
unuse_bound(uint32_t threads, uint64_t bytes)
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
 * May a ring that has so many beyond its first make one more?  The more it has
 * the more must be left for others, so that no ring finds nothing.
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
take_worker(uint32_t having, uint64_t bytes)
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
xbb_pool_init(struct xbb_pool *pool, struct xbb_conn *conn)
{
	int error;

	pool->conn = conn;
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
	struct xbb_pool *pool = arg;
	const struct xbb_conn *conn = pool->conn;
	struct xbb_work *work;
	uint32_t self;

	pthread_mutex_lock(&pool->lock);
	self = ++pool->begun;
	pthread_mutex_unlock(&pool->lock);
	xbb_thread_is("%s%u io%u.%u", conn->family->driver, conn->params->unit,
	    conn->params->ring, self);
	pthread_mutex_lock(&pool->lock);
	pool->waking--;
	for (;;) {
		work = xbb_work_take(&pool->run);
		if (work != NULL) {
			pthread_mutex_unlock(&pool->lock);
			conn->family->work(conn->self, work, self);
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

/* Make work available to whoever takes it first. */
void
xbb_pool_submit(struct xbb_pool *pool, struct xbb_work *work)
{

	pthread_mutex_lock(&pool->lock);
	xbb_work_put(&pool->run, work);
	pthread_mutex_unlock(&pool->lock);
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
make_worker(struct xbb_pool *pool)
{
	const uint32_t n = pool->nthreads;

	if (n > 0 && !take_worker(n - 1, pool->buffer_size))
		return (false);
	if (pool->buffer_size != 0)
		pool->buffer[n] = make_buffer(pool->buffer_size);
	if ((pool->buffer_size == 0 || pool->buffer[n] != NULL) &&
	    xbb_thread_start(&pool->thread[n], worker_main, pool) == 0) {
		pool->nthreads++;
		return (true);
	}
	free_buffer(pool, n);
	if (n > 0)
		unuse_bound(1, pool->buffer_size);
	atomic_fetch_add(&failed, 1);
	return (false);
}

/* Say once to whoever looks after the ring that it would want more threads. */
static void
tell_shortage(struct xbb_pool *pool)
{

	if (pool->short_of_threads)
		return;
	pool->short_of_threads = true;
	xbb_conn_tell(pool->conn);
}

/*
 * See to it that a worker is on its way for all there is in the run queue,
 * making new ones where too few are idle.  If a thread cannot be made the
 * others do the work; with none at all the ring's thread does.
 */
void
xbb_pool_wake(struct xbb_pool *pool)
{
	bool enough;

	enough = true;
	pthread_mutex_lock(&pool->lock);
	while (pool->waking < pool->run.count) {
		if (pool->idle > 0) {
			pool->idle--;
			pool->tokens++;
			pthread_cond_signal(&pool->cond);
		} else if (pool->nthreads == pool->conn->params->workers)
			break;
		else if (!make_worker(pool)) {
			enough = false;
			break;
		}
		pool->waking++;
	}
	pthread_mutex_unlock(&pool->lock);
	if (!enough)
		tell_shortage(pool);
}

struct xbb_work *
xbb_pool_take(struct xbb_pool *pool)
{
	struct xbb_work *work;

	pthread_mutex_lock(&pool->lock);
	work = xbb_work_take(&pool->run);
	pthread_mutex_unlock(&pool->lock);
	return (work);
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
		unuse_bound(pool->nthreads - 1,
		    (pool->nthreads - 1) * pool->buffer_size);
	pthread_cond_destroy(&pool->cond);
	pthread_mutex_destroy(&pool->lock);
}
