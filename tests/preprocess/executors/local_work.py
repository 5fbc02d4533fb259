"""What the processes of test_local.py do; a module of its own, so that they can import it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Number:
    """A number to square; what else happens depends on `kind`."""

    kind: str
    number: int
    units: int = 1

    @property
    def name(self):
        return f"{self.number}.square"


def work(task, report):
    """Square the number of a task; returns that and the id of the process."""
    kind, number = task.kind, task.number
    report(f"at {number}")
    if kind.startswith("die once "):
        flag = Path(kind.removeprefix("die once "))
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "die":
        os._exit(7)
    if kind == "fail":
        raise OSError(28, "No space left on device")
    if kind == "odd":
        raise OddError(1, 2)
    if kind == "sleep":
        time.sleep(60)
    return number**2, os.getpid()


class OddError(Exception):
    """Built in a way that pickle cannot repeat."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
