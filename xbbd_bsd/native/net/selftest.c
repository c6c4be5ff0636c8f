/*
 * selftest.c - to be written.
 */
#include "net/net.h"

int
xbb_net_self_test(uint32_t number, const char **namep)
{

	(void)number;
	(void)namep;
	return (-ENOENT);
}
