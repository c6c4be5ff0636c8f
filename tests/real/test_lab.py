"""The lab itself: is what we stand on sound?

If data differ anywhere, look here first: QEMU has been seen to mix up vector
registers between dom0 and guests (tests/lab/README.md, Traps).
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.lab.dom0 import DOM0
from tests.lab.domu import DomU

SECONDS = int(os.environ.get("LAB_REGISTER_SECONDS", "5"))

# Floats and copies of memory go through vector registers; both must come out as ever.
LOOP = f"""
import sys, time
end = time.monotonic() + {SECONDS}
want, wrong, loops = None, 0, 0
data = bytes(range(256)) * 300
while time.monotonic() < end:
    total = 0.0
    for i in range(2000):
        total += i * 0.1 / 3.0
    want = total if want is None else want
    time.sleep(0.0005)
    wrong += total != want or bytearray(data) != data
    loops += 1
print(loops, "loops,", wrong, "wrong")
sys.exit(wrong != 0)
"""
GUEST_LOOP = (
    f"end=$(($(date +%s) + {SECONDS})); while [ $(date +%s) -lt $end ]; do"
    " awk 'BEGIN { for (i = 0; i < 5000; i++) s += i * 0.1 / 3.0;"
    ' if (sprintf("%.6f", s) != "416583.333333") print "WRONG", s }\'; done'
)


def test_vector_registers_survive(guest: DomU) -> None:
    token = guest.send(GUEST_LOOP)
    loops = [
        subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [loop.communicate()[0] for loop in loops]
    assert [loop.returncode for loop in loops] == [0, 0], outputs
    guest.expect(rf"{token} rc=0$", 60)
    assert "WRONG" not in guest.text()


def test_dom0_has_what_we_use() -> None:
    for device in DOM0.devices:
        assert os.path.exists(f"/dev/xen/{device}")
    assert os.path.exists(DOM0.store)
