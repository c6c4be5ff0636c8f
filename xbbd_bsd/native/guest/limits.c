/*
 * limits.c - how much the process of a guest may have, where it runs, whose it
 * is, and that it finds no files; the same on all systems.  What it may do is
 * confine_*.c's.  The only thread, before all others, which inherit all this.
 */
#include <sys/resource.h>

#include <grp.h>
#include <stdlib.h>
#include <unistd.h>

#include "guest/guest.h"

static struct rlimit
limit_of(uint64_t most)
{

	return ((struct rlimit){
		.rlim_cur = (rlim_t)most, .rlim_max = (rlim_t)most,
	});
}

static int
limit_resources(const struct xbb_guest_params *params)
{
	const struct rlimit core = limit_of(0);
	const struct rlimit files = limit_of(params->descriptors);
	const struct rlimit space = limit_of(params->address_space);

	/* What it had in memory is its guest's. */
	if (setrlimit(RLIMIT_CORE, &core) != 0 ||
	    (params->descriptors != 0 &&
	    setrlimit(RLIMIT_NOFILE, &files) != 0) ||
	    (params->address_space != 0 &&
	    setrlimit(RLIMIT_AS, &space) != 0))
		return (-errno);
	return (0);
}

/* None that is named: it runs wherever its server does. */
static int
limit_cpus(const uint64_t *cpus)
{
	size_t i;

	for (i = 0; i < XBB_GUEST_CPU_WORDS; i++)
		if (cpus[i] != 0)
			return (xbb_process_cpus(cpus));
	return (0);
}

/*
 * Whatever is still found by a path is found in a directory that is empty, and
 * removed: a filter of system calls sees no paths, and lets a few pass that
 * have one.  A second line: only root can do that, and where nothing can be
 * written it goes without.
 */
static void
hide_files(void)
{
	char directory[] = "/tmp/xbbd.XXXXXX";
	bool inside;

	if (geteuid() != 0 || mkdtemp(directory) == NULL)
		return;
	inside = chdir(directory) == 0;
	(void)rmdir(directory);
	if (inside && chroot(".") != 0)
		(void)chdir("/");
}

static int
change_user(const struct xbb_guest_params *params)
{

	if (params->uid == XBB_GUEST_STAY)
		return (0);
	if (setgroups(0, NULL) != 0 ||
	    setresgid(params->gid, params->gid, params->gid) != 0 ||
	    setresuid(params->uid, params->uid, params->uid) != 0)
		return (-errno);
	return (0);
}

int
xbb_limit(const struct xbb_guest_params *params)
{
	int error;

	error = limit_resources(params);
	if (error == 0)
		error = limit_cpus(params->cpus);
	if (error == 0 && params->cpu_percent != 0)
		error = xbb_process_quota(params);
	if (params->confined)
		hide_files();
	return (error != 0 ? error : change_user(params));
}
