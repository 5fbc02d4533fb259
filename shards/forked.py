"""Worker processes that are forked from a server, which has imported what they need: they start at once, and share its
memory.

The server is one of multiprocessing, beside that of the caller. It is started afresh, so it has none of this process's
threads, locks and CUDA contexts, and it imports modules of this package alone. It ends with the last process that it
forked and the one that started it. If it is killed, so are its processes, and the next one has a new server.

What a process inherits is what the server got when it started. If that has changed since, such as a variable of the
environment, a new server is started. The current folder, `sys.path` and the standard streams are those of now.

Where there is no such server, as on macOS, processes are spawned.
"""

import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, popen_fork, popen_forkserver, reduction
from multiprocessing.connection import wait
from multiprocessing.context import get_spawning_popen
from multiprocessing.process import BaseProcess
from types import FunctionType, SimpleNamespace
from typing import Any

from .spawn import SPAWN_WITHOUT_MAIN, Process

log = logging.getLogger(__name__)

_START_S = 300.0
"""A server may take this long to import: torch from a busy file system takes minutes."""
_TRIES = 2
_SERVER_KILLED = 255
"""What multiprocessing gives as the exit code of a process whose server was killed."""
_LIMITS = [number for name, number in vars(resource).items() if name.startswith("RLIMIT_")]


class _Server(forkserver.ForkServer):
    """multiprocessing's server, which ends when nobody has this object and it has no process left."""

    @property
    def pid(self) -> int:
        """The id of its process; 0 before it is started."""
        return vars(self).get("_forkserver_pid") or 0

    def __del__(self) -> None:
        if (alive := vars(self).get("_forkserver_alive_fd")) is not None:
            os.close(alive)


class _Servers:
    """The servers of this process: one for each value of `ForkedProcess.also`, since what a server has imported takes
    memory; others after something changed that processes inherit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inherited: tuple[object, ...] = ()
        self._servers: dict[tuple[str, ...], _Server] = {}
        self._left: list[int] = []

    def connect(self, files: list[int], also: tuple[str, ...], modules: Sequence[str]) -> tuple[int, int]:
        """A process forked from a server: the end of the pipe to read its id and exit code from, and that to write.

        also, modules: what a new server imports, with the `KERNELS` that they name: modules that they import when they
        need them. A server is for one `also`.
        """
        with self._lock:
            if self._inherited != (now := _inherited()):
                pids = [*self._left, *(server.pid for server in self._servers.values())]
                self._left = [pid for pid in pids if pid and not _has_ended(pid)]
                self._inherited, self._servers = now, {}
            if (server := self._servers.get(also)) is None:
                server = self._servers[also] = _Server()
                kernels = [name for module in modules for name in getattr(sys.modules[module], "KERNELS", ())]
                server.set_forkserver_preload([f"{__package__}.server", *also, *modules, *kernels])
        return server.connect_to_new_process(files)

    def forget(self, also: tuple[str, ...] = ()) -> None:
        """Starts a new server next time; the one that did not answer is killed, with its processes."""
        with self._lock:
            server = self._servers.pop(also, None)
            if server is not None and server.pid:
                self._left.append(server.pid)
                with suppress(OSError):
                    os.kill(server.pid, signal.SIGKILL)


def _has_ended(pid: int) -> bool:
    """Whether a server has ended, which is then forgotten by the system too."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _inherited() -> tuple[object, ...]:
    """What a process inherits from the one that starts it. A fork of this process has no server yet."""
    return (
        os.getpid(),
        dict(os.environ),
        (os.getresuid(), os.getresgid(), os.getgroups()),
        (os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)),
        [resource.getrlimit(number) for number in _LIMITS],
    )


_SERVERS = _Servers()


class _Popen(popen_forkserver.Popen):
    """Launches a process with multiprocessing's code, but with a server of our own."""

    def __init__(self, process_obj: BaseProcess) -> None:
        # What the process needs is known when it is pickled, and then it asks for the server.
        ours = SimpleNamespace(
            connect_to_new_process=lambda files: _SERVERS.connect(
                files, _also(process_obj), vars(process_obj)["modules"]
            ),
            read_signed=_read_id,
        )
        changed = vars(popen_forkserver) | {"spawn": SPAWN_WITHOUT_MAIN, "forkserver": ours}
        self._launch = FunctionType(vars(popen_forkserver.Popen)["_launch"].__code__, changed).__get__(self)
        super().__init__(process_obj)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, None while it runs. It is that of SIGKILL if the server was killed, since the system then
        kills its processes.
        """
        code: int | None = super().poll(flag)
        if code == _SERVER_KILLED:
            self.returncode = code = -signal.SIGKILL
        return code

    def _send_signal(self, number: int) -> None:
        self.poll()  # the server has waited for a process that ended, so another one may have its id
        popen_fork.Popen._send_signal(self, number)  # type: ignore[attr-defined]


def _read_id(file: int) -> int:
    """The id of a process that a server was asked for; EOFError if the server was killed, or does not answer."""
    if not wait([file], _START_S):
        raise EOFError(f"no process was forked within {_START_S:.0f} s")
    number: int = forkserver.read_signed(file)
    return number


class ForkedProcess(Process):
    """A process that is forked from a server, or spawned where that is not possible.

    also: what the server has imported besides the modules that the arguments need.
    """

    also: tuple[str, ...] = ()

    def _streams(self) -> dict[int, Any]:
        if not isinstance(get_spawning_popen(), _Popen):
            return {}
        return {number: reduction.DupFd(number) for number in (1, 2) if _is_open(number)}

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
        for _ in range(_TRIES if _is_possible() else 0):
            try:
                return _Popen(process_obj)
            except (EOFError, OSError) as error:
                log.warning("the server of worker processes is gone (%r); a new one is started", error)
                _SERVERS.forget(_also(process_obj))
        return Process._Popen(process_obj)


def _also(process: BaseProcess) -> tuple[str, ...]:
    return process.also if isinstance(process, ForkedProcess) else ()


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


@cache
def _is_possible() -> bool:
    """Whether this system forks processes safely, and tells a process that another has ended."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        os.close(os.pidfd_open(os.getpid()))
        return True
    return False
