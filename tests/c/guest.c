/*
 * guest.c - requests written into a ring by hand, responses read and checked:
 * each request is answered once, under its own id and operation.  The layouts
 * are here a second time on purpose, from blkif.h, so that a mistake in the
 * product's table does not hide itself.
 */
#include <string.h>

#include "harness.h"

static const struct guest_layout layouts[] = {
	[XBB_ABI_NATIVE] = { 112, 16, 8, 16, 24 },
	[XBB_ABI_X86_32] = { 108, 12, 4, 12, 20 },
	[XBB_ABI_X86_64] = { 112, 16, 8, 16, 24 },
};

void
guest_store(uint8_t *to, const void *from, size_t size)
{
	const uint8_t *bytes = from;
	size_t i;

	for (i = 0; i < size; i++)
		XBB_SET(to[i], bytes[i]);
}

void
guest_load(void *to, const uint8_t *from, size_t size)
{
	uint8_t *bytes = to;
	size_t i;

	for (i = 0; i < size; i++)
		bytes[i] = XBB_GET(from[i]);
}

void
guest_init(struct guest *guest, struct pair *pair)
{
	uint64_t size;

	memset(guest, 0, sizeof(*guest));
	guest->front = pair->front;
	guest->layout = layouts[pair->abi];
	guest->ring = xbb_front_ring(pair->front, &size);
	for (guest->nslots = 1; 64 + guest->nslots * 2 *
	    guest->layout.slot_size <= size; guest->nslots *= 2)
		continue;
}

uint8_t *
guest_slot(struct guest *guest, uint32_t index)
{

	return (guest->ring + 64 + (size_t)(index % guest->nslots) *
	    guest->layout.slot_size);
}

uint32_t
guest_index(struct guest *guest, size_t offset)
{

	return (__atomic_load_n((uint32_t *)(void *)(guest->ring + offset),
	    __ATOMIC_SEQ_CST));
}

void
guest_set_index(struct guest *guest, size_t offset, uint32_t value)
{

	__atomic_store_n((uint32_t *)(void *)(guest->ring + offset), value,
	    __ATOMIC_SEQ_CST);
}

struct xbb_segment
guest_segment(struct guest *guest, uint32_t page, uint8_t first, uint8_t last)
{

	return ((struct xbb_segment){
		.gref = xbb_front_page_ref(guest->front, page),
		.first_sect = first,
		.last_sect = last,
	});
}

/* A slot; nseg may say more than there is room for. */
void
guest_request(struct guest *guest, uint8_t slot[112], uint8_t operation,
    uint64_t id, uint64_t sector, const struct xbb_segment *seg, uint8_t nseg)
{
	const struct guest_layout *at = &guest->layout;

	memset(slot, 0, at->slot_size);
	slot[0] = operation;
	slot[1] = nseg;
	memcpy(slot + at->id, &id, sizeof(id));
	memcpy(slot + at->sector, &sector, sizeof(sector));
	if (seg != NULL)
		memcpy(slot + at->seg, seg, sizeof(*seg) *
		    (nseg < XBB_MAX_SEGMENTS ? nseg : XBB_MAX_SEGMENTS));
}

/* The next request; its tag is its number since the last collection. */
uint32_t
guest_put(struct guest *guest, uint8_t operation, uint64_t sector,
    const struct xbb_segment *seg, uint8_t nseg)
{
	uint32_t tag = guest->ntags++;
	uint8_t slot[112];

	CHECK(tag < guest->nslots);
	guest->id[tag] = ++guest->generation << 16 | tag;
	/* An indirect request is answered as the operation inside. */
	guest->operation[tag] = operation == XBB_OP_INDIRECT ? nseg :
	    operation;
	guest->answered[tag] = false;
	guest->outstanding++;
	guest_request(guest, slot, operation, guest->id[tag], sector, seg,
	    nseg);
	guest_store(guest_slot(guest, guest->req_prod++), slot,
	    guest->layout.slot_size);
	return (tag);
}

void
guest_publish(struct guest *guest)
{

	guest_set_index(guest, offsetof(struct xbb_sring, req_prod),
	    guest->req_prod);
	xbb_front_notify(guest->front);
}

static void
take_response(struct guest *guest)
{
	uint8_t rsp[16], zero[4] = { 0 };
	uint32_t done, tag;
	int16_t status;
	uint64_t id;

	guest_load(rsp, guest_slot(guest, guest->rsp_cons++),
	    guest->layout.rsp_size);
	memcpy(&id, rsp, sizeof(id));
	memcpy(&status, rsp + 10, sizeof(status));
	tag = id & 0xffff;
	CHECK(tag < guest->ntags);
	CHECK_EQ(id, guest->id[tag]);
	CHECK(!guest->answered[tag]);
	CHECK_EQ(rsp[8], guest->operation[tag]);
	CHECK_EQ(rsp[9], 0);
	CHECK(status >= XBB_RSP_EOPNOTSUPP && status <= XBB_RSP_OKAY);
	if (guest->layout.rsp_size == 16)
		CHECK(memcmp(rsp + 12, zero, sizeof(zero)) == 0);
	done = guest->ntags - guest->outstanding--;
	guest->order[done] = tag;
	guest->answered[tag] = true;
	guest->status[tag] = status;
}

