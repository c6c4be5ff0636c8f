/*
 * test_wait.c - the thread of a ring that waits for its frontend and for nobody else:
 * in a read of the event channel or in the hypervisor, when it does, and what ends
 * that: an event, a kick before it has begun too, the tick.
 */
#include <fcntl.h>
#include <signal.h>

#include "resting.h"

/* An event is there: how the thread has slept for it. */
static unsigned int
sleep_for_event(void)
{
	const uint64_t before = rc.counters.notifies_received;

	put_event();
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

	resting_begin();
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
	resting_end();
}

/* A kick ends a wait, before it has begun too, and spoils none after it. */
static void
check_wait_kicked(void)
{
	pthread_t thread;
	uint32_t i;

	resting_begin();
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
	resting_end();
}

static atomic_uint signals;

static void
count_signal(int signo)
{

	(void)signo;
	atomic_fetch_add(&signals, 1);
}

/* Sleeps from now on are dozes, if they may be, and wait for the frontend. */
static void
begin_dozing(void)
{

	resting_begin();
	poll_max_us = 10000;
	played.may_sleep = -1;
	played.awaits = true;
	conn.rest.also_awaited = true;	/* it is not for looking around */
	CHECK_EQ(sleep_for_event(), XBB_POLLS);
	CHECK_EQ(sleep_for_event(), XBB_WAITS);
	conn.ops = &dozing_ops;
	conn.rest.ops = conn.ops;
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

	begin_dozing();
	atomic_store(&conn.rest.ticks, true);	/* there is no tick here */
	CHECK_EQ(played.unmasks, 1);
	played.comes = true;
	for (i = 1; i <= 100; i++) {
		/* The first ones tell nobody that they come. */
		if (i > 40)
			put_event();
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
	atomic_store(&conn.rest.ticks, false);
	resting_end();
}

/* One that nothing of the host's ends, since its event was gone, ends too. */
static void
check_doze_tick(void)
{
	uint32_t i;

	begin_dozing();
	for (i = 0; i < 2; i++) {
		conn.rest.doze.left = 0;
		CHECK(xbb_rest_now(&conn));
		CHECK_EQ(played.sleep, XBB_DOZES);
	}
	CHECK_EQ(played.dozes, 2);
	resting_end();
}

/*
 * A request whose event the host had before the doze began, which that would not
 * end any more.
 */
static void
check_doze_missed(void)
{

	begin_dozing();
	played.comes = true;
	played.comes_early = true;
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(played.sleep, XBB_DOZES);
	CHECK_EQ(played.dozes, 0);
	CHECK_EQ(atomic_load(&conn.rest.sleeping), XBB_AWAKE);

	/* Its event is left unread, as that of another doze. */
	played.has_work = played.comes_early = false;
	conn.rest.doze.left = 0;
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(played.sleep, XBB_DOZES);
	CHECK_EQ(played.dozes, 1);
	CHECK(conn.rest.masked);
	resting_end();
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

	resting_begin();
	xbb_kick_settle(&conn.rest);
	CHECK_EQ(pthread_create(&thread, NULL, finish_kick, &finished), 0);
	atomic_store(&conn.rest.kicks, 1);
	xbb_kick_settle(&conn.rest);
	CHECK(atomic_load(&finished));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	resting_end();
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
		resting_begin();
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
		resting_end();
	}
}

int
main(void)
{

	check_wait();
	check_wait_kicked();
	check_tick();
	check_doze();
	check_doze_missed();
	check_doze_tick();
	check_settling();
	return (0);
}
