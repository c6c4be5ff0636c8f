/*
 * hypervisor.c - the simulated hypervisor, whose event channels can be made to
 * fail.  The linker puts __wrap_xbb_hv_lookup() in the place of the function of
 * that name (test_native.py).  And threads that cannot be made.  Any thread.
 */
#include "harness.h"

struct hypervisor hypervisor;

const struct xbb_hv_ops *__real_xbb_hv_lookup(uint32_t kind);
const struct xbb_hv_ops *__wrap_xbb_hv_lookup(uint32_t kind);

static struct xbb_hv_ops real, ops;
static pthread_once_t made = PTHREAD_ONCE_INIT;

static int
either(atomic_int *errnum, int (*call)(struct xbb_hv *), struct xbb_hv *hv)
{
	int e = atomic_load(errnum);

	return (e != 0 ? -e : call(hv));
}

static int
notify(struct xbb_hv *hv)
{

	return (either(&hypervisor.notify_errnum, real.notify, hv));
}

static int
unmask(struct xbb_hv *hv)
{

	return (either(&hypervisor.unmask_errnum, real.unmask, hv));
}

static int
take(struct xbb_hv *hv)
{

	return (either(&hypervisor.take_errnum, real.take, hv));
}

static void
make(void)
{

	real = ops = *__real_xbb_hv_lookup(XBB_HV_SIM);
	ops.notify = notify;
	ops.unmask = unmask;
	ops.take = take;
}

const struct xbb_hv_ops *
__wrap_xbb_hv_lookup(uint32_t kind)
{

	if (kind != XBB_HV_SIM)
		return (__real_xbb_hv_lookup(kind));
	pthread_once(&made, make);
	return (&ops);
}

/* A stack for which there is no room anywhere. */
void
threads_forbid(bool forbid)
{
	static pthread_attr_t usual;
	static bool known;
	pthread_attr_t attr;

	if (!known)
		CHECK_EQ(pthread_getattr_default_np(&usual), 0);
	known = true;
	attr = usual;
	if (forbid)
		CHECK_EQ(pthread_attr_setstacksize(&attr, (size_t)1 << 56), 0);
	CHECK_EQ(pthread_setattr_default_np(&attr), 0);
}
