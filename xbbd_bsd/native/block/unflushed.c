/*
 * unflushed.c - writes that a store has acknowledged and that no flush has
 * followed yet, oldest first, with their data.  Knows no store.  Ring thread.
 */
#include <stdlib.h>

#include "block/block.h"

static uint64_t
weight_in_bytes(const struct xbb_unflushed_write *write)
{

	return (write->buffer != NULL ? write->length : XBB_UNFLUSHED_DISCARD);
}

/*
 * One more, whose buffer is kept with it, or none of a discard, which must not
 * be undone by a write before it; false if there is no memory.
 */
bool
xbb_unflushed_keep(struct xbb_unflushed *kept, uint8_t *buffer,
    uint64_t offset, uint64_t length)
{
	struct xbb_unflushed_write *write;

	write = malloc(sizeof(*write));
	if (write == NULL)
		return (false);
	*write = (struct xbb_unflushed_write){
		.number = ++kept->number, .offset = offset, .length = length,
		.buffer = buffer,
	};
	if (kept->oldest == NULL)
		kept->oldest = write;
	else
		kept->newest->next = write;
	kept->newest = write;
	kept->bytes += weight_in_bytes(write);
	return (true);
}

/* All up to that number are durable, or nobody's concern any more. */
void
xbb_unflushed_forget(struct xbb_unflushed *kept, uint64_t number)
{
	struct xbb_unflushed_write *write;

	while ((write = kept->oldest) != NULL && write->number <= number) {
		kept->oldest = write->next;
		kept->bytes -= weight_in_bytes(write);
		free(write->buffer);
		free(write);
	}
	if (kept->oldest == NULL)
		kept->newest = NULL;
}
