/*
 * thread.c - the clocks, and threads as the data plane wants them.  Any thread.
 */
#include <sys/resource.h>

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "core/core.h"

uint64_t
xbb_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

/* Since 1970, as people count. */
uint64_t
xbb_wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

/* Processor time of the calling thread. */
uint64_t
xbb_thread_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

/*
 * How often the calling thread gave its processor up to wait for something:
 * not those times when it was taken away.
 */
uint64_t
xbb_thread_sleeps(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return ((uint64_t)usage.ru_nvcsw);
}

/*
 * A thread that no signal reaches: those belong to the control plane.  But for
 * a fault, which kills if it is blocked, whoever handles it (mapping.c), and
 * for what ends a wait (kick.c).
 */
int
xbb_thread_start(pthread_t *thread, void *(*main)(void *), void *arg)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, XBB_WAIT_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	error = pthread_create(thread, NULL, main, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return (-error);
}

/* Names the calling thread, whatever fits of it. */
void
xbb_thread_is(const char *format, ...)
{
	char name[32];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(name, sizeof(name), format, ap);
	va_end(ap);
	xbb_thread_name(name);
}
