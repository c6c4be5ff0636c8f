/*
 * test_rest.c - the thread of a ring at rest, with a family and a hypervisor that
 * are played: what it asks of them before it sleeps, what wakes it, and the one
 * more descriptor that a family may wait for.  One thread.
 */
#include <string.h>
#include <unistd.h>

#include "harness.h"

/* What is answered, and how often it was asked. */
static struct {
	bool		 has_work;
	uint32_t	 looks;		/* how often that was asked */
	bool		 asked_in_time;	/* something came while it was asked */
	int		 may_sleep;
	uint32_t	 asks;
	int		 take;		/* of the next event */
	uint32_t	 unmasks;
} played;

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
	return (played.asked_in_time);
}

static int
played_may_sleep(void *self)
{

	(void)self;
	return (played.may_sleep);
}

static const struct xbb_family family = {
	.driver = "test",
	.has_work = played_has_work,
	.ask = played_ask,
	.may_sleep = played_may_sleep,
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
	char byte;

	(void)hv;
	CHECK_EQ(read(event_pipe[0], &byte, 1), 1);
	return (played.take);
}

static int
played_unmask(struct xbb_hv *hv)
{

	(void)hv;
	played.unmasks++;
	return (0);
}

static const struct xbb_hv_ops ops = {
	.event_fd = played_event_fd,
	.take = played_take,
	.unmask = played_unmask,
};

static struct xbb_conn conn;
static struct xbb_ring_common rc;
static int32_t poll_max_us;

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
check_storm(void)
{
	uint32_t i;

	begin();
	played.may_sleep = -1;
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
	check_storm();
	check_kick();
	check_looking();
	check_also();
	return (0);
}
