/*
 * transfer.c - transfers of any size through a ring, by any number of
 * threads at once.  Whoever finds nobody polling waits for events on behalf of
 * all.
 */
#include <string.h>
#include <time.h>

#include "front/front.h"

struct front_transfer {
	uint64_t	 outstanding;	/* requests not yet answered */
	bool		 failed;
};

static void
transfer_done(struct xbb_front *front, struct front_slot *slot,
    int16_t status, void *arg)
{

	(void)front;
	(void)arg;
	if (slot->transfer == NULL)
		return;			/* whoever wanted it gave up */
	if (status != XBB_RSP_OKAY)
		slot->transfer->failed = true;
	else if (slot->operation == XBB_OP_READ)
		memcpy(slot->buffer, slot->data,
		    (size_t)slot->nsectors * XBB_SECTOR_SIZE);
	slot->transfer->outstanding--;
	slot->transfer = NULL;
}

/*
 * Wait for responses to anybody's requests.  0 when some came or another
 * thread looked, else a negative errno.
 */
static int
wait_for_responses(struct xbb_front *front, uint64_t deadline_ns)
{
	struct timespec ts;
	uint64_t now;
	int error, left_ms;

	now = xbb_now_ns();
	if (now >= deadline_ns)
		return (-ETIMEDOUT);
	left_ms = (int)((deadline_ns - now) / 1000000) + 1;
	if (front->polling) {
		/*
		 * The poller has a limit of its own; look again every so often.
		 */
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_sec++;
		pthread_cond_timedwait(&front->reaped, &front->lock, &ts);
		return (0);
	}
	if (front_final_check(front)) {
		front_reap(front, transfer_done, NULL);
		pthread_cond_broadcast(&front->reaped);
		return (0);
	}
	front->polling = true;
	pthread_mutex_unlock(&front->lock);
	error = front->ops->wait(front->hv, left_ms);
	pthread_mutex_lock(&front->lock);
	if (error >= 0)
		error = front_take(front);
	front->polling = false;
	front_reap(front, transfer_done, NULL);
	pthread_cond_broadcast(&front->reaped);
	return (error < 0 ? error : 0);
}

/* Nobody will look at these any more, whatever their answers. */
static void
abandon_transfer(struct xbb_front *front, struct front_transfer *transfer)
{
	uint32_t i;

	for (i = 0; i < front->params.depth; i++)
		if (front->slots[i].transfer == transfer)
			front->slots[i].transfer = NULL;
}

int
xbb_front_transfer(struct xbb_front *front, uint32_t operation,
    uint64_t sector, uint64_t nsectors, uint8_t *data, int timeout_ms)
{
	struct front_transfer transfer = { 0 };
	struct front_slot *slot;
	uint64_t before, deadline, left, limit;
	uint32_t most, n;
	bool bare;
	int error;

	/* A discard brings no pages, so that only its own number limits it. */
	most = operation == XBB_OP_DISCARD ? INT32_MAX :
	    front_max_sectors(front);
	limit = (uint64_t)timeout_ms * 1000000;
	deadline = xbb_now_ns() + limit;
	left = nsectors;
	bare = nsectors == 0;		/* a flush or barrier without data */
	error = 0;
	pthread_mutex_lock(&front->lock);
	for (;;) {
		while ((left > 0 || bare) && (slot = front->free) != NULL) {
			n = left < most ? (uint32_t)left : most;
			if (n != 0 && data != NULL &&
			    operation != XBB_OP_READ)
				memcpy(slot->data, data,
				    (size_t)n * XBB_SECTOR_SIZE);
			slot->transfer = &transfer;
			slot->buffer = data;
			front_submit(front, (uint8_t)operation, sector, n, 0,
			    false);
			transfer.outstanding++;
			sector += n;
			left -= n;
			bare = false;
			if (data != NULL)
				data += (size_t)n * XBB_SECTOR_SIZE;
		}
		front_push(front);
		if (left == 0 && !bare && transfer.outstanding == 0)
			break;
		before = transfer.outstanding;
		error = wait_for_responses(front, deadline);
		if (error != 0)
			break;
		if (transfer.outstanding != before)
			deadline = xbb_now_ns() + limit;
	}
	abandon_transfer(front, &transfer);
	pthread_mutex_unlock(&front->lock);
	return (error != 0 ? error : transfer.failed ? -EIO : 0);
}
