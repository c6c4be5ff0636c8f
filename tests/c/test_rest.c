/*
 * test_rest.c - the thread of a ring at rest, with a family and a hypervisor that
 * are played: what it asks of them before it sleeps, how it does, what wakes it,
 * and the one more descriptor that a family may wait for.  One thread, but for
 * who kicks it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

/* What is answered, and how often it was asked. */
static struct {
	bool		 has_work;
	uint32_t	 looks;		/* how often that was asked */
	bool		 asked_in_time;	/* something came while it was asked */
	bool		 kicked_in_time;	/* likewise, by another */
	int		 may_sleep;
	bool		 awaits;	/* the frontend, and nobody else */
	uint32_t	 asks;
	unsigned int	 sleep;		/* how it is about to, then */
	bool		 comes;		/* a request, while it dozes */
	atomic_bool	 doze_ended;	/* by a kick */
	int		 take;		/* of the next event */
	uint32_t	 unmasks;
} played;

static struct xbb_conn conn;
static struct xbb_ring_common rc;
static int32_t poll_max_us;

static bool
played_has_work(void *self)
{

	(void)self;
	played.looks++;
	return (played.has_work);
}

static bool
played_ask(void *self)
{

	(void)self;
	played.asks++;
	played.sleep = atomic_load(&conn.rest.sleeping);
	if (played.kicked_in_time)
		xbb_kick(&conn.rest);
	return (played.asked_in_time);
}

static int
played_may_sleep(void *self)
{

	(void)self;
	return (played.may_sleep);
}

static bool
played_awaits(void *self)
{

	(void)self;
	return (played.awaits);
}

static const struct xbb_family family = {
	.driver = "test",
	.has_work = played_has_work,
	.ask = played_ask,
	.may_sleep = played_may_sleep,
	.awaits_frontend = played_awaits,
};

static int event_pipe[2];

static int
played_event_fd(struct xbb_hv *hv)
{

	(void)hv;
	return (event_pipe[0]);
}

static int
played_take(struct xbb_hv *hv)
{
	char bytes[64];

	(void)hv;
	if (read(event_pipe[0], bytes, sizeof(bytes)) > 0)
		return (played.take);
	CHECK(errno == EAGAIN || errno == EINTR);
	return (0);
}

static int
played_unmask(struct xbb_hv *hv)
{

	(void)hv;
	played.unmasks++;
	return (0);
}

/* Until there is something, or it is to end. */
static int
played_doze(struct xbb_hv *hv)
{

	(void)hv;
	if (!played.comes)
		WAIT_UNTIL(atomic_load(&played.doze_ended));
	atomic_store(&played.doze_ended, false);
	played.has_work = played.comes;
	return (0);
}

static void
played_end_doze(struct xbb_hv *hv)
{

	(void)hv;
	atomic_store(&played.doze_ended, true);
}

static const struct xbb_hv_ops dozing = {
	.event_fd = played_event_fd,
	.take = played_take,
	.take_waits = true,
	.unmask = played_unmask,
	.doze = played_doze,
	.end_doze = played_end_doze,
};

static const struct xbb_hv_ops ops = {
	.event_fd = played_event_fd,
	.take = played_take,
	.take_waits = true,
	.unmask = played_unmask,
};

static void
begin(void)
{

	memset(&played, 0, sizeof(played));
	memset(&conn, 0, sizeof(conn));
	memset(&rc, 0, sizeof(rc));
	played.may_sleep = 1;
	played.take = 1;
	conn.family = &family;
	conn.ops = &ops;
	conn.rc = &rc;
	CHECK_EQ(xbb_kick_open(&conn.rest), 0);
	poll_max_us = 0;
	conn.rest.poll_max_us = &poll_max_us;
	CHECK_EQ(pipe(event_pipe), 0);
}

static void
end(void)
{

	xbb_tick_leave(&conn.rest);
	xbb_kick_close(&conn.rest);
	close(event_pipe[0]);
	close(event_pipe[1]);
}

static void
put_byte(int fd)
{

	CHECK_EQ(write(fd, "", 1), 1);
}

/* Nobody sleeps who has work, nor who has some once it has asked to be told. */
static void
check_awake(void)
{

	begin();
	played.has_work = true;
	CHECK(!xbb_rest_now(&conn));
	CHECK_EQ(played.asks, 0);
	played.has_work = false;
	played.asked_in_time = true;
	CHECK(!xbb_rest_now(&conn));
	CHECK_EQ(played.asks, 1);
	CHECK_EQ(rc.counters.ring_sleeps, 0);
	CHECK(!atomic_load(&conn.rest.sleeping));
	played.asked_in_time = false;
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.ring_sleeps, 1);
	end();
}

