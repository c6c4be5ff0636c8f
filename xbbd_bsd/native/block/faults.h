/*
 * faults.h - what went wrong with requests, as the state segment tells it: the
 * host's, whose disk failed, and the guest's, who asked for what it cannot
 * have, never mixed.  A part of the contract (contract.h), read by cffi
 * before that; C files get both through block.h.
 */

/* operations with an errno that are told apart */
#define XBB_FAULT_COUNTS	16
#define XBB_DISK_OPS		4	/* enum xbb_disk_op */
#define XBB_REFUSALS		7	/* enum xbb_refusal */

/* What a disk can fail at. */
enum xbb_disk_op {
	XBB_DISK_OP_READ	= 0,
	XBB_DISK_OP_WRITE	= 1,
	XBB_DISK_OP_FLUSH	= 2,
	XBB_DISK_OP_DISCARD	= 3
};

/* Why a request is not carried out: all of these are the guest's doing. */
enum xbb_refusal {
	XBB_REFUSED_NOT		= 0,	/* it may be */
	XBB_REFUSED_READ_ONLY	= 1,
	XBB_REFUSED_BEYOND_END	= 2,
	XBB_REFUSED_GRANTS	= 3,	/* references that are none */
	XBB_REFUSED_OPERATION	= 4,	/* unknown, or never offered */
	XBB_REFUSED_SEGMENTS	= 5,	/* none, too many, or impossible ones */
	XBB_REFUSED_ALIGNMENT	= 6	/* parts of sectors */
};

/* Requests that failed at one operation with one errno. */
struct xbb_fault_count {
	uint32_t	operation;	/* enum xbb_disk_op */
	int32_t		errnum;		/* 0: any that no other entry has */
	uint64_t	count;		/* 0: the entry is free */
};

/* The last request that failed. */
struct xbb_fault {
	/* odd while this is written; 0: never was */
	uint32_t	sequence;
	/* enum xbb_disk_op; of a guest's: enum xbb_op */
	uint32_t	operation;
	uint64_t	sector;		/* first of the request */
	uint64_t	nsectors;	/* 0: not known, or none */
	uint64_t	when_ns;	/* since 1970 */
	int32_t		errnum;		/* the disk's */
	uint32_t	refusal;	/* enum xbb_refusal, of a guest's */
	/* the disk's: it was beyond an end that has come nearer */
	uint32_t	shrunk;
};

/*
 * Of one ring, whose thread alone writes.  The last counts are one an
 * operation.
 */
struct xbb_faults {
	struct xbb_fault_count disk[XBB_FAULT_COUNTS];
	uint64_t	guest[XBB_REFUSALS];	/* by enum xbb_refusal */
	struct xbb_fault last_disk;
	struct xbb_fault last_guest;
	/* has no answer yet: it is tried again, or held back */
	struct xbb_fault last_held;
};

struct xbb_state;

/*
 * How many requests have failed so far, on all rings; how many batches of them
 * were held back when they did, and not answered; and all that is known of
 * those of one ring, as a copy of which no part is torn (EINVAL: no such ring;
 * EAGAIN: somebody has damaged it, and what it says of the last ones is left
 * out).
 */
uint64_t xbb_state_failures(const struct xbb_state *state);
uint64_t xbb_state_held(const struct xbb_state *state);
int	xbb_state_faults(const struct xbb_state *state, uint32_t ring,
	    struct xbb_faults *faults);
