/*
 * test_rest.c - the thread of a ring at rest: what it asks before it sleeps, what
 * wakes it in poll(2), and the one more descriptor that a family may wait for.
 */
#include <unistd.h>

#include "resting.h"

/* Nobody sleeps who has work, nor who has some once it has asked to be told. */
static void
check_awake(void)
{

	resting_begin();
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
	resting_end();
}

/* An event masks the channel until there is rest again. */
static void
check_event(void)
{

	resting_begin();
	played.may_sleep = -1;
	put_event();
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.notifies_received, 1);
	CHECK(conn.rest.masked);
	CHECK_EQ(played.unmasks, 0);
	put_event();
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(played.unmasks, 1);
	CHECK_EQ(rc.counters.notifies_received, 2);
	resting_end();
}

/* Too many that bring nothing, and it is not listened to for a moment. */
static void
check_storm(bool awaits)
{
	uint32_t i;

	resting_begin();
	played.may_sleep = -1;
	played.awaits = awaits;
	for (i = 0; i < 8; i++) {
		put_event();
		CHECK(xbb_rest_now(&conn));
	}
	put_event();
	CHECK(xbb_rest_now(&conn));	/* by the time, though it may be any */
	CHECK_EQ(rc.counters.notifies_received, 8);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(rc.counters.notifies_received, 9);
	resting_end();
}

static void
check_kick(void)
{
	pthread_t thread;

	resting_begin();
	played.may_sleep = -1;
	xbb_kick(&conn.rest);	/* of one awake: nothing is left of it */
	CHECK_EQ(pthread_create(&thread, NULL, kick_it, NULL), 0);
	CHECK(xbb_rest_now(&conn));
	CHECK_EQ(pthread_join(thread, NULL), 0);
	played.may_sleep = 1;
	CHECK(xbb_rest_now(&conn));
	resting_end();
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

	resting_begin();
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
	resting_end();
}

/* The family's own descriptor, as a tap or a reply of a store's. */
static void
check_also(void)
{
	int also[2];
	char byte;

	resting_begin();
	CHECK_EQ(pipe(also), 0);
	conn.rest.also_fd = also[0];
	CHECK(xbb_rest_now(&conn));
	CHECK(!conn.rest.also_ready);
	played.may_sleep = -1;
	CHECK_EQ(write(also[1], "", 1), 1);
	CHECK(xbb_rest_now(&conn));
	CHECK(conn.rest.also_ready);
	CHECK_EQ(rc.counters.notifies_received, 0);
	CHECK_EQ(read(also[0], &byte, 1), 1);
	played.may_sleep = 1;
	CHECK(xbb_rest_now(&conn));
	CHECK(!conn.rest.also_ready);
	close(also[0]);
	close(also[1]);
	resting_end();
}

int
main(void)
{

	check_awake();
	check_event();
	check_storm(false);
	check_storm(true);
	check_kick();
	check_looking();
	check_also();
	return (0);
}
