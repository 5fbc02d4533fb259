"""What the processes of test_local.py and test_faults.py do; a module of its own, so that they can import it."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskstream.preprocess.executors.base import Attempt


@dataclass(frozen=True)
class Number:
    """A number to square; what else happens depends on `kind`."""

    kind: str
    number: int
    units: int = 1
    crashes: tuple[str, ...] = ()
    obeys: bool = True

    @property
    def name(self):
        return f"{self.number}.square"

    def crashed(self, unit, reason):
        return replace(self, crashes=(*self.crashes, f"{unit} {reason}"))


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
    if kind == "kill the parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    if kind == "fail":
        raise OSError(28, "No space left on device")
    if kind == "odd":
        raise OddError(1, 2)
    if kind == "panic":
        raise Panic("of Rust")
    if kind == "hold long":
        hold()
    if kind == "sleep":
        time.sleep(60)
    if kind in FAULTS and (len(task.crashes) < 2 or not task.obeys):
        report(Attempt(f"unit {number}", time_s=60 if kind == "grow" else 1, memory_bytes=5 * 10**8))
        FAULTS[kind]()
        while kind == "again":
            report(Attempt(f"unit {number}", time_s=1.5))
            time.sleep(0.2)
        report("")
    return number**2, os.getpid(), task.crashes


def hold():
    """Hold the interpreter's lock in a library, for long."""
    ctypes.PyDLL(None).sleep(100)


def grow():
    """Take half a GB, and keep it."""
    kept = np.ones(5 * 10**8, np.uint8)
    time.sleep(100)
    return kept


FAULTS = {
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "again": int,
    "hold": hold,
    "grow": grow,
    "slow": lambda: time.sleep(0.3),
}


class Panic(BaseException):
    """As of a Rust library."""


class OddError(Exception):
    """Built in a way that pickle cannot repeat."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
