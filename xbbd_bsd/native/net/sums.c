/*
 * sums.c - the sums of IPv4, IPv6, TCP and UDP.  Pure: no system call, no
 * state.  They are carried in the order of bytes that the processor has (RFC
 * 1071), and so are put into a frame as they are.
 */
#include <assert.h>
#include <string.h>

#include "net/frame.h"

/* What processors add at once. */
typedef uint64_t sum_pair __attribute__((vector_size(16)));

/*
 * Thirty-two bytes at once, in sums of 32 bits each that have 64 to grow in:
 * low and high halves of words by themselves.
 */
uint32_t
xbb_sum_add(uint32_t sum, const void *data, size_t bytes)
{
	const sum_pair mask = { UINT32_MAX, UINT32_MAX };
	const uint8_t *from = data;
	sum_pair high, low, word[2];
	uint64_t all;
	uint32_t half;
	uint16_t part;

	low = (sum_pair){ sum, 0 };
	high = (sum_pair){ 0, 0 };
	for (; bytes >= sizeof(word); bytes -= sizeof(word)) {
		memcpy(word, from, sizeof(word));
		from += sizeof(word);
		low += (word[0] & mask) + (word[1] & mask);
		high += (word[0] >> 32) + (word[1] >> 32);
	}
	all = low[0] + low[1] + high[0] + high[1];
	for (; bytes >= sizeof(half); bytes -= sizeof(half)) {
		memcpy(&half, from, sizeof(half));
		from += sizeof(half);
		all += half;
	}
	for (; bytes > 0; bytes -= bytes < sizeof(part) ? 1 : sizeof(part)) {
		part = 0;
		memcpy(&part, from, bytes < sizeof(part) ? 1 : sizeof(part));
		from += sizeof(part);
		all += part;
	}
	/* Frames fill 64 bits by no means: nothing is carried a third time. */
	all = (all & UINT32_MAX) + (all >> 32);
	all = (all & UINT32_MAX) + (all >> 32);
	return ((uint32_t)all);
}

uint16_t
xbb_sum_fold(uint32_t sum)
{

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ((uint16_t)sum);
}

/* Of the pseudo header of so many bytes. */
uint32_t
xbb_pseudo_sum(const uint8_t *frame, const struct xbb_headers *h,
    uint32_t length)
{
	uint8_t rest[4] = { 0, h->protocol };
	uint32_t sum;

	sum = h->version == 4 ?
	    xbb_sum_add(0, frame + h->l3 + IP4_SOURCE, 8) :
	    xbb_sum_add(0, frame + h->l3 + IP6_SOURCE, 32);
	write_be16(rest + 2, length);
	return (xbb_sum_add(sum, rest, sizeof(rest)));
}

uint16_t
xbb_sum_pseudo(const uint8_t *frame, const struct xbb_headers *h)
{

	return (xbb_sum_fold(xbb_pseudo_sum(frame, h, sum_length(frame, h))));
}

/* The sum of a header of IPv4, of the bytes that it has. */
void
xbb_ip4_sum_fill(uint8_t *header)
{

	sum_put(header + IP4_SUM, 0);
	sum_put(header + IP4_SUM, (uint16_t)~xbb_sum_fold(xbb_sum_add(0, header,
	    (header[0] & 0xf) * 4U)));
}

bool
xbb_sum_fill(uint8_t *frame, uint32_t size, const struct xbb_headers *h)
{
	uint8_t *field;
	uint32_t length, sum;

	assert(h->end <= size);
	if (h->version == 4)
		xbb_ip4_sum_fill(frame + h->l3);
	if (h->l4 == 0)
		return (h->version == 4);
	field = frame + h->l4 + sum_offset(h);
	length = sum_length(frame, h);
	sum_put(field, 0);
	sum = xbb_pseudo_sum(frame, h, length);
	sum = xbb_sum_add(sum, frame + h->l4, length);
	sum_put(field, sum_of_udp((uint16_t)~xbb_sum_fold(sum),
	    h->protocol == XBB_PROTOCOL_UDP));
	return (true);
}

bool
xbb_sum_right(const uint8_t *frame, uint32_t size,
    const struct xbb_headers *h)
{
	const uint8_t *ip = frame + h->l3;
	uint32_t length;

	assert(h->end <= size);
	if (h->version == 4 && xbb_sum_fold(xbb_sum_add(0, ip,
	    (ip[0] & 0xf) * 4U)) != 0xffff)
		return (false);
	if (h->l4 == 0)
		return (true);
	if (h->protocol == XBB_PROTOCOL_UDP &&
	    read_be16(frame + h->l4 + UDP_SUM) == 0)
		return (h->version == 4);
	length = sum_length(frame, h);
	return (xbb_sum_fold(xbb_sum_add(xbb_pseudo_sum(frame, h, length),
	    frame + h->l4, length)) == 0xffff);
}
