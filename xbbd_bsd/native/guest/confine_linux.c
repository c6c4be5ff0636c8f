/*
 * confine_linux.c - what Linux leaves the process of a guest: the system calls
 * that a ring needs, by seccomp(2), and none that opens a file, makes a socket
 * or a process, or sees another one.  What is not on the list fails with EPERM
 * and kills nobody: a call that a new libc tries first is no reason to stop a
 * disk.  Knows no device.  The only thread, before all others.
 *
 * Whoever holds a grant device may still map what any guest has granted to this
 * domain: that is Xen's to judge, and no list of calls narrows it.
 */
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "guest/guest.h"

#if defined(__x86_64__)
#define ARCHITECTURE	AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE	AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE	0		/* nobody has read its list */
#endif

/* Where seccomp_data has them; arguments by their lower half. */
#define AT_CALL		offsetof(struct seccomp_data, nr)
#define AT_ARCH		offsetof(struct seccomp_data, arch)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define AT_ARG(n)	(offsetof(struct seccomp_data, args) + 8 * (n))
#else
#define AT_ARG(n)	(offsetof(struct seccomp_data, args) + 8 * (n) + 4)
#endif

#define MOST_STEPS	512
#define ANY		(-1)
#define ALL		0xffffffff
#define NEGATIVE	0x80000000	/* AT_FDCWD, as others that are none */

/* A call that is allowed, if an argument has such bits. */
struct rule {
	long		call;
	int		arg;		/* which, or ANY */
	uint32_t	mask;
	uint32_t	bits;
};

/* Those of each request first: the list is gone through in order. */
static const struct rule rules[] = {
	{ SYS_preadv, ANY, 0, 0 },
	{ SYS_pwritev, ANY, 0, 0 },
	{ SYS_futex, ANY, 0, 0 },
	{ SYS_read, ANY, 0, 0 },
	{ SYS_write, ANY, 0, 0 },
	{ SYS_writev, ANY, 0, 0 },
#ifdef SYS_poll
	{ SYS_poll, ANY, 0, 0 },
#endif
	{ SYS_ppoll, ANY, 0, 0 },
	{ SYS_munmap, ANY, 0, 0 },
	{ SYS_mmap, 2, PROT_EXEC, 0 },
	{ SYS_getrusage, ANY, 0, 0 },
	{ SYS_lseek, ANY, 0, 0 },
	{ SYS_fdatasync, ANY, 0, 0 },
	{ SYS_fallocate, ANY, 0, 0 },
	{ SYS_pread64, ANY, 0, 0 },
	{ SYS_pwrite64, ANY, 0, 0 },
	{ SYS_recvfrom, ANY, 0, 0 },
	{ SYS_sendto, ANY, 0, 0 },
	/* The daemon, and its messages. */
	{ SYS_recvmsg, ANY, 0, 0 },
	{ SYS_sendmsg, ANY, 0, 0 },
	{ SYS_accept, ANY, 0, 0 },
	{ SYS_accept4, ANY, 0, 0 },
	{ SYS_getsockopt, ANY, 0, 0 },
	/* Descriptors that there are. */
	{ SYS_close, ANY, 0, 0 },
	{ SYS_eventfd2, ANY, 0, 0 },
	{ SYS_flock, ANY, 0, 0 },
	{ SYS_fstat, ANY, 0, 0 },
	{ SYS_newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH },
	{ SYS_fcntl, 1, ALL, F_GETFD },
	{ SYS_fcntl, 1, ALL, F_SETFD },
	{ SYS_fcntl, 1, ALL, F_GETFL },
	{ SYS_fcntl, 1, ALL, F_SETFL },
	{ SYS_fcntl, 1, ALL, F_DUPFD_CLOEXEC },
	/* Memory and threads. */
	{ SYS_mprotect, 2, PROT_EXEC, 0 },
	{ SYS_mremap, ANY, 0, 0 },
	{ SYS_madvise, ANY, 0, 0 },
	{ SYS_brk, ANY, 0, 0 },
	{ SYS_clone, 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM },
	{ SYS_set_robust_list, ANY, 0, 0 },
#ifdef SYS_rseq
	{ SYS_rseq, ANY, 0, 0 },
#endif
	{ SYS_exit, ANY, 0, 0 },
	{ SYS_exit_group, ANY, 0, 0 },
	{ SYS_gettid, ANY, 0, 0 },
	{ SYS_getpid, ANY, 0, 0 },
	{ SYS_prctl, 0, ALL, PR_SET_NAME },
	{ SYS_sched_yield, ANY, 0, 0 },
	{ SYS_sched_getaffinity, ANY, 0, 0 },
	{ SYS_getrandom, ANY, 0, 0 },
	/* Signals of its own, and the time. */
	{ SYS_rt_sigaction, ANY, 0, 0 },
	{ SYS_rt_sigprocmask, ANY, 0, 0 },
	{ SYS_rt_sigreturn, ANY, 0, 0 },
	{ SYS_restart_syscall, ANY, 0, 0 },
	{ SYS_clock_gettime, ANY, 0, 0 },
	{ SYS_clock_nanosleep, ANY, 0, 0 },
	{ SYS_nanosleep, ANY, 0, 0 },
};

