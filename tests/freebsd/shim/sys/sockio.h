/*
 * sockio.h - ioctls of interfaces, as far as the data plane uses them.
 */
#ifndef SHIM_SYS_SOCKIO_H
#define SHIM_SYS_SOCKIO_H

#include <sys/ioccom.h>

#undef SIOCGIFFLAGS
#undef SIOCSIFFLAGS
#undef SIOCSIFNAME
#undef SIOCSIFMTU

#define SIOCSIFFLAGS	_IOW('i', 16, struct ifreq)
#define SIOCGIFFLAGS	_IOWR('i', 17, struct ifreq)
#define SIOCSIFNAME	_IOW('i', 40, struct ifreq)
#define SIOCSIFMTU	_IOW('i', 52, struct ifreq)
#define SIOCIFDESTROY	_IOW('i', 121, struct ifreq)

#endif /* SHIM_SYS_SOCKIO_H */
