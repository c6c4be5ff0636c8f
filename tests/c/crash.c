/*
 * crash.c - the death of the process before a store of the protocol that whoever
 * comes next goes by (xbb_may_die() of internal.h), so many stores from now.
 * The counts are in memory that forked processes share.  Any thread.
 */
#include <sys/mman.h>

#include <signal.h>
#include <unistd.h>

#include "harness.h"

struct crash *crash;

/* Nobody dies before somebody says when. */
void
crash_prepare(void)
{

	crash = mmap(NULL, sizeof(*crash), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANON, -1, 0);
	CHECK(crash != MAP_FAILED);
	atomic_store(&crash->left, -1);
}

void
xbb_may_die(void)
{

	if (crash == NULL)
		return;
	atomic_fetch_add(&crash->passed, 1);
	if (atomic_load(&crash->left) >= 0 &&
	    atomic_fetch_sub(&crash->left, 1) == 0)
		kill(getpid(), SIGKILL);
}
