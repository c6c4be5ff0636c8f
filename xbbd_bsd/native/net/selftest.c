/*
 * selftest.c - cases of what goes over the rings of a card, and what has to
 * come of them: those that the kernel's driver runs when its unit_test_results
 * is read, as far as they are about packets and sums, and what a guest may send
 * besides.  Pure, any thread.
 *
 * Of the driver's, what is about buffers of its kernel is about pieces and
 * slots here.  The last five of it, which read numbers from text, are Python's.
 */
#include <string.h>

#include "net/net.h"

#define MOST_CASE_SLOTS	6
#define MOST_CHAIN	300
#define OFFERED \
	(XBB_NET_SG | XBB_NET_GSO_TCPV4 | XBB_NET_GSO_TCPV6)

#define MORE	XBB_TXF_MORE_DATA
#define EXTRA	XBB_TXF_EXTRA_INFO
#define AGAIN	XBB_EXTRA_FLAG_MORE
#define OKAY	XBB_NETIF_OKAY
#define ERROR	XBB_NETIF_ERROR
#define EMPTY	XBB_NETIF_NULL

/* A request: flags, id, size, offset; its reference is 7 more than its id. */
#define REQ(f, i, s, o) { .request = { \
	.ref = (i) + 7, .offset = (o), .flags = (f), .id = (i), .size = (s) } }
#define EXT(t, f, s, g) { .extra = { \
	.type = (t), .flags = (f), .gso_size = (s), .gso_type = (g) } }
#define GSO(s)	EXT(XBB_EXTRA_GSO, 0, s, XBB_GSO_TCPV4)

