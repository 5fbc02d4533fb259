"""The processes of this machine, of which attacks kill some."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def pids() -> list[int]:
    """All of them."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def words_of(pid: int) -> list[str]:
    """The command of a process; none if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [""]


def folder_of(pid: int) -> Path | None:
    """The folder that a process works in; None if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None


def workers_of(pid: int) -> list[int]:
    """The worker processes of a driver."""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in children if any("process_main" in word for word in words_of(int(one)))]
    return []


def killed(pid: int, *, group: bool = False) -> bool:
    """Send SIGKILL to a process or to its group; returns whether it was there."""
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
        return True
    return False
