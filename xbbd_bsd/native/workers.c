/*
 * workers.c - the pool of I/O threads of a queue.  Threads are made when there
 * is more to do than those that exist can take, so an idle disk costs none.
 * The ring thread submits, wakes and takes a share itself; workers only take.
 */
#include <assert.h>

#include "internal.h"

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

	xbb_thread_name("xbb io");
	pthread_mutex_lock(&pool->lock);
	self = ++pool->begun;
	pool->waking--;
	for (;;) {
		batch = xbb_batch_list_take(&pool->run);
		if (batch != NULL) {
			pthread_mutex_unlock(&pool->lock);
			q->sleeps[self] = xbb_thread_sleeps();
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

/*
 * See to it that a worker is on its way for every batch in the run queue,
 * making new ones where too few are idle.  If a thread cannot be made the
 * others do the work; with none at all the ring thread does.
 */
void
xbb_pool_wake(struct xbb_queue *q)
{
	struct xbb_pool *pool = &q->pool;

	pthread_mutex_lock(&pool->lock);
	while (pool->waking < pool->run.count) {
		if (pool->idle > 0) {
			pool->idle--;
			pool->tokens++;
			pthread_cond_signal(&pool->cond);
		} else if (pool->nthreads == q->params.workers ||
		    xbb_thread_start(&pool->thread[pool->nthreads],
		    worker_main, q) != 0)
			break;
		else
			pool->nthreads++;
		pool->waking++;
	}
	pthread_mutex_unlock(&pool->lock);
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
	for (i = 0; i < pool->nthreads; i++)
		pthread_join(pool->thread[i], NULL);
	pthread_cond_destroy(&pool->cond);
	pthread_mutex_destroy(&pool->lock);
}
