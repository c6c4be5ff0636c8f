/*
 * daemon.c - the daemon that the process of a guest has, or has not: who may be
 * it, and what it is told.  It never waits for it.  The loop's thread.
 */
#include <sys/socket.h>

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest.h"

void
xbb_daemon_lose(struct xbb_guest *g)
{
	struct xbb_device *d;

	close(g->daemon_fd);
	g->daemon_fd = -1;
	g->greeted = false;
	/* Whoever comes next has not asked. */
	for (d = g->devices; d != NULL; d = d->next)
		d->serial = 0;
}

/* One that does not read what it is told is as good as none. */
void
xbb_daemon_tell(struct xbb_guest *g, void *message, uint32_t type, size_t size,
    uint32_t serial)
{

	if (g->daemon_fd >= 0 && xbb_message_send(g->daemon_fd, message, type,
	    size, serial, NULL, 0) != 0)
		xbb_daemon_lose(g);
}

void
xbb_daemon_answer(struct xbb_guest *g, uint32_t serial, uint32_t device,
    int errnum, const char *words)
{
	struct xbb_guest_done done = { .device = device, .errnum = errnum };

	strncpy((char *)done.words, words, sizeof(done.words) - 1);
	xbb_daemon_tell(g, &done, XBB_GUEST_DONE, sizeof(done), serial);
}

/* What waits for a device has happened, or cannot. */
void
xbb_daemon_answer_for(struct xbb_guest *g, struct xbb_device *d, int errnum,
    const char *words)
{
	const uint32_t serial = d->serial;

	d->serial = 0;
	if (serial != 0)
		xbb_daemon_answer(g, serial, d->number, errnum, words);
}

void
xbb_daemon_list(struct xbb_guest *g, uint32_t serial)
{
	struct xbb_guest_devices list = { .build = xbb_build() };
	struct xbb_device *d;

	for (d = g->devices; d != NULL; d = d->next)
		list.device[list.ndevices++] = d->shown;
	xbb_daemon_tell(g, &list, XBB_GUEST_DEVICE_LIST, sizeof(list), serial);
}

/* Who comes to be the daemon: it must be of its user, and the only one. */
void
xbb_daemon_meet(struct xbb_guest *g)
{
	struct xbb_guest_done done = { .errnum = EBUSY };
	uint32_t uid;
	int32_t pid;
	int fd;

	fd = accept(g->params->listen_fd, NULL, NULL);
	if (fd < 0) {
		g->deaf = errno != EAGAIN && errno != EINTR &&
		    errno != ECONNABORTED;
		return;
	}
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (xbb_peer(fd, &pid, &uid) != 0 || uid != g->params->daemon_uid ||
	    xbb_confine_fd(fd, XBB_USE_DAEMON, g->params) != 0) {
		close(fd);
		return;
	}
	if (g->daemon_fd >= 0) {
		strcpy((char *)done.words, "another daemon is connected");
		(void)xbb_message_send(fd, &done, XBB_GUEST_DONE, sizeof(done),
		    0, NULL, 0);
		close(fd);
		return;
	}
	g->daemon_fd = fd;
}
