/*
 * error.c - what failed, in words, for the one place in Python that raises. 
 * Any thread.
 */
#include <string.h>

#include "core/core.h"

/* Fill error in; the negative errno, to be returned. */
int
xbb_fail(struct xbb_error *error, const char *operation, int errnum)
{

	error->errnum = errnum;
	strncpy(error->operation, operation, sizeof(error->operation) - 1);
	error->operation[sizeof(error->operation) - 1] = '\0';
	return (-errnum);
}
