/*
 * work.c - lists of what there is to do, first in, first out.  Whoever owns one
 * calls; no lock.
 */
#include <assert.h>

#include "core/core.h"

void
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

struct xbb_work *
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
