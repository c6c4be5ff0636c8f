/*
 * test_net_life.c - the life of a card's queue, and what befalls it: a guest
 * that posts nothing, a link that takes or gives nothing, a host that is short
 * or fails, draining under load, and handing over.
 */
#include <sys/resource.h>

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "card.h"

#define IDLE_MS		60

static const uint32_t transports[] = { XBB_TRANSPORT_COPY, XBB_TRANSPORT_MAP };
static const struct card_options usual = { 0 };
static struct frame given, taken;

static uint64_t
process_cpu_us(void)
{
	struct rusage usage;

	CHECK_EQ(getrusage(RUSAGE_SELF, &usage), 0);
	return ((uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) *
	    1000000 + (uint64_t)(usage.ru_utime.tv_usec +
	    usage.ru_stime.tv_usec));
}

/* Nothing is asked of it for a while: it takes no processor. */
static void
check_rests(const struct card *card)
{
	uint64_t cpu, sleeps;

	cpu = process_cpu_us();
	sleeps = CARD_COMMON(card, ring_sleeps);
	CHECK_EQ(poll(NULL, 0, IDLE_MS), 0);
	CHECK(process_cpu_us() - cpu < IDLE_MS * 1000 / 2);
	CHECK(CARD_COMMON(card, ring_sleeps) - sleeps < IDLE_MS);
}

/*
 * A guest that posts no buffers: frames wait in the link, packets of the
 * guest's go on, and all that can be seen is since when.
 */
static void
check_no_buffers(bool rx_polls)
{
	const struct card_options options = { .rx_polls = rx_polls };
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	WAIT_UNTIL(XBB_GET(card.rs->rx_full_since_ns) != 0);
	for (i = 0; i < 20; i++) {
		frame_raw(&given, 100, i);
		link_send(&card, &given);
	}
	for (i = 0; i < 100; i++) {
		card_send_one(&card, &given, i);
		link_receive(&card, &taken);
		card_collect(&card);
	}
	check_rests(&card);
	CHECK(XBB_GET(card.rs->rx_full_since_ns) < xbb_now_ns());
	CHECK_EQ(CARD_COUNTER(&card, rx_full), 1);
	for (i = 0; i < 20; i++) {
		card_post(&card, 1);
		frame_raw(&given, 100, i);
		card_receive(&card, &taken);
		frame_check_same(&given, &taken);
	}
	CHECK_EQ(CARD_COUNTER(&card, rx_dropped), 0);
	card_post(&card, 1);
	WAIT_UNTIL(XBB_GET(card.rs->rx_full_since_ns) == 0);
	check_rests(&card);
	card_close(&card);
}

/* Nobody reads the link: what does not fit there is lost, and counted. */
static void
check_link_full(void)
{
	struct card card;
	uint32_t i, n;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	for (n = 0; CARD_COUNTER(&card, tx_dropped) == 0; n += i) {
		frame_raw(&given, 65535, n);
		for (i = 0; i < 8; i++)
			card_send(&card, &given, 4096, 4096);
		card_publish(&card);
		card_collect(&card);
		CHECK_EQ(card.status[(card.tx_cons - 1) % CARD_SLOTS],
		    XBB_NETIF_OKAY);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_packets) +
	    CARD_COUNTER(&card, tx_dropped), n);
	while (link_take(&card, &taken))
		continue;
	card_check_works(&card);
	card_close(&card);
}

/* Nor is there anybody at its other end. */
static void
check_link_closed(void)
{
	struct card card;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 10);
	card_check_works(&card);
	close(card.link[1]);
	card.link[1] = -1;
	card_send_one(&card, &given, 1);
	card_collect(&card);
	CHECK_EQ(CARD_COUNTER(&card, tx_dropped), 1);
	check_rests(&card);
	xbb_net_queue_drain(card.queue);
	card_wait_drained(&card, XBB_STOP_NONE);
	card_close(&card);
}

/* What was taken is answered, the rest and what is posted stay unread. */
static void
check_drain(uint32_t transport)
{
	const struct card_options options = { .transport = transport };
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 100);
	for (i = 0; i < CARD_SLOTS; i++) {
		frame_raw(&given, 64, i);
		card_send(&card, &given, 64, 1);
	}
	card_publish(&card);
	for (i = 0; i < 50; i++)
		link_send(&card, &given);
	xbb_net_queue_drain(card.queue);
	card_wait_drained(&card, XBB_STOP_NONE);
	card_take_answers(&card);
	CHECK_EQ(XBB_GET(card.rs->common.req_cons), card.tx_cons);
	CHECK_EQ(XBB_GET(card.rs->common.rsp_prod), card.tx_cons);
	CHECK_EQ(XBB_GET(card.rs->tx_answering), card.tx_cons);
	CHECK_EQ(XBB_GET(card.rs->rx_req_cons),
	    XBB_GET(card.rs->rx_rsp_prod));
	CHECK_EQ(CARD_COUNTER(&card, rx_packets),
	    XBB_GET(card.rs->rx_rsp_prod));
	CHECK_EQ(XBB_GET(card.rs->rx_full_since_ns), 0);
	card_close(&card);
}

