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

const uint8_t frame_source[XBB_NET_ADDRESS] = { 2, 0, 0, 0, 0, 1 };

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

/* Rings. */

struct xbb_sring *
card_sring(const struct card *card, bool rx)
{

	return ((struct xbb_sring *)(void *)(card->base +
	    (rx ? XBB_PAGE_SIZE : 0)));
}

uint8_t *
card_page(const struct card *card, bool rx, uint32_t index)
{

	return (card->base + (2 + (rx ? CARD_SLOTS : 0) +
	    index % CARD_SLOTS) * (size_t)XBB_PAGE_SIZE);
}

uint32_t
card_ref(const struct card *card, bool rx, uint32_t index)
{

	return (card->refs[2 + (rx ? CARD_SLOTS : 0) + index % CARD_SLOTS]);
}

union xbb_tx_slot *
card_tx_slot(const struct card *card, uint32_t index)
{

	return (&((union xbb_tx_slot *)(void *)(card->base + 64))
	    [index % CARD_SLOTS]);
}

union xbb_rx_slot *
card_rx_slot(const struct card *card, uint32_t index)
{

	return (&((union xbb_rx_slot *)(void *)(card->base + XBB_PAGE_SIZE +
	    64))[index % CARD_SLOTS]);
}

static uint32_t
get_index(const uint32_t *index)
{

	return (__atomic_load_n(index, __ATOMIC_ACQUIRE));
}

void
card_notify(struct card *card)
{

	CHECK_EQ(xbb_hvfront_sim.notify(card->hv), 0);
}

