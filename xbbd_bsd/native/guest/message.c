/*
 * message.c - packets between the daemon and the process of a guest, and the
 * descriptors in them.  Who sends is less trusted than this process: a message
 * is copied once, and looked at here before anybody acts on it.  Whatever
 * happens, a descriptor that came is taken by somebody or closed.  Knows no
 * device and no ring, but what those of a family are made of.  Any thread, one
 * at a socket.
 */
#include <sys/socket.h>

#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL	0		/* SIGPIPE is ignored here */
#endif

/*
 * Room for more than any message of ours has, so that who sends too many is
 * told; what goes beyond it the kernel closes.
 */
#define ROOM	(XBB_GUEST_DESCRIPTORS + 8)

static void
take_descriptors(struct xbb_message *message, struct msghdr *msg,
    uint32_t *toomanyp)
{
	struct cmsghdr *cmsg;
	const uint8_t *at;
	size_t n;
	int fd;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL;
	    cmsg = CMSG_NXTHDR(msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		at = CMSG_DATA(cmsg);
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
		for (; n > 0; n--, at += sizeof(fd)) {
			memcpy(&fd, at, sizeof(fd));
			if (message->nfds < XBB_GUEST_DESCRIPTORS) {
				message->fd[message->nfds++] = fd;
				continue;
			}
			close(fd);
			*toomanyp += 1;
		}
	}
}

/*
 * The next message: 1, or 0 if there is none now; EPIPE if whoever sent is
 * gone.  If all of it did not fit, EMSGSIZE, or EMFILE for want of descriptors:
 * then only its head is good for something, to answer.
 */
