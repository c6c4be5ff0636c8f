/*
 * kernel.h - a FreeBSD kernel as strict as it can be, for its files on Linux:
 * what an /dev/xen/gntdev, an /dev/xen/evtchn, a disk and a tap do there, over
 * the simulated machine.  System calls of the linked files come here first
 * (-Wl,--wrap); descriptors of none of these go on to the real ones.
 *
 * A descriptor is a gntdev if it is the directory of a simulated domain, an
 * evtchn if it is a socket connected to a domain's port, a provider once
 * kernel_provider() said so, a tap if that was opened.
 *
 * What would have FreeBSD panic, lose data or leave something behind ends the
 * process with "panic:" and a reason; so does what works there but must not
 * be relied on.  What is left when the process ends is a panic too.  README.md
 * lists what is played, and what is not.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

_Noreturn void kernel_panic(const char *why, ...)
	    __attribute__((format(printf, 1, 2)));

/* For tests. */
void	kernel_provider(int fd, uint32_t sector_size);	/* 0: no more */
void	kernel_provider_without_flush(int fd);	/* until it is made anew */
void	kernel_provider_hold(void);	/* transfers, until one is destroyed */
unsigned int kernel_provider_held(void);	/* transfers that wait */
void	kernel_provider_destroy(int fd);	/* as mdconfig -d -o force */
void	kernel_overflow(int event_fd);	/* of the queue of ports */
void	kernel_gntdev_short(int errnum);	/* what mmap(2) of maps says; 0: none */
int	kernel_records(void);		/* of maps, mapped or not */
unsigned int kernel_flushes(void);	/* DIOCGFLUSH that were done */
void	kernel_setenv(const char *name, const char *value);	/* the only one */
void	kernel_mount(const char *name);	/* every file is on such a file system */
void	kernel_racct(bool enabled);	/* kern.racct.enable; not at first */
unsigned int kernel_pcpu(void);		/* what a rule lets us have, percent */
void	kernel_set_clock(int64_t seconds);	/* ahead of the real one */

uint32_t kernel_interface_flags(const char *name);
int	kernel_interface_mtu(const char *name);
int	kernel_tap_header(const char *name);	/* bytes before its frames */

/* test_questions.c, test_links.c: parts of test_rules.c. */
void	check_questions(void);
void	check_links(void);

/* capsicum.c: rights that a descriptor must have, or it is a panic. */
void	kernel_must(int fd, uint64_t rights, const char *call);
void	kernel_must_ioctl(int fd, unsigned long cmd);
void	kernel_rights_forget(int fd);	/* it is closed */
void	kernel_rights_inherit(int fd, int from);
bool	kernel_capability_mode(void);

/* gntdev.c */
int	gntdev_ioctl(int fd, unsigned long cmd, void *arg);
void	*gntdev_mmap(int fd, void *addr, size_t len, int prot, int flags,
	    off_t offset);
void	gntdev_munmap(void *addr, size_t len);

/* evtchn.c */
int	evtchn_ioctl(int fd, unsigned long cmd, void *arg);
bool	evtchn_is(int fd);
ssize_t	evtchn_read(int fd, void *buf, size_t len);
ssize_t	evtchn_write(int fd, const void *buf, size_t len);
bool	evtchn_pending(int fd);
bool	evtchn_may_wait(int fd);

/* tap.c */
bool	tap_is(int fd);
bool	tap_close(int fd);	/* it was one */
int	tap_ioctl(int fd, unsigned long cmd, void *arg);
ssize_t	tap_writev(int fd, const struct iovec *iov, int niov);
bool	interface_is_asked(unsigned long cmd);
int	interface_ioctl(unsigned long cmd, void *arg);

/* provider.c */
bool	provider_is(int fd);
int	provider_ioctl(int fd, unsigned long cmd, void *arg);
int	provider_close(int fd);
int	provider_fstat(int fd, struct stat *st);
ssize_t	provider_transfer(int fd, bool write, const struct iovec *iov,
	    int niov, off_t at);

/* What the linker made of the names that it wrapped. */
int	__real_open(const char *path, int flags, ...);
int	__real_ioctl(int fd, unsigned long cmd, ...);
void	*__real_mmap(void *addr, size_t len, int prot, int flags, int fd,
	    off_t offset);
int	__real_munmap(void *addr, size_t len);
ssize_t	__real_read(int fd, void *buf, size_t len);
ssize_t	__real_write(int fd, const void *buf, size_t len);
ssize_t	__real_writev(int fd, const struct iovec *iov, int niov);
int	__real_poll(struct pollfd *pfd, nfds_t n, int timeout);
ssize_t	__real_preadv(int fd, const struct iovec *iov, int niov, off_t at);
ssize_t	__real_pwritev(int fd, const struct iovec *iov, int niov, off_t at);
ssize_t	__real_pread(int fd, void *buf, size_t len, off_t at);
ssize_t	__real_pwrite(int fd, const void *buf, size_t len, off_t at);
int	__real_flock(int fd, int operation);
int	__real_accept(int fd, struct sockaddr *address, socklen_t *sizep);
ssize_t	__real_recvmsg(int fd, struct msghdr *msg, int flags);
ssize_t	__real_sendmsg(int fd, const struct msghdr *msg, int flags);
int	__real_close(int fd);
int	__real_fstat(int fd, struct stat *st);
int	__real_getsockopt(int fd, int level, int name, void *value,
	    socklen_t *sizep);
int	__real_clock_gettime(clockid_t clock, struct timespec *ts);

#endif /* KERNEL_H */
