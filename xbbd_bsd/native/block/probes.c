/*
 * probes.c - what a tracer may hook: the probes xbb:kernel of the in-kernel
 * driver, with its arguments, as functions for DTrace's pid provider
 *
 *	dtrace -n 'pid$target::xbb_dispatch_*_read:entry { @ = sum(arg2); }'
 *
 * and as USDT notes of provider xbb, where sys/sdt.h is there at build time:
 *
 *	bpftrace -e 'usdt:PATH/_xbb.abi3.so:xbb:dispatch_file_read { ... }'
 *
 * Arguments: unit of the device; for reads and writes offset and length in
 * bytes.  Nothing here does anything by itself.  Any thread.
 */
#include "block/block.h"

#if defined(__has_include) && __has_include(<sys/sdt.h>) && \
    !defined(__FreeBSD__)
#include <sys/sdt.h>
#else
/* FreeBSD's sys/sdt.h is the kernel's own. */
#define DTRACE_PROBE1(provider, name, a)	(void)(a)
#define DTRACE_PROBE3(provider, name, a, b, c)	\
	do { (void)(a); (void)(b); (void)(c); } while (0)
#endif

/* Exported, and kept as calls: an empty function would be optimised away. */
#define TRACED	__attribute__((noinline, visibility("default")))
#define KEEP()	__asm__ volatile("")

void	xbb_dispatch_dev_flush(int unit);
void	xbb_dispatch_dev_read(int unit, uint64_t offset, uint64_t length);
void	xbb_dispatch_dev_write(int unit, uint64_t offset, uint64_t length);
void	xbb_dispatch_file_flush(int unit);
void	xbb_dispatch_file_read(int unit, uint64_t offset, uint64_t length);
void	xbb_dispatch_file_write(int unit, uint64_t offset, uint64_t length);

TRACED void
xbb_dispatch_dev_flush(int unit)
{

	KEEP();
	DTRACE_PROBE1(xbb, dispatch_dev_flush, unit);
}

TRACED void
xbb_dispatch_dev_read(int unit, uint64_t offset, uint64_t length)
{

	KEEP();
	DTRACE_PROBE3(xbb, dispatch_dev_read, unit, offset, length);
}

TRACED void
xbb_dispatch_dev_write(int unit, uint64_t offset, uint64_t length)
{

	KEEP();
	DTRACE_PROBE3(xbb, dispatch_dev_write, unit, offset, length);
}

TRACED void
xbb_dispatch_file_flush(int unit)
{

	KEEP();
	DTRACE_PROBE1(xbb, dispatch_file_flush, unit);
}

TRACED void
xbb_dispatch_file_read(int unit, uint64_t offset, uint64_t length)
{

	KEEP();
	DTRACE_PROBE3(xbb, dispatch_file_read, unit, offset, length);
}

TRACED void
xbb_dispatch_file_write(int unit, uint64_t offset, uint64_t length)
{

	KEEP();
	DTRACE_PROBE3(xbb, dispatch_file_write, unit, offset, length);
}

/*
 * A batch goes to the disk; a barrier with data is a write, as in the kernel.
 */
void
xbb_probe_dispatch(const struct xbb_queue *q, const struct xbb_batch *batch)
{
	const bool dev = q->set.params.disk_kind == XBB_DISK_DEVICE;
	const int unit = (int)q->set.params.conn.unit;
	const uint64_t offset = batch->sector * XBB_SECTOR_SIZE;
	const uint64_t length = batch->nsectors * XBB_SECTOR_SIZE;

	if (batch->operation == XBB_OP_DISCARD)
		return;
	if (batch->nsectors == 0)
		(dev ? xbb_dispatch_dev_flush : xbb_dispatch_file_flush)(unit);
	else if (batch->operation == XBB_OP_READ)
		(dev ? xbb_dispatch_dev_read : xbb_dispatch_file_read)(unit,
		    offset, length);
	else
		(dev ? xbb_dispatch_dev_write : xbb_dispatch_file_write)(unit,
		    offset, length);
}
