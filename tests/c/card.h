/*
 * card.h - a network card under test: both ends of its rings and of its link in
 * this process (card.c).  The guest writes slots by hand, a page a slot; the
 * link is a pair of sockets, each frame behind its header.  It belongs to the
 * thread that made it.
 */
#ifndef CARD_H
#define CARD_H

#include "frames.h"
#include "front/hvfront.h"

#define CARD_SLOTS	XBB_NET_SLOTS
#define CARD_ALL	(XBB_NET_SG | XBB_NET_GSO_TCPV4 | XBB_NET_GSO_TCPV6 | \
	XBB_NET_CSUM_IPV4 | XBB_NET_CSUM_IPV6)
#define CARD_NONE	1000	/* a reference that permits nothing */

/* What a card may differ in; 0 stands for the default. */
struct card_options {
	uint32_t	accepts;	/* plain frames */
	uint32_t	offload;	/* FULL */
	uint32_t	transport;	/* BEST */
	bool		rx_polls;
	bool		filter;		/* only from frame_source */
};

struct card {
	struct card_options options;
	char		 name[16];	/* directory of the domain */
	char		 port[16];	/* the guest's address */
	int		 domain_fd, state_fd, listen_fd, event_fd;
	int		 wake[2];
	int		 link[2];	/* the queue's end, ours */
	struct xbb_net_state *state;
	struct xbb_net_ring_state *rs;
	struct xbb_net_queue *queue;	/* NULL: nobody serves */
	struct xbb_hvfront *hv;
	uint8_t		*base;		/* tx ring, rx ring, pages of each */
	uint32_t	 refs[2 + 2 * CARD_SLOTS];
	bool		 blind;		/* responses are only counted */
	uint32_t	 tx_prod, tx_cons;	/* requests, responses */
	uint32_t	 rx_prod, rx_cons;
	bool		 is_extra[CARD_SLOTS];	/* by slot */
	int16_t		 status[CARD_SLOTS];	/* of tx, likewise */
	uint64_t	 events;	/* that the guest took */
};

#define CARD_COUNTER(card, name)	XBB_GET((card)->rs->counters.name)
#define CARD_COMMON(card, name) \
	XBB_GET((card)->rs->common.counters.name)

void	card_open(struct card *card, const struct card_options *options);
void	card_params(const struct card *card, struct xbb_net_params *params);
void	card_connect(struct card *card);
int	card_try(struct card *card, uint32_t adopt);
void	card_begin(struct card *card, uint32_t adopt);	/* connected */
void	card_serve(struct card *card, uint32_t adopt);	/* all of it */
void	card_leave(struct card *card);	/* the queue is closed */
void	card_wait_drained(struct card *card, enum xbb_stop_reason reason);
void	card_close(struct card *card);
void	card_check_balance(const struct card *card);
void	card_check_works(struct card *card);	/* one out, one in */
void	card_each_way(void (*check)(uint32_t transport, uint32_t offload,
	    uint64_t amount, uint64_t seed), uint64_t amount, uint64_t seed);

/* The guest's way out. */
struct xbb_sring *card_sring(const struct card *card, bool rx);
uint8_t	*card_page(const struct card *card, bool rx, uint32_t index);
uint32_t card_ref(const struct card *card, bool rx, uint32_t index);
union xbb_tx_slot *card_tx_slot(const struct card *card, uint32_t index);
union xbb_rx_slot *card_rx_slot(const struct card *card, uint32_t index);
void	card_put(struct card *card, uint32_t ref, uint16_t offset,
	    uint16_t flags, uint16_t size);
void	card_put_extra(struct card *card, const struct xbb_extra *extra);
uint32_t card_send(struct card *card, const struct frame *frame,
	    uint32_t first, uint32_t chunk);
void	card_publish(struct card *card);
void	card_send_one(struct card *card, struct frame *frame, uint64_t seed);
void	card_take_answers(struct card *card);
void	card_collect(struct card *card);

/* And in. */
void	card_post(struct card *card, uint32_t n);
bool	card_can_receive(const struct card *card);
void	card_receive(struct card *card, struct frame *frame);
void	card_notify(struct card *card);

/* The other end of the link. */
void	link_send(struct card *card, const struct frame *frame);
bool	link_take(struct card *card, struct frame *frame);
void	link_receive(struct card *card, struct frame *frame);

#endif /* CARD_H */
