"""Worker processes that start from a clean interpreter, also from unguarded scripts and notebooks.

multiprocessing imports the caller's main module into every process that it starts. Without a `__main__` guard, a script
would run again there, and a notebook or a script from stdin has no file to import. A `Process` imports the main module
only when it receives an object whose class or function is defined there. It ends with its parent, even if that is
killed by SIGKILL.

On Linux, processes can be forked from a server that has already imported the modules they need, so they start at once
and share its memory. The server has none of the caller's threads, locks or CUDA contexts. It ends once its caller and
all processes that it forked have ended. If it is killed, its processes are killed too, and the next process starts a
new server. Processes inherit the environment that the server had at its start, so a new server is started if an
environment variable or similar has changed since. The current folder, `sys.path` and standard streams are always up to
date.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import resource
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, BinaryIO

from . import process_main
from .descriptors import Descriptor, collect_passed
from .errors import MainModuleError
from .process_main import (
    OF_THE_PARENT,
    STREAMS,
    LateMain,
    Main,
    Start,
    serve_forks,
    unpickle,
)

log = logging.getLogger(__name__)

_PACKAGE = __name__.partition(".")[0]
_SERVER_START_S = 300.0
"""Time that a server may take to import: torch from a busy file system takes minutes."""
_TRIES = 2
_POLL_S = 0.002
_LIMITS = [number for name, number in vars(resource).items() if name.startswith("RLIMIT_")]
_FLAGS = {"optimize": "O", "dont_write_bytecode": "B", "ignore_environment": "E", "no_user_site": "s"}
_UNKNOWN = 255
"""Exit code of a process whose exit another thread has awaited."""
_BEGIN = (
    "import pickle, sys; order = open(int(sys.argv[1]), 'rb'); sys.path[:] = pickle.load(order); "
    f"from {process_main.__name__} import run; run(pickle.load(order), order)"
)


class Process:
    """A process that calls `work(*arguments)`.

    fork: Whether a server forks it, if the system can. also: Modules that such a server imports in addition to those
    that the arguments need. names: Names of the main module that the arguments refer to.
    """

    def __init__(
        self, work: Callable[..., object], *arguments: object, fork: bool = False, also: tuple[str, ...] = ()
    ) -> None:
        self._order = (work, arguments)
        self._forks, self._also = fork and _can_fork(), also
        self.names: tuple[str, ...] = ()

    def start(self) -> None:
        """Start the process. Raises MainModuleError if a worker process is importing the main module, OSError if the
        system cannot create a process.
        """
        if LateMain.is_importing:
            raise MainModuleError(
                "importing the main module in a worker process starts more workers; put this under `if "
                '__name__ == "__main__":`'
            )
        with collect_passed() as files:
            data, self.names, modules = _pickle_object(self._order)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_THE_PARENT)  # an early signal would end it
        try:
            with open(open_memory_file(), "w+b") as order:
                forked = self._fork(order, data, files, modules) if self._forks else None
                self._child: _Forked | _Spawned = forked or _Spawned(order, data, files)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._child.pid

    @property
    def exitcode(self) -> int | None:
        """The exit code, -n for the signal n, None while the process is running."""
        return self._child.wait(0.0)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the process has ended."""
        self._child.wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended."""
        if self.exitcode is None:  # else another process may have its id
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _fork(self, order: BinaryIO, data: bytes, files: list[int], modules: Sequence[str]) -> _Forked | None:
        for _ in range(_TRIES):
            try:
                return _SERVERS.server(self._also, modules).fork(order, data, files)
            except (EOFError, OSError) as error:
                log.warning("the server that forks worker processes has ended (%r); starting a new one", error)
                _SERVERS.forget(self._also)
        return None


def open_memory_file(size: int = 0) -> int:
    """Return the descriptor of a new unnamed file in memory (on Linux) or on disk. Raises OSError without space."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("maskstream")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    try:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)  # otherwise a lack of memory would raise a signal on writing
        else:
            os.ftruncate(file, size)
    except BaseException:
        os.close(file)
        raise
    return file


