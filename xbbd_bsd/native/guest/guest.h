/*
 * guest.h - the process of a guest from the inside: guest.c (its one loop),
 * daemon.c, message.c and request.c (what is said, and asked for), device.c (a
 * device and its rings), kind.c, disks.c and cards.c (what families have for
 * it), and how it is confined.  It stands above the families, and none of them
 * knows it.
 *
 * Threads.  One, the loop's, which waits for nobody: no disk, no guest and no
 * daemon.  A device has at most one more at a time, which opens it or closes
 * it, and may have to wait; it touches its own device, and says that it is done
 * by a stage and a byte to the loop.  The rings' threads are core's.
 */
#ifndef XBB_GUEST_H
#define XBB_GUEST_H

#include "block/block.h"
#include "net/net.h"

#include "guest/contract.h"

_Static_assert(XBB_GUEST_DESCRIPTORS == 1 + 3 * XBB_MAX_RINGS + XBB_GUEST_KEPT,
    "all descriptors of a message have room");
_Static_assert(XBB_GUEST_DESCRIPTORS >= 2 + 2 * XBB_MAX_RINGS +
    XBB_GUEST_KEPT + XBB_GUEST_RATES, "those of a disk have, too");
_Static_assert(XBB_GUEST_RATES == XBB_RATE_LEVELS - 1, "all but the disk's");
_Static_assert(XBB_GUEST_CPUS == 64 * XBB_GUEST_CPU_WORDS,
    "all processors have a bit");

/* What a descriptor is used for. */
enum xbb_use {
	XBB_USE_LISTENER,
	XBB_USE_DAEMON,
	XBB_USE_SEGMENT,
	XBB_USE_DISK,
	XBB_USE_SERVER,			/* a disk's, connected */
	XBB_USE_LINK,
	XBB_USE_GRANTS,
	XBB_USE_EVENTS,
	XBB_USE_RATES,
	XBB_USE_KEPT
};

/*
 * What a family is to this process: its segments, its queues, and what they
 * give to their guest, which is a descriptor for each ring, or one for all.
 * Which families there are nobody else knows (kind.c).
 */
struct xbb_kind {
	const struct xbb_family *family;
	enum xbb_use	 medium;	/* of that descriptor */
	bool		 each;		/* one for each ring */
	/* Where the params of a ring have it. */
	int32_t	*(*medium_fd)(union xbb_guest_ring *ring);
	int	(*map)(int fd, void **statep);
	void	(*unmap)(void *state);
	/* Have it go by limits of others, too; NULL: it has none. */
	void	(*share)(void *state, uint32_t level,
		    struct xbb_rate_words *words);
	int	(*open)(const union xbb_guest_ring *ring, void *state,
		    struct xbb_error *error, void **queuep);
	int	(*start)(void *queue, struct xbb_error *error);
	/* Its only ring's medium is reached over that; NULL: none is. */
	int	(*connect)(void *queue, int fd, const uint8_t *name);
	void	(*drain)(void *queue);
	void	(*look)(void *queue);	/* NULL: at nothing */
	/* Once handed over: is anything unanswered?  NULL: never. */
	bool	(*owes)(void *queue);
	void	(*hand_over)(void *queue);
	void	(*status)(void *queue, struct xbb_queue_status *status);
	void	(*close)(void *queue);
};

/* A message as it came: nothing in it is believed yet. */
struct xbb_message {
	union {
		struct xbb_guest_head head;
		struct xbb_guest_hello hello;
		struct xbb_guest_add add;
		struct xbb_guest_request request;
		struct xbb_guest_connect connect;
	};
	size_t		 size;		/* bytes that came */
	uint32_t	 nfds;
	int		 fd[XBB_GUEST_DESCRIPTORS];	/* -1: taken */
};

/* Where a device's thread is; it makes the last step of each. */
enum xbb_stage {
	XBB_STAGE_OPENING,
	XBB_STAGE_FAILED,		/* nothing is held any more */
	XBB_STAGE_OPEN,
	XBB_STAGE_CLOSING,
	XBB_STAGE_CLOSED		/* likewise */
};

/* A device that this process serves. */
struct xbb_device {
	struct xbb_device *next;
	const struct xbb_kind *kind;
	uint32_t	 number;	/* the daemon's, as is the serial */
	uint32_t	 serial;	/* of what waits for an answer, or 0 */
	bool		 leaving;	/* to be closed once it has drained */
	bool		 hands_over;	/* and another one goes on */
	bool		 owes;		/* and has some to answer */
	struct xbb_guest_device shown;	/* what the daemon was told last */
	pthread_t	 thread;	/* opens or closes it */
	bool		 has_thread;
	atomic_uint	 stage;		/* enum xbb_stage */
	/* The loop's while OPEN, the thread's otherwise. */
	struct xbb_error error;		/* of an opening that failed */
	int		 wake_fd;	/* the loop's */
	int		 segment_fd;	/* holds the lock */
	int		 medium[XBB_MAX_RINGS];	/* of each ring, or the first */
	int		 kept[XBB_GUEST_KEPT];
	int		 rate_fd[XBB_RATE_LEVELS];	/* until mapped */
	struct xbb_rate_words *words[XBB_RATE_LEVELS];
	void		*state;
	uint32_t	 nrings;
	bool		 own_grants;	/* the process's, of all rings */
	union xbb_guest_ring ring[XBB_MAX_RINGS];
	void		*queue[XBB_MAX_RINGS];
};

