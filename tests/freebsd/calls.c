/*
 * calls.c - the system calls: each goes to the device that its descriptor is,
 * or to the real one.  Any thread.
 */
#include <sys/capsicum.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"
#include "pthread_np.h"

int	__wrap_ioctl(int fd, unsigned long cmd, ...);
void	*__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd,
	    off_t offset);
int	__wrap_munmap(void *addr, size_t len);
ssize_t	__wrap_read(int fd, void *buf, size_t len);
ssize_t	__wrap_write(int fd, const void *buf, size_t len);
ssize_t	__wrap_writev(int fd, const struct iovec *iov, int niov);
int	__wrap_poll(struct pollfd *pfd, nfds_t n, int timeout);
ssize_t	__wrap_preadv(int fd, const struct iovec *iov, int niov, off_t at);
ssize_t	__wrap_pwritev(int fd, const struct iovec *iov, int niov, off_t at);
ssize_t	__wrap_pread(int fd, void *buf, size_t len, off_t at);
ssize_t	__wrap_pwrite(int fd, const void *buf, size_t len, off_t at);
int	__wrap_flock(int fd, int operation);
int	__wrap_fdatasync(int fd);
int	__wrap_fsync(int fd);
int	__wrap_accept(int fd, struct sockaddr *address, socklen_t *sizep);
ssize_t	__wrap_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t	__wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int	__wrap_close(int fd);
int	__wrap_fstat(int fd, struct stat *st);

_Noreturn void
kernel_panic(const char *why, ...)
{
	va_list args;

	fprintf(stderr, "panic: ");
	va_start(args, why);
	vfprintf(stderr, why, args);
	va_end(args);
	fprintf(stderr, "\n");
	fflush(NULL);
	abort();
}

static mode_t
type_of(int fd)
{
	struct stat st;

	return (fd >= 0 && __real_fstat(fd, &st) == 0 ? st.st_mode & S_IFMT :
	    0);
}

int
__wrap_ioctl(int fd, unsigned long cmd, ...)
{
	va_list args;
	void *arg;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	kernel_must_ioctl(fd, cmd);
	if (provider_is(fd))
		return (provider_ioctl(fd, cmd, arg));
	if (tap_is(fd))
		return (tap_ioctl(fd, cmd, arg));
	if (interface_is_asked(cmd))
		return (interface_ioctl(cmd, arg));
	switch (type_of(fd)) {
	case S_IFDIR:
		return (gntdev_ioctl(fd, cmd, arg));
	case S_IFSOCK:
		return (evtchn_ioctl(fd, cmd, arg));
	default:
		return (__real_ioctl(fd, cmd, arg));
	}
}

void *
__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{

	kernel_must(fd, (prot & PROT_WRITE) != 0 ? CAP_MMAP_RW : CAP_MMAP_R,
	    "mmap");
	if (type_of(fd) == S_IFDIR)
		return (gntdev_mmap(fd, addr, len, prot, flags, offset));
	return (__real_mmap(addr, len, prot, flags, fd, offset));
}

int
__wrap_munmap(void *addr, size_t len)
{

	gntdev_munmap(addr, len);
	return (__real_munmap(addr, len));
}

ssize_t
__wrap_read(int fd, void *buf, size_t len)
{

	kernel_must(fd, CAP_READ, "read");
	if (evtchn_is(fd))
		return (evtchn_read(fd, buf, len));
	return (__real_read(fd, buf, len));
}

ssize_t
__wrap_write(int fd, const void *buf, size_t len)
{

	kernel_must(fd, CAP_WRITE, "write");
	if (evtchn_is(fd))
		return (evtchn_write(fd, buf, len));
	return (__real_write(fd, buf, len));
}

/* Of a frame to a tap, or to what a test has in its place. */
ssize_t
__wrap_writev(int fd, const struct iovec *iov, int niov)
{

	kernel_must(fd, CAP_WRITE, "writev");
	if (evtchn_is(fd))
		kernel_panic("writev of an evtchn");
	if (tap_is(fd))
		return (tap_writev(fd, iov, niov));
	return (__real_writev(fd, iov, niov));
}

/*
 * An evtchn has something to read if a port is queued, and can always be
 * written.  Its socket is waited for only while the port is not masked.
 */
static int
ready_now(struct pollfd *pfd, nfds_t n)
{
	nfds_t i;
	int ready;

	ready = 0;
	for (i = 0; i < n; i++) {
		pfd[i].revents = 0;
		if (!evtchn_is(pfd[i].fd))
			continue;
		if (evtchn_pending(pfd[i].fd))
			pfd[i].revents |= pfd[i].events & (POLLIN | POLLRDNORM);
		pfd[i].revents |= pfd[i].events & (POLLOUT | POLLWRNORM);
		ready += pfd[i].revents != 0;
	}
	return (ready);
}

