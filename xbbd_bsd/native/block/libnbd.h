/*
 * libnbd.h - as much of libnbd's interface as we use, which is stable: found by
 * dlopen(3) when it is wanted, so that nobody needs it who has no such disk.
 */
#ifndef XBB_BLOCK_LIBNBD_H
#define XBB_BLOCK_LIBNBD_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_FUA			0x01	/* of a write: durable when it ends */
#define NBD_READING		1	/* directions, that may be both */
#define NBD_WRITING		2
#define NBD_SIZE_MINIMUM	0	/* of a block */
#define NBD_SIZE_PREFERRED	1
#define NBD_SIZE_MAXIMUM	2
#define NBD_TLS_REQUIRED	2

struct nbd_handle;

/* What it calls when a command is over; 1: and is done with it. */
struct nbd_completion {
	int	(*callback)(void *user, int *error);
	void	*user;
	void	(*release)(void *user);
};

/* Functions of the library, by their names there without "nbd_". */
struct xbb_libnbd {
	struct nbd_handle *(*create)(void);
	void	(*close)(struct nbd_handle *h);
	const char *(*get_error)(void);
	int	(*get_errno)(void);
	int	(*set_export_name)(struct nbd_handle *h, const char *name);
	int	(*set_request_structured_replies)(struct nbd_handle *h,
		    bool request);
	int	(*set_pread_initialize)(struct nbd_handle *h, bool request);
	int	(*set_tls)(struct nbd_handle *h, int tls);
	int	(*set_tls_certificates)(struct nbd_handle *h, const char *dir);
	int	(*set_tls_psk_file)(struct nbd_handle *h, const char *file);
	int	(*set_tls_username)(struct nbd_handle *h, const char *user);
	int	(*aio_connect_socket)(struct nbd_handle *h, int fd);
	int	(*aio_disconnect)(struct nbd_handle *h, uint32_t flags);
	int	(*aio_get_fd)(struct nbd_handle *h);
	unsigned (*aio_get_direction)(struct nbd_handle *h);
	int	(*aio_notify_read)(struct nbd_handle *h);
	int	(*aio_notify_write)(struct nbd_handle *h);
	int	(*aio_is_connecting)(struct nbd_handle *h);
	int	(*aio_is_ready)(struct nbd_handle *h);
	int	(*aio_is_dead)(struct nbd_handle *h);
	int	(*aio_is_closed)(struct nbd_handle *h);
	const char *(*get_protocol)(struct nbd_handle *h);
	int64_t	(*get_size)(struct nbd_handle *h);
	int64_t	(*get_block_size)(struct nbd_handle *h, int which);
	int	(*is_read_only)(struct nbd_handle *h);
	int	(*can_flush)(struct nbd_handle *h);
	int	(*can_fua)(struct nbd_handle *h);
	int	(*can_trim)(struct nbd_handle *h);
	int64_t	(*aio_pread)(struct nbd_handle *h, void *to, size_t count,
		    uint64_t offset, struct nbd_completion done,
		    uint32_t flags);
	int64_t	(*aio_pwrite)(struct nbd_handle *h, const void *from,
		    size_t count, uint64_t offset, struct nbd_completion done,
		    uint32_t flags);
	int64_t	(*aio_flush)(struct nbd_handle *h, struct nbd_completion done,
		    uint32_t flags);
	int64_t	(*aio_trim)(struct nbd_handle *h, uint64_t count,
		    uint64_t offset, struct nbd_completion done,
		    uint32_t flags);
};

/* libnbd.c - the library; valid once xbb_nbd_load() has said 0. */
extern struct xbb_libnbd xbb_libnbd;

/* What poll(2) is to look for. */
static inline short
xbb_nbd_events(unsigned direction)
{

	return ((short)(((direction & NBD_READING) != 0 ? POLLIN : 0) |
	    ((direction & NBD_WRITING) != 0 ? POLLOUT : 0)));
}

struct xbb_nbd_export;
struct xbb_nbd_found;
struct nbd_handle *xbb_nbd_begin(int fd, const struct xbb_nbd_export *wanted,
	    char *words, size_t size);
void	xbb_nbd_end(struct nbd_handle *h);
int	xbb_nbd_agreed(struct nbd_handle *h, struct xbb_nbd_found *found);
int	xbb_nbd_step(struct nbd_handle *h, uint64_t end_ns);

#endif /* XBB_BLOCK_LIBNBD_H */
