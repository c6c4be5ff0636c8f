/*
 * kenv.h - the kernel's environment, as far as it is read.
 */
#ifndef SHIM_KENV_H
#define SHIM_KENV_H

#define KENV_GET	0
#define KENV_MNAMELEN	128
#define KENV_MVALLEN	128

int	kenv(int action, const char *name, char *value, int len);

#endif /* SHIM_KENV_H */
