/*
 * test_doze.c - when the thread of a ring dozes: where that can be, as long as it is
 * short and nobody waits for a processor.  The hypervisor is played, and so is what
 * the host says; time passes by what was noted of it.  One thread.
 */
#include <string.h>

#include "harness.h"

#define S	1000000000ULL

static struct {
	bool		 has_work;
	int		 error;
	uint64_t	 ns;		/* of each doze */
} played;

static bool
played_has_work(void *self)
{

	(void)self;
	return (played.has_work);
}

static int
played_doze(struct xbb_hv *hv)
{
	const uint64_t end = xbb_now_ns() + played.ns;

	(void)hv;
	while (xbb_now_ns() < end)
		xbb_relax();
	return (played.error);
}

static const struct xbb_family family = {
	.driver = "test", .has_work = played_has_work,
};
static const struct xbb_hv_ops dozing = { .doze = played_doze };
static const struct xbb_hv_ops other = { 0 };

static struct xbb_conn conn;
static uint64_t look_ns;

static struct xbb_doze *
begin(void)
{

	memset(&played, 0, sizeof(played));
	memset(&conn, 0, sizeof(conn));
	hypervisor_reset();
	look_ns = 50000;
	conn.family = &family;
	conn.ops = &dozing;
	return (&conn.rest.doze);
}

static bool
wanted(void)
{

	return (xbb_doze_wanted(&conn, look_ns));
}

/* However long it takes here. */
static bool
doze_shortly(void)
{

	conn.rest.doze.begun_ns += 3600 * S;
	return (xbb_doze_now(&conn));
}

static void
check_where(void)
{
	struct xbb_doze *doze;

	(void)begin();
	CHECK(wanted());
	look_ns = 0;
	CHECK(!wanted());
	look_ns = 1000;
	CHECK(wanted());
	conn.ops = &other;
	CHECK(!wanted());

	/* Of a host that does not say whether others wait. */
	(void)begin();
	atomic_store(&hypervisor.host_errnum, ENOENT);
	CHECK(!wanted());
	atomic_store(&hypervisor.host_errnum, 0);
	CHECK(!wanted());

	/* Of a process that may not. */
	doze = begin();
	played.error = -EPERM;
	played.has_work = true;
	CHECK(wanted());
	CHECK(!doze_shortly());
	CHECK_EQ(doze->unread, 0);
	CHECK(!wanted());
}

/* A host that is short of descriptors, or memory, for a while: later. */
static void
check_short_of(int errnum)
{
	struct xbb_doze *doze = begin();

	atomic_store(&hypervisor.host_errnum, errnum);
	CHECK(!wanted());
	atomic_store(&hypervisor.host_errnum, 0);
	CHECK(!wanted());
	doze->until_ns = 0;
	CHECK(wanted());

	played.error = -errnum;
	played.has_work = true;
	CHECK(!doze_shortly());
	CHECK_EQ(doze->unread, 0);
	played.error = 0;
	CHECK(!wanted());
	doze->until_ns = 0;
	CHECK(wanted());
	CHECK(doze_shortly());
}

/* What ends it is an event, which stays unread, or something else. */
static void
check_end(void)
{
	struct xbb_doze *doze = begin();
	uint32_t i;

	played.has_work = true;
	for (i = 1; i <= 32; i++) {
		CHECK(!xbb_doze_overflows(&conn));
		CHECK(wanted());
		CHECK(doze_shortly());
		CHECK_EQ(doze->unread, i);
	}
	CHECK(xbb_doze_overflows(&conn));
	played.has_work = false;
	CHECK(wanted());
	CHECK(!doze_shortly());
	CHECK_EQ(doze->unread, 32);
	/* Then another sleep lets others have the processor. */
	CHECK(!wanted());
	CHECK(wanted());
}

/* How many sleeps are none, until the next. */
static uint32_t
others(void)
{
	uint32_t n;

	for (n = 0; !wanted(); n++)
		CHECK(n < 2000);
	return (n);
}

/* Too long, be it for what was awaited: more and more other sleeps. */
static void
check_long(bool has_work)
{
	uint32_t i, n;

	(void)begin();
	played.has_work = has_work;
	look_ns = 1000;
	played.ns = 20000;
	for (i = 0, n = 16; i < 9; i++, n = n < 1024 ? 2 * n : n) {
		CHECK_EQ(xbb_doze_now(&conn), has_work);
		CHECK_EQ(others(), n);
	}
	CHECK_EQ(doze_shortly(), has_work);
	CHECK_EQ(others(), has_work ? 0 : 1);
	CHECK_EQ(xbb_doze_now(&conn), has_work);
	CHECK_EQ(others(), 16);
}

/*
 * A second and a half has passed, of which others waited for so much; for how
 * long it is none then.
 */
static uint64_t
pass(struct xbb_doze *doze, uint64_t waited_ns)
{

	doze->judged_ns -= 3 * S / 2;
	doze->until_ns = 0;
	atomic_fetch_add(&hypervisor.host_waited_ns, waited_ns);
	if (wanted())
		return (0);
	CHECK(!wanted());
	return (doze->until_ns - doze->judged_ns);
}

static void
check_others(void)
{
	struct xbb_doze *doze = begin();
	uint64_t s;

	atomic_store(&hypervisor.host_waited_ns, 3600 * S);
	CHECK(wanted());
	CHECK_EQ(pass(doze, S / 7), 0);
	for (s = 10; s < 640; s *= 2)
		CHECK_EQ(pass(doze, S / 6), s * S);
	CHECK_EQ(pass(doze, 3 * S / 2), 320 * S);
	CHECK_EQ(pass(doze, 0), 0);
	CHECK_EQ(pass(doze, S), 320 * S);
	CHECK_EQ(pass(doze, 0), 0);
	CHECK_EQ(pass(doze, 0), 0);
	CHECK_EQ(pass(doze, S), 160 * S);

	/* What was before a pause tells nothing. */
	doze->until_ns = 0;
	doze->judged_ns -= 60 * S;
	atomic_fetch_add(&hypervisor.host_waited_ns, 60 * S);
	CHECK(wanted());
}

int
main(void)
{

	check_where();
	check_short_of(EMFILE);
	check_short_of(ENFILE);
	check_short_of(ENOMEM);
	check_end();
	check_long(false);
	check_long(true);
	check_others();
	return (0);
}
