"""A real Xen with a Linux dom0 and real guests, inside QEMU.  See README.md."""
