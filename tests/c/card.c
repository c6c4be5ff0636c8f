/*
 * card.c - a network card with everything around it: a simulated domain with
 * two rings and a page for each slot, a state segment, a queue, and the other
 * end of its link.  What the guest writes it writes by hand.  Closing checks
 * that nothing stays mapped and no file is left.
 */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "card.h"

#define DOMAIN_SIZE	1024		/* pages */
#define SOCKET_BYTES	(4 << 20)
#ifndef SO_SNDBUFFORCE
#define SO_SNDBUFFORCE	SO_SNDBUF	/* FreeBSD: root has no more than others */
#endif

static void
open_domain(struct card *card)
{
	static unsigned int serial;

	snprintf(card->name, sizeof(card->name), "card%u", serial++);
	CHECK(mkdir(card->name, 0700) == 0);
	card->domain_fd = open(card->name, O_RDONLY | O_DIRECTORY);
	CHECK(card->domain_fd >= 0);
	CHECK_EQ(xbb_sim_format(card->domain_fd, DOMAIN_SIZE), 0);
	card->state_fd = scratch_file(0);
	CHECK_EQ(xbb_net_state_format(card->state_fd,
	    &(const struct xbb_identity){ 0 }, 2), 0);
	CHECK_EQ(xbb_net_state_map(card->state_fd, 1, &card->state), 0);
	card->rs = &card->state->ring[0];
}

static void
open_guest(struct card *card)
{
	static unsigned int serial;
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(card->port, sizeof(card->port), "wire%u", serial++);
	strcpy(address.sun_path, card->port);
	card->listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(card->listen_fd >= 0);
	CHECK(bind(card->listen_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
	CHECK(listen(card->listen_fd, 8) == 0);
	CHECK(fcntl(card->listen_fd, F_SETFL, O_NONBLOCK) == 0);
	CHECK_EQ(xbb_hvfront_sim.open(&card->hv, card->domain_fd,
	    card->listen_fd, 1, 0), 0);
	CHECK_EQ(xbb_hvfront_sim.grant(card->hv, COUNTOF(card->refs),
	    &card->base, card->refs), 0);
	card_sring(card, false)->req_event = 1;
	card_sring(card, false)->rsp_event = 1;
	card_sring(card, true)->req_event = 1;
	card_sring(card, true)->rsp_event = 1;
}

static void
open_link(struct card *card)
{
	const int size = SOCKET_BYTES;
	int i;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, card->link), 0);
	for (i = 0; i < 2; i++) {
		CHECK(fcntl(card->link[i], F_SETFL, O_NONBLOCK) == 0);
		/* As much as there may be without privileges. */
		if (setsockopt(card->link[i], SOL_SOCKET, SO_SNDBUFFORCE,
		    &size, sizeof(size)) != 0)
			(void)setsockopt(card->link[i], SOL_SOCKET, SO_SNDBUF,
			    &size, sizeof(size));
	}
}

/* A card that nobody serves yet. */
void
card_open(struct card *card, const struct card_options *options)
{

	memset(card, 0, sizeof(*card));
	card->options = *options;
	card->event_fd = -1;
	open_domain(card);
	open_guest(card);
	open_link(card);
	CHECK_EQ(pipe(card->wake), 0);
	CHECK(fcntl(card->wake[1], F_SETFL, O_NONBLOCK) == 0);
}

void
card_params(const struct card *card, struct xbb_net_params *params)
{

	*params = (struct xbb_net_params){
		.conn.grant_fd = card->domain_fd,
		.conn.event_fd = card->event_fd,
		.conn.wake_fd = card->wake[1],
		.conn.hv = XBB_HV_SIM,
		.conn.domid = 1,
		.conn.remote_port = 1,
		.conn.ring_pages = 2,
		.conn.ring_ref = { card->refs[0], card->refs[1] },
		.conn.workers = 1,
		.conn.transport = card->options.transport,
		.link_fd = card->link[0],
		.accepts = card->options.accepts,
		.offload = card->options.offload,
		.rx_polls = card->options.rx_polls,
		.filter = card->options.filter,
	};
	memcpy(params->address, frame_source, sizeof(params->address));
}

/* The event channel of a queue to come, in place of the one before. */
void
card_connect(struct card *card)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	strcpy(address.sun_path, card->port);
	if (card->event_fd >= 0)
		close(card->event_fd);
	card->event_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK(card->event_fd >= 0);
	CHECK(connect(card->event_fd, (struct sockaddr *)&address,
	    sizeof(address)) == 0);
	(void)xbb_hvfront_sim.take(card->hv);
}

int
card_try(struct card *card, uint32_t adopt)
{
	struct xbb_net_params params;
	struct xbb_error error;

	card_params(card, &params);
	params.conn.adopt = adopt;
	return (xbb_net_queue_open(&params, card->state, &error,
	    &card->queue));
}

void
card_begin(struct card *card, uint32_t adopt)
{
	struct xbb_error error;

	CHECK_EQ(card_try(card, adopt), 0);
	CHECK_EQ(xbb_net_queue_start(card->queue, &error), 0);
	CHECK_EQ(XBB_GET(card->rs->common.connected), 1);
}

void
card_serve(struct card *card, uint32_t adopt)
{

	card_connect(card);
	card_begin(card, adopt);
}

