"""The name of this run in notes for others, and whether a run with such a name may still go on."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path


def this_run() -> str:
    """The process and the host of this run."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def may_run(name: str) -> bool:
    """Whether a run of this name may go on. On another host it may; on this one its process tells."""
    found = re.fullmatch(r"process (\d+) on (.*)", name)
    if found is None or found[2] != socket.gethostname():
        return True
    return int(found[1]) != os.getpid() and Path("/proc", found[1]).exists()
