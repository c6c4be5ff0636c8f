/*
 * library.c - have a library loaded, once, with all that is wanted of it.
 * Knows none of them.  Any thread.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "block/library.h"

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

/* ISO C has no cast between pointers to objects and to functions. */
static int
find_symbols(const struct xbb_library *library, void *handle)
{
	void *symbol;
	size_t i;

	for (i = 0; i < library->count; i++) {
		symbol = dlsym(handle, library->symbols[i].name);
		if (symbol == NULL)
			return (-ENOSYS);
		memcpy(library->symbols[i].pointer, &symbol, sizeof(symbol));
	}
	return (0);
}

int
xbb_library_load(struct xbb_library *library)
{
	void *handle;
	int error;

	pthread_mutex_lock(&load_lock);
	error = 0;
	if (!library->loaded) {
		handle = dlopen(library->file, RTLD_NOW | RTLD_LOCAL);
		error = handle == NULL ? -ENOENT :
		    find_symbols(library, handle);
		library->loaded = error == 0;
	}
	pthread_mutex_unlock(&load_lock);
	return (error);
}
