/*
 * contract.h - the process of a guest in the contract (xbb.h): what it is
 * started with, and what the daemon and it say to each other.  cffi reads it
 * after the families' contracts; C files get it through guest.h.
 *
 * A message is a packet of a SOCK_SEQPACKET: one of the structs here, whole, in
 * the byte order of the host, with the descriptors that belong to it.  Each
 * request has a number of the daemon's choice, and is answered by one DONE or
 * DEVICES with the same number, some at once and some when it has happened.
 * What is wrong is answered with an errno and words, and changes nothing.
 *
 * After an upgrade a daemon finds processes of another build, and has to be
 * understood by them so far that they hand over what they serve: MEET, STATUS,
 * QUIESCE, CLOSE, GIVE, BYE and all answers and reports are laid out for good,
 * and are taken of whatever version.  What may change is HELLO, ADD, CONNECT.
 */

#define XBB_GUEST_VERSION	3	/* of HELLO, ADD and CONNECT */
#define XBB_GUEST_DEVICES	64	/* a process has at once */
#define XBB_GUEST_KEPT		4	/* descriptors kept for a device */
#define XBB_GUEST_RATES		2	/* levels of limits that have a file */
/* Most of a message: the segment of a card, three a queue, those kept. */
#define XBB_GUEST_DESCRIPTORS	29
/*
 * A device's number is its unit, and above these bits its enum xbb_family_kind
 * less one: so a disk's is its unit, as it is where there are only disks.
 */
#define XBB_GUEST_UNIT_BITS	30
#define XBB_GUEST_WORDS		80	/* bytes of a reason, with NUL */
#define XBB_GUEST_STAY		4294967295	/* no change of user */
#define XBB_GUEST_CPUS		1024	/* processors that have a bit */
#define XBB_GUEST_CPU_WORDS	16	/* of 64 such bits */

enum xbb_guest_type {
	/* Requests. */
	XBB_GUEST_HELLO		= 1,	/* DEVICES */
	XBB_GUEST_STATUS	= 2,	/* DEVICES */
	XBB_GUEST_ADD		= 3,	/* DONE once its rings are served */
	XBB_GUEST_DRAIN		= 4,	/* DONE at once, STATE later */
	/*
	 * Hand over (xbb_queue_hand_over()), then close; DONE when others may
	 * adopt the device.
	 */
	XBB_GUEST_QUIESCE	= 5,
	/* Drain and close; who must wait for the disk does it meanwhile. */
	XBB_GUEST_CLOSE		= 6,
	/* End; DONE, with EBUSY if there are devices. */
	XBB_GUEST_BYE		= 7,
	/*
	 * DONE with the disk's descriptor, if it is one, and those that are
	 * kept: for the next daemon, that cannot lock what this process has
	 * locked.
	 */
	XBB_GUEST_GIVE		= 8,
	XBB_GUEST_MEET		= 9,	/* first of all; DEVICES */
	/* DONE; its rings look at what its segment says (xbb_queue_look()). */
	XBB_GUEST_LOOK		= 10,
	XBB_GUEST_CONNECT	= 11,	/* xbb_queue_connect(); DONE */
	/* Reports. */
	XBB_GUEST_DONE		= 64,
	XBB_GUEST_DEVICE_LIST	= 65,	/* DEVICES above */
	/* Something has changed, and nobody asked. */
	XBB_GUEST_STATE		= 66
};

/* Life of a device. */
enum xbb_guest_state {
	XBB_GUEST_OPENING	= 0,
	XBB_GUEST_RUNNING	= 1,
	XBB_GUEST_DRAINING	= 2,
	XBB_GUEST_DRAINED	= 3,	/* all rings; nothing is given back */
	XBB_GUEST_CLOSING	= 4,
	XBB_GUEST_GONE		= 5	/* given back, and unlocked */
};

/* What every message begins with. */
struct xbb_guest_head {
	uint32_t	version;	/* XBB_GUEST_VERSION */
	uint32_t	type;		/* enum xbb_guest_type */
	uint32_t	size;		/* bytes of the whole message */
	/* of the request; 0 in STATE, and of what was none */
	uint32_t	serial;
};

/* Bounds that hold from now on, and how long to wait for nothing. */
struct xbb_guest_hello {
	struct xbb_guest_head head;
	/* without device and daemon, then it ends */
	uint32_t	idle_seconds;
	uint32_t	io_threads;	/* xbb_io_bound() */
	uint64_t	io_bytes;
	struct xbb_budget_limits budget;
	uint32_t	reserved;
};

/* What a ring is made of, by the family of its device. */
union xbb_guest_ring {
	struct xbb_conn_params conn;	/* what each begins with */
	struct xbb_queue_params disk;
	struct xbb_net_params card;
};

/*
 * A device and its rings, 0 to nrings - 1 of its segment.  Descriptors: its
 * segment, opened for this process alone and not locked; a disk's disk; then
 * for each ring the grant device, unless the process has its own, the event
 * channel, and a card's link; then those that are only kept open as long as the
 * device is, as its disk's lock; then, of a disk, a file of words
 * (xbb_rate_map()) for each level of rates, a bit each, from the guest's on.
 * In params those fields are -1.
 */
