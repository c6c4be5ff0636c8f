/*
 * servers.h - disks that others serve, in the contract (xbb.h): how the daemon
 * looks at a server of NBD or opens an image of Ceph, and what becomes of what
 * a server has not flushed.  cffi reads it after contract.h.
 */

/*
 * Servers of NBD, through libnbd, which is loaded when it is asked for: load
 * says ENOENT if there is none.  A process that opens nothing has to have it
 * loaded before.  look connects by a socket, which it closes, and says what
 * there is, or in words why not; it waits, as long as it is told to.  connect
 * gives a queue of a disk of that kind the connection that it wants, which is
 * the queue's from then on, if that says 0; may overlap anything but close.
 */
#define XBB_NBD_NAME		256	/* bytes of an export's, with NUL */
#define XBB_NBD_PATH		256	/* likewise, of a file or directory */
#define XBB_NBD_WORDS		160
#define XBB_NBD_LARGEST		1048576	/* bytes that it has to take at once */

struct xbb_nbd_export {
	uint8_t		name[XBB_NBD_NAME];
	uint32_t	tls;		/* wanted, or it is none */
	uint32_t	reserved;
	/* Of TLS, as libnbd has them; empty: not given. */
	uint8_t		certificates[XBB_NBD_PATH];
	uint8_t		psk_file[XBB_NBD_PATH];
	uint8_t		user[XBB_NBD_NAME];
};

struct xbb_nbd_found {
	uint64_t	size;		/* bytes */
	uint32_t	minimum;	/* bytes of a block, 1: any */
	uint32_t	preferred;
	uint32_t	maximum;	/* 0: not said */
	uint32_t	read_only;
	uint32_t	can_flush;
	uint32_t	can_fua;
	uint32_t	can_trim;
	uint32_t	reserved;
	uint8_t		words[XBB_NBD_WORDS];	/* what went wrong */
};

int	xbb_nbd_load(void);
int	xbb_nbd_look(int fd, const struct xbb_nbd_export *wanted,
	    uint32_t limit_ms, struct xbb_nbd_found *found);
int	xbb_queue_connect(struct xbb_queue *queue, int fd,
	    const struct xbb_nbd_export *wanted);

/*
 * What a server has acknowledged, and not flushed, a queue that is handed over
 * leaves in the file that is its disk's descriptor, XBB_KEPT_SIZE bytes, where
 * the next queue finds it.  carry writes it to another disk instead, and
 * flushes that, if it is as many bytes as the segment says (EBADMSG): by a
 * descriptor, or by a socket, which is closed; kept_fd -1: flushes it only.
 */
#define XBB_KEPT_SIZE		67108864

struct xbb_kept_target {
	uint64_t	size;		/* bytes that the guest knows of */
	int32_t		fd;		/* its disk, or a connected socket */
	uint32_t	disk_kind;	/* enum xbb_disk_kind */
	uint32_t	limit_ms;	/* for an answer of a server */
	uint32_t	reserved;
	struct xbb_nbd_export wanted;	/* of that */
};

int	xbb_kept_carry(int kept_fd, uint64_t bytes,
	    const struct xbb_kept_target *to);

/*
 * Images in a cluster of Ceph, through librbd, which is loaded as libnbd is.
 * open says a descriptor, which is the disk of a queue, of one at a time; or a
 * negative errno and words, which are all there is to say if they explain it.
 * close waits for what is at the cluster still; size for the cluster, if it has
 * something to say.  Any thread that may wait.
 */
#define XBB_RBD_NAME		256	/* bytes of a name or path, with NUL */
#define XBB_RBD_HOLDER		64
#define XBB_RBD_WORDS		160

struct xbb_rbd_wanted {
	uint8_t		pool[XBB_RBD_NAME];
	uint8_t		space[XBB_RBD_NAME];	/* its namespace, or empty */
	uint8_t		image[XBB_RBD_NAME];
	uint8_t		snapshot[XBB_RBD_NAME];	/* or empty */
	/* Of the client; empty: what librados takes then. */
	uint8_t		conf[XBB_RBD_NAME];
	uint8_t		id[XBB_RBD_NAME];
	uint8_t		keyring[XBB_RBD_NAME];
	/* Who had its lock, and is dead; or empty. */
	uint8_t		former[XBB_RBD_HOLDER];
	uint32_t	read_only;
	uint32_t	shared;		/* others may write, too */
	uint32_t	timeout;	/* seconds, to reach the cluster */
	uint32_t	reserved;
};

struct xbb_rbd_found {
	uint64_t	size;		/* bytes */
	uint64_t	unit;		/* of what is stored together, bytes */
	int64_t		pool_id;
	/* What it is told apart by, whatever it is called. */
	uint8_t		fsid[XBB_RBD_HOLDER];
	uint8_t		id[XBB_RBD_HOLDER];
	uint8_t		holder[XBB_RBD_HOLDER];	/* what we are called now */
	uint32_t	explained;
	uint32_t	reserved;
	uint8_t		words[XBB_RBD_WORDS];	/* what went wrong */
};

int	xbb_rbd_load(void);
int	xbb_rbd_open(const struct xbb_rbd_wanted *wanted,
	    struct xbb_rbd_found *found);
void	xbb_rbd_close(int fd);
int	xbb_rbd_size(int fd, uint64_t *sizep);
