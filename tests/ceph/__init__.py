"""Disks in a real Ceph: `make test-ceph`."""
