"""Where the frontend of a device is, as far as that may be believed.  Pure, any thread."""

import re

from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.xenbus.family import Identity


def frontend_path(identity: Identity, frontend: bytes, frontend_id: bytes | None) -> str:
    """The frontend's directory, surely one of the guest that our own path names (XSA-175).

    Of the values of our nodes frontend and frontend-id; OperatorError if they lead elsewhere.
    """
    path = frontend.decode("ascii", "replace")
    owner = f"/local/domain/{identity.domid}/"
    if not re.fullmatch(re.escape(owner) + "[A-Za-z0-9/_@-]+", path):
        raise OperatorError(
            f"node {identity.path}/frontend is '{printable(frontend)}', no path below {owner}"
        )
    if frontend_id != str(identity.domid).encode():
        raise OperatorError(
            f"node {identity.path}/frontend-id is '{printable(frontend_id or b'')}',"
            f" not {identity.domid}"
        )
    return path