void
card_leave(struct card *card)
{

	if (card->queue != NULL)
		xbb_net_queue_close(card->queue);
	card->queue = NULL;
}

/* What was mapped is unmapped, what was refused has a reason. */
void
card_check_balance(const struct card *card)
{
	uint64_t refused;
	uint32_t i;

	CHECK_EQ(CARD_COMMON(card, grants_mapped_total),
	    CARD_COMMON(card, grants_unmapped_total));
	refused = 0;
	for (i = 0; i < XBB_NET_REFUSALS; i++)
		refused += CARD_COUNTER(card, refused[i]);
	CHECK_EQ(refused, CARD_COUNTER(card, tx_errors));
	CHECK_EQ(CARD_COUNTER(card, refused[XBB_NET_FINE]), 0);
}

/* The queue has stopped, by itself or on demand. */
void
card_wait_drained(struct card *card, enum xbb_stop_reason reason)
{
	struct pollfd pfd = { .fd = card->wake[0], .events = POLLIN };
	struct xbb_queue_status status;
	char byte;

	CHECK_EQ(poll(&pfd, 1, LIMIT_MS), 1);
	CHECK_EQ(read(card->wake[0], &byte, 1), 1);
	xbb_net_queue_status(card->queue, &status);
	CHECK_EQ(status.state, XBB_QUEUE_DRAINED);
	CHECK_EQ(status.reason, reason);
	CHECK_EQ(XBB_GET(card->rs->common.status.state), XBB_QUEUE_DRAINED);
	CHECK_EQ(XBB_GET(card->rs->common.connected), 0);
}

void
card_close(struct card *card)
{
	uint32_t grants, mapped, mappings;

	card_leave(card);
	CHECK_EQ(xbb_sim_mapped(card->domain_fd, &mapped), 0);
	CHECK_EQ(mapped, 0);
	xbb_budget_used(&mappings, &grants);
	CHECK_EQ(grants, 0);
	CHECK_EQ(mappings, 0);
	xbb_hvfront_sim.release(card->hv, card->base, COUNTOF(card->refs),
	    card->refs);
	xbb_hvfront_sim.close(card->hv);
	xbb_net_state_unmap(card->state);
	CHECK(unlink(card->port) == 0);
	CHECK(unlinkat(card->domain_fd, "memory", 0) == 0);
	CHECK(unlinkat(card->domain_fd, "grants", 0) == 0);
	close(card->listen_fd);
	close(card->event_fd);
	close(card->wake[0]);
	close(card->wake[1]);
	close(card->link[0]);
	if (card->link[1] >= 0)
		close(card->link[1]);
	close(card->state_fd);
	close(card->domain_fd);
	CHECK(rmdir(card->name) == 0);
}

/* The link. */

void
link_send(struct card *card, const struct frame *frame)
{
	struct iovec iov[2];

	iov[0].iov_base = (void *)(uintptr_t)&frame->header;
	iov[0].iov_len = sizeof(frame->header);
	iov[1].iov_base = (void *)(uintptr_t)frame->data;
	iov[1].iov_len = (size_t)frame->size;
	CHECK_EQ(writev(card->link[1], iov, 2), (ssize_t)(iov[0].iov_len +
	    iov[1].iov_len));
}

/* False if there is none now. */
bool
link_take(struct card *card, struct frame *frame)
{
	struct iovec iov[2] = {
		{ &frame->header, sizeof(frame->header) },
		{ frame->data, sizeof(frame->data) },
	};
	ssize_t n;

	n = readv(card->link[1], iov, 2);
	if (n < 0) {
		CHECK_EQ(errno, EAGAIN);
		return (false);
	}
	CHECK(n >= (ssize_t)sizeof(frame->header));
	frame->size = (int32_t)n - (int32_t)sizeof(frame->header);
	return (true);
}

void
link_receive(struct card *card, struct frame *frame)
{
	struct pollfd pfd = { .fd = card->link[1], .events = POLLIN };

	CHECK_EQ(poll(&pfd, 1, LIMIT_MS), 1);
	CHECK(link_take(card, frame));
}

/* A small one, made of that seed, and told of. */
void
card_send_one(struct card *card, struct frame *frame, uint64_t seed)
{

	frame_raw(frame, 100, seed);
	card_send(card, frame, 100, 1);
	card_publish(card);
}

/* Whatever befell it: nothing that is on its way but these. */
void
card_check_works(struct card *card)
{
	static struct frame given, taken;

	card_send_one(card, &given, 1);
	card_collect(card);
	link_receive(card, &taken);
	frame_check_same(&given, &taken);
	card_post(card, 1);
	link_send(card, &given);
	card_receive(card, &taken);
	frame_check_same(&given, &taken);
}

/* By both transports, offloads done both ways: each with its own seed. */
void
card_each_way(void (*check)(uint32_t transport, uint32_t offload,
    uint64_t amount, uint64_t seed), uint64_t amount, uint64_t seed)
{

	check(XBB_TRANSPORT_COPY, XBB_NET_OFFLOAD_FULL, amount, seed);
	check(XBB_TRANSPORT_MAP, XBB_NET_OFFLOAD_FULL, amount, seed + 1);
	check(XBB_TRANSPORT_COPY, XBB_NET_OFFLOAD_SAFE, amount, seed + 2);
	check(XBB_TRANSPORT_MAP, XBB_NET_OFFLOAD_SAFE, amount, seed + 3);
}