/* Wait until there is a response; returns the producer index. */
uint32_t
guest_wait(struct guest *guest)
{
	const size_t rsp_prod = offsetof(struct xbb_sring, rsp_prod);
	uint32_t prod;

	while ((prod = guest_index(guest, rsp_prod)) == guest->rsp_cons) {
		guest_set_index(guest, offsetof(struct xbb_sring, rsp_event),
		    guest->rsp_cons + 1);
		if (guest_index(guest, rsp_prod) == guest->rsp_cons)
			CHECK(xbb_front_wait(guest->front, LIMIT_MS) > 0);
	}
	CHECK(prod - guest->rsp_cons <= guest->outstanding);
	return (prod);
}

uint32_t
guest_answers(struct guest *guest)
{

	return (guest_index(guest, offsetof(struct xbb_sring, rsp_prod)) -
	    guest->rsp_cons);
}

/* Take the answers that there are. */
void
guest_take(struct guest *guest)
{
	const uint32_t prod = guest->rsp_cons + guest_answers(guest);

	CHECK(prod - guest->rsp_cons <= guest->outstanding);
	while (guest->rsp_cons != prod)
		take_response(guest);
}

/* Wait for the answer to everything that was put. */
void
guest_collect(struct guest *guest)
{

	while (guest->outstanding > 0) {
		(void)guest_wait(guest);
		guest_take(guest);
	}
	guest->ntags = 0;
}

/* The same without a look at the responses, which somebody scribbles over. */
void
guest_collect_blindly(struct guest *guest)
{
	uint32_t prod;

	while (guest->outstanding > 0) {
		prod = guest_wait(guest);
		guest->outstanding -= prod - guest->rsp_cons;
		guest->rsp_cons = prod;
	}
	guest->ntags = 0;
}

/* One request and its status. */
int16_t
guest_do(struct guest *guest, uint8_t operation, uint64_t sector,
    const struct xbb_segment *seg, uint8_t nseg)
{
	uint32_t tag;

	tag = guest_put(guest, operation, sector, seg, nseg);
	guest_publish(guest);
	guest_collect(guest);
	return (guest->status[tag]);
}

/* The first page of the disk: does the ring live? */
int16_t
guest_read_page(struct guest *guest)
{
	const struct xbb_segment seg = guest_segment(guest, 0, 0, 7);

	return (guest_do(guest, XBB_OP_READ, 0, &seg, 1));
}

/* Reads of a page each with gaps between them, which nothing merges. */
void
guest_put_scattered(struct guest *guest, uint32_t n)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < n; i++) {
		seg = guest_segment(guest, i, 0, 7);
		guest_put(guest, XBB_OP_READ, i * 16, &seg, 1);
	}
}

void
guest_check_okay(const struct guest *guest, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		CHECK_EQ(guest->status[i], XBB_RSP_OKAY);
}

void
rig_open(struct rig *rig, uint64_t sectors,
    const struct pair_options *options)
{

	disk_reset();
	hypervisor_reset();
	device_open(&rig->device, sectors, 1);
	pair_open(&rig->pair, &rig->device, 0, options);
	guest_init(&rig->guest, &rig->pair);
}

void
rig_close(struct rig *rig)
{

	pair_close(&rig->pair);
	device_close(&rig->device);
}

/*
 * Have the queue find out that this disk is slow, so that workers do
 * everything, and nothing is merged.
 */
void
rig_teach_slowness(struct rig *rig)
{
	uint32_t i;

	atomic_store(&disk.delay_us, 500);
	for (i = 0; COUNTER(&rig->pair, io_handed_over) == 0; i++) {
		CHECK(i < 1000);
		CHECK_EQ(guest_read_page(&rig->guest), XBB_RSP_OKAY);
	}
	XBB_SET(rig->device.state->tunables.no_coalesce_reqs, 1);
}

/* The whole disk in requests of a page, put at once so that they merge. */
void
rig_put_batch(struct rig *rig, uint8_t operation)
{
	struct xbb_segment seg;
	uint32_t i;

	for (i = 0; i < BATCH; i++) {
		memset(xbb_front_page(rig->pair.front, i), 0x10 + (int)i,
		    XBB_PAGE_SIZE);
		seg = guest_segment(&rig->guest, i, 0, 7);
		guest_put(&rig->guest, operation,
		    i * XBB_SECTORS_PER_PAGE, &seg, 1);
	}
	guest_publish(&rig->guest);
}

/* What request i must come to if the bytes [from, to) of the disk are bad. */
int16_t
batch_status(uint32_t i, uint64_t from, uint64_t to)
{
	const uint64_t begin = i * (uint64_t)XBB_PAGE_SIZE;

	return (begin < to && from < begin + XBB_PAGE_SIZE ? XBB_RSP_ERROR :
	    XBB_RSP_OKAY);
}

void
rig_check_statuses(const struct rig *rig, uint64_t from, uint64_t to)
{
	uint32_t i;

	for (i = 0; i < BATCH; i++)
		CHECK_EQ(rig->guest.status[i], batch_status(i, from, to));
}
