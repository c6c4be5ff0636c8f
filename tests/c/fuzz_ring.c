/*
 * fuzz_ring.c - any bytes as ring slots: decoded, validated and, if valid,
 * merged.  Pure, so it needs of the product only blkif.c and coalesce.c:
 *
 *	clang -g -O1 -fsanitize=fuzzer,address,undefined -DXBB_LIBFUZZER \
 *	    -D_GNU_SOURCE -I../../xbbd_bsd/native fuzz_ring.c check.c \
 *	    batches.c ../../xbbd_bsd/native/{blkif,coalesce}.c
 *
 * Without libFuzzer it feeds itself.  Arguments: inputs, seed.
 *
 * An input is a byte of settings, then slots of the chosen ABI.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define MOST_SLOTS	64
#define SECTORS		1000	/* of the disk */

int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the rest of the data plane takes for granted of a valid request. */
static void
check_valid(const struct xbb_req *req, const struct xbb_segment *seg,
    const struct xbb_limits *limits)
{
	uint64_t nsectors;
	uint32_t i;

	CHECK(req->operation <= XBB_OP_FLUSH_DISKCACHE ||
	    (req->operation == XBB_OP_DISCARD && limits->discard));
	CHECK(req->nseg <= (req->indirect ? limits->max_indirect_segments :
	    XBB_MAX_SEGMENTS));
	CHECK(!req->indirect || (req->nseg != 0 &&
	    req->operation <= XBB_OP_WRITE_BARRIER));
	nsectors = 0;
	for (i = 0; i < req->nseg; i++) {
		CHECK(seg[i].first_sect <= seg[i].last_sect);
		CHECK(seg[i].last_sect < XBB_SECTORS_PER_PAGE);
		nsectors += 1U + seg[i].last_sect - seg[i].first_sect;
	}
	if (req->operation == XBB_OP_DISCARD) {
		CHECK_EQ(req->nseg, 0);
		nsectors = req->nsectors;
		CHECK(nsectors != 0);
	}
	CHECK_EQ(req->nsectors, nsectors);
	if (nsectors == 0) {
		CHECK(req->operation >= XBB_OP_WRITE_BARRIER);
		return;
	}
	CHECK(req->operation == XBB_OP_READ || !limits->read_only);
	CHECK(req->sector < SECTORS && req->sector + nsectors <= SECTORS);
	CHECK_EQ(req->sector * XBB_SECTOR_SIZE % limits->sector_size, 0);
	CHECK_EQ(nsectors * XBB_SECTOR_SIZE % limits->sector_size, 0);
}

static void
fill_list(struct xbb_segment *seg, uint32_t nseg, const uint8_t *data,
    size_t size)
{
	uint32_t i;

	for (i = 0; i < nseg; i++)
		seg[i] = (struct xbb_segment){
			.gref = i,
			.first_sect = data[i % size] % 9,
			.last_sect = data[(i + 1) % size] % 9,
		};
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct xbb_batch batch[MOST_SLOTS];
	struct batches batches = { .batch = batch };
	struct xbb_req reqs[MOST_SLOTS];
	struct xbb_limits limits = { .sectors = SECTORS };
	struct xbb_segment seg[XBB_MAX_INDIRECT_SEGMENTS];
	const struct xbb_segment *segs;
	const struct xbb_layout *layout;
	uint32_t n, *slot;
	enum xbb_refusal why;

	if (size < 1)
		return (0);
	layout = xbb_layout(data[0] % 3U);
	limits.read_only = (data[0] & 0x10) != 0;
	limits.sector_size = (data[0] & 0x20) != 0 ? 4096 : 512;
	limits.discard = (data[0] & 0x08) == 0;
	limits.max_indirect_segments = (data[0] & 0x04) != 0 ? 0 : 40;
	batches.limits.max_segments = (data[0] & 0x40) != 0 ? 40 : 256;
	batches.limits.disabled = (data[0] & 0x80) != 0;
	data++;
	size--;
	slot = malloc(layout->slot_size);
	CHECK(slot != NULL);
	for (n = 0; n < MOST_SLOTS && size >= layout->slot_size;
	    size -= layout->slot_size, data += layout->slot_size) {
		memcpy(slot, data, layout->slot_size);
		xbb_request_decode(layout, slot, &reqs[n]);
		segs = reqs[n].seg;
		if (reqs[n].indirect && xbb_request_admit(&limits,
		    &reqs[n]) == XBB_REFUSED_NOT) {
			/* What the indirect page holds: the slot's own bytes. */
			CHECK(xbb_indirect_pages(reqs[n].nseg) == 1);
			fill_list(seg, reqs[n].nseg, data, layout->slot_size);
			segs = seg;
		}
		why = xbb_request_validate(&limits, &reqs[n], segs);
		CHECK(why >= XBB_REFUSED_NOT && why < XBB_REFUSALS);
		if (why != XBB_REFUSED_NOT) {
			(void)xbb_request_extent(&reqs[n]);
			continue;
		}
		check_valid(&reqs[n++], segs, &limits);
		batches_add(&batches, reqs);
	}
	batches_check(&batches, reqs);
	free(slot);
	return (0);
}

#ifndef XBB_LIBFUZZER

/* A slot near to a valid one: plain chance would hardly ever hit. */
static void
invent(const struct xbb_layout *layout, uint8_t *slot, uint64_t *seed,
    uint64_t *sectorp)
{
	uint64_t sector = *sectorp;
	uint32_t i;

	random_bytes(seed, slot, layout->slot_size);
	if (random_below(seed, 8) == 0)
		return;
	slot[0] = (uint8_t)random_below(seed, 7);
	slot[1] = (uint8_t)random_below(seed, XBB_MAX_SEGMENTS + 1);
	if (random_below(seed, 3) == 0)
		sector = random_below(seed, SECTORS + 100);
	memcpy(slot + layout->sector, &sector, sizeof(sector));
	for (i = 0; i < XBB_MAX_SEGMENTS; i++) {
		slot[layout->seg + i * 8 + 4] = 0;
		slot[layout->seg + i * 8 + 5] = 7;
	}
	*sectorp = sector + slot[1] * 8U;
	if (random_below(seed, 4) == 0)
		slot[random_below(seed, layout->slot_size)] =
		    (uint8_t)random_next(seed);
}

int
main(int argc, char **argv)
{
	uint64_t n = argument(argc, argv, 1, 20000);
	uint64_t seed = argument(argc, argv, 2, 1);
	uint8_t data[1 + MOST_SLOTS * 112];
	const struct xbb_layout *layout;
	uint64_t sector;
	size_t size;

	printf("%ju inputs, seed %ju\n", (uintmax_t)n, (uintmax_t)seed);
	for (; n > 0; n--) {
		data[0] = (uint8_t)random_next(&seed);
		layout = xbb_layout(data[0] % 3U);
		size = 1;
		sector = 0;
		while (size + layout->slot_size <= sizeof(data) &&
		    random_below(&seed, 20) != 0) {
			invent(layout, data + size, &seed, &sector);
			size += layout->slot_size;
		}
		LLVMFuzzerTestOneInput(data, size - random_below(&seed, size));
	}
	return (0);
}

#endif /* !XBB_LIBFUZZER */
