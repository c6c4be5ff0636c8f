/*
 * library.h - libraries that are found by dlopen(3) when they are wanted, so
 * that nobody needs them who has no disk of theirs.
 */
#ifndef XBB_BLOCK_LIBRARY_H
#define XBB_BLOCK_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

/* A function, and the pointer to functions that shall lead to it. */
struct xbb_symbol {
	const char	*name;
	void		*pointer;
};

struct xbb_library {
	const char	*file;
	const struct xbb_symbol *symbols;
	size_t		 count;
	bool		 loaded;	/* library.c, its lock */
};

/* library.c - have one loaded; ENOENT, ENOSYS if it lacks a symbol. */
int	xbb_library_load(struct xbb_library *library);

#endif /* XBB_BLOCK_LIBRARY_H */
