"""What guests' processes cost: ``python -m tests.native.guest_figures [PROCESSES]``.

Prints memory as /proc/PID/smaps_rollup has it, in KiB: "private" is nobody else's,
"in all" is the sum of proportional shares, so that what processes share counts once;
and the time from asking for a process until it answers.  Each serves two disks over
the simulated hypervisor; pages of the simulated guests and of their disks are files,
which do not count.  Linux.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests.native.guests import Server, Worker, disk, server, worker
from tests.waiting import GIVE_UP
from xbbd_bsd.native import Progress, Workload
from xbbd_bsd.native.link import Link


def memory(pid: int) -> dict[str, int]:
    """Figures of a process by name, KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value) for name, value, *_ in (line.split() for line in lines)}


def private(pid: int) -> int:
    found = memory(pid)
    return found["Private_Clean:"] + found["Private_Dirty:"]


def own(pid: int) -> int:
    """Of memory that is no file's, what it alone has."""
    return memory(pid)["Pss_Anon:"]


def started(found: Server, stack: ExitStack, path: Path) -> tuple[float, Worker, Link]:
    """A process, greeted, and how many milliseconds that took."""
    begun = time.perf_counter()
    made = stack.enter_context(worker(found, path))
    link = made.connect()
    return (time.perf_counter() - begun) * 1e3, made, link


def gone_on(found: Server, root: Path, times: int, *, dies: bool) -> None:
    """How long a frontend with writes in flight waits for another process, milliseconds.

    `dies`: its process is killed; else it hands over to one that there is already.
    """
    name = "killed" if dies else "handed over"
    served: list[float] = []
    answered: list[float] = []
    with ExitStack() as stack:
        d = stack.enter_context(disk(root, name.split()[0], patience=GIVE_UP))
        progress = Progress()
        work = Workload(seed=1, sectors=8192, depth=8, seconds=600, read_percent=0)
        load = threading.Thread(target=lambda: d.fronts[0].exercise(work, progress, GIVE_UP))

        def made(life: int) -> Worker:
            return stack.enter_context(worker(found, root / f"{name[0]}{life}"))

        now = made(0)
        link = now.connect()
        device = d.serve(link)
        load.start()
        for life in range(1, times + 1):
            before = progress.writes
            while progress.writes < before + 200:
                time.sleep(0.001)
            following = None if dies else made(life).connect()
            begun = time.perf_counter()
            if following is None:
                now.kill()
                now = made(life)
                following = now.connect()
            else:
                device.quiesce(limit=GIVE_UP)
            before = progress.writes
            link.close()
            link = following
            device = d.serve(link, adopt=True)
            served.append((time.perf_counter() - begun) * 1e3)
            while progress.writes == before:
                time.sleep(0.0002)
            answered.append((time.perf_counter() - begun) * 1e3)
        progress.stop()
        load.join()
        device.close(limit=GIVE_UP)
        link.close()
    for what, numbers in (("served again", served), ("the next answer", answered)):
        numbers.sort()
        print(
            f"{name} under load, until {what}: median {statistics.median(numbers):.1f} ms,"
            f" worst of {times} {numbers[-1]:.1f} ms"
        )
    print(f"  errors {progress.errors}, bad responses {progress.bad_responses}")


def main(count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="figures") as directory, ExitStack() as stack:
        root = Path(directory)
        begun = time.perf_counter()
        found = stack.enter_context(server())
        took, first, link = started(found, stack, root / "first")
        print(f"server and first process: {(time.perf_counter() - begun) * 1e3:.1f} ms")
        print(f"server: private {private(found.processes.pid)}, {memory(found.processes.pid)}")
        print(f"a process without a disk: private {private(first.pid)}")
        times, pids = [took], [first.pid]
        links = [link]
        for number in range(1, count):
            took, made, link = started(found, stack, root / f"s{number}")
            times.append(took)
            pids.append(made.pid)
            links.append(link)
        times = sorted(times[1:])
        print(
            f"from asking until it answers: median {statistics.median(times):.1f} ms,"
            f" worst {times[-1]:.1f} ms"
        )
        served = []
        for number, link in enumerate(links):
            for device in (0, 1):
                d = stack.enter_context(disk(root, f"{number}.{device}", size=1 << 20))
                served.append(d.serve(link, device))
                d.exercise(50)
        alone = [own(pid) for pid in pids]
        print(f"a process with two disks: own {statistics.median(alone):.0f}, most {max(alone)}")
        print(f"  all of one: {memory(pids[-1])}")
        print(f"a process with two disks: private {statistics.median(map(private, pids)):.0f}")
        shares = [memory(pid) for pid in (*pids, found.processes.pid)]
        pss = sum(share["Pss:"] for share in shares)
        anon = sum(share["Pss_Anon:"] for share in shares)
        print(f"{count} processes and the server: in all {pss}, of these no file's {anon}")
        gone_on(found, root, 40, dies=True)
        gone_on(found, root, 40, dies=False)
        for link in links:
            for device in (0, 1):
                link.close_device(device, limit=GIVE_UP)
            link.close()
    script = Path(__file__).parents[2] / "xbbd_bsd" / "native" / "forkserver.py"
    # It fails for want of arguments, once it has imported what it imports.
    words = [sys.executable, "-I", "-S", "-X", "importtime", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    imported = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    print("imported by the server:", len(imported) - 1, "modules")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
