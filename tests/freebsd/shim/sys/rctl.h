/*
 * rctl.h - what FreeBSD has for limits of resources.
 */
#ifndef SHIM_SYS_RCTL_H
#define SHIM_SYS_RCTL_H

#include <stddef.h>

int	rctl_add_rule(const char *inbufp, size_t inbuflen, char *outbufp,
	    size_t outbuflen);

#endif /* SHIM_SYS_RCTL_H */
