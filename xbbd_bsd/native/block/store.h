/*
 * store.h - what stands behind a disk's rings: a table of operations, of which
 * each kind of store has a filling.  A batch that is started is the store's
 * until it hands it to xbb_settle(), with a status in each request; how it goes
 * about that, by which threads and when, nobody else knows.  block.h includes
 * it.
 *
 * A batch may be out while the ring's thread goes on.  In the table its
 * requests are DISPATCHED then: whoever comes after a death does them again,
 * whichever store it was.
 */
#ifndef XBB_BLOCK_STORE_H
#define XBB_BLOCK_STORE_H

struct xbb_queue;

/*
 * Ring thread, but for the first two.  What is NULL has nothing to do.
 */
struct xbb_store_ops {
	/* While the queue is opened and when it is closed; its opener's. */
	int	(*open)(struct xbb_queue *q);
	void	(*close)(struct xbb_queue *q);
	/*
	 * Has it so much that more would only wait there?  It is better left
	 * where it can still be merged, and costs nothing.
	 */
	bool	(*is_full)(const struct xbb_queue *q);
	/*
	 * Carry out a batch, that is started or has starved, and with it others
	 * that may start, if that saves something.  True if it has taken its
	 * time, so that it is to be looked around before more is started.
	 */
	bool	(*submit)(struct xbb_queue *q, struct xbb_batch *batch);
	/*
	 * All that may start was submitted.  True if that had something done.
	 */
	bool	(*push)(struct xbb_queue *q);
	/* Settle what has come back.  True if there was any. */
	bool	(*reap)(struct xbb_queue *q);
	/*
	 * Of a disk that is paused, or of a ring that is handed over: has it
	 * nothing under way of its own, or left to do first?
	 */
	bool	(*is_still)(const struct xbb_queue *q);
	/* The thread is about to end, and nothing is out. */
	void	(*leave)(struct xbb_queue *q);
	/* Milliseconds until it is to be reaped anyhow, -1 for any time. */
	int	(*wait)(struct xbb_queue *q);
};

/* Its fillings. */
extern const struct xbb_store_ops xbb_store_local;	/* local.c */
extern const struct xbb_store_ops xbb_store_nbd;	/* nbd.c */
extern const struct xbb_store_ops xbb_store_rbd;	/* rbd.c */

#endif /* XBB_BLOCK_STORE_H */