/*
 * From one to the next, while the guest sends and is sent to: each frame
 * arrives once, since there is nothing in flight between sweeps.
 */
static void
check_hand_over(uint32_t transport)
{
	const struct card_options options = { .transport = transport };
	uint32_t in, out, i, round;
	struct card card;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 20);
	in = out = 0;
	for (round = 0; round < 30; round++) {
		for (i = 0; i < 10; i++) {
			card_send_one(&card, &given, out + i);
			frame_raw(&given, 200, in + i);
			link_send(&card, &given);
		}
		xbb_net_queue_hand_over(card.queue);
		xbb_net_queue_close(card.queue);
		CHECK_EQ(XBB_GET(card.rs->common.connected), 1);
		CHECK_EQ(XBB_GET(card.rs->common.status.state),
		    XBB_QUEUE_RUNNING);
		card_serve(&card, XBB_ADOPT_TABLE);
		for (i = 0; i < 10; i++) {
			frame_raw(&given, 100, out++);
			link_receive(&card, &taken);
			frame_check_same(&given, &taken);
			frame_raw(&given, 200, in++);
			card_receive(&card, &taken);
			frame_check_same(&given, &taken);
			card_post(&card, 1);
		}
		card_collect(&card);
	}
	CHECK_EQ(CARD_COUNTER(&card, tx_packets), out);
	CHECK_EQ(CARD_COUNTER(&card, rx_packets), in);
	CHECK_EQ(XBB_GET(card.rs->params.link_fd), -1);
	CHECK_EQ(XBB_GET(card.rs->params.conn.adopt), XBB_ADOPT_NOT);
	card_close(&card);
}

/*
 * A guest that notifies while the host is short has no processor for that: it
 * is looked at, and slept on, several times between two tries.
 */
static void
check_sleeps_on(struct card *card, atomic_uint *calls)
{
	unsigned int n, seen, tries;
	uint64_t sleeps;

	tries = 0;
	seen = atomic_load(calls);
	for (n = 0; n < 8; n++) {
		sleeps = CARD_COMMON(card, ring_sleeps);
		card_notify(card);
		WAIT_UNTIL(CARD_COMMON(card, ring_sleeps) != sleeps);
		if (atomic_load(calls) != seen) {
			CHECK(++tries < 100);
			seen = atomic_load(calls);
			n = 0;
		}
	}
}

/*
 * A host that is short: packets of the guest's wait on the ring, frames for it
 * are lost; and draining waits for nothing.
 */
static void
check_shortage(uint32_t transport, int errnum, bool drain)
{
	const struct card_options options = { .transport = transport };
	atomic_int *fails = transport == XBB_TRANSPORT_COPY ?
	    &hypervisor.copy_errnum : &hypervisor.map_errnum;
	struct card card;
	uint32_t n;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 100);
	card_check_works(&card);
	atomic_store(fails, errnum);
	frame_raw(&given, 100, 1);
	link_send(&card, &given);
	WAIT_UNTIL(CARD_COUNTER(&card, rx_dropped) == 1);
	n = card.tx_prod;
	card_send_one(&card, &given, 5);
	WAIT_UNTIL(CARD_COMMON(&card, kva_shortages) > 0);
	check_rests(&card);
	check_sleeps_on(&card, transport == XBB_TRANSPORT_COPY ?
	    &hypervisor.copy_calls : &hypervisor.map_calls);
	card_take_answers(&card);
	CHECK_EQ(card.tx_cons, n);
	if (drain) {
		xbb_net_queue_drain(card.queue);
		card_wait_drained(&card, XBB_STOP_NONE);
		card_take_answers(&card);
		CHECK_EQ(card.tx_cons, n);
		hypervisor_reset();
	} else {
		hypervisor_reset();
		card_collect(&card);
		frame_raw(&given, 100, 5);
		link_receive(&card, &taken);
		frame_check_same(&given, &taken);
		card_check_works(&card);
		CHECK_EQ(CARD_COMMON(&card, kva_shortages), 1);
		CHECK_EQ(CARD_COUNTER(&card, tx_errors), 0);
	}
	card_close(&card);
}

/*
 * That fails, and is no shortage: all packets of a sweep are lost, of one that
 * is as large as any, and none waits.
 */
static void
check_move_fails(uint32_t transport)
{
	const struct card_options options = { .transport = transport };
	struct card card;
	uint32_t i;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 100);
	atomic_store(transport == XBB_TRANSPORT_COPY ?
	    &hypervisor.copy_errnum : &hypervisor.map_errnum, EFAULT);
	for (i = 0; i < XBB_NET_SWEEP; i++) {
		frame_raw(&given, 100, i);
		card_send(&card, &given, 40, 20);
	}
	CHECK_EQ(card.tx_prod, CARD_SLOTS);
	card_publish(&card);
	card_collect(&card);
	for (i = 0; i < CARD_SLOTS; i++)
		CHECK_EQ(card.status[i], XBB_NETIF_DROPPED);
	CHECK_EQ(CARD_COUNTER(&card, tx_dropped), XBB_NET_SWEEP);
	CHECK(!link_take(&card, &taken));
	link_send(&card, &given);
	WAIT_UNTIL(card_can_receive(&card));
	CHECK_EQ(CARD_COUNTER(&card, rx_errors), 1);
	CHECK_EQ(card_rx_slot(&card, 0)->response.status, XBB_NETIF_ERROR);
	CHECK_EQ(CARD_COMMON(&card, grant_errors), 0);
	hypervisor_reset();
	card.rx_cons++;
	card_check_works(&card);
	card_close(&card);
}

