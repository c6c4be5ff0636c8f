/*
 * netif.h - packets of a network card's rings (netif.h of Xen's public
 * headers), as pure functions: slots to packets and back.  Slots are private
 * copies; nothing here reads shared memory.
 */
#ifndef XBB_NETIF_H
#define XBB_NETIF_H

#include "internal.h"

#include "net/contract.h"

/* Flags of tx slots. */
#define XBB_TXF_CSUM_BLANK	1
#define XBB_TXF_DATA_VALIDATED	2
#define XBB_TXF_MORE_DATA	4
#define XBB_TXF_EXTRA_INFO	8
/* And of rx responses. */
#define XBB_RXF_DATA_VALIDATED	1
#define XBB_RXF_CSUM_BLANK	2
#define XBB_RXF_MORE_DATA	4
#define XBB_RXF_EXTRA_INFO	8

/* Statuses of responses; of rx ones that are fine, bytes. */
#define XBB_NETIF_DROPPED	(-2)
#define XBB_NETIF_ERROR		(-1)
#define XBB_NETIF_OKAY		0
#define XBB_NETIF_NULL		1	/* to an extra-info slot */

/* Extra info; other kinds are refused. */
#define XBB_EXTRA_GSO		1
#define XBB_EXTRA_HASH		4	/* and not looked into */
#define XBB_EXTRA_FLAG_MORE	1
#define XBB_GSO_NONE		0
#define XBB_GSO_TCPV4		1
#define XBB_GSO_TCPV6		2

/*
 * Least segment size of a packet that is to be split: as small as Linux makes
 * it for the meanest of peers, and it bounds what one packet becomes.
 */
#define XBB_LEAST_SEGMENT	8

struct xbb_tx_request {
	uint32_t	ref;
	uint16_t	offset;
	uint16_t	flags;
	uint16_t	id;
	uint16_t	size;		/* of the first: of the whole packet */
};

struct xbb_tx_response {
	uint16_t	id;
	int16_t		status;
};

struct xbb_rx_request {
	uint16_t	id;
	uint16_t	pad;
	uint32_t	ref;
};

struct xbb_rx_response {
	uint16_t	id;
	uint16_t	offset;
	uint16_t	flags;
	int16_t		status;
};

/* In place of a tx request, or of an rx response. */
struct xbb_extra {
	uint8_t		type;
	uint8_t		flags;
	uint16_t	gso_size;
	uint8_t		gso_type;
	uint8_t		pad;
	uint16_t	gso_features;
};

union xbb_tx_slot {
	struct xbb_tx_request request;
	struct xbb_extra extra;
	struct xbb_tx_response response;
	uint32_t	words[3];
};

union xbb_rx_slot {
	struct xbb_rx_request request;
	struct xbb_extra extra;
	struct xbb_rx_response response;
	uint32_t	words[2];
};

_Static_assert(sizeof(union xbb_tx_slot) == 12, "netif_tx_request");
_Static_assert(sizeof(union xbb_rx_slot) == 8, "netif_rx_request");

struct xbb_net_piece {
	uint32_t	ref;
	uint16_t	offset;
	uint16_t	len;
};

/*
 * A packet of the guest's.  Of one that is refused only slots, first and
 * refusal are good.
 */
struct xbb_net_packet {
	uint32_t	first;		/* slot, of those that were given */
	uint32_t	nslots;		/* with extras */
	uint32_t	nextras;	/* behind the first */
	uint32_t	npieces;
	uint32_t	size;		/* bytes of the whole */
	uint16_t	flags;		/* XBB_TXF_* of the first slot */
	uint16_t	gso_size;
	uint8_t		gso_type;
	uint8_t		refusal;	/* enum xbb_net_refusal */
	struct xbb_net_piece piece[XBB_NET_MAX_SLOTS];
};

/*
 * The packet that begins at one of n slots; offered: bits of enum
 * xbb_net_accepts, what we told the frontend it may send.  Returns its slots, 0
 * if it is not whole yet, which one of more slots than the ring has never is:
 * if the ring is full and nothing is in flight, it never ends.  One that is
 * refused is as long as it says, and its slots want their answers.
 *
 * The first reason to refuse it counts, in this order: extras, how many slots,
 * how many bytes, where they are.  Flags of other slots than the first matter
 * only as far as more come.  Slots without data are no pieces.
 */
uint32_t xbb_netif_tx_packet(const union xbb_tx_slot *slots, uint32_t n,
	    uint32_t first, uint32_t offered, struct xbb_net_packet *packet);

/*
 * Responses to all of its slots, in order, with that status (of one that is
 * refused: ERROR), NULL to extras.  They may be put where these slots are.
 * With a response over the first bytes of a slot it can still be told how many
 * slots and extras a packet has: where others have their id an extra keeps its
 * kind and flags, as Linux has it.  Why it was refused cannot be told any more.
 */
void	xbb_netif_tx_answer(const union xbb_tx_slot *slots,
	    const struct xbb_net_packet *packet, int16_t status,
	    union xbb_tx_slot *answers);

/* What becomes of a frame for the guest. */
struct xbb_net_frame {
	uint32_t	size;		/* bytes */
	uint16_t	flags;		/* XBB_RXF_* of sums, of the first */
	uint16_t	gso_size;
	uint8_t		gso_type;	/* XBB_GSO_*; NONE: no extra */
};

/* Slots of the rx ring that it takes; 0: it has no data, or too much. */
uint32_t xbb_netif_rx_slots(const struct xbb_net_frame *frame, bool sg);

/* A piece of it, by the number of its slot that has data: where, how long. */
uint32_t xbb_netif_rx_piece(const struct xbb_net_frame *frame, uint32_t n,
	    uint32_t *offsetp);

/*
 * Responses to so many rx requests, as xbb_netif_rx_slots() says; failed: the
 * guest's pages could not be had, and only the first says so, as one response.
 * Returns how many responses there are: others are not consumed.  They may be
 * put where the requests are.
 */
uint32_t xbb_netif_rx_answer(const union xbb_rx_slot *requests,
	    const struct xbb_net_frame *frame, bool failed,
	    union xbb_rx_slot *answers);

#endif /* XBB_NETIF_H */
