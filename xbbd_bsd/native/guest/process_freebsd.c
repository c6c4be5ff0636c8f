/*
 * process_freebsd.c - what the process of a guest asks of FreeBSD, beside being
 * confined: its name, who is at the other end of a socket, to close what it has
 * not been given.  Knows no device.  One thread.
 */
#include <sys/types.h>
#include <sys/socket.h>

#include <unistd.h>

#include "guest/guest.h"

int
xbb_peer_uid(int fd, uint32_t *uidp)
{
	gid_t gid;
	uid_t uid;

	if (getpeereid(fd, &uid, &gid) != 0)
		return (-errno);
	*uidp = uid;
	return (0);
}

/* The dash leaves out the name of the program, which is Python's. */
void
xbb_process_title(const char *title)
{

	setproctitle("-%s", title);
	xbb_thread_name(title);
}

void
xbb_close_from(int first)
{

	closefrom(first);
}
