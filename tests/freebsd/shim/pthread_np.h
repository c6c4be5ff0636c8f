/*
 * pthread_np.h - FreeBSD's name for naming a thread.
 */
#ifndef SHIM_PTHREAD_NP_H
#define SHIM_PTHREAD_NP_H

#include <pthread.h>

void	pthread_set_name_np(pthread_t thread, const char *name);

#endif /* SHIM_PTHREAD_NP_H */
