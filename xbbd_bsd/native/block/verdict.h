/*
 * verdict.h - why a request failed, from whoever carried it out to the ring's
 * thread, which counts it.  block.h includes it, after the contract.
 */
#ifndef XBB_VERDICT_H
#define XBB_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

/* Whose fault it is.  What a disk cannot do at all is nobody's. */
enum xbb_blame {
	XBB_BLAME_NOBODY,
	XBB_BLAME_HOST,
	XBB_BLAME_GUEST
};

/* What an attempt came to. */
struct xbb_outcome {
	int		 error;		/* 0 or a negative errno */
	enum xbb_blame	 blame;		/* whose, if it failed */
};

#define XBB_WELL	((struct xbb_outcome){ 0, XBB_BLAME_NOBODY })

/* Why a request failed. */
struct xbb_verdict {
	int32_t		errnum;		/* the host's */
	uint8_t		operation;	/* enum xbb_disk_op, likewise */
	/* likewise: beyond an end that has come nearer */
	bool		shrunk;
	uint8_t		blame;		/* enum xbb_blame */
	uint8_t		refusal;	/* enum xbb_refusal, the guest's */
};

struct xbb_queue;

/* faults.c - requests that failed, counted by blame.  Ring thread. */
void	xbb_faults_count(struct xbb_queue *q, const struct xbb_req *req,
	    const struct xbb_verdict *why);
void	xbb_faults_hold(struct xbb_queue *q, const struct xbb_req *req,
	    const struct xbb_verdict *why);
void	xbb_faults_refuse(struct xbb_queue *q, const struct xbb_req *req,
	    enum xbb_refusal why);

#endif /* XBB_VERDICT_H */
