"""xenbus: the life of a backend device as XenStore tells it, for any kind of device."""