/* As ring.h has it: tell the other side only if it asked. */
static void
publish_requests(struct card *card, bool rx, uint32_t old, uint32_t prod)
{
	struct xbb_sring *sring = card_sring(card, rx);
	uint32_t event;

	__atomic_store_n(&sring->req_prod, prod, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	event = get_index(&sring->req_event);
	if (prod - event < prod - old && !(rx && card->options.rx_polls))
		card_notify(card);
}

void
card_put(struct card *card, uint32_t ref, uint16_t offset, uint16_t flags,
    uint16_t size)
{
	const union xbb_tx_slot slot = { .request = {
		.ref = ref, .offset = offset, .flags = flags,
		.id = (uint16_t)card->tx_prod, .size = size,
	} };

	card->is_extra[card->tx_prod % CARD_SLOTS] = false;
	guest_store((uint8_t *)card_tx_slot(card, card->tx_prod++), &slot,
	    sizeof(slot));
}

void
card_put_extra(struct card *card, const struct xbb_extra *extra)
{

	card->is_extra[card->tx_prod % CARD_SLOTS] = true;
	guest_store((uint8_t *)card_tx_slot(card, card->tx_prod++), extra,
	    sizeof(*extra));
}

/*
 * A frame in slots of so many bytes, the first of first bytes; flags, gso_type
 * and gso_size are those of the frame.  Returns its first slot.
 */
uint32_t
card_send(struct card *card, const struct frame *frame, uint32_t first,
    uint32_t chunk)
{
	const struct xbb_extra gso = {
		.type = XBB_EXTRA_GSO,
		.gso_type = frame->gso_type,
		.gso_size = frame->gso_size,
	};
	const uint32_t start = card->tx_prod;
	uint32_t at, len, offset;
	uint16_t flags;

	for (at = 0; at < (uint32_t)frame->size; at += len) {
		len = at == 0 ? first : chunk;
		if (len > (uint32_t)frame->size - at)
			len = (uint32_t)frame->size - at;
		/* At the end of its page. */
		offset = XBB_PAGE_SIZE - len;
		memcpy(card_page(card, false, card->tx_prod) + offset,
		    frame->data + at, len);
		flags = at + len < (uint32_t)frame->size ?
		    XBB_TXF_MORE_DATA : 0;
		if (at == 0)
			flags |= frame->flags;
		if (at == 0 && frame->gso_type != XBB_GSO_NONE)
			flags |= XBB_TXF_EXTRA_INFO;
		card_put(card, card_ref(card, false, card->tx_prod),
		    (uint16_t)offset, flags,
		    (uint16_t)(at == 0 ? (uint32_t)frame->size : len));
		if ((flags & XBB_TXF_EXTRA_INFO) != 0)
			card_put_extra(card, &gso);
	}
	return (start);
}

void
card_publish(struct card *card)
{
	const uint32_t old = get_index(&card_sring(card, false)->req_prod);

	publish_requests(card, false, old, card->tx_prod);
}

/* One of them, in order, under its own name. */
static void
take_answer(struct card *card, uint32_t index)
{
	union xbb_tx_slot slot;

	guest_load(&slot, (uint8_t *)card_tx_slot(card, index), 4);
	card->status[index % CARD_SLOTS] = slot.response.status;
	if (card->blind)
		return;
	if (card->is_extra[index % CARD_SLOTS])
		CHECK_EQ(slot.response.status, XBB_NETIF_NULL);
	else
		CHECK_EQ(slot.response.id, (uint16_t)index);
}

void
card_take_answers(struct card *card)
{
	struct xbb_sring *sring = card_sring(card, false);
	const uint32_t prod = get_index(&sring->rsp_prod);

	CHECK(prod - card->tx_cons <= card->tx_prod - card->tx_cons);
	while (card->tx_cons != prod)
		take_answer(card, card->tx_cons++);
	XBB_SET(sring->rsp_event, card->tx_cons + 1);
}

/* All that was sent is answered. */
void
card_collect(struct card *card)
{

	WAIT_UNTIL(get_index(&card_sring(card, false)->rsp_prod) ==
	    card->tx_prod);
	card_take_answers(card);
	CHECK_EQ(card->tx_cons, card->tx_prod);
}

void
card_post(struct card *card, uint32_t n)
{
	const uint32_t old = card->rx_prod;
	union xbb_rx_slot slot;
	uint32_t i;

	for (i = 0; i < n; i++) {
		slot.request = (struct xbb_rx_request){
			.id = (uint16_t)card->rx_prod,
			.ref = card_ref(card, true, card->rx_prod),
		};
		guest_store((uint8_t *)card_rx_slot(card, card->rx_prod++),
		    &slot, sizeof(slot));
	}
	publish_requests(card, true, old, card->rx_prod);
}

bool
card_can_receive(const struct card *card)
{

	return (get_index(&card_sring(card, true)->rsp_prod) != card->rx_cons);
}

static void
load_response(struct card *card, union xbb_rx_slot *slot)
{

	CHECK(card_can_receive(card));	/* frames are published whole */
	guest_load(slot, (uint8_t *)card_rx_slot(card, card->rx_cons),
	    sizeof(*slot));
}

/* One frame, of all its slots; or a status, of one. */
static void
take_frame_slots(struct card *card, struct frame *frame)
{
	union xbb_rx_slot slot;
	bool more;

	frame->size = 0;
	frame->nslots = 0;
	frame->gso_type = XBB_GSO_NONE;
	frame->gso_size = 0;
	do {
		load_response(card, &slot);
		CHECK_EQ(slot.response.id, (uint16_t)card->rx_cons);
		if (slot.response.status < 0) {
			CHECK_EQ(frame->nslots, 0);
			frame->size = slot.response.status;
			card->rx_cons++;
			return;
		}
		CHECK(slot.response.status > 0 &&
		    slot.response.offset + slot.response.status <=
		    XBB_PAGE_SIZE);
		CHECK(frame->size + slot.response.status <=
		    XBB_NET_MAX_FRAME);
		memcpy(frame->data + frame->size, card_page(card, true,
		    card->rx_cons) + slot.response.offset,
		    (size_t)slot.response.status);
		frame->size += slot.response.status;
		if (frame->nslots++ == 0)
			frame->flags = slot.response.flags & ~(unsigned int)
			    XBB_RXF_MORE_DATA;
		more = (slot.response.flags & XBB_RXF_MORE_DATA) != 0;
		card->rx_cons++;
		if ((slot.response.flags & XBB_RXF_EXTRA_INFO) == 0)
			continue;
		CHECK_EQ(frame->nslots, 1);
		load_response(card, &slot);
		CHECK_EQ(slot.extra.type, XBB_EXTRA_GSO);
		CHECK_EQ(slot.extra.flags, 0);
		frame->gso_type = slot.extra.gso_type;
		frame->gso_size = slot.extra.gso_size;
		card->rx_cons++;
	} while (more);
}

void
card_receive(struct card *card, struct frame *frame)
{

	WAIT_UNTIL(card_can_receive(card));
	take_frame_slots(card, frame);
	XBB_SET(card_sring(card, true)->rsp_event, card->rx_cons + 1);
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

/* Frames. */

/* Of a type that is not IP. */
void
frame_raw(struct frame *frame, uint32_t size, uint64_t seed)
{

	memset(frame, 0, offsetof(struct frame, data));
	frame->size = (int32_t)size;
	random_bytes(&seed, frame->data, size);
	memcpy(frame->data + 6, frame_source, sizeof(frame_source));
	frame->data[12] = 0x88;
	frame->data[13] = 0xb5;		/* of experiments */
}

static void
put_be16(uint8_t *to, uint32_t value)
{

	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

void
frame_tcp(struct frame *frame, int version, uint32_t payload, uint64_t seed)
{
	uint8_t *ip = frame->data + 14, *tcp;
	struct xbb_headers h;

	frame_raw(frame, payload + (version == 4 ? FRAME_TCP4 : FRAME_TCP6),
	    seed);
	memset(ip, 0, version == 4 ? 20 : 40);
	put_be16(frame->data + 12, version == 4 ? 0x0800 : 0x86dd);
	if (version == 4) {
		ip[0] = 0x45;
		put_be16(ip + 2, 40 + payload);
		ip[8] = 64;
		ip[9] = 6;
		ip[15] = 1;
		ip[19] = 2;
		tcp = ip + 20;
	} else {
		ip[0] = 0x60;
		put_be16(ip + 4, 20 + payload);
		ip[6] = 6;
		ip[7] = 64;
		ip[23] = 1;
		ip[39] = 2;
		tcp = ip + 40;
	}
	tcp[12] = 0x50;
	tcp[13] = 0x18;
	CHECK(xbb_headers_find(frame->data, (uint32_t)frame->size, &h));
	CHECK(xbb_sum_fill(frame->data, (uint32_t)frame->size, &h));
}

void
frame_check_same(const struct frame *a, const struct frame *b)
{

	CHECK_EQ(a->size, b->size);
	CHECK(memcmp(a->data, b->data, (size_t)a->size) == 0);
}

bool
frame_is_right(const struct frame *frame)
{
	struct xbb_headers h;

	return (xbb_headers_find(frame->data, (uint32_t)frame->size, &h) &&
	    h.l4 != 0 &&
	    xbb_sum_right(frame->data, (uint32_t)frame->size, &h));
}
