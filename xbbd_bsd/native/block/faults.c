/*
 * faults.c - requests that failed, counted by whose fault it was: in the state
 * segment, for whoever has it mapped.  It decides nothing: what a request
 * failed for is handed in, except whether an end that it lies beyond was ever
 * there. The ring's thread writes; any thread of any process reads, and nobody
 * waits for anybody.
 */
#include <string.h>

#include "block/block.h"

_Static_assert(XBB_FAULT_COUNTS > XBB_DISK_OPS, "one of each is for the rest");
_Static_assert(XBB_REFUSED_ALIGNMENT + 1 == XBB_REFUSALS, "one of each");

/* Looks at something that is being written, or is damaged, and says so. */
#define MOST_LOOKS	1000

/*
 * Each store of a part comes after that of the odd number, and each load of one
 * before that of the second number; both without a fence, which a thread
 * sanitizer does not know.
 */
#define PUT(word, value) \
	__atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#define GET(word) \
	__atomic_load_n(&(word), __ATOMIC_ACQUIRE)

static void
put_fault(struct xbb_fault *to, const struct xbb_fault *fault)
{
	const uint32_t odd = XBB_GET(to->sequence) | 1;

	XBB_SET(to->sequence, odd);
	PUT(to->operation, fault->operation);
	PUT(to->sector, fault->sector);
	PUT(to->nsectors, fault->nsectors);
	PUT(to->when_ns, fault->when_ns);
	PUT(to->errnum, fault->errnum);
	PUT(to->refusal, fault->refusal);
	PUT(to->shrunk, fault->shrunk);
	PUT(to->sequence, odd + 1);
}

/* All of one or, if that cannot be had, nothing; false then. */
static bool
get_fault(const struct xbb_fault *from, struct xbb_fault *fault)
{
	uint32_t look;

	for (look = 0; look < MOST_LOOKS; look++) {
		fault->sequence = GET(from->sequence);
		fault->operation = GET(from->operation);
		fault->sector = GET(from->sector);
		fault->nsectors = GET(from->nsectors);
		fault->when_ns = GET(from->when_ns);
		fault->errnum = GET(from->errnum);
		fault->refusal = GET(from->refusal);
		fault->shrunk = GET(from->shrunk);
		if (fault->sequence % 2 == 0 &&
		    XBB_GET(from->sequence) == fault->sequence)
			return (true);
		xbb_relax();
	}
	memset(fault, 0, sizeof(*fault));
	return (false);
}

/*
 * The entry of an operation that failed with this: its own, else a free one,
 * else that of its operation for all the rest.  What stands there may be
 * anything.
 */
static struct xbb_fault_count *
entry_of(struct xbb_faults *faults, uint32_t operation, int32_t errnum)
{
	const uint32_t own = XBB_FAULT_COUNTS - XBB_DISK_OPS;
	struct xbb_fault_count *entry;
	uint32_t i;

	for (i = 0; i < own; i++) {
		entry = &faults->disk[i];
		if (XBB_GET(entry->count) == 0) {
			XBB_SET(entry->operation, operation);
			XBB_SET(entry->errnum, errnum);
			return (entry);
		}
		if (XBB_GET(entry->operation) == operation &&
		    XBB_GET(entry->errnum) == errnum)
			return (entry);
	}
	entry = &faults->disk[own + operation % XBB_DISK_OPS];
	XBB_SET(entry->operation, operation);
	XBB_SET(entry->errnum, 0);
	return (entry);
}

/* Of a request that the disk failed. */
static void
put_of_host(struct xbb_fault *to, const struct xbb_req *req,
    uint64_t nsectors, const struct xbb_verdict *why)
{
	const bool flush = why->operation == XBB_DISK_OP_FLUSH;

	put_fault(to, &(struct xbb_fault){
		.operation = why->operation,
		.sector = flush ? 0 : req->sector,
		.nsectors = flush ? 0 : nsectors,
		.when_ns = xbb_wall_ns(),
		.errnum = why->errnum,
		.shrunk = why->shrunk,
	});
}

static void
count_of_host(struct xbb_queue *q, const struct xbb_req *req,
    uint64_t nsectors, const struct xbb_verdict *why)
{
	struct xbb_faults *faults = &q->set.rs->faults;
	struct xbb_fault_count *entry;

	put_of_host(&faults->last_disk, req, nsectors, why);
	entry = entry_of(faults, why->operation, why->errnum);
	/* After what it counts: who sees the one sees the other. */
	PUT(entry->count, XBB_GET(entry->count) + 1);
}