/*
 * For a filling that opens files: by a directory that it has, as far as a
 * filter can see that, which does not see paths (limits.c hides what they lead
 * to).
 */
static const struct rule file_rules[] = {
	{ SYS_openat, 0, NEGATIVE, 0 },
	{ SYS_unlinkat, 0, NEGATIVE, 0 },
#ifdef SYS_renameat
	{ SYS_renameat, 0, NEGATIVE, 0 },
#endif
	{ SYS_renameat2, 0, NEGATIVE, 0 },
	{ SYS_ftruncate, ANY, 0, 0 },
};

struct filter {
	struct sock_filter step[MOST_STEPS];
	unsigned short	 nsteps;
};

static void
put_step(struct filter *f, uint16_t code, uint8_t yes, uint8_t no, uint32_t k)
{

	if (f->nsteps < MOST_STEPS)
		f->step[f->nsteps] = (struct sock_filter){ code, yes, no, k };
	f->nsteps++;
}

static void
put_load(struct filter *f, uint32_t at)
{

	put_step(f, BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
}

static void
put_verdict(struct filter *f, uint32_t verdict)
{

	put_step(f, BPF_RET | BPF_K, 0, 0, verdict);
}

/* Before and after it the accumulator has the call's number. */
static void
put_rule(struct filter *f, const struct rule *rule)
{

	if (rule->arg == ANY) {
		put_step(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1,
		    (uint32_t)rule->call);
		put_verdict(f, SECCOMP_RET_ALLOW);
		return;
	}
	put_step(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 5, (uint32_t)rule->call);
	put_load(f, AT_ARG((uint32_t)rule->arg));
	put_step(f, BPF_ALU | BPF_AND | BPF_K, 0, 0, rule->mask);
	put_step(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, rule->bits);
	put_verdict(f, SECCOMP_RET_ALLOW);
	put_load(f, AT_CALL);
}

static void
put_ioctls(struct filter *f, const unsigned long *ioctls)
{

	for (; ioctls != NULL && *ioctls != 0; ioctls++)
		put_rule(f, &(const struct rule){
			SYS_ioctl, 1, ALL, (uint32_t)*ioctls,
		});
}

static void
put_rules(struct filter *f, const struct rule *rule, size_t n)
{

	for (; n > 0; n--, rule++)
		put_rule(f, rule);
}

/*
 * What a call of another architecture would mean is not looked at.  clone3(2)
 * keeps its flags where no filter sees them; libc makes threads by clone(2)
 * where there is none.  Signals go to this process alone, as abort(3) sends it.
 */
static void
put_filter(struct filter *f, const struct xbb_hv_ops *ops)
{

	put_load(f, AT_ARCH);
	put_step(f, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCHITECTURE);
	put_verdict(f, SECCOMP_RET_KILL_PROCESS);
	put_load(f, AT_CALL);
	put_ioctls(f, ops->grant_ioctls);
	put_ioctls(f, ops->event_ioctls);
	put_rules(f, rules, sizeof(rules) / sizeof(rules[0]));
	put_ioctls(f, xbb_disk_ioctls);
	put_rule(f, &(const struct rule){
		SYS_tgkill, 0, ALL, (uint32_t)getpid(),
	});
	if (ops->opens_files)
		put_rules(f, file_rules,
		    sizeof(file_rules) / sizeof(file_rules[0]));
#ifdef SYS_clone3
	put_step(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_clone3);
	put_verdict(f, SECCOMP_RET_ERRNO | ENOSYS);
#endif
	put_verdict(f, SECCOMP_RET_ERRNO | EPERM);
}

static int
limit_calls(const struct xbb_hv_ops *ops)
{
	struct filter f = { .nsteps = 0 };
	struct sock_fprog program;

	if (ARCHITECTURE == 0)
		return (-ENOSYS);
	put_filter(&f, ops);
	if (f.nsteps > MOST_STEPS)
		return (-E2BIG);
	program = (struct sock_fprog){ .len = f.nsteps, .filter = f.step };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return (-errno);
	/* All threads, should there be others. */
	return (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	    SECCOMP_FILTER_FLAG_TSYNC, &program) == 0 ? 0 : -errno);
}

int
xbb_confine(const struct xbb_guest_params *params)
{

	/* Its memory is nobody's to look at, of the same user neither. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return (-errno);
	return (limit_calls(xbb_hv_lookup(params->hv)));
}

/* A filter does not tell descriptors apart. */
int
xbb_confine_fd(int fd, enum xbb_use use, const struct xbb_guest_params *params)
{

	(void)fd;
	(void)use;
	(void)params;
	return (0);
}
