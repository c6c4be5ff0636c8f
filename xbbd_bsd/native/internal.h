/*
 * internal.h - what every C file of the data plane has: the contract (xbb.h),
 * and words that others may look at or change at any time.  It knows no ring,
 * no family and no hypervisor.  Rooms have headers of their own: hv/hv.h,
 * core/core.h, block/block.h, front/front.h.
 */
#ifndef XBB_INTERNAL_H
#define XBB_INTERNAL_H

#include <sys/types.h>
#include <sys/uio.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xbb.h"

/*
 * Words that another process may look at: whole loads and stores, no order.
 * Each counter has one writer, so adding needs no locked instruction.
 */
#define XBB_SET(word, value) \
	__atomic_store_n(&(word), (value), __ATOMIC_RELAXED)
#define XBB_GET(word) \
	__atomic_load_n(&(word), __ATOMIC_RELAXED)
#define XBB_COUNT(counter, n) \
	XBB_SET(counter, XBB_GET(counter) + (n))

/*
 * Likewise, of words that tell whoever comes after a crash what else to find:
 * all that was stored before is there.  And, where what follows must not be
 * there before: a process dies between two stores of the program, so that it is
 * enough if the compiler keeps to their order.
 */
#define XBB_PUT(word, value) \
	__atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#define XBB_IN_ORDER() \
	atomic_signal_fence(memory_order_seq_cst)

/*
 * Before each store that whoever comes after a death goes by: tests die here
 * (tests/c/crash.c).
 */
#ifdef XBB_CRASH_POINTS
void	xbb_may_die(void);
#else
#define xbb_may_die()	((void)0)
#endif

/* Tell the processor that this is a loop which waits. */
static inline void
xbb_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

#endif /* XBB_INTERNAL_H */