static void
count_of_guest(struct xbb_queue *q, const struct xbb_req *req,
    uint64_t nsectors, enum xbb_refusal why)
{
	struct xbb_faults *faults = &q->set.rs->faults;

	put_fault(&faults->last_guest, &(struct xbb_fault){
		.operation = req->operation,
		.sector = req->sector,
		.nsectors = nsectors,
		.when_ns = xbb_wall_ns(),
		.refusal = why,
	});
	PUT(faults->guest[why], XBB_GET(faults->guest[why]) + 1);
}

/* A request was carried out, and failed. */
void
xbb_faults_count(struct xbb_queue *q, const struct xbb_req *req,
    const struct xbb_verdict *why)
{

	if (why->blame == XBB_BLAME_HOST)
		count_of_host(q, req, req->nsectors, why);
	else if (why->blame == XBB_BLAME_GUEST)
		count_of_guest(q, req, req->nsectors, why->refusal);
}

/* The disk failed a request that has no answer yet, and may come to be done. */
void
xbb_faults_hold(struct xbb_queue *q, const struct xbb_req *req,
    const struct xbb_verdict *why)
{

	put_of_host(&q->set.rs->faults.last_held, req, req->nsectors, why);
}

static enum xbb_disk_op
disk_op(uint8_t operation)
{

	return (operation == XBB_OP_READ ? XBB_DISK_OP_READ :
	    operation == XBB_OP_DISCARD ? XBB_DISK_OP_DISCARD :
	    XBB_DISK_OP_WRITE);
}

/*
 * A request was refused.  One beyond an end that has come nearer since the
 * guest connected is as good as one that the disk itself refuses.
 */
void
xbb_faults_refuse(struct xbb_queue *q, const struct xbb_req *req,
    enum xbb_refusal why)
{
	const uint64_t had = xbb_medium_had(q->conn.mapping);
	const uint64_t nsectors = xbb_request_extent(req);

	if (why == XBB_REFUSED_BEYOND_END && nsectors <= had &&
	    req->sector <= had - nsectors)
		count_of_host(q, req, nsectors, &(struct xbb_verdict){
			.errnum = EIO,
			.operation = (uint8_t)disk_op(req->operation),
			.shrunk = true,
		});
	else
		count_of_guest(q, req, nsectors, why);
}

uint64_t
xbb_state_failures(const struct xbb_state *state)
{
	const struct xbb_faults *faults;
	uint64_t sum;
	uint32_t i, n, rings;

	sum = 0;
	rings = xbb_state_rings(state);
	for (n = 0; n < rings; n++) {
		faults = &state->ring[n].faults;
		for (i = 0; i < XBB_FAULT_COUNTS; i++)
			sum += XBB_GET(faults->disk[i].count);
		for (i = 0; i < XBB_REFUSALS; i++)
			sum += XBB_GET(faults->guest[i]);
	}
	return (sum);
}

uint64_t
xbb_state_held(const struct xbb_state *state)
{
	uint64_t sum;
	uint32_t n, rings;

	sum = 0;
	rings = xbb_state_rings(state);
	for (n = 0; n < rings; n++)
		sum += XBB_GET(state->ring[n].counters.io_held);
	return (sum);
}

int
xbb_state_faults(const struct xbb_state *state, uint32_t ring,
    struct xbb_faults *faults)
{
	const struct xbb_faults *from;
	uint32_t i;
	bool whole;

	if (ring >= xbb_state_rings(state))
		return (-EINVAL);
	from = &state->ring[ring].faults;
	for (i = 0; i < XBB_FAULT_COUNTS; i++) {
		faults->disk[i].count = GET(from->disk[i].count);
		faults->disk[i].operation = XBB_GET(from->disk[i].operation);
		faults->disk[i].errnum = XBB_GET(from->disk[i].errnum);
	}
	for (i = 0; i < XBB_REFUSALS; i++)
		faults->guest[i] = GET(from->guest[i]);
	whole = get_fault(&from->last_disk, &faults->last_disk);
	whole &= get_fault(&from->last_guest, &faults->last_guest);
	whole &= get_fault(&from->last_held, &faults->last_held);
	return (whole ? 0 : -EAGAIN);
}
