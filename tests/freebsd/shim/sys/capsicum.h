/*
 * capsicum.h - FreeBSD's rights of a descriptor, as far as they are used; what
 * includes what is as there, the bits are not.
 */
#ifndef SHIM_SYS_CAPSICUM_H
#define SHIM_SYS_CAPSICUM_H

#include <stddef.h>
#include <stdint.h>

#define CAP_READ	0x001ULL
#define CAP_WRITE	0x002ULL
#define CAP_SEEK	0x00cULL
#define CAP_PREAD	(CAP_SEEK | CAP_READ)
#define CAP_PWRITE	(CAP_SEEK | CAP_WRITE)
#define CAP_MMAP	0x010ULL
#define CAP_MMAP_R	(CAP_MMAP | CAP_SEEK | CAP_READ)
#define CAP_MMAP_RW	(CAP_MMAP | CAP_SEEK | CAP_READ | CAP_WRITE)
#define CAP_FSTAT	0x020ULL
#define CAP_FSYNC	0x040ULL
#define CAP_FLOCK	0x080ULL
#define CAP_FCNTL	0x100ULL
#define CAP_EVENT	0x200ULL
#define CAP_IOCTL	0x400ULL
#define CAP_ACCEPT	0x800ULL
#define CAP_GETSOCKOPT	0x1000ULL
#define CAP_RECV	CAP_READ
#define CAP_SEND	CAP_WRITE

typedef struct { uint64_t bits; } cap_rights_t;

#define cap_rights_init(...)	kernel_rights_init(__VA_ARGS__, 0ULL)
#define cap_rights_set(...)	kernel_rights_set(__VA_ARGS__, 0ULL)

cap_rights_t *kernel_rights_init(cap_rights_t *rights, ...);
cap_rights_t *kernel_rights_set(cap_rights_t *rights, ...);
int	cap_rights_limit(int fd, const cap_rights_t *rights);
int	cap_ioctls_limit(int fd, const unsigned long *cmds, size_t ncmds);
int	cap_enter(void);

#endif /* SHIM_SYS_CAPSICUM_H */
