/*
 * work.h - lists of what there is to do, first in, first out.  Whoever owns one
 * calls; no lock.  Inline, as each batch is on two of them.
 */
#ifndef XBB_WORK_H
#define XBB_WORK_H

#include <assert.h>

/* A piece of a family's work; it lies in whatever struct that has for it. */
struct xbb_work {
	struct xbb_work *next;		/* on the list it is on */
};

struct xbb_work_list {
	struct xbb_work *head, *tail;
	uint32_t	 count;
};

static inline void
xbb_work_put(struct xbb_work_list *list, struct xbb_work *work)
{

	work->next = NULL;
	if (list->head == NULL)
		list->head = work;
	else
		list->tail->next = work;
	list->tail = work;
	list->count++;
}

static inline struct xbb_work *
xbb_work_take(struct xbb_work_list *list)
{
	struct xbb_work *work;

	work = list->head;
	if (work != NULL) {
		list->head = work->next;
		if (list->head == NULL)
			list->tail = NULL;
		work->next = NULL;
		assert(list->count > 0);
		list->count--;
	}
	return (work);
}

#endif /* XBB_WORK_H */
