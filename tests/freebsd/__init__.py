"""FreeBSD without FreeBSD: a cross compiler's word, and a kernel's rules played on Linux."""
