/*
 * libnbd.c - the library that speaks NBD, from its loading to a connection that
 * is agreed upon, and a look at what a server has.  Knows no ring.  Any thread.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block/block.h"
#include "block/libnbd.h"
#include "block/library.h"

#define LIBRARY		"libnbd.so.0"

struct xbb_libnbd xbb_libnbd;

#define SYMBOL(name)	{ "nbd_" #name, &xbb_libnbd.name }

static const struct xbb_symbol symbols[] = {
	SYMBOL(create), SYMBOL(close), SYMBOL(get_error), SYMBOL(get_errno),
	SYMBOL(set_export_name), SYMBOL(set_request_structured_replies),
	SYMBOL(set_pread_initialize), SYMBOL(set_tls),
	SYMBOL(set_tls_certificates), SYMBOL(set_tls_psk_file),
	SYMBOL(set_tls_username), SYMBOL(aio_connect_socket),
	SYMBOL(aio_disconnect), SYMBOL(aio_get_fd), SYMBOL(aio_get_direction),
	SYMBOL(aio_notify_read), SYMBOL(aio_notify_write),
	SYMBOL(aio_is_connecting), SYMBOL(aio_is_ready), SYMBOL(aio_is_dead),
	SYMBOL(aio_is_closed), SYMBOL(get_protocol), SYMBOL(get_size),
	SYMBOL(get_block_size), SYMBOL(is_read_only), SYMBOL(can_flush),
	SYMBOL(can_fua), SYMBOL(can_trim), SYMBOL(aio_pread),
	SYMBOL(aio_pwrite), SYMBOL(aio_flush), SYMBOL(aio_trim),
};

static struct xbb_library library = {
	.file = LIBRARY,
	.symbols = symbols,
	.count = sizeof(symbols) / sizeof(symbols[0]),
};

int
xbb_nbd_load(void)
{

	return (xbb_library_load(&library));
}

static void
put_words(char *words, size_t size, const char *text)
{

	(void)snprintf(words, size, "%s", text);
}

static int
set_up(struct nbd_handle *h, const struct xbb_nbd_export *wanted)
{
	const struct xbb_libnbd *nbd = &xbb_libnbd;
	const char *certificates = (const char *)wanted->certificates;
	const char *psk_file = (const char *)wanted->psk_file;
	const char *user = (const char *)wanted->user;

	/*
	 * A plain reply has all that was read, or none of it: nothing of a
	 * buffer is left as it was, whatever the server is up to.
	 */
	if (nbd->set_request_structured_replies(h, false) != 0 ||
	    nbd->set_pread_initialize(h, false) != 0 ||
	    nbd->set_export_name(h, (const char *)wanted->name) != 0)
		return (-1);
	if (wanted->tls == 0)
		return (0);
	if (nbd->set_tls(h, NBD_TLS_REQUIRED) != 0 ||
	    (*certificates != '\0' &&
	    nbd->set_tls_certificates(h, certificates) != 0) ||
	    (*psk_file != '\0' && nbd->set_tls_psk_file(h, psk_file) != 0) ||
	    (*user != '\0' && nbd->set_tls_username(h, user) != 0))
		return (-1);
	return (0);
}

/*
 * A handle that has begun to agree with a server, by a socket that is its own
 * from then on; NULL, with words, and the socket is closed.
 */
struct nbd_handle *
xbb_nbd_begin(int fd, const struct xbb_nbd_export *wanted, char *words,
    size_t size)
{
	const struct xbb_libnbd *nbd = &xbb_libnbd;
	struct nbd_handle *h;

	if (xbb_nbd_load() != 0) {
		put_words(words, size, LIBRARY " cannot be loaded");
		close(fd);
		return (NULL);
	}
	h = nbd->create();
	if (h == NULL || set_up(h, wanted) != 0) {
		put_words(words, size, nbd->get_error());
		close(fd);
	} else if (nbd->aio_connect_socket(h, fd) == 0)
		return (h);
	else
		put_words(words, size, nbd->get_error());
	if (h != NULL)
		nbd->close(h);
	return (NULL);
}

/* Leave, and say so if that can be said at once. */
void
xbb_nbd_end(struct nbd_handle *h)
{

	if (xbb_libnbd.aio_is_ready(h) == 1)
		(void)xbb_libnbd.aio_disconnect(h, 0);
	xbb_libnbd.close(h);
}

static uint32_t
block_size(struct nbd_handle *h, int which)
{
	const int64_t size = xbb_libnbd.get_block_size(h, which);

	return (size > 0 && size <= UINT32_MAX ? (uint32_t)size : 0);
}