/* An event masks the channel until there is rest again. */
static void
check_event(void)
{

	begin();
	played.may_sleep = -1;
	put_byte(event_pipe[1]);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.notifies_received, 1);
	CHECK(conn.rest.masked);
	CHECK_EQ(played.unmasks, 0);
	put_byte(event_pipe[1]);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(played.unmasks, 1);
	CHECK_EQ(rc.counters.notifies_received, 2);
	end();
}

/* Too many that bring nothing, and it is not listened to for a moment. */
static void
check_storm(bool awaits)
{
	uint32_t i;

	begin();
	played.may_sleep = -1;
	played.awaits = awaits;
	for (i = 0; i < 8; i++) {
		put_byte(event_pipe[1]);
		CHECK(xbb_rest_now(&conn));
	}
	put_byte(event_pipe[1]);
	CHECK(xbb_rest_now(&conn));	/* by the time, though it may be any */
	CHECK_EQ(rc.counters.notifies_received, 8);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.notifies_received, 9);
	end();
}

static void *
kick_it(void *arg)
{

	(void)arg;
	WAIT_UNTIL(atomic_load(&conn.rest.sleeping));
	xbb_kick(&conn.rest);
	return (NULL);
}

static void
check_kick(void)
{
	pthread_t thread;

	begin();
	played.may_sleep = -1;
	xbb_kick(&conn.rest);	/* of one awake: nothing is left of it */
	CHECK_EQ(pthread_create(&thread, NULL, kick_it, NULL), 0);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	played.may_sleep = 1;
	CHECK(xbb_rest_now(&conn));
	end();
}

/* An event is there: how the thread has slept for it. */
static unsigned int
sleep_for_event(void)
{
	const uint64_t before = rc.counters.notifies_received;

	put_byte(event_pipe[1]);
	conn.rest.idle_events = 0;	/* it has brought something */
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.notifies_received, before + 1);
	return (played.sleep);
}

/*
 * Whose frontend is at work, and nobody else is, waits in a read of the event
 * channel; unless there is to be another look soon.
 */
static void
check_wait(void)
{

	begin();
	played.may_sleep = -1;
	played.awaits = true;
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	CHECK(conn.rest.masked);
	CHECK_EQ(played.unmasks, 1);
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	CHECK_EQ(played.unmasks, 2);
	played.awaits = false;
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	played.awaits = true;
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	played.may_sleep = XBB_TICK_MS - 1;
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	played.may_sleep = XBB_TICK_MS;
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	CHECK(!atomic_load(&conn.rest.sleeping));
	CHECK_EQ(rc.counters.ring_sleeps, 7);
	end();
}

/* A kick ends a wait, before it has begun too, and spoils none after it. */
static void
check_wait_kicked(void)
{
	pthread_t thread;
	uint32_t i;

	begin();
	played.may_sleep = -1;
	played.awaits = true;
	for (i = 0; i < 50; i++) {
		(void)sleep_for_event();
		CHECK_EQ(sleep_for_event(), XBB_WAITS);
		played.kicked_in_time = i % 2 != 0;
		if (!played.kicked_in_time)
			CHECK_EQ(pthread_create(&thread, NULL, kick_it, NULL),
			    0);
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_WAITS);
		if (!played.kicked_in_time)
			CHECK_EQ(pthread_join(thread, NULL), 0);
		played.kicked_in_time = false;
	}
	CHECK_EQ(rc.counters.notifies_received, 100);
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	CHECK_EQ(fcntl(event_pipe[0], F_GETFL) & O_NONBLOCK, 0);
	end();
}

static atomic_uint signals;

static void
count_signal(int signo)
{

	(void)signo;
	atomic_fetch_add(&signals, 1);
}

/*
 * A doze leaves the event unread, but not too many of them, and does not wait
 * for those.  If it was for nothing the next sleep is another one.
 */
static void
check_doze(void)
{
	pthread_t thread;
	uint32_t i;

	begin();
	poll_max_us = 10000;
	played.may_sleep = -1;
	played.awaits = true;
	conn.rest.also_awaited = true;	/* it is not for looking around */
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	CHECK_EQ(played.unmasks, 1);
	conn.ops = &dozing;
	conn.rest.ops = conn.ops;
	played.comes = true;
	for (i = 1; i <= 100; i++) {
		/* The first ones tell nobody that they come. */
		if (i > 40)
			put_byte(event_pipe[1]);
		conn.rest.doze.left = 0;	/* the machine may be busy */
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_DOZES);
		CHECK_EQ(played.unmasks, 1 + i);
		CHECK(conn.rest.masked);
		CHECK_EQ(rc.counters.notifies_received, 2 + i);
		conn.rest.idle_events = 0;
		played.has_work = false;
	}
	CHECK(conn.rest.doze.unread < 32);
	played.comes = false;
	CHECK_EQ(signal(XBB_WAIT_SIGNAL, count_signal) == SIG_ERR, false);
	for (i = 0; i < 2; i++) {
		played.kicked_in_time = i != 0;
		if (i == 0)
			CHECK_EQ(pthread_create(&thread, NULL, kick_it, NULL),
			    0);
		conn.rest.doze.left = 0;
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_DOZES);
		if (i == 0)
			CHECK_EQ(pthread_join(thread, NULL), 0);
		WAIT_UNTIL(atomic_load(&signals) == i + 1);
		played.kicked_in_time = false;
		CHECK_EQ(rc.counters.notifies_received, 102 + i);
		CHECK_EQ(sleep_for_event(), XBB_WAITS);
	}
	end();
}

