/*
 * counter.c - the data path of the family of counters: one ring, whose guest
 * asks for so many to be added and is answered with the sum.  It is what a
 * family puts on native/core and native/hv, and needs nothing of any other: a
 * struct of their parts, four functions that core asks, a thread, and a state
 * segment with its own part behind the common head.
 *
 * Opening, draining and closing on the caller's thread; the rest on the ring's.
 */
#include <stdlib.h>

#include "core/core.h"

#define COUNTER_FAMILY	99	/* of segments; any number that nobody has */

/* A slot, as a request and as a response. */
struct counter_slot {
	uint64_t	id;
	uint64_t	count;		/* to add; the sum */
};

struct counter_state {
	struct xbb_segment_head head;
	int32_t		poll_max_us;
	uint64_t	count;
	struct xbb_ring_common ring;
};

struct counter {
	struct xbb_conn	 conn;
	struct xbb_conn_params params;
	struct counter_state *state;
	struct xbb_ring	 ring;		/* ring thread */
};

static const struct xbb_segment_shape shape = {
	.family = COUNTER_FAMILY,
	.table_version = 1,
	.header_size = sizeof(struct counter_state),
	.entry_size = 8,
	.most_entries = 1,
};

int	counter_open(const int fds[4], uint32_t hv, uint32_t domid,
	    uint32_t port, uint32_t ref, uint32_t unit,
	    struct counter **counterp);
uint64_t counter_count(const struct counter *c);
int	counter_drained(struct counter *c);
void	counter_drain(struct counter *c);
void	counter_close(struct counter *c);

static bool
counter_has_work(void *self)
{
	struct counter *c = self;
	uint32_t unread;

	return (atomic_load(&c->conn.draining) ||
	    xbb_ring_unread(&c->ring, &unread) != 0 || unread != 0);
}

static bool
counter_ask(void *self)
{
	struct counter *c = self;

	return (xbb_ring_want(&c->ring, 1));
}

static int
counter_may_sleep(void *self)
{

	(void)self;
	return (-1);
}

static const struct xbb_family family = {
	.driver = "xcount",
	.has_work = counter_has_work,
	.ask = counter_ask,
	.may_sleep = counter_may_sleep,
};

static void
add_one(struct counter *c)
{
	union {
		uint32_t words[sizeof(struct counter_slot) / 4];
		struct counter_slot slot;
	} u;

	xbb_ring_copy_request(&c->ring, u.words);
	XBB_COUNT(c->state->count, u.slot.count);
	u.slot.count = c->state->count;
	xbb_ring_put(&c->ring, u.words);
}

/* Everything there is.  False if there was nothing. */
static bool
add_all(struct counter *c)
{
	uint32_t n, unread;

	if (xbb_ring_unread(&c->ring, &unread) != 0) {
		xbb_conn_stop(&c->conn, XBB_STOP_RING, EPROTO);
		return (false);
	}
	for (n = 0; n < unread; n++)
		add_one(c);
	if (n == 0)
		return (false);
	c->conn.rest.idle_events = 0;
	XBB_PUT(c->conn.rc->req_cons, c->ring.req_cons);
	xbb_conn_push(&c->conn, &c->ring);
	return (true);
}

static void *
counter_main(void *arg)
{
	struct counter *c = arg;

	xbb_thread_is("%s%u ring0", family.driver, c->params.unit);
	for (;;) {
		xbb_conn_check(&c->conn);
		if (atomic_load(&c->conn.draining))
			break;
		if (!add_all(c))
			xbb_rest_now(&c->conn);
	}
	xbb_conn_drained(&c->conn);
	return (NULL);
}

static int
make_segment(struct counter *c, int fd)
{
	struct counter_state header = {
		.head.nrings = 1,
		.head.table_entries = 1,
		.poll_max_us = XBB_POLL_MAX_US,
	};
	void *segment;
	int error;

	error = xbb_segment_format(fd, &shape, &header.head);
	if (error == 0)
		error = xbb_segment_map(fd, true, &shape, &segment);
	if (error != 0)
		return (error);
	c->state = segment;
	c->conn.mapping = xbb_mapping_of(segment);
	c->conn.rc = &c->state->ring;
	c->conn.rest.poll_max_us = &c->state->poll_max_us;
	return (0);
}

static int
begin_to_count(struct counter *c)
{
	struct xbb_error error;
	int e;

	e = xbb_conn_open(&c->conn, &c->params, &error);
	if (e == 0)
		e = xbb_conn_bind(&c->conn, &error);
	if (e != 0)
		return (e);
	xbb_ring_init(&c->ring, c->conn.ring_map.base, 1,
	    sizeof(struct counter_slot), sizeof(struct counter_slot));
	return (xbb_conn_start(&c->conn, &c->ring, counter_main));
}

/* fds: grants, events, one to wake the caller, an empty file for the segment. */
int
counter_open(const int fds[4], uint32_t hv, uint32_t domid, uint32_t port,
    uint32_t ref, uint32_t unit, struct counter **counterp)
{
	struct counter *c;
	int e;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return (-ENOMEM);
	c->params = (struct xbb_conn_params){
		.grant_fd = fds[0], .event_fd = fds[1], .wake_fd = fds[2],
		.hv = hv, .domid = domid, .remote_port = port,
		.ring_pages = 1, .ring_ref = { ref }, .workers = 1,
		.unit = unit,
	};
	c->conn.family = &family;
	c->conn.self = c;
	e = make_segment(c, fds[3]);
	if (e == 0 && !xbb_conn_can_be(&c->params, c->conn.mapping))
		e = -EINVAL;
	if (e == 0) {
		e = begin_to_count(c);
		if (e != 0)
			xbb_conn_close(&c->conn);
	}
	if (e == 0)
		*counterp = c;
	else {
		if (c->state != NULL)
			xbb_mapping_remove(c->conn.mapping);
		free(c);
	}
	return (e);
}

uint64_t
counter_count(const struct counter *c)
{

	return (XBB_GET(c->state->count));
}

int
counter_drained(struct counter *c)
{
	struct xbb_queue_status status;

	xbb_conn_status(&c->conn, &status);
	return (status.state == XBB_QUEUE_DRAINED);
}

void
counter_drain(struct counter *c)
{

	xbb_conn_drain(&c->conn);
}

void
counter_close(struct counter *c)
{

	xbb_conn_join(&c->conn);
	xbb_conn_close(&c->conn);
	xbb_mapping_remove(c->conn.mapping);
	free(c);
}