/* Slots of the guest's, the packet that they are, how they are answered. */
static const struct tx_case {
	const char	*name;
	union xbb_tx_slot slot[MOST_CASE_SLOTS];
	uint32_t	n, first;
	int16_t		with;	/* what it is answered with */
	uint8_t		nslots, refusal;
	uint16_t	gso_size;
	uint16_t	len[3];	/* of slots with data, as far as it is known */
	int16_t		status[5];
} tx_cases[] = {
	/* 1 to 7: a packet of a ring. */
	{ "packet: an empty ring", { { .words = { 0 } } }, 0, 0, OKAY,
	    0, 0, 0, { 0 }, { 0 } },
	{ "packet: one request", { REQ(0, 1, 69, 0) }, 1, 0, OKAY,
	    1, 0, 0, { 69 }, { OKAY } },
	{ "packet: two requests", { REQ(MORE, 1, 100, 0), REQ(0, 2, 40, 0) },
	    2, 0, OKAY, 2, 0, 0, { 60, 40 }, { OKAY, OKAY } },
	{ "packet: three requests", { REQ(MORE, 1, 200, 0),
	    REQ(MORE, 2, 40, 0), REQ(0, 3, 50, 0) }, 3, 0, OKAY,
	    3, 0, 0, { 110, 40, 50 }, { OKAY, OKAY, OKAY } },
	{ "packet: with extra info", { REQ(EXTRA | MORE, 1, 150, 0),
	    GSO(250), REQ(0, 2, 50, 0) }, 3, 0, OKAY,
	    3, 0, 250, { 100, 50 }, { OKAY, EMPTY, OKAY } },
	{ "packet: not whole yet", { REQ(MORE, 1, 200, 0) }, 1, 0, OKAY,
	    0, 0, 0, { 0 }, { 0 } },
	{ "packet: behind others", { REQ(0, 8, 60, 0), REQ(0, 9, 60, 0),
	    REQ(MORE, 1, 550, 0), REQ(MORE, 2, 100, 0), REQ(0, 3, 50, 0) },
	    5, 2, OKAY, 3, 0, 0, { 400, 100, 50 }, { OKAY, OKAY, OKAY } },

	/* 8 to 14: its answers; 8 and 14 are as 1 and 7. */
	{ "answer: one request", { REQ(0, 1, 1000, 0) }, 1, 0, OKAY,
	    1, 0, 0, { 1000 }, { OKAY } },
	{ "answer: with extra info", { REQ(EXTRA, 69, 1000, 0), GSO(500) },
	    2, 0, OKAY, 2, 0, 500, { 1000 }, { OKAY, EMPTY } },
	{ "answer: long", { REQ(EXTRA | MORE, 254, 600, 0), GSO(500),
	    REQ(MORE, 1034, 100, 0), REQ(0, 34, 200, 0) }, 4, 0, OKAY,
	    4, 0, 500, { 300, 100, 200 }, { OKAY, EMPTY, OKAY, OKAY } },
	{ "answer: extra info that nobody knows", { REQ(EXTRA, 1, 1000, 0),
	    EXT(0xff, 0, 0, 0) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_EXTRA, 0, { 0 }, { ERROR, EMPTY } },
	{ "answer: it came to nothing", { REQ(MORE, 1, 1000, 0),
	    REQ(0, 2, 600, 0) }, 2, 0, ERROR,
	    2, 0, 0, { 400, 600 }, { ERROR, ERROR } },

	/* 15 to 27: pieces, all of it once; 17 is among the frames below. */
	{ "pieces: of nothing", { REQ(0, 1, 0, 0) }, 1, 0, OKAY,
	    1, XBB_NET_TOO_SHORT, 0, { 0 }, { ERROR } },
	{ "pieces: where it is in its page", { REQ(0, 0, 256, 17) }, 1, 0,
	    OKAY, 1, 0, 0, { 256 }, { OKAY } },
	{ "pieces: two", { REQ(MORE, 1, 1900, 0), REQ(0, 2, 500, 0) }, 2, 0,
	    OKAY, 2, 0, 0, { 1400, 500 }, { OKAY, OKAY } },
	{ "pieces: a page", { REQ(0, 1, 4096, 0) }, 1, 0, OKAY,
	    1, 0, 0, { 4096 }, { OKAY } },
	{ "pieces: a page and one byte", { REQ(MORE, 1, 4097, 0),
	    REQ(0, 2, 1, 4095) }, 2, 0, OKAY,
	    2, 0, 0, { 4096, 1 }, { OKAY, OKAY } },
	{ "pieces: slots without data", { REQ(MORE, 1, 60, 4096),
	    REQ(MORE, 2, 60, 0), REQ(0, 3, 0, 4096) }, 3, 0, OKAY,
	    3, 0, 0, { 0, 60 }, { OKAY, OKAY, OKAY } },

	/* What a guest may send besides, and must not. */
	{ "hostile: others are more than the whole", { REQ(MORE, 1, 100, 0),
	    REQ(MORE, 2, 60, 0), REQ(0, 3, 41, 0) }, 3, 0, OKAY,
	    3, XBB_NET_TOO_LONG, 0, { 0 }, { ERROR, ERROR, ERROR } },
	{ "hostile: the first leaves its page", { REQ(0, 1, 100, 3997) }, 1,
	    0, OKAY, 1, XBB_NET_BEYOND_PAGE, 0, { 0 }, { ERROR } },
	{ "hostile: another one does", { REQ(MORE, 1, 5000, 0),
	    REQ(0, 2, 4000, 97) }, 2, 0, OKAY,
	    2, XBB_NET_BEYOND_PAGE, 0, { 0 }, { ERROR, ERROR } },
	{ "hostile: offset and size that wrap", { REQ(MORE, 1, 65535, 0),
	    REQ(0, 2, 65535, 65535) }, 2, 0, OKAY,
	    2, XBB_NET_BEYOND_PAGE, 0, { 0 }, { ERROR, ERROR } },
	{ "hostile: no Ethernet header", { REQ(0, 1, 13, 0) }, 1, 0, OKAY,
	    1, XBB_NET_TOO_SHORT, 0, { 0 }, { ERROR } },
	{ "hostile: extra info is the last slot", { REQ(EXTRA, 1, 100, 0) },
	    1, 0, OKAY, 0, 0, 0, { 0 }, { 0 } },
	{ "hostile: more of it to come", { REQ(EXTRA, 1, 100, 0),
	    EXT(XBB_EXTRA_GSO, AGAIN, 50, XBB_GSO_TCPV4) }, 2, 0, OKAY,
	    0, 0, 0, { 0 }, { 0 } },
	{ "hostile: two of a kind", { REQ(EXTRA, 1, 100, 0),
	    EXT(XBB_EXTRA_GSO, AGAIN, 50, XBB_GSO_TCPV4), GSO(50) }, 3, 0,
	    OKAY, 3, XBB_NET_BAD_EXTRA, 0, { 0 }, { ERROR, EMPTY, EMPTY } },
	{ "packet: a hash besides", { REQ(EXTRA, 1, 100, 0),
	    EXT(XBB_EXTRA_HASH, AGAIN, 0, 0), GSO(50) }, 3, 0, OKAY,
	    3, 0, 50, { 100 }, { OKAY, EMPTY, EMPTY } },
	{ "hostile: extra info of no kind", { REQ(EXTRA, 1, 100, 0),
	    EXT(0, 0, 0, 0) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_EXTRA, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: a multicast address", { REQ(EXTRA, 1, 100, 0),
	    EXT(2, 0, 0x5e00, 1) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_EXTRA, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: headroom", { REQ(EXTRA, 1, 100, 0),
	    EXT(5, 0, 256, 0) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_EXTRA, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: segments of no size", { REQ(EXTRA, 1, 100, 0), GSO(0) },
	    2, 0, OKAY, 2, XBB_NET_BAD_GSO, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: segments of hardly any", { REQ(EXTRA, 1, 100, 0),
	    GSO(XBB_LEAST_SEGMENT - 1) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_GSO, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: segments of nothing", { REQ(EXTRA, 1, 100, 0),
	    EXT(XBB_EXTRA_GSO, 0, 50, XBB_GSO_NONE) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_GSO, 0, { 0 }, { ERROR, EMPTY } },
	{ "hostile: segments of who knows what", { REQ(EXTRA, 1, 100, 0),
	    EXT(XBB_EXTRA_GSO, 0, 50, 255) }, 2, 0, OKAY,
	    2, XBB_NET_BAD_GSO, 0, { 0 }, { ERROR, EMPTY } },
};

/* Frames for the guest, and their responses; requests have ids from 49 on. */
static const struct rx_case {
	const char	*name;
	struct xbb_net_frame frame;
	bool		one, failed;	/* slot a packet; to have its pages */
	uint8_t		nslots, nanswers;
	uint16_t	flags[5];
	int16_t		status[5];	/* of extra info: size of segments */
} rx_cases[] = {
	/* 28 to 37: slots, and pieces. */
	{ "frame: of nothing", { 0, 0, 0, 0 }, false, false, 0, 0,
	    { 0 }, { 0 } },
	{ "frame: short", { 128, 0, 0, 0 }, false, false, 1, 1,
	    { 0 }, { 128 } },
	{ "frame: half a page", { 2048, 0, 0, 0 }, true, false, 1, 1,
	    { 0 }, { 2048 } },
	{ "frame: a page", { 4096, 0, 0, 0 }, true, false, 1, 1,
	    { 0 }, { 4096 } },
	{ "frame: long", { 9557, 0, 0, 0 }, false, false, 3, 3,
	    { 4, 4, 0 }, { 4096, 4096, 1365 } },
	{ "frame: to be split", { 9557, 3, 1408, XBB_GSO_TCPV4 }, false,
	    false, 4, 4, { 3 | 4 | 8, 0, 4, 0 }, { 4096, 1408, 4096, 1365 } },
	{ "frame: one slot is not enough", { 4097, 0, 0, 0 }, true, false,
	    0, 0, { 0 }, { 0 } },
	{ "frame: a page and one byte", { 4097, 0, 0, 0 }, false, false,
	    2, 2, { 4, 0 }, { 4096, 1 } },
	{ "frame: too large", { 65536, 0, 0, 0 }, false, false, 0, 0,
	    { 0 }, { 0 } },

	/* 38 to 43: responses. */
	{ "response: with extra info", { 14, 3, 1460, XBB_GSO_TCPV6 }, false,
	    false, 2, 2, { 3 | 8, 0 }, { 14, 1460 } },
	{ "response: a page and more", { 4196, 0, 0, 0 }, false, false, 2, 2,
	    { 4, 0 }, { 4096, 100 } },
	{ "response: sums that were looked at", { 60, 1, 0, 0 }, false, false,
	    1, 1, { 1 }, { 60 } },
	{ "response: its pages could not be had", { 14336, 3, 1460,
	    XBB_GSO_TCPV4 }, false, true, 5, 1, { 0 }, { ERROR } },
};

/* Frames whose sums are not filled in, and what they are. */
static const uint8_t frame_arp[] = {
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x16, 0x3e, 0x01, 0x02, 0x03,
	0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x00, 0x16,
	0x3e, 0x01, 0x02, 0x03, 0xc0, 0xa8, 0x0a, 0x04, 0x00, 0x00, 0x00, 0x00,
	0x00, 0x00, 0xc0, 0xa8, 0x0a, 0x05,
};

#define ADDRESSES	0xc0, 0xa8, 0x0a, 0x04, 0xc0, 0xa8, 0x0a, 0x05
#define ETHER_IP4 \
	0x00, 0x16, 0x3e, 0x0a, 0x0b, 0x0c, 0x00, 0x16, 0x3e, 0x01, 0x02, \
	0x03, 0x08, 0x00

static const uint8_t frame_icmp[14 + 84] = {
	ETHER_IP4, 0x45, 0x00, 0x00, 0x54, 0x00, 0x1c, 0x00, 0x00, 0x40, 0x01,
	0x00, 0x00, ADDRESSES, 0x08, 0x00, 0x71, 0x4f, 0x1d, 0x1c,
};

static const uint8_t frame_tcp[] = {
	ETHER_IP4, 0x45, 0x00, 0x00, 0x3c, 0x00, 0x08, 0x40, 0x00, 0x40, 0x06,
	0xde, 0xad, ADDRESSES, 0x9c, 0xd9, 0x08, 0xae, 0x00, 0xf7, 0x2b, 0x10,
	0x7f, 0x37, 0xba, 0x6c, 0x80, 0x18, 0x04, 0x10, 0xbe, 0xef, 0x00, 0x00,
	0x01, 0x01, 0x08, 0x0a, 0x00, 0x00, 0x81, 0xdf, 0xce, 0x18, 0x20, 0x7f,
	'F', 'r', 'e', 'e', 'B', 'S', 'D', '\n',
};

static const uint8_t frame_udp[] = {
	ETHER_IP4, 0x45, 0x00, 0x00, 0x24, 0x00, 0x04, 0x00, 0x00, 0x40, 0x11,
	0xde, 0xad, ADDRESSES, 0x51, 0xae, 0x08, 0xae, 0x00, 0x10, 0xbe, 0xef,
	'F', 'r', 'e', 'e', 'B', 'S', 'D', '\n',
};

#define MOST_CASE_BYTES	128

/* 44 to 48, and 17: sums that are blank, good, or not spoken of. */
static const struct sum_case {
	const char	*name;
	const uint8_t	*frame;
	uint32_t	size;
	uint16_t	flags;		/* of the guest's packet */
	uint8_t		says;		/* the header of the link */
	bool		refused, filled;
	uint16_t	ip, sum, at;	/* sums, and where the second is */
} sum_cases[] = {
	{ "sums: of ARP there are none", frame_arp, sizeof(frame_arp),
	    XBB_TXF_CSUM_BLANK, 0, true, false, 0, 0, 0 },
	{ "sums: of ICMP only that of its header", frame_icmp,
	    sizeof(frame_icmp), XBB_TXF_CSUM_BLANK, 0, true, true,
	    0xe533, 0x714f, 36 },
	{ "sums: of TCP", frame_tcp, sizeof(frame_tcp),
	    XBB_TXF_CSUM_BLANK | XBB_TXF_DATA_VALIDATED, XBB_LINK_NEEDS_CSUM,
	    false, true, 0xa55a, 0x2f64, 50 },
	{ "sums: of TCP, if nobody asks", frame_tcp, sizeof(frame_tcp), 0, 0,
	    false, false, 0xdead, 0xbeef, 50 },
	{ "sums: that are good", frame_tcp, sizeof(frame_tcp),
	    XBB_TXF_DATA_VALIDATED, XBB_LINK_DATA_VALID, false, false,
	    0xdead, 0xbeef, 50 },
	{ "sums: of UDP", frame_udp, sizeof(frame_udp), XBB_TXF_CSUM_BLANK,
	    XBB_LINK_NEEDS_CSUM, false, true, 0xe56b, 0xdde2, 40 },
};

/* As many slots with data, of 40 bytes each. */
static const struct chain_case {
	const char	*name;
	uint16_t	ndata;
	uint8_t		refusal;
} chain_cases[] = {
	{ "packet: most slots", XBB_NET_MAX_SLOTS, XBB_NET_FINE },
	{ "hostile: one slot too many", XBB_NET_MAX_SLOTS + 1,
	    XBB_NET_TOO_MANY },
	{ "hostile: 300 slots", MOST_CHAIN, XBB_NET_TOO_MANY },
};

static bool
pieces_hold(const struct tx_case *test, const struct xbb_net_packet *packet)
{
	const union xbb_tx_slot *slot = &test->slot[test->first];
	const struct xbb_net_piece *piece = packet->piece;
	uint32_t i, sum;

	sum = 0;
	for (i = 0; i < 3; i++) {
		if (test->len[i] != 0) {
			if (piece == packet->piece + packet->npieces ||
			    piece->ref != slot->request.ref ||
			    piece->offset != slot->request.offset ||
			    piece->len != test->len[i])
				return (false);
			piece++;
		}
		sum += test->len[i];
		slot += i == 0 ? 1 + packet->nextras : 1;
		if (slot >= test->slot + test->n)
			break;
	}
	return (piece == packet->piece + packet->npieces &&
	    packet->size == sum && packet->flags ==
	    test->slot[test->first].request.flags);
}

static bool
tx_case_holds(const struct tx_case *test)
{
	union xbb_tx_slot answers[MOST_CASE_SLOTS], untouched;
	const union xbb_tx_slot *slot;
	struct xbb_net_packet packet;
	uint32_t i;
	bool extra;

	if (xbb_netif_tx_packet(test->slot, test->n, test->first, OFFERED,
	    &packet) != test->nslots)
		return (false);
	if (test->nslots == 0)
		return (true);
	if (packet.first != test->first || packet.nslots != test->nslots ||
	    packet.refusal != test->refusal)
		return (false);
	if (test->refusal == XBB_NET_FINE && (!pieces_hold(test, &packet) ||
	    packet.gso_size != test->gso_size ||
	    (packet.gso_type != 0) != (test->gso_size != 0)))
		return (false);
	memset(answers, 0x5a, sizeof(answers));
	memset(&untouched, 0x5a, sizeof(untouched));
	xbb_netif_tx_answer(test->slot, &packet, test->with, answers);
	for (i = 0; i < test->nslots; i++) {
		slot = &test->slot[test->first + i];
		extra = test->status[i] == XBB_NETIF_NULL;
		if (answers[i].response.status != test->status[i] ||
		    answers[i].response.id != (extra ? slot->response.id :
		    slot->request.id))
			return (false);
	}
	return (memcmp(&answers[i], &untouched, sizeof(untouched)) == 0);
}

static bool
chain_case_holds(const struct chain_case *test)
{
	union xbb_tx_slot slots[MOST_CHAIN];
	struct xbb_net_packet packet;
	uint32_t i;

	for (i = 0; i < test->ndata; i++)
		slots[i] = (union xbb_tx_slot)REQ(MORE, (uint16_t)i, 40, 0);
	slots[0].request.size = (uint16_t)(test->ndata * 40U);
	if (xbb_netif_tx_packet(slots, test->ndata, 0, OFFERED, &packet) != 0)
		return (false);
	slots[test->ndata - 1].request.flags = 0;
	if (xbb_netif_tx_packet(slots, test->ndata, 0, OFFERED, &packet) !=
	    test->ndata || packet.refusal != test->refusal)
		return (false);
	if (test->refusal == XBB_NET_FINE && packet.npieces != test->ndata)
		return (false);
	xbb_netif_tx_answer(slots, &packet, OKAY, slots);
	for (i = 0; i < test->ndata; i++)
		if (slots[i].response.id != i || slots[i].response.status !=
		    (test->refusal == XBB_NET_FINE ? OKAY : ERROR))
			return (false);
	return (true);
}

static bool
rx_case_holds(const struct rx_case *test)
{
	union xbb_rx_slot requests[6], answers[6], untouched;
	struct xbb_rx_response *response;
	uint32_t i, n, offset, total;

	if (xbb_netif_rx_slots(&test->frame, !test->one) != test->nslots)
		return (false);
	total = 0;
	for (n = 0; (i = xbb_netif_rx_piece(&test->frame, n, &offset)) > 0;
	    n++) {
		if (offset != total || i > XBB_PAGE_SIZE)
			return (false);
		total += i;
	}
	if (total != test->frame.size)
		return (false);
	if (test->nslots == 0)
		return (true);
	for (i = 0; i < 6; i++)
		requests[i].request = (struct xbb_rx_request){
			.id = (uint16_t)(49 + i), .ref = 7,
		};
	memset(answers, 0x5a, sizeof(answers));
	memset(&untouched, 0x5a, sizeof(untouched));
	if (xbb_netif_rx_answer(requests, &test->frame, test->failed,
	    answers) != test->nanswers)
		return (false);
	for (i = 0; i < test->nanswers; i++) {
		response = &answers[i].response;
		if (i == 1 && test->frame.gso_type != XBB_GSO_NONE) {
			if (answers[i].extra.type != XBB_EXTRA_GSO ||
			    answers[i].extra.flags != 0 ||
			    answers[i].extra.gso_type !=
			    test->frame.gso_type ||
			    answers[i].extra.gso_size != test->status[i])
				return (false);
		} else if (response->id != 49 + i || response->offset != 0 ||
		    response->flags != test->flags[i] ||
		    response->status != test->status[i])
			return (false);
	}
	return (memcmp(&answers[i], &untouched, sizeof(untouched)) == 0);
}

static bool
sum_case_holds(const struct sum_case *test)
{
	uint8_t frame[MOST_CASE_BYTES], bytes[2];
	struct xbb_link_header header;
	struct xbb_headers headers;

	memcpy(frame, test->frame, test->size);
	if (xbb_offload_to_link(frame, test->size, test->flags, XBB_GSO_NONE,
	    0, &header) == test->refused)
		return (false);
	if (!test->refused && header.flags != test->says)
		return (false);
	if (!xbb_headers_find(frame, test->size, &headers))
		return (false);
	if (test->filled != ((test->flags & XBB_TXF_CSUM_BLANK) != 0 &&
	    xbb_sum_fill(frame, test->size, &headers)))
		return (false);
	if (test->filled && headers.l4 != 0 &&
	    !xbb_sum_right(frame, test->size, &headers))
		return (false);
	if (test->at == 0)
		return (memcmp(frame, test->frame, test->size) == 0);
	bytes[0] = (uint8_t)(test->ip >> 8);
	bytes[1] = (uint8_t)test->ip;
	if (memcmp(frame + 24, bytes, sizeof(bytes)) != 0)
		return (false);
	bytes[0] = (uint8_t)(test->sum >> 8);
	bytes[1] = (uint8_t)test->sum;
	if (memcmp(frame + test->at, bytes, sizeof(bytes)) != 0)
		return (false);
	/* Nothing else is. */
	memcpy(frame + 24, test->frame + 24, sizeof(bytes));
	memcpy(frame + test->at, test->frame + test->at, sizeof(bytes));
	return (memcmp(frame, test->frame, test->size) == 0);
}

int
xbb_net_self_test(uint32_t number, const char **namep)
{
	const uint32_t ntx = sizeof(tx_cases) / sizeof(tx_cases[0]);
	const uint32_t nchains = sizeof(chain_cases) / sizeof(chain_cases[0]);
	const uint32_t nrx = sizeof(rx_cases) / sizeof(rx_cases[0]);
	const uint32_t nsums = sizeof(sum_cases) / sizeof(sum_cases[0]);

	*namep = NULL;
	if (number < ntx) {
		*namep = tx_cases[number].name;
		return (tx_case_holds(&tx_cases[number]));
	}
	number -= ntx;
	if (number < nchains) {
		*namep = chain_cases[number].name;
		return (chain_case_holds(&chain_cases[number]));
	}
	number -= nchains;
	if (number < nrx) {
		*namep = rx_cases[number].name;
		return (rx_case_holds(&rx_cases[number]));
	}
	number -= nrx;
	if (number < nsums) {
		*namep = sum_cases[number].name;
		return (sum_case_holds(&sum_cases[number]));
	}
	return (-ENOENT);
}
