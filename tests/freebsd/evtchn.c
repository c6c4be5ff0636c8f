/*
 * evtchn.c - /dev/xen/evtchn over the socket of a simulated event channel: one
 * port a descriptor, masked when it is queued and until it is written back.
 * Any thread; one lock.
 */
#include <sys/socket.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"

/* The kernel's own numbers, written down once more: these judge the product's. */
#define BIND_INTERDOMAIN	0xc00c4505
#define UNBIND			0x80044507
#define NOTIFY			0x80044508
#define RESET			0x20004509

#define MAX_PORTS	4096		/* two-level event channels */

struct port {
	bool	bound;
	int	fd;
	bool	queued;
	bool	masked;
	bool	overflow;
	bool	dead;			/* nobody is at the other end */
};

static struct port ports[MAX_PORTS];	/* lock */
static uint32_t nports = 35;		/* lock: next; none is used again */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int
fail(int errnum)
{

	errno = errnum;
	return (-1);
}

static struct port *
port_of(int fd)
{
	uint32_t i;

	for (i = nports; i-- > 0;)
		if (ports[i].bound && ports[i].fd == fd)
			return (&ports[i]);
	return (NULL);
}

/* The panic comes later on FreeBSD, at somebody's next bind. */
static struct port *
own_port(int fd, const uint32_t *port, const char *what)
{

	if (*port >= MAX_PORTS || !ports[*port].bound || ports[*port].fd != fd)
		kernel_panic("%s of port %u, which this descriptor has not "
		    "bound: a mutex stays locked", what, *port);
	return (&ports[*port]);
}

/* An event on a port that is not masked masks and queues it. */
static void
pump(struct port *p)
{
	char drop[4096];
	ssize_t n;

	if (p->masked || p->dead)
		return;
	n = recv(p->fd, drop, sizeof(drop), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		p->dead = true;
	if (n > 0)
		p->masked = p->queued = true;
}

/* The first event is there at once: Xen sends one to who binds. */
static int
bind_interdomain(int fd, uint32_t arg[3])
{

	if (arg[0] == 0 || arg[1] == 0)
		return (fail(EINVAL));
	if (nports == MAX_PORTS)
		kernel_panic("no test binds so many ports");
	ports[nports] = (struct port){
		.bound = true, .fd = fd, .queued = true, .masked = true,
	};
	arg[2] = nports++;
	return (0);
}

int
evtchn_ioctl(int fd, unsigned long cmd, void *arg)
{
	struct port *p;
	int error;

	error = 0;
	pthread_mutex_lock(&lock);
	switch (cmd) {
	case BIND_INTERDOMAIN:
		error = bind_interdomain(fd, arg);
		break;
	case UNBIND:
		own_port(fd, arg, "UNBIND")->bound = false;
		break;
	case NOTIFY:
		p = own_port(fd, arg, "NOTIFY");
		(void)send(p->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case RESET:
		p = port_of(fd);
		if (p != NULL)
			p->overflow = p->queued = false;
		break;
	default:
		error = fail(ENOSYS);
	}
	pthread_mutex_unlock(&lock);
	return (error);
}

bool
evtchn_is(int fd)
{
	bool found;

	pthread_mutex_lock(&lock);
	found = port_of(fd) != NULL;
	pthread_mutex_unlock(&lock);
	return (found);
}

ssize_t
evtchn_read(int fd, void *buf, size_t len)
{
	uint32_t number;
	struct port *p;
	ssize_t n;

	if (len < sizeof(number))
		return (0);
	pthread_mutex_lock(&lock);
	p = port_of(fd);
	pump(p);
	if (p->overflow)
		n = fail(EFBIG);
	else if (!p->queued) {
		if ((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0)
			kernel_panic("read(2) of an evtchn waits for ever");
		n = fail(EAGAIN);
	} else {
		number = (uint32_t)(p - ports);
		memcpy(buf, &number, sizeof(number));
		p->queued = false;
		n = sizeof(number);
	}
	pthread_mutex_unlock(&lock);
	return (n);
}

/* Ports that are none of the descriptor's are passed over. */
ssize_t
evtchn_write(int fd, const void *buf, size_t len)
{
	uint32_t number;
	size_t at;

	pthread_mutex_lock(&lock);
	for (at = 0; at + sizeof(number) <= len; at += sizeof(number)) {
		memcpy(&number, (const uint8_t *)buf + at, sizeof(number));
		if (number < MAX_PORTS && ports[number].bound &&
		    ports[number].fd == fd && !ports[number].overflow)
			ports[number].masked = false;
	}
	pthread_mutex_unlock(&lock);
	return ((ssize_t)at);
}

/* Has it something to read?  A queue that ran over is full. */
bool
evtchn_pending(int fd)
{
	struct port *p;
	bool pending;

	pthread_mutex_lock(&lock);
	p = port_of(fd);
	pump(p);
	pending = p->queued || p->overflow;
	pthread_mutex_unlock(&lock);
	return (pending);
}

/* Can something come that nobody has seen? */
bool
evtchn_may_wait(int fd)
{
	const struct port *p;
	bool may;

	pthread_mutex_lock(&lock);
	p = port_of(fd);
	may = !p->masked && !p->dead;
	pthread_mutex_unlock(&lock);
	return (may);
}

void
kernel_overflow(int event_fd)
{
	struct port *p;

	pthread_mutex_lock(&lock);
	p = port_of(event_fd);
	p->overflow = p->masked = true;
	pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void
nothing_may_be_left(void)
{
	uint32_t i;

	for (i = 0; i < MAX_PORTS; i++)
		if (ports[i].bound)
			kernel_panic("port %u is left", i);
}