class _Pickler(pickle.Pickler):
    """A pickler that records the classes and functions of the main module that an object refers to, and the modules of
    this package that it needs.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.names: dict[str, None] = {}
        self.modules: dict[str, None] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType):
            if obj.__module__ == "__main__":
                self.names[obj.__qualname__] = None
            elif obj.__module__.partition(".")[0] == _PACKAGE:
                self.modules[obj.__module__] = None
        return NotImplemented


def dumps(obj: object) -> tuple[bytes, tuple[str, ...]]:
    """Pickle `obj` for a worker process; also returns the names of the main module that it refers to.

    Raises MainModuleError if there are such names and the main module cannot be imported.
    """
    return _pickle_object(obj)[:2]


def _pickle_object(obj: object) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """Return the result of `dumps`, and the modules of this package that `obj` needs."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    names = tuple(pickler.names)
    if names and _main() is None:
        raise MainModuleError(
            f"worker processes cannot import {', '.join(names)}, defined in a notebook, a script from stdin "
            "or a __main__.py: move it into a module, or use workers=0"
        )
    return file.getvalue(), names, tuple(pickler.modules)


def _main() -> Main | None:
    """Return how the main module can be imported; None if it cannot."""
    main = sys.modules["__main__"]
    name, script = getattr(main.__spec__, "name", ""), getattr(main, "__file__", None)
    if name:
        return None if name.rpartition(".")[2] == "__main__" else Main(module=name)
    return Main(script=script) if script is not None and Path(script).is_file() else None


def _write(order: BinaryIO, data: bytes, files: tuple[int, ...] = ()) -> None:
    """Write an order in the form that `process_main` reads."""
    folder = None
    with suppress(OSError):  # it was deleted
        folder = os.getcwd()
    start = Start(argv=sys.argv, folder=folder, parent=os.getpid(), main=_main(), files=files)
    order.seek(0)
    order.writelines((pickle.dumps(sys.path), pickle.dumps(start), data))
    order.flush()
    order.seek(0)


class _Spawned:
    """A process spawned by this one."""

    def __init__(self, order: BinaryIO, data: bytes, files: Sequence[int]) -> None:
        shared = [order.fileno(), *files]
        first = max(shared) + 1
        _write(order, data, tuple(range(first + 1, first + len(shared))))
        flags = [f"-W{option}" for option in sys.warnoptions]
        flags += [f"-{letter}" for flag, letter in _FLAGS.items() for _ in range(getattr(sys.flags, flag))]
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, file, first + place) for place, file in enumerate(shared)]
        command = [sys.executable, "-P", *flags, "-c", _BEGIN, str(first)]
        self.pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
        self._code: int | None = None
        self._lock = threading.Lock()

    def wait(self, timeout_s: float | None) -> int | None:
        """Return the exit code; None if the process does not end in time."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                if self._code is None:
                    self._code = self._ended()
            if self._code is not None or (until is not None and time.monotonic() >= until):
                return self._code
            time.sleep(_POLL_S)

    def _ended(self) -> int | None:
        try:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # another thread has already waited for it
            return _UNKNOWN
        return os.waitstatus_to_exitcode(status) if ended else None


class _Forked:
    """A process forked by a server. Raises EOFError if the server does not send its id."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._code: int | None = None
        self._lock = threading.Lock()
        pid = self._receive(_SERVER_START_S)
        if pid is None:
            raise EOFError("it was killed, or cannot fork processes")
        self.pid = pid

    def wait(self, timeout_s: float | None) -> int | None:
        """Return the exit code; None if the process does not end in time."""
        with self._lock:
            if self._code is None and select.select([self._answers], [], [], timeout_s)[0]:
                code = self._receive(None)
                # The system kills the processes of a server that was killed.
                self._code = -signal.SIGKILL if code is None else code
            return self._code

    def _receive(self, timeout_s: float | None) -> int | None:
        """Return the next number sent by the server; None if it sends none."""
        if not select.select([self._answers], [], [], timeout_s)[0]:
            return None
        data = self._answers.recv(8, socket.MSG_WAITALL)
        return int.from_bytes(data, "big", signed=True) if len(data) == 8 else None

    def __del__(self) -> None:
        self._answers.close()


