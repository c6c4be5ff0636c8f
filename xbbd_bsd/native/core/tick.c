/*
 * tick.c - ends the sleep of rings, within a second, that wait in a way that
 * knows of no time (rest.c): one thread for all of the process, which is there
 * for as long as any of them may need it.  Any thread asks for it.
 */
#include <time.h>

#include "core/core.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond;		/* the next four have changed */
static LIST_HEAD(, xbb_rest) waiting = LIST_HEAD_INITIALIZER(waiting);
static bool runs;			/* the thread, until it is joined */
static bool ends;			/* it shall, and somebody joins it */
static pthread_t thread;

static void
make_cond(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* All that wait.  Under the lock, as long as which no ring is closed. */
static void
wake_all(void)
{
	struct xbb_rest *rest;

	while ((rest = LIST_FIRST(&waiting)) != NULL) {
		LIST_REMOVE(rest, tick);
		/* One that sleeps from now on finds that it must ask again. */
		atomic_store(&rest->ticks, false);
		xbb_kick(rest);
	}
}

static void *
tick_main(void *arg)
{
	struct timespec at;

	xbb_thread_is("xbbd tick");
	pthread_mutex_lock(&lock);
	while (!ends) {
		if (LIST_EMPTY(&waiting)) {
			pthread_cond_wait(&cond, &lock);
			continue;
		}
		clock_gettime(CLOCK_MONOTONIC, &at);
		at.tv_sec += XBB_TICK_MS / 1000;
		while (!ends && pthread_cond_timedwait(&cond, &lock, &at) == 0)
			;
		wake_all();
	}
	pthread_mutex_unlock(&lock);
	return (arg);
}

/* Is there such a thread, or why not?  Under the lock. */
static int
have_thread(void)
{
	int error;

	while (ends)
		pthread_cond_wait(&cond, &lock);
	error = runs ? 0 : xbb_thread_start(&thread, tick_main, NULL);
	runs = error == 0;
	return (error);
}

/*
 * Have a sleep that rest->sleeping says of already ended within XBB_TICK_MS,
 * unless it was asked for since the last.  False if nobody will.  Ring thread.
 */
bool
xbb_tick_ask(struct xbb_rest *rest)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int error;

	if (atomic_load(&rest->ticks))
		return (true);
	(void)pthread_once(&once, make_cond);
	pthread_mutex_lock(&lock);
	error = have_thread();
	if (error == 0) {
		atomic_store(&rest->ticks, true);
		if (LIST_EMPTY(&waiting))
			pthread_cond_broadcast(&cond);
		LIST_INSERT_HEAD(&waiting, rest, tick);
	}
	pthread_mutex_unlock(&lock);
	xbb_budget_lacked(error);
	return (error == 0);
}

/* A ring goes; with the last that waits the thread does.  Whoever closes it. */
void
xbb_tick_leave(struct xbb_rest *rest)
{

	pthread_mutex_lock(&lock);
	if (atomic_load(&rest->ticks))
		LIST_REMOVE(rest, tick);
	atomic_store(&rest->ticks, false);
	if (runs && !ends && LIST_EMPTY(&waiting)) {
		ends = true;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&lock);
		pthread_join(thread, NULL);
		pthread_mutex_lock(&lock);
		runs = ends = false;
		pthread_cond_broadcast(&cond);
	}
	pthread_mutex_unlock(&lock);
}