static void
find_out(struct nbd_handle *h, struct xbb_nbd_found *found)
{
	const struct xbb_libnbd *nbd = &xbb_libnbd;

	found->minimum = block_size(h, NBD_SIZE_MINIMUM);
	if (found->minimum == 0)
		found->minimum = 1;
	found->preferred = block_size(h, NBD_SIZE_PREFERRED);
	found->maximum = block_size(h, NBD_SIZE_MAXIMUM);
	found->read_only = nbd->is_read_only(h) == 1;
	found->can_flush = nbd->can_flush(h) == 1;
	found->can_fua = nbd->can_fua(h) == 1;
	found->can_trim = nbd->can_trim(h) == 1;
}

/* What the server has, once it is agreed upon; EPROTO and words otherwise. */
int
xbb_nbd_agreed(struct nbd_handle *h, struct xbb_nbd_found *found)
{
	const struct xbb_libnbd *nbd = &xbb_libnbd;
	char *words = (char *)found->words;
	const char *protocol;
	int64_t size;

	memset(found, 0, sizeof(*found));
	protocol = nbd->get_protocol(h);
	size = nbd->get_size(h);
	if (protocol == NULL || size < 0)
		put_words(words, sizeof(found->words), nbd->get_error());
	else if (strcmp(protocol, "newstyle-fixed") != 0)
		put_words(words, sizeof(found->words),
		    "it speaks an old kind of NBD, and not fixed newstyle");
	else {
		found->size = (uint64_t)size;
		find_out(h, found);
		if (found->maximum == 0 || found->maximum >= XBB_NBD_LARGEST)
			return (0);
		(void)snprintf(words, sizeof(found->words), "it takes %u bytes "
		    "at once, and must take %u", found->maximum,
		    XBB_NBD_LARGEST);
	}
	return (-EPROTO);
}

/*
 * Wait for the server, and have libnbd do what it can then; ETIMEDOUT once it
 * is that late.
 */
int
xbb_nbd_step(struct nbd_handle *h, uint64_t end_ns)
{
	const struct xbb_libnbd *nbd = &xbb_libnbd;
	const unsigned direction = nbd->aio_get_direction(h);
	const uint64_t now = xbb_now_ns();
	struct pollfd pfd = {
		.fd = nbd->aio_get_fd(h),
		.events = xbb_nbd_events(direction),
	};

	if (now >= end_ns)
		return (-ETIMEDOUT);
	if (direction == 0)
		return (-EPROTO);
	if (poll(&pfd, 1, (int)((end_ns - now) / 1000000 + 1)) <= 0)
		return (0);
	/* An end that was hung up shows as something to be read. */
	if ((direction & NBD_READING) != 0 && (pfd.revents & ~POLLOUT) != 0)
		return (nbd->aio_notify_read(h) != 0 ? -EPROTO : 0);
	if ((direction & NBD_WRITING) != 0 && nbd->aio_notify_write(h) != 0)
		return (-EPROTO);
	return (0);
}

/* Until the server has agreed, or something is wrong, or time is up. */
static int
wait_agreed(struct nbd_handle *h, uint64_t end_ns)
{
	int error;

	error = 0;
	while (error == 0 && xbb_libnbd.aio_is_connecting(h) == 1)
		error = xbb_nbd_step(h, end_ns);
	if (error != 0)
		return (error);
	return (xbb_libnbd.aio_is_ready(h) == 1 ? 0 : -EPROTO);
}

int
xbb_nbd_look(int fd, const struct xbb_nbd_export *wanted, uint32_t limit_ms,
    struct xbb_nbd_found *found)
{
	char *words = (char *)found->words;
	struct nbd_handle *h;
	int error;

	memset(found, 0, sizeof(*found));
	h = xbb_nbd_begin(fd, wanted, words, sizeof(found->words));
	if (h == NULL)
		return (-EPROTO);
	error = wait_agreed(h, xbb_now_ns() + (uint64_t)limit_ms * 1000000);
	if (error == 0)
		error = xbb_nbd_agreed(h, found);
	else if (error == -ETIMEDOUT)
		put_words(words, sizeof(found->words),
		    "it does not say what it has");
	else
		put_words(words, sizeof(found->words),
		    xbb_libnbd.get_error() != NULL ? xbb_libnbd.get_error() :
		    "it has closed the connection");
	xbb_nbd_end(h);
	return (error);
}
