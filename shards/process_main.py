"""The child side of worker processes (the parent side is in `processes.py`): run a call, or fork processes that do.

An order is a file of three pickles: `sys.path`, a `Start`, and the function with its arguments, whose imports may be
slow.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO, NoReturn

from .descriptors import Descriptor, note_inherited
from .errors import MainModuleError

MAIN_FAILED = 79
"""The exit code of a process that could not import the caller's main module."""
STREAMS = (1, 2)
"""Standard output and standard error: forked processes write to the caller's streams, not the server's."""
OF_THE_PARENT = (signal.SIGTERM, signal.SIGINT)
"""Signals that worker processes ignore: schedulers and terminals send them to every process of a job, but the parent
decides when its workers end."""

_PARENT_CHECK_S = 0.5
_PR_SET_PDEATHSIG = 1
_MOST_FILES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Settings that a process needs before it can import anything.

    parent: Id of the process that requested it. main: Name or file of its main module; None if it has neither. files:
    Descriptors that the process inherits.
    """

    argv: list[str]
    folder: str | None
    parent: int
    main: Main | None
    files: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Main:
    """How to import the caller's main module: as a module for `python -m`, as a script by its file."""

    module: str | None = None
    script: str | None = None

    def run(self) -> dict[str, Any]:
        """Run the module, except the code under `if __name__ == "__main__":`, and return its names."""
        if self.module is not None:
            return runpy.run_module(self.module, run_name="__mp_main__", alter_sys=True)
        return runpy.run_path(self.script or "", run_name="__mp_main__")


class LateMain:
    """The `__getattr__` of a worker's main module: imports the caller's main module when one of its names is needed."""

    is_importing = False

    def __init__(self, main: Main | None) -> None:
        self._main = main

    def __call__(self, name: str) -> Any:
        if name.startswith("__") or LateMain.is_importing or self._main is None:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        LateMain.is_importing = True
        module = ModuleType("__mp_main__")
        try:
            module.__dict__.update(self._main.run())
        except BaseException as error:
            if not isinstance(error, MainModuleError):
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(MAIN_FAILED)
        LateMain.is_importing = False
        sys.modules["__main__"] = sys.modules["__mp_main__"] = module
        return getattr(module, name)


def run(start: Start, order: BinaryIO) -> NoReturn:
    """Execute an order, and end the process without running destructors, in which native libraries may abort it."""
    code = 1
    try:
        for number in OF_THE_PARENT:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_THE_PARENT)
        sys.argv[:] = start.argv
        if start.folder is not None:
            with suppress(OSError):
                os.chdir(start.folder)
        threading.Thread(target=_end_with, args=(start.parent,), daemon=True).start()
        sys.modules["__main__"].__getattr__ = LateMain(start.main)  # type: ignore[method-assign]
        note_inherited(start.files)
        with order:
            work, arguments = pickle.load(order)
        work(*arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def unpickle(data: bytes | bytearray | memoryview, buffers: Sequence[memoryview] = ()) -> Any:
    """Unpickle an object from another process of this package; never use it for data from files and stores."""
    return pickle.loads(data, buffers=buffers)


def _end_with(parent: int) -> None:
    """End this process when its parent, or the server between them, has ended."""
    above = os.getppid()
    try:
        ended = [] if above == parent else [os.pidfd_open(parent)]
    except ProcessLookupError:
        os._exit(1)
    while os.getppid() == above and not select.select(ended, [], [], _PARENT_CHECK_S)[0]:
        pass
    os._exit(1)


def serve_forks(control: Descriptor, modules: Sequence[str]) -> None:
    """Import modules, then fork a process for each order that arrives at the socket `control`.

    A request is one byte and some descriptors: a socket for the answers, the order, the `STREAMS` whose bits are set in
    the byte, and the order's files. The answers are the id of the process and, when it has ended, its exit code, each
    in 8 bytes. The server ends once no other process has the socket open and its last process has ended.
    """
    gc.disable()  # imported modules are never freed
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = socket.socket(fileno=control.number)
    answers: dict[int, socket.socket] = {}
    is_wanted = True
    while is_wanted or answers:
        ready, _, _ = select.select([woken, requests.fileno()] if is_wanted else [woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 10)
            _report_ended(answers)
        if not is_wanted or requests.fileno() not in ready:
            continue
        message, files, _, _ = socket.recv_fds(requests, 1, _MOST_FILES)
        if not message:
            is_wanted = False
            requests.close()
            continue
        answer, order, *others = files
        gc.freeze()  # a collection in the child would write to memory that is shared
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for held in (answer, woken, wake, requests.fileno(), *(each.fileno() for each in answers.values())):
                os.close(held)
            _run_fork(server, message[0], order, others)
        for file in files[1:]:
            os.close(file)
        answers[pid] = socket.socket(fileno=answer)
        _tell(answers[pid], pid)


def _report_ended(answers: dict[int, socket.socket]) -> None:
    """Send the exit codes of processes that have ended."""
    for pid in list(answers):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with answers.pop(pid) as answer:
                _tell(answer, os.waitstatus_to_exitcode(status))


def _tell(answer: socket.socket, number: int) -> None:
    with suppress(OSError):  # the caller no longer waits
        answer.sendall(number.to_bytes(8, "big", signed=True))


def _run_fork(server: int, streams: int, order: int, files: list[int]) -> NoReturn:
    """Execute an order in a fork of the server, and end with the server, whatever the order does."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != server:
            os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in STREAMS:
            if streams & 1 << number:
                os.dup2(file := files.pop(0), number)
                os.close(file)
        gc.enable()
        if (legacy := sys.modules.get("numpy.random")) is not None:
            legacy.seed()
        stream = open(order, "rb")  # noqa: SIM115
        sys.path[:] = pickle.load(stream)
        start: Start = pickle.load(stream)
        run(replace(start, files=tuple(files)), stream)
    finally:
        traceback.print_exc()
        os._exit(1)
