/*
 * latency.c - histograms of latencies, in buckets that get wider.  One thread
 * adds to each; others read.
 */
#include "core/core.h"

/* Eight buckets for each power of two; stats.py knows the way back. */
void
xbb_latency_add(uint64_t histogram[XBB_LATENCY_BUCKETS], uint64_t ns)
{
	uint32_t bucket, e;

	if (ns < 8)
		bucket = (uint32_t)ns;
	else {
		e = 63 - (uint32_t)__builtin_clzll(ns);
		bucket = (e - 2) * 8 + ((uint32_t)(ns >> (e - 3)) & 7);
	}
	if (bucket >= XBB_LATENCY_BUCKETS)
		bucket = XBB_LATENCY_BUCKETS - 1;
	XBB_COUNT(histogram[bucket], 1);
}