struct xbb_guest_add {
	struct xbb_guest_head head;
	uint32_t	device;
	uint32_t	nrings;
	uint32_t	nkept;
	uint32_t	rates;		/* of enum xbb_rate_level, a bit each */
	union xbb_guest_ring ring[XBB_MAX_RINGS];
};

/* STATUS, DRAIN, QUIESCE, CLOSE, BYE, GIVE, MEET, LOOK. */
struct xbb_guest_request {
	struct xbb_guest_head head;
	uint32_t	device;		/* 0 where none is meant */
	uint32_t	reserved;
};

/*
 * A connected socket, its descriptor, for the only ring of a device whose disk
 * is a server's; keys of TLS are no process's of a guest.
 */
struct xbb_guest_connect {
	struct xbb_guest_head head;
	uint32_t	device;
	uint32_t	reserved;
	uint8_t		export_name[XBB_NBD_NAME];	/* with NUL */
};

struct xbb_guest_done {
	struct xbb_guest_head head;
	uint32_t	device;
	int32_t		errnum;		/* 0: it has happened */
	uint8_t		words[XBB_GUEST_WORDS];
};

/* Where a device is in its life; if it stopped by itself, why. */
struct xbb_guest_device {
	uint32_t	device;
	uint32_t	state;		/* enum xbb_guest_state */
	uint32_t	reason;		/* enum xbb_stop_reason */
	int32_t		errnum;		/* that goes with the reason */
};

struct xbb_guest_report {
	struct xbb_guest_head head;
	struct xbb_guest_device device;
};

struct xbb_guest_devices {
	struct xbb_guest_head head;
	uint32_t	ndevices;
	uint32_t	reserved;
	uint64_t	build;		/* xbb_build() there */
	struct xbb_guest_device device[XBB_GUEST_DEVICES];
};

/* What a process is started with; descriptors are its own. */
struct xbb_guest_params {
	int32_t		listen_fd;	/* where daemons connect */
	/* Its own grant device, where that is a process's; -1 elsewhere. */
	int32_t		grant_fd;
	uint32_t	hv;		/* enum xbb_hv_kind of all its rings */
	uint32_t	daemon_uid;	/* who may connect */
	uint32_t	uid;		/* to become, or XBB_GUEST_STAY */
	uint32_t	gid;
	uint32_t	confined;	/* 0: for those who look for a fault */
	uint32_t	descriptors;	/* most it may have, 0: as it is */
	uint64_t	address_space;	/* likewise, bytes */
	/* It may run on those whose bit is set; on all, if none is. */
	uint64_t	cpus[XBB_GUEST_CPU_WORDS];
	uint32_t	idle_seconds;	/* until a HELLO says otherwise */
	/* Most time, in percent of one processor; 0: any. */
	uint32_t	cpu_percent;
	uint32_t	placed;		/* where that limit is, or may be */
	uint32_t	reserved;
};

/*
 * What the daemon asks of the server that such processes are forked from
 * (forkserver.py): a packet each, START with the socket to listen on, and with
 * a file that the process writes 0 to if it is to be placed.  It is answered by
 * STARTED, and the end of each process is told by ENDED.
 */
#define XBB_GUEST_NAME		48	/* bytes of a guest's name, with NUL */
#define XBB_GUEST_PATH		64	/* likewise, of its grant device's */

enum xbb_server_type {
	XBB_SERVER_START	= 1,
	XBB_SERVER_KILL		= 2,	/* a process of the server's */
	XBB_SERVER_STARTED	= 64,
	XBB_SERVER_ENDED	= 65
};

struct xbb_server_request {
	uint32_t	type;		/* enum xbb_server_type */
	uint32_t	serial;
	int32_t		pid;		/* KILL */
	uint32_t	reserved;
	/* START; descriptors and placed are filled in there */
	struct xbb_guest_params params;
	uint8_t		name[XBB_GUEST_NAME];
	/* To be opened by the process itself, if not empty. */
	uint8_t		grant_path[XBB_GUEST_PATH];
};

struct xbb_server_report {
	uint32_t	type;		/* enum xbb_server_type */
	uint32_t	serial;		/* STARTED */
	int32_t		pid;
	int32_t		errnum;		/* STARTED: why not */
	int32_t		status;		/* ENDED: as waitpid(2) has it */
	uint32_t	reserved;
};

/* Which of all versions of these files it was made from: a digest of them. */
uint64_t xbb_build(void);

/*
 * Be the process of a guest, on the only thread there is, until there is
 * nothing left to do: 0, or why it could not begin.  It never runs again in
 * the same process.
 */
int	xbb_guest_main(const struct xbb_guest_params *params,
	    struct xbb_error *error);

/*
 * Of a process that was forked to become one: close all descriptors from the
 * first on, and be named for ps(1) and top(1); the name is cut to fit.
 */
void	xbb_close_from(int first);
void	xbb_process_title(const char *title);