/* The process; all of it is the loop's. */
struct xbb_guest {
	const struct xbb_guest_params *params;
	int		 wake;		/* written to by rings, and others */
	int		 daemon_fd;	/* the one daemon, -1: none */
	bool		 greeted;	/* it has said HELLO */
	bool		 deaf;		/* no descriptor for a connection */
	bool		 behind;	/* something is to be tried again */
	bool		 leaving;	/* the daemon has said BYE */
	uint32_t	 idle_seconds;
	uint64_t	 alone_ns;	/* since when, 0: not alone */
	struct xbb_device *devices;
	uint32_t	 ndevices;
};

/* message.c - packets with descriptors.  Any thread, one at a socket. */
int	xbb_message_take(int fd, struct xbb_message *message);
const char *xbb_message_fault(struct xbb_message *message, bool own_grants);
uint32_t xbb_message_serial(const struct xbb_message *message);
int	xbb_message_fd(struct xbb_message *message, uint32_t which);
void	xbb_message_drop(struct xbb_message *message);
int	xbb_message_send(int fd, void *message, uint32_t type, size_t size,
	    uint32_t serial, const int *fds, uint32_t nfds);

/* daemon.c - the daemon, and what it is told.  The loop's thread. */
void	xbb_daemon_meet(struct xbb_guest *g);
void	xbb_daemon_lose(struct xbb_guest *g);
void	xbb_daemon_tell(struct xbb_guest *g, void *message, uint32_t type,
	    size_t size, uint32_t serial);
void	xbb_daemon_answer(struct xbb_guest *g, uint32_t serial,
	    uint32_t device, int errnum, const char *words);
void	xbb_daemon_answer_for(struct xbb_guest *g, struct xbb_device *d,
	    int errnum, const char *words);
void	xbb_daemon_list(struct xbb_guest *g, uint32_t serial);

/* request.c - what it asks for.  Likewise. */
void	xbb_request_obey(struct xbb_guest *g, struct xbb_message *message);

/* kind.c - which family a device's number is of, NULL: none; its unit there. */
const struct xbb_kind *xbb_kind_of(uint32_t number);
uint32_t xbb_unit_of(uint32_t number);

/* disks.c, cards.c */
extern const struct xbb_kind xbb_disks;
extern const struct xbb_kind xbb_cards;

/* device.c - a device, its segment and its queues.  The loop's thread. */
struct xbb_device *xbb_device_new(struct xbb_message *message,
	    const struct xbb_guest_params *params, int wake_fd);
int	xbb_device_open(struct xbb_device *device);
bool	xbb_device_settle(struct xbb_device *device);
void	xbb_device_look(struct xbb_device *device,
	    struct xbb_guest_device *found);
int	xbb_device_connect(struct xbb_device *device, int fd,
	    const struct xbb_guest_connect *connect);
void	xbb_device_drain(struct xbb_device *device);
void	xbb_device_have_look(struct xbb_device *device);
void	xbb_device_hand_over(struct xbb_device *device);
bool	xbb_device_owes(const struct xbb_device *device);
int	xbb_device_close(struct xbb_device *device);
void	xbb_device_free(struct xbb_device *device);

/* Has it a file for a level of limits? */
static inline bool
xbb_has_rate(const struct xbb_guest_add *add, uint32_t level)
{

	return ((add->rates >> level & 1) != 0);
}

/* limits.c - how much this process may have. */
int	xbb_limit(const struct xbb_guest_params *params);

/* Of a set of processors, as the params have it. */
static inline bool
xbb_has_cpu(const uint64_t *cpus, size_t cpu)
{

	return ((cpus[cpu / 64] >> (cpu % 64) & 1) != 0);
}

/*
 * confine_linux.c, confine_freebsd.c - what this process, and each of its
 * descriptors, is left.
 */
int	xbb_confine(const struct xbb_guest_params *params);
int	xbb_confine_fd(int fd, enum xbb_use use,
	    const struct xbb_guest_params *params);

/* process_linux.c, process_freebsd.c - what a process asks of its system. */
int	xbb_process_cpus(const uint64_t *cpus);
int	xbb_process_quota(const struct xbb_guest_params *params);

#endif /* XBB_GUEST_H */