static void *
finish_kick(void *arg)
{
	atomic_bool *finished = arg;

	WAIT_UNTIL(atomic_load(&conn.rest.kicks) == 1);
	atomic_store(finished, true);
	atomic_store(&conn.rest.kicks, 0);
	return (NULL);
}

/* Nobody ends while somebody may be about to send him a signal. */
static void
check_settling(void)
{
	atomic_bool finished = false;
	pthread_t thread;

	begin();
	xbb_kick_settle(&conn.rest);
	CHECK_EQ(pthread_create(&thread, NULL, finish_kick, &finished), 0);
	atomic_store(&conn.rest.kicks, 1);
	xbb_kick_settle(&conn.rest);
	CHECK(atomic_load(&finished));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	end();
}

/*
 * A wait that is to end some time does, whose thread polls then, by the time;
 * and who is closed meanwhile is none to wake.
 */
static void
check_tick(void)
{
	uint32_t i;

	for (i = 0; i < 2; i++) {
		begin();
		played.may_sleep = XBB_TICK_MS;
		played.awaits = true;
		(void)sleep_for_event();
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_WAITS);
		CHECK(!atomic_load(&conn.rest.ticks));
		played.may_sleep = 1;
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_POLLS);
		CHECK_EQ(rc.counters.notifies_received, 1);
		played.may_sleep = XBB_TICK_MS;
		(void)sleep_for_event();
		CHECK_EQ(sleep_for_event(), XBB_WAITS);
		CHECK(atomic_load(&conn.rest.ticks));
		end();
	}
}

/* How many sleeps until the thread looks around once more, asking often. */
static uint32_t
sleeps_until_look(void)
{
	uint32_t n;

	for (n = 1; ; n++) {
		CHECK(n < 5000);
		played.looks = 0;
		(void)xbb_rest_now(&conn);
		if (played.looks > 8)
			return (n);
	}
}

/* What never pays is tried less and less often; what pays, at once. */
static void
check_looking(void)
{
	uint32_t i, n;

	begin();
	played.may_sleep = 0;
	poll_max_us = 4;	/* nothing is left of it when it has failed */
	for (i = 0, n = 16; i < 9; i++, n = n < 1024 ? 2 * n : n)
		CHECK_EQ(sleeps_until_look(), n);
	for (i = 1; i < 1024; i++) {
		played.looks = 0;
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.looks, 1);
	}
	played.has_work = true;
	CHECK(!xbb_rest_now(&conn));
	played.has_work = false;
	CHECK_EQ(sleeps_until_look(), 1);
	CHECK_EQ(sleeps_until_look(), 32);

	/* Another setting is one of which nothing is known. */
	CHECK_EQ(sleeps_until_look(), 64);
	poll_max_us = 5;
	CHECK_EQ(sleeps_until_look(), 16);
	poll_max_us = 0;
	for (i = 0; i < 2000; i++) {
		played.looks = 0;
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.looks, 1);
	}
	end();
}

/* The family's own descriptor, as a tap or a reply of a store's. */
static void
check_also(void)
{
	int also[2];
	char byte;

	begin();
	CHECK_EQ(pipe(also), 0);
	conn.rest.also_fd = also[0];
	CHECK(xbb_rest_now(&conn));
	CHECK(!conn.rest.also_ready);
	played.may_sleep = -1;
	put_byte(also[1]);
	CHECK(xbb_rest_now(&conn));
	CHECK(conn.rest.also_ready);
	CHECK_EQ(rc.counters.notifies_received, 0);
	CHECK_EQ(read(also[0], &byte, 1), 1);
	played.may_sleep = 1;
	CHECK(xbb_rest_now(&conn));
	CHECK(!conn.rest.also_ready);
	close(also[0]);
	close(also[1]);
	end();
}

int
main(void)
{

	check_awake();
	check_event();
	check_storm(false);
	check_storm(true);
	check_kick();
	check_wait();
	check_wait_kicked();
	check_tick();
	check_doze();
	check_settling();
	check_looking();
	check_also();
	return (0);
}
