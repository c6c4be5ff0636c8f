/*
 * resting.c - a ring's thread at rest has nothing but this: what its family and its
 * hypervisor answer is played, and what they are asked is counted.  One thread, but for
 * who kicks it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "resting.h"

struct played played;
struct xbb_conn conn;
struct xbb_ring_common rc;
int32_t poll_max_us;
int event_pipe[2];

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
	played.has_work |= played.comes_early;
	return (0);
}

/* Until there is something, or it is to end. */
static int
played_doze(struct xbb_hv *hv)
{

	(void)hv;
	played.dozes++;
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

const struct xbb_hv_ops dozing_ops = {
	.event_fd = played_event_fd,
	.take = played_take,
	.take_waits = true,
	.unmask = played_unmask,
	.doze = played_doze,
	.end_doze = played_end_doze,
};

const struct xbb_hv_ops awake_ops = {
	.event_fd = played_event_fd,
	.take = played_take,
	.take_waits = true,
	.unmask = played_unmask,
};

void
resting_begin(void)
{

	memset(&played, 0, sizeof(played));
	memset(&conn, 0, sizeof(conn));
	memset(&rc, 0, sizeof(rc));
	played.may_sleep = 1;
	played.take = 1;
	conn.family = &family;
	conn.ops = &awake_ops;
	conn.rc = &rc;
	CHECK_EQ(xbb_kick_open(&conn.rest), 0);
	poll_max_us = 0;
	conn.rest.poll_max_us = &poll_max_us;
	CHECK_EQ(pipe(event_pipe), 0);
}

void
resting_end(void)
{

	xbb_tick_leave(&conn.rest);
	xbb_kick_close(&conn.rest);
	close(event_pipe[0]);
	close(event_pipe[1]);
}

void
put_event(void)
{

	CHECK_EQ(write(event_pipe[1], "", 1), 1);
}

void *
kick_it(void *unused)
{

	WAIT_UNTIL(atomic_load(&conn.rest.sleeping));
	xbb_kick(&conn.rest);
	return (unused);
}
