/*
 * speed.c - the opinion about a disk's speed: what it will do at once a ring's
 * thread does itself, what may take long is for others.  Knows how long things
 * took, not what they were.  Any thread of the queue's.
 */
#include "block/block.h"

/*
 * Is the disk one to wait for?  What a thread waits SLOW_NS for counts much, a
 * stall makes it the slowest there is, and what is over sooner takes a little
 * away.  Waiting is to sleep: a thread that lost its processor in the middle,
 * or had a lot to copy, does not make a disk slow, however long it took.  That
 * is asked only where something took long, against what the thread noted when
 * it last slept for another reason.  To ask is a system call.  So once a thread
 * was awake all the time, it asks again after a few of the kind, which is until
 * what it may take unasked has shrunk, and notes nothing before.  Flushes have
 * an account of their own, which begins with the worst, since a single one may
 * take seconds.  Racing writers cost a sample, no more.
 */
#define SLOW_NS		20000
#define SLOW_WEIGHT	10
/* most that is taken for awake unasked */
#define UNASKED_NS	160000
#define STALL_NS	5000000
#define SLOW_ENOUGH	40

/* Did the thread sleep in what took so long? */
inline bool
xbb_speed_waited(struct xbb_queue *q, uint32_t thread, uint64_t took)
{
	struct xbb_sleeper *s = &q->shared.sleeper[thread];
	uint64_t before;

	if (took < SLOW_NS + s->extra_ns) {
		s->extra_ns -= s->extra_ns / 16;
		return (false);
	}
	before = s->count;
	s->count = xbb_thread_sleeps();
	s->relaxed = !s->stale && s->count == before;
	if (s->stale) {
		s->stale = false;
		return (false);
	}
	took += took / 4;
	s->extra_ns = !s->relaxed ? 0 : (uint32_t)((took < UNASKED_NS ? took :
	    UNASKED_NS) - SLOW_NS);
	return (!s->relaxed);
}

/* What comes now is to be judged by itself, be it the first that is slow. */
void
xbb_speed_note(struct xbb_queue *q, uint32_t thread)
{
	struct xbb_sleeper *s = &q->shared.sleeper[thread];

	if (!s->stale)
		return;
	s->count = xbb_thread_sleeps();
	s->stale = false;
}

/* What the thread did just now was no work of a disk's. */
void
xbb_speed_slept_elsewhere(struct xbb_queue *q, uint32_t thread)
{
	struct xbb_sleeper *s = &q->shared.sleeper[thread];

	s->stale = s->relaxed;
	if (!s->relaxed)
		s->count = xbb_thread_sleeps();
}

static inline void
add_sample(atomic_uint *slowness, uint64_t took, bool waited)
{
	unsigned int old, new;

	old = atomic_load_explicit(slowness, memory_order_relaxed);
	if (!waited)
		new = old > 0 ? old - 1 : 0;
	else
		new = took < STALL_NS ? old + SLOW_WEIGHT : XBB_SLOWEST;
	if (new > XBB_SLOWEST)
		new = XBB_SLOWEST;
	if (new != old)
		atomic_store_explicit(slowness, new, memory_order_relaxed);
}

/* A read or write took so long. */
void
xbb_speed_judge(struct xbb_queue *q, uint64_t took, bool waited)
{

	add_sample(&q->shared.slowness, took, waited);
}

/* Likewise, and this thread did it: has it waited for it? */
bool
xbb_speed_judge_own(struct xbb_queue *q, uint32_t thread, uint64_t took)
{
	const bool waited = xbb_speed_waited(q, thread, took);

	add_sample(&q->shared.slowness, took, waited);
	return (waited);
}

/* And a flush, which did nothing else. */
void
xbb_speed_judge_flush(struct xbb_queue *q, uint64_t took, uint32_t thread)
{

	add_sample(&q->shared.flush_slowness, took,
	    xbb_speed_waited(q, thread, took));
}

/* Is that as long as a disk takes that is in trouble? */
bool
xbb_speed_stalled(uint64_t took)
{

	return (took >= STALL_NS);
}

static bool
is_slow(const atomic_uint *slowness)
{

	return (atomic_load_explicit(slowness, memory_order_relaxed) >=
	    SLOW_ENOUGH);
}

/* Has no read or write had to be waited for, for a while? */
bool
xbb_speed_is_quick(const struct xbb_queue *q)
{

	return (atomic_load_explicit(&q->shared.slowness,
	    memory_order_relaxed) == 0);
}

/* Would a flush keep a thread for long? */
bool
xbb_speed_flushes_slowly(const struct xbb_queue *q)
{

	return (is_slow(&q->shared.flush_slowness));
}

/* Would carrying this batch out? */
bool
xbb_speed_is_slow(const struct xbb_queue *q, const struct xbb_batch *batch)
{

	if (batch->operation == XBB_OP_DISCARD)
		return (true);
	if (xbb_batch_flushes(batch) && xbb_speed_flushes_slowly(q))
		return (true);
	return (batch->nseg != 0 && is_slow(&q->shared.slowness));
}
