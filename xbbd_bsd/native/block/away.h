/*
 * away.h - a batch at a store that answers later (store.h): what of it is asked
 * for now, and what comes next.  Its data lies in a buffer of its own, so that
 * nothing of the guest's is mapped for as long as the store takes.  Ring
 * thread.  block.h includes it.
 */
#ifndef XBB_BLOCK_AWAY_H
#define XBB_BLOCK_AWAY_H

/* Where the part is; a barrier goes through all, others through one. */
enum xbb_away_step {
	XBB_AWAY_BEFORE,		/* what is older is to be durable */
	XBB_AWAY_DATA,
	XBB_AWAY_AFTER,			/* and the data of a barrier */
	XBB_AWAY_OVER
};

struct xbb_nbd;

struct xbb_away {
	struct xbb_batch *batch;	/* NULL: the store's own doing */
	struct xbb_batch part;		/* of it: all, or one request */
	bool		 alone;		/* requests are tried one by one */
	bool		 given_up;	/* those that are left fail */
	uint8_t		 step;		/* enum xbb_away_step, the next one */
	/* What the store is asked for, and may keep until it is over. */
	uint8_t		 operation;	/* enum xbb_disk_op */
	bool		 durable;	/* a write, that needs no flush */
	uint8_t		*buffer;	/* of malloc(3) */
	uint64_t	 offset;	/* on the disk, bytes */
	uint64_t	 length;
	/* The store's own. */
	struct xbb_nbd	*nbd;
	struct xbb_away	*prev, *next;	/* all that have begun, in order */
	struct xbb_away	*next_come;
	uint64_t	 sent_ns;
	uint64_t	 mark;		/* of a flush: writes before it */
	int		 error;		/* what it came to, negative errno */
	bool		 sent;		/* over the connection there is */
	bool		 redone;	/* was sent over another one, too */
};

/* What a store can, for whoever asks it for the right things. */
struct xbb_away_store {
	bool		 can_flush;
	bool		 can_fua;	/* durable writes */
};

/*
 * away.c - begin: true if something of a batch is to be asked for; false if it
 * is settled.  end: that has come to an errno, or 0; likewise.  give_back: the
 * disk is paused, and it is to be begun anew after that.
 */
bool	xbb_away_begin(struct xbb_queue *q, struct xbb_away *away,
	    struct xbb_batch *batch, const struct xbb_away_store *store);
bool	xbb_away_end(struct xbb_queue *q, struct xbb_away *away, int error,
	    const struct xbb_away_store *store);
void	xbb_away_give_back(struct xbb_queue *q, struct xbb_away *away);

/*
 * unflushed.c - writes that are acknowledged, and that no flush has followed:
 * a server that crashes may lose them, so they are kept, in order, to be
 * written again.  A number is that of the last one kept.
 */
struct xbb_unflushed_write {
	struct xbb_unflushed_write *next;
	uint64_t	 number;
	uint64_t	 offset;	/* on the disk, bytes */
	uint64_t	 length;
	uint8_t		*buffer;	/* of malloc(3); NULL: a discard */
};

/*
 * So many bytes may be acknowledged and not flushed: then a flush is due, and
 * from so many on writes wait for it.
 */
#define XBB_UNFLUSHED_SOME	((uint64_t)16 << 20)
#define XBB_UNFLUSHED_MOST	((uint64_t)32 << 20)
/* What a discard counts for, which has no data and costs memory all the same */
#define XBB_UNFLUSHED_DISCARD	4096

struct xbb_unflushed {
	struct xbb_unflushed_write *oldest, *newest;
	uint64_t	 number;	/* of the newest there ever was */
	uint64_t	 bytes;
};

bool	xbb_unflushed_keep(struct xbb_unflushed *kept, uint8_t *buffer,
	    uint64_t offset, uint64_t length);
void	xbb_unflushed_forget(struct xbb_unflushed *kept, uint64_t number);

/* carry.c - these in a file, for whoever serves the disk next. */
int	xbb_unflushed_leave(const struct xbb_unflushed *kept, int fd);
int	xbb_unflushed_find(struct xbb_unflushed *kept, int fd, uint64_t size);
int	xbb_unflushed_void(int fd);

#endif /* XBB_BLOCK_AWAY_H */
