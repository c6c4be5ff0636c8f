"""Block devices: the family of backends that vends disks."""
