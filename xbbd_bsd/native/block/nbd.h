/*
 * nbd.h - the store of servers that speak NBD from the inside: nbdsend.c (what
 * is asked for), nbdlink.c (the connection), nbd.c (what comes of it).  Ring
 * thread, but for an offer.  Nobody else includes it.
 */
#ifndef XBB_BLOCK_NBD_H
#define XBB_BLOCK_NBD_H

#include "block/block.h"
#include "block/libnbd.h"

/* A connection that was given to us, and that nobody has taken yet. */
struct xbb_nbd_offer {
	int		fd;
	struct xbb_nbd_export wanted;
};

struct xbb_nbd {
	struct nbd_handle *handle;	/* NULL: not connected */
	struct xbb_away_store can;
	bool		 can_trim;
	bool		 ready;		/* agreed upon */
	bool		 agreed;	/* it was, once */
	bool		 redoing;	/* whoever died has sent what we send */
	bool		 abandoned;	/* nobody waits for anything any more */
	struct xbb_away *first, *last;	/* begun and not over, in order */
	struct xbb_away *come;		/* have been answered, newest first */
	struct xbb_away *late;		/* and wait for LATE_NS to pass */
	uint32_t	 unsent;	/* of those that have begun */
	uint32_t	 asked;		/* of libnbd, and not over */
	uint64_t	 since_ns;	/* connected, or agreed upon */
	uint64_t	 heard_ns;	/* when something came last */
	uint64_t	 ending_ns;	/* since when the queue ends */
	struct xbb_unflushed unflushed;
	struct xbb_unflushed_write *again;	/* the next to be written so */
	bool		 found;		/* some in the file, and on no server */
	/* What is asked for on our own account: a flush, or a write again. */
	struct xbb_away	 own;
	bool		 own_out;
	struct xbb_away	 away[];	/* by batch */
};

/* nbdsend.c - what has begun, and is asked for. */
void	xbb_nbd_add(struct xbb_nbd *nbd, struct xbb_away *a);
void	xbb_nbd_remove(struct xbb_nbd *nbd, struct xbb_away *a);
void	xbb_nbd_send_again(struct xbb_nbd *nbd);
void	xbb_nbd_send_flush(struct xbb_nbd *nbd);
void	xbb_nbd_send(struct xbb_nbd *nbd);

/* nbdlink.c - the connection: begun, agreed upon, ended. */
void	xbb_nbd_break(struct xbb_queue *q, struct xbb_nbd *nbd, int errnum);
bool	xbb_nbd_take(struct xbb_queue *q, struct xbb_nbd *nbd);
void	xbb_nbd_move(struct xbb_queue *q, struct xbb_nbd *nbd);

#endif /* XBB_BLOCK_NBD_H */
