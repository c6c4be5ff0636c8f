/*
 * offload.c - to be written.
 */
#include "net/net.h"

uint16_t
xbb_sum_fold(uint32_t sum)
{

	return ((uint16_t)sum);
}
