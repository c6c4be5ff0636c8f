/*
 * test_copy.c - grant copy, piece by piece: one bad reference fails that piece
 * and no other, and the status of each tells.
 */
#include <string.h>

#include "harness.h"

#define PIECES		5
#define BAD		2

static void
check_pieces(bool to_guest)
{
	static uint8_t ours[PIECES][XBB_PAGE_SIZE];
	const struct xbb_hv_ops *ops = xbb_hv_lookup(XBB_HV_SIM);
	const struct pair_options options = { .workers = 1 };
	struct xbb_copy pieces[PIECES];
	struct xbb_hv *hv;
	struct rig rig;
	uint8_t *page;
	uint32_t i;

	rig_open(&rig, 1024, &options);
	CHECK_EQ(ops->open(&hv, rig.device.domain_fd, -1, 1), 0);
	for (i = 0; i < PIECES; i++) {
		page = xbb_front_page(rig.pair.front, i);
		memset(page, to_guest ? 0x11 : (int)(0x40 + i), XBB_PAGE_SIZE);
		memset(ours[i], to_guest ? (int)(0x40 + i) : 0x11,
		    XBB_PAGE_SIZE);
		pieces[i] = (struct xbb_copy){
			.local = ours[i],
			.ref = i == BAD ? 0 :
			    xbb_front_page_ref(rig.pair.front, i),
			.offset = 512,
			.len = 1024,
			.status = -1,
		};
	}
	CHECK_EQ(ops->copy(hv, pieces, PIECES, to_guest), 0);
	for (i = 0; i < PIECES; i++) {
		page = to_guest ? xbb_front_page(rig.pair.front, i) : ours[i];
		CHECK_EQ(pieces[i].status, i == BAD ? -EINVAL : 0);
		if (!to_guest)
			CHECK(all_bytes(page, 1024,
			    i == BAD ? 0x11 : (uint8_t)(0x40 + i)));
		else
			CHECK(all_bytes(page + 512, 1024,
			    i == BAD ? 0x11 : (uint8_t)(0x40 + i)));
	}
	ops->close(hv);
	pair_drain(&rig.pair);
	rig_close(&rig);
}

int
main(void)
{

	scratch_enter();
	check_pieces(false);
	check_pieces(true);
	scratch_leave();
	return (0);
}