class _Server:
    """A process that forks others; it ends when this object is deleted and it has no processes left."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            self.process = Process(serve_forks, Descriptor(theirs.fileno()), tuple(modules))
            self.process.start()

    def fork(self, order: BinaryIO, data: bytes, files: Sequence[int]) -> _Forked:
        """Start a process with an order; see `serve_forks`. Raises EOFError or OSError if the server has ended."""
        _write(order, data)
        streams = [number for number in STREAMS if _is_open(number)]
        answers, theirs = socket.socketpair()
        with theirs:
            which = bytes([sum(1 << number for number in streams)])
            try:
                socket.send_fds(self._requests, [which], [theirs.fileno(), order.fileno(), *streams, *files])
            except BaseException:
                answers.close()
                raise
        return _Forked(answers)

    def __del__(self) -> None:
        self._requests.close()


class _Servers:
    """The servers of this process: one per value of `also`, since imported modules take memory, and new ones once
    anything that processes inherit has changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inherited: tuple[object, ...] = ()
        self._servers: dict[tuple[str, ...], _Server] = {}
        self._left: list[Process] = []

    def server(self, also: tuple[str, ...], modules: Sequence[str]) -> _Server:
        """Return the server for `also`. A new server imports these, `modules` and their `KERNELS`, which would
        otherwise be imported late.
        """
        with self._lock:
            if self._inherited != (now := _inherited()):
                left = [*self._left, *(server.process for server in self._servers.values())]
                self._left = [process for process in left if process.exitcode is None]
                self._inherited, self._servers = now, {}
            if (server := self._servers.get(also)) is None:
                kernels = [name for module in modules for name in getattr(sys.modules[module], "KERNELS", ())]
                server = self._servers[also] = _Server([*also, *modules, *kernels])
        return server

    def forget(self, also: tuple[str, ...] = ()) -> None:
        """Start a new server next time; the unresponsive one is killed, with its processes."""
        with self._lock:
            server = self._servers.pop(also, None)
        if server is not None:
            server.process.kill()
            self._left.append(server.process)


_SERVERS = _Servers()


def _inherited() -> tuple[object, ...]:
    """Return everything that a process inherits from its parent. Forget the servers, because a fork of this process has
    none yet.
    """
    return (
        os.getpid(),
        dict(os.environ),
        (os.getresuid(), os.getresgid(), os.getgroups()),
        (os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)),
        [resource.getrlimit(number) for number in _LIMITS],
    )


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


@cache
def _can_fork() -> bool:
    """Return whether this system forks processes safely, and can notify a process when another one ends."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        os.close(os.pidfd_open(os.getpid()))
        return True
    return False


def describe_end(code: int) -> str:
    """Describe how a process with this exit code ended, in words that follow its name."""
    return f"ended with code {code}" if code >= 0 else f"was killed by signal {-code} ({name_signal(-code)})"


def name_signal(number: int) -> str:
    """Return the name of a signal, such as SIGKILL; a number for real-time signals, which have none."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def make_picklable(error: BaseException) -> Exception:
    """Return the error, or a RuntimeError with its text if it cannot be sent to another process or is not an
    Exception.
    """
    try:
        unpickle(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def make_main_failed_error(names: tuple[str, ...]) -> MainModuleError:
    """Return the error for a process that ended with `MAIN_FAILED` because it needed `names`."""
    where = Path(getattr(sys.modules["__main__"], "__file__", None) or "the main module").name
    what = ", ".join(names)
    return MainModuleError(
        f"worker processes cannot import {where}, which defines {what}: put the code that it runs under "
        f'`if __name__ == "__main__":`, or put {what} into another module'
    )
