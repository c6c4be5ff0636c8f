/*
 * hv_freebsd.c - no frontend in user space under FreeBSD: it has no device that
 * grants pages of ours (gntalloc of Linux).
 */
#include "front/hvfront.h"

const struct xbb_hvfront_ops *const xbb_hvfront_xen = NULL;
