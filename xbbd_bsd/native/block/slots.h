/*
 * slots.h - the protocol of a ring, which knows no ring: slots of each ABI,
 * what a valid request keeps to, and what a table of them comes to after a
 * death.  All of it is pure.  block.h includes it, after the contract.
 */
#ifndef XBB_BLOCK_SLOTS_H
#define XBB_BLOCK_SLOTS_H

#define XBB_SLOT_WORDS	28		/* 32-bit words of the largest slot */

/* Where the fields of a ring slot lie; what all ABIs share is in blkif.c. */
struct xbb_layout {
	uint8_t		slot_size;	/* bytes from one slot to the next */
	uint8_t		rsp_size;	/* bytes of a response */
	uint8_t		id;		/* offset of the request's id */
	uint8_t		sector;		/* offset of its start sector */
	uint8_t		seg;		/* offset of its segments */
};

/* What a valid request must keep to. */
struct xbb_limits {
	uint64_t	sectors;	/* size of the disk */
	uint32_t	sector_size;	/* bytes, a power of two >= 512 */
	uint32_t	max_indirect_segments;	/* 0: not offered */
	bool		read_only;
	bool		discard;	/* offered */
	bool		secure;		/* likewise, secure ones */
};

/* What a segment says last of the indices of a ring. */
struct xbb_indices {
	uint32_t	req_cons;
	uint32_t	rsp_prod;
};

/* What a table comes to after a death; entries by their number. */
struct xbb_recovery {
	uint32_t	req_cons;	/* next request to read */
	uint32_t	rsp_prod;	/* next response to put */
	uint32_t	npublished, nowed;
	uint16_t	published[XBB_MAX_REQUESTS];	/* the guest's */
	uint16_t	owed[XBB_MAX_REQUESTS];	/* as they were read */
};

/* What devstat(9) takes a request for. */
static inline enum xbb_devstat_kind
xbb_request_kind(uint8_t operation, uint64_t nsectors)
{

	if (operation == XBB_OP_DISCARD)
		return (XBB_DEVSTAT_FREE);
	if (nsectors == 0)
		return (XBB_DEVSTAT_NO_DATA);
	return (operation == XBB_OP_READ ? XBB_DEVSTAT_READ :
	    XBB_DEVSTAT_WRITE);
}

/* As the kernel driver has it: both wait for what was before them. */
static inline bool
xbb_request_is_ordered(uint8_t operation)
{

	return (operation == XBB_OP_WRITE_BARRIER ||
	    operation == XBB_OP_FLUSH_DISKCACHE);
}

/* Bytes of a segment. */
static inline uint32_t
xbb_segment_bytes(const struct xbb_segment *seg)
{

	return (XBB_SECTOR_SIZE * (seg->last_sect - seg->first_sect + 1U));
}

/* blkif.c - layouts of the ABIs; requests, responses; what is valid.  Pure. */
const struct xbb_layout *xbb_layout(uint32_t abi);
void	xbb_request_decode(const struct xbb_layout *layout,
	    const uint32_t *slot, struct xbb_req *req);
void	xbb_request_encode(const struct xbb_layout *layout,
	    const struct xbb_req *req, uint32_t *slot);
enum xbb_refusal xbb_request_admit(const struct xbb_limits *limits,
	    const struct xbb_req *req);
enum xbb_refusal xbb_request_validate(const struct xbb_limits *limits,
	    struct xbb_req *req, const struct xbb_segment *seg);
int16_t	xbb_refusal_status(enum xbb_refusal why);
uint64_t xbb_request_extent(const struct xbb_req *req);
uint32_t xbb_indirect_pages(uint32_t nseg);
void	xbb_response_encode(uint64_t id, uint8_t operation, int16_t status,
	    uint32_t words[4]);

/* recover.c - what is owed after a death.  Pure. */
int	xbb_recover(const struct xbb_req *reqs, uint32_t n,
	    const struct xbb_indices *said, uint32_t rsp_prod,
	    struct xbb_recovery *found);

#endif /* XBB_BLOCK_SLOTS_H */