int
__wrap_poll(struct pollfd *pfd, nfds_t n, int timeout)
{
	struct pollfd real[8];
	nfds_t i;
	int again, found;

	for (i = 0; i < n; i++)
		kernel_must(pfd[i].fd, CAP_EVENT, "poll");
	if (n > 8)
		return (__real_poll(pfd, n, timeout));
	for (;;) {
		found = ready_now(pfd, n);
		memcpy(real, pfd, n * sizeof(*pfd));
		for (i = 0; i < n; i++)
			if (evtchn_is(pfd[i].fd) &&
			    !evtchn_may_wait(pfd[i].fd))
				real[i].fd = -1;
		again = __real_poll(real, n, found != 0 ? 0 : timeout);
		if (again < 0)
			return (again);
		for (i = 0; i < n; i++)
			if (!evtchn_is(pfd[i].fd) && real[i].revents != 0) {
				pfd[i].revents = real[i].revents;
				found++;
			}
		/* What a socket had may have been its end, which is no event. */
		if (found != 0 || again == 0)
			return (found);
	}
}

ssize_t
__wrap_preadv(int fd, const struct iovec *iov, int niov, off_t at)
{

	kernel_must(fd, CAP_PREAD, "preadv");
	if (provider_is(fd))
		return (provider_transfer(fd, false, iov, niov, at));
	return (__real_preadv(fd, iov, niov, at));
}

ssize_t
__wrap_pwritev(int fd, const struct iovec *iov, int niov, off_t at)
{

	kernel_must(fd, CAP_PWRITE, "pwritev");
	if (provider_is(fd))
		return (provider_transfer(fd, true, iov, niov, at));
	return (__real_pwritev(fd, iov, niov, at));
}

/* Of small files of ours; nothing reads a disk so. */
ssize_t
__wrap_pread(int fd, void *buf, size_t len, off_t at)
{

	kernel_must(fd, CAP_PREAD, "pread");
	return (__real_pread(fd, buf, len, at));
}

ssize_t
__wrap_pwrite(int fd, const void *buf, size_t len, off_t at)
{
	struct iovec iov = { (void *)(uintptr_t)buf, len };

	kernel_must(fd, CAP_PWRITE, "pwrite");
	if (provider_is(fd))
		return (provider_transfer(fd, true, &iov, 1, at));
	return (__real_pwrite(fd, buf, len, at));
}

/*
 * Of a disk device it would succeed, destroyed or not, and the drive keep what
 * it has.  Files of tests need not last.
 */
int
__wrap_fdatasync(int fd)
{

	kernel_must(fd, CAP_FSYNC, "fdatasync");
	if (provider_is(fd))
		kernel_panic("fdatasync(2) leaves the drive's cache alone");
	return (0);
}

int
__wrap_fsync(int fd)
{

	return (__wrap_fdatasync(fd));
}

/* What is accepted has the rights of whom it came to (uipc_syscalls.c). */
int
__wrap_flock(int fd, int operation)
{

	kernel_must(fd, CAP_FLOCK, "flock");
	return (__real_flock(fd, operation));
}

int
__wrap_accept(int fd, struct sockaddr *address, socklen_t *sizep)
{
	int new;

	kernel_must(fd, CAP_ACCEPT, "accept");
	new = __real_accept(fd, address, sizep);
	kernel_rights_inherit(new, fd);
	return (new);
}

ssize_t
__wrap_recvmsg(int fd, struct msghdr *msg, int flags)
{

	kernel_must(fd, CAP_RECV, "recvmsg");
	return (__real_recvmsg(fd, msg, flags));
}

static bool
is_of_packets(int fd)
{
	socklen_t size;
	int type;

	size = sizeof(type);
	return (__real_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
	    type == SOCK_SEQPACKET);
}

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{

	kernel_must(fd, CAP_SEND, "sendmsg");
	if (is_of_packets(fd) && (flags & MSG_EOR) == 0)
		kernel_panic("sendmsg of %d: a packet without an end", fd);
	return (__real_sendmsg(fd, msg, flags));
}

int
__wrap_close(int fd)
{

	kernel_rights_forget(fd);
	if (provider_is(fd))
		return (provider_close(fd));
	(void)tap_close(fd);
	if (__real_close(fd) != 0)
		kernel_panic("close(2) of %d: %s", fd, strerror(errno));
	return (0);
}

int
__wrap_fstat(int fd, struct stat *st)
{

	kernel_must(fd, CAP_FSTAT, "fstat");
	if (provider_is(fd))
		return (provider_fstat(fd, st));
	return (__real_fstat(fd, st));
}

void
pthread_set_name_np(pthread_t thread, const char *name)
{

	(void)pthread_setname_np(thread, name);
}
