"""What processes take, as Linux tells: their memory, where what they share counts once, and their CPU time."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_THERE_OF_A_FILE = 1 << 63 | 1 << 61  # of an entry of /proc/PID/pagemap


def family(pid: int) -> list[int]:
    """The process and all that it started, and these."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(deep for child in own for deep in family(int(child)))]


def pss_mb(pids: Sequence[int], kind: str = "") -> float:
    """The memory of processes, where each has its part of a page that several have, also others here. kind: `_Anon`,
    `_Shmem` or `_File` for these alone.
    """
    found = (re.search(rf"Pss{kind}: +([0-9]+)", Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids)
    return sum(int(one[1]) for one in found if one) / 1024


def memory_mb(pids: Sequence[int]) -> float:
    """The memory of processes by themselves: each page of a file counts once, also where others here have it, and so
    does what waits in shared memory which nobody has mapped.
    """
    pages, mapped, waiting = set[tuple[str, str, int]](), set[int](), dict[int, int]()
    for pid in pids:
        with open(f"/proc/{pid}/pagemap", "rb") as table:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                span, _, offset, device, inode = line.split()[:5]
                mapped.add(int(inode))
                start, stop = (int(end, 16) // _PAGE for end in span.split("-"))
                if device != "00:00" and inode != "0" and "memfd:" not in line and "/dev/shm/" not in line:
                    table.seek(8 * start)
                    found = memoryview(table.read(8 * (stop - start))).cast("Q")
                    first = int(offset, 16) // _PAGE
                    there = (n for n, one in enumerate(found) if one & _THERE_OF_A_FILE == _THERE_OF_A_FILE)
                    pages.update((device, inode, first + n) for n in there)
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # the folder itself
                if os.readlink(file).startswith(("/dev/shm/", "/memfd:")):
                    waiting[file.stat().st_ino] = file.stat().st_blocks * 512
    files = len(pages) * _PAGE + sum(size for inode, size in waiting.items() if inode not in mapped)
    return pss_mb(pids, "_Anon") + pss_mb(pids, "_Shmem") + files / 2**20


def cpu_s(pid: int) -> float:
    """The seconds of processor time that a process has taken."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
