/*
 * resting.h - the thread of a ring at rest (resting.c): a family and a hypervisor
 * that are played, and the connection of a ring that has nothing else.
 */
#ifndef RESTING_H
#define RESTING_H

#include "harness.h"

/* What is answered, and how often it was asked. */
struct played {
	bool		 has_work;
	uint32_t	 looks;		/* how often that was asked */
	bool		 asked_in_time;	/* something came while it was asked */
	bool		 kicked_in_time;	/* likewise, by another */
	int		 may_sleep;
	bool		 awaits;	/* the frontend, and nobody else */
	uint32_t	 asks;
	unsigned int	 sleep;		/* how it is about to, then */
	bool		 comes;		/* a request, while it dozes */
	bool		 comes_early;	/* or when the channel is unmasked */
	uint32_t	 dozes;
	atomic_bool	 doze_ended;	/* by a kick */
	int		 take;		/* of the next event */
	uint32_t	 unmasks;
};

extern struct played played;
extern struct xbb_conn conn;
extern struct xbb_ring_common rc;
extern int32_t poll_max_us;
extern int event_pipe[2];		/* an event is a byte */

/* Of a hypervisor in which nobody dozes, as it is after resting_begin(), and another. */
extern const struct xbb_hv_ops awake_ops, dozing_ops;

void	resting_begin(void);
void	resting_end(void);
void	put_event(void);
void	*kick_it(void *unused);		/* the sleeper, once it is one */

#endif /* RESTING_H */
