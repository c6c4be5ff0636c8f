/*
 * build.c - of which build this is, as build.py says when it compiles; programs
 * of tests are of none.  Any thread.
 */
#include "guest/guest.h"

#ifndef XBB_BUILD
#define XBB_BUILD	0
#endif

uint64_t
xbb_build(void)
{

	return (XBB_BUILD);
}
