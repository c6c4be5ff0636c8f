"""XenStore: its wire protocol (`wire`, pure), and the client of the control thread (`client`).

Nothing in here knows of buses, devices or disks.
"""
