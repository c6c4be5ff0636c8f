"""What there is to see of a counter, and to change, by name: the driver "xcount".  Pure."""

from typing import Final

from xbbd_bsd.oids import Driver, Leaf, Type, strings

RESET: Final = "reset"

DRIVER: Final = Driver(
    "xcount",
    "counter",
    "Backend Virtual Counter",
    own={
        "counter": (
            *strings(guest="name of the guest"),
            Leaf("count", Type.U64, "how often the guest has rung", writable=True),
            Leaf("ring_ref", Type.UINT, "reference of the ring's page (negotiated)"),
        ),
    },
    ring=(Leaf("events", Type.U64, "how often the ring's event channel was heard"),),
    verbs=(RESET,),
)