int
xbb_message_take(int fd, struct xbb_message *message)
{
	_Alignas(struct cmsghdr) uint8_t
	    control[CMSG_SPACE(ROOM * sizeof(int))];
	struct iovec iov = {
		.iov_base = &message->head, .iov_len = sizeof(message->add),
	};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	uint32_t toomany;
	ssize_t n;

	_Static_assert(sizeof(message->add) >= sizeof(message->hello) &&
	    sizeof(message->add) >= sizeof(message->connect) &&
	    sizeof(message->add) >= sizeof(message->request),
	    "an ADD is the longest");
	memset(message, 0, sizeof(*message));
	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return (0);
	if (n < 0)
		return (errno == ECONNRESET ? -EPIPE : -errno);
	toomany = 0;
	take_descriptors(message, &msg, &toomany);
	if (n == 0 && message->nfds == 0)
		return (-EPIPE);
	message->size = (size_t)n;
	if (toomany == 0 && (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0)
		return (1);
	xbb_message_drop(message);
	return (toomany == 0 && (msg.msg_flags & MSG_TRUNC) == 0 ?
	    -EMFILE : -EMSGSIZE);
}

static size_t
size_of_type(uint32_t type)
{

	switch (type) {
	case XBB_GUEST_HELLO:
		return (sizeof(struct xbb_guest_hello));
	case XBB_GUEST_ADD:
		return (sizeof(struct xbb_guest_add));
	case XBB_GUEST_CONNECT:
		return (sizeof(struct xbb_guest_connect));
	case XBB_GUEST_STATUS:
	case XBB_GUEST_DRAIN:
	case XBB_GUEST_QUIESCE:
	case XBB_GUEST_CLOSE:
	case XBB_GUEST_BYE:
	case XBB_GUEST_GIVE:
	case XBB_GUEST_MEET:
	case XBB_GUEST_LOOK:
		return (sizeof(struct xbb_guest_request));
	default:
		return (0);
	}
}

/* Of an ADD; what a ring's params say otherwise is xbb_queue_open()'s. */
static const char *
fault_of_add(struct xbb_message *message, bool own_grants)
{
	struct xbb_guest_add *add = &message->add;
	const struct xbb_kind *kind = xbb_kind_of(add->device);
	const struct xbb_conn_params *conn;
	uint32_t each, i, nrates;

	if (kind == NULL)
		return ("no kind of device");

	if (add->nrings < 1 || add->nrings > XBB_MAX_RINGS)
		return ("an impossible number of rings");
	if (add->nkept > XBB_GUEST_KEPT)
		return ("too many descriptors to be kept");
	nrates = 0;
	for (i = XBB_RATE_GUEST; i < XBB_RATE_LEVELS; i++)
		nrates += xbb_has_rate(add, i);
	if (nrates != 0 && kind->share == NULL)
		return ("limits of what has none");
	each = 1 + !own_grants + kind->each;
	if (message->nfds != 1 + !kind->each + add->nrings * each +
	    add->nkept + nrates)
		return ("not as many descriptors as it takes");
	for (i = 0; i < add->nrings; i++) {
		conn = &add->ring[i].conn;
		if (conn->ring != i)
			return ("rings out of order");
		if (conn->grant_fd != -1 || conn->event_fd != -1 ||
		    conn->wake_fd != -1 ||
		    *kind->medium_fd(&add->ring[i]) != -1)
			return ("a number for a descriptor");
	}
	return (NULL);
}

/* Is it laid out as its version has it, and not for good? */
static bool
may_differ(uint32_t type)
{

	return (type == XBB_GUEST_HELLO || type == XBB_GUEST_ADD ||
	    type == XBB_GUEST_CONNECT);
}

/* The number that an answer to it has. */
uint32_t
xbb_message_serial(const struct xbb_message *message)
{

	return (message->size >= sizeof(message->head) ? message->head.serial :
	    0);
}

/* What is wrong with a message, NULL if it is one of ours. */
const char *
xbb_message_fault(struct xbb_message *message, bool own_grants)
{
	const struct xbb_guest_head *head = &message->head;
	size_t size;

	if (message->size < sizeof(*head))
		return ("too short for a message");
	if (may_differ(head->type) && head->version != XBB_GUEST_VERSION)
		return ("another version of the messages");
	size = size_of_type(head->type);
	if (size == 0)
		return ("no request");
	if (message->size != size || head->size != size)
		return ("not the size of such a request");
	if (head->type == XBB_GUEST_ADD)
		return (fault_of_add(message, own_grants));
	if (head->type == XBB_GUEST_CONNECT)
		return (message->nfds != 1 ? "not one descriptor" : NULL);
	return (message->nfds != 0 ? "descriptors where there are none" : NULL);
}

/* A descriptor of the message's, which is the caller's from now on. */
int
xbb_message_fd(struct xbb_message *message, uint32_t which)
{
	int fd;

	fd = message->fd[which];
	message->fd[which] = -1;
	return (fd);
}

/* Close what nobody has taken. */
void
xbb_message_drop(struct xbb_message *message)
{
	uint32_t i;

	for (i = 0; i < message->nfds; i++)
		if (message->fd[i] >= 0)
			close(message->fd[i]);
	message->nfds = 0;
}

static void
put_descriptors(struct msghdr *msg, const int *fds, uint32_t nfds)
{
	struct cmsghdr *cmsg;

	cmsg = CMSG_FIRSTHDR(msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(*fds));
	memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(*fds));
}

/*
 * Send a message, which begins with its head, and descriptors, which stay the
 * caller's: 0, EAGAIN if whoever should read does not.  Without its end, which
 * only FreeBSD wants to be told, what comes next would belong to it; and so it
 * would after EIO, where that has taken a part of it.
 */
int
xbb_message_send(int fd, void *message, uint32_t type, size_t size,
    uint32_t serial, const int *fds, uint32_t nfds)
{
	_Alignas(struct cmsghdr) uint8_t
	    control[CMSG_SPACE(XBB_GUEST_DESCRIPTORS * sizeof(int))] = { 0 };
	struct xbb_guest_head *head = message;
	struct iovec iov = { .iov_base = message, .iov_len = size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	*head = (struct xbb_guest_head){
		.version = XBB_GUEST_VERSION, .type = type,
		.size = (uint32_t)size, .serial = serial,
	};
	if (nfds != 0) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(*fds));
		put_descriptors(&msg, fds, nfds);
	}
	do
		n = sendmsg(fd, &msg, MSG_EOR | MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return (n == (ssize_t)size ? 0 : n < 0 ? -errno : -EIO);
}