/* What the host's hypervisor does not do any more ends the queue. */
static void
check_fails(atomic_int *fails, uint32_t transport, enum xbb_stop_reason reason)
{
	const struct card_options options = { .transport = transport };
	struct xbb_queue_status status;
	struct card card;

	card_open(&card, &options);
	card_serve(&card, XBB_ADOPT_NOT);
	card_check_works(&card);
	atomic_store(fails, EIO);
	card_send_one(&card, &given, 1);
	card_notify(&card);
	card_wait_drained(&card, reason);
	xbb_net_queue_status(card.queue, &status);
	CHECK_EQ(status.errnum, EIO);
	atomic_store(fails, 0);
	card_close(&card);
}

/* The segment's file is cut off. */
static void
check_damage(void)
{
	struct xbb_queue_status status;
	struct card card;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_check_works(&card);
	CHECK_EQ(ftruncate(card.state_fd, 0), 0);
	card_send_one(&card, &given, 1);
	WAIT_UNTIL((xbb_net_queue_status(card.queue, &status),
	    status.state == XBB_QUEUE_DRAINED));
	CHECK_EQ(status.reason, XBB_STOP_SEGMENT);
	CHECK(xbb_net_state_damaged(card.state));
	card_close(&card);
}

/* Threads that cannot be made, a ring that nobody has. */
static void
check_no_thread(void)
{
	struct xbb_error error;
	struct card card;

	card_open(&card, &usual);
	card_connect(&card);
	CHECK_EQ(card_try(&card, XBB_ADOPT_NOT), 0);
	threads_forbid(true);
	CHECK(xbb_net_queue_start(card.queue, &error) != 0);
	threads_forbid(false);
	CHECK_EQ(XBB_GET(card.rs->common.connected), 0);
	card_leave(&card);
	card_serve(&card, XBB_ADOPT_NOT);
	card_check_works(&card);
	card_close(&card);
}

/* Where both rings stand, as others see it meanwhile. */
static void
check_indices(void)
{
	struct xbb_net_indices at;
	struct card card;
	uint32_t i;

	card_open(&card, &usual);
	card_serve(&card, XBB_ADOPT_NOT);
	card_post(&card, 30);
	for (i = 0; i < 200; i++) {
		card_send_one(&card, &given, i);
		xbb_net_queue_indices(card.queue, &at);
		CHECK_EQ(at.tx.nr_ents, CARD_SLOTS);
		CHECK_EQ(at.tx.req_prod, card.tx_prod);
		CHECK(at.tx.req_cons + 1 - at.tx.req_prod <= 1);
		link_receive(&card, &taken);
		card_collect(&card);
	}
	link_send(&card, &given);
	card_receive(&card, &taken);
	WAIT_UNTIL((xbb_net_queue_indices(card.queue, &at),
	    at.rx.req_cons == 1));
	CHECK_EQ(at.tx.req_cons, card.tx_prod);
	CHECK_EQ(at.tx.rsp_prod, card.tx_prod);
	CHECK_EQ(at.tx.rsp_prod_pvt, card.tx_prod);
	CHECK_EQ(at.rx.rsp_prod, 1);
	CHECK_EQ(at.rx.rsp_prod_pvt, 1);
	CHECK_EQ(at.rx.req_prod, 30);
	CHECK(xbb_net_queue_bytes() > XBB_NET_ARENA);
	card_close(&card);
}

int
main(void)
{
	uint32_t i;

	signal(SIGPIPE, SIG_IGN);
	scratch_enter();
	check_no_buffers(false);
	check_no_buffers(true);
	check_link_full();
	check_link_closed();
	for (i = 0; i < COUNTOF(transports); i++) {
		check_drain(transports[i]);
		check_hand_over(transports[i]);
		check_shortage(transports[i], ENOMEM, false);
		check_shortage(transports[i], EAGAIN, true);
		check_move_fails(transports[i]);
	}
	check_fails(&hypervisor.notify_errnum, XBB_TRANSPORT_COPY,
	    XBB_STOP_EVENT);
	check_fails(&hypervisor.take_errnum, XBB_TRANSPORT_COPY,
	    XBB_STOP_EVENT);
	check_fails(&hypervisor.unmap_errnum, XBB_TRANSPORT_MAP,
	    XBB_STOP_UNMAP);
	check_damage();
	check_no_thread();
	check_indices();
	scratch_leave();
	return (0);
}
