"""Worker processes that import the caller's main module only if they need it.

multiprocessing imports the main module into every spawned process. A script without a `__main__` guard would run again
there, and a notebook or a script from stdin has no file to import. A process of `SPAWN` imports the main module only
when it receives an object whose class or function is defined there.

`SPAWN` is a separate context; multiprocessing is not patched. Its processes end with their parent, even by SIGKILL.
"""

import io
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing import popen_spawn_posix, spawn
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from .errors import MaskstreamError

MAIN_FAILED = 79
"""The exit code of a process that could not import the main module."""

_PACKAGE = __name__.partition(".")[0]
_PARENT_CHECK_S = 0.5
_OF_MAIN = ("init_main_from_name", "init_main_from_path")


class MainModuleError(MaskstreamError):
    """A worker process needs the main module but cannot import it; the message says for which object."""


class _Pickler(ForkingPickler):
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
    """Pickle `obj` for a process of `SPAWN`; also returns the names of the main module that it refers to.

    Raises MainModuleError if there are such names and the main module cannot be imported.
    """
    return _pickled(obj)[:2]


def _pickled(obj: object) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """What `dumps` returns, and the modules of this package that `obj` needs."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(obj)
    names = tuple(pickler.names)
    if names and not _is_importable(_main()):
        raise MainModuleError(
            f"worker processes cannot import {', '.join(names)}, which a notebook, a script from stdin or a "
            "__main__.py defines: put it into a module, or use workers=0"
        )
    return file.getvalue(), names, tuple(pickler.modules)


def _without_main(name: str) -> dict[str, Any]:
    """multiprocessing's data for a new process, without the main module."""
    return {key: value for key, value in spawn.get_preparation_data(name).items() if key not in _OF_MAIN}


SPAWN_WITHOUT_MAIN = SimpleNamespace(**(vars(spawn) | {"get_preparation_data": _without_main}))
"""multiprocessing's module that starts processes, but without the main module."""


class _Popen(popen_spawn_posix.Popen):
    """Launches a process with multiprocessing's code, but with `_without_main` as `get_preparation_data`."""

    _launch = FunctionType(
        vars(popen_spawn_posix.Popen)["_launch"].__code__, vars(popen_spawn_posix) | {"spawn": SPAWN_WITHOUT_MAIN}
    )


class Process(SpawnProcess):
    """A spawned process.

    names: the names of the main module that its arguments refer to. modules: those of this package that they need.
    """

    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:  # noqa: N802
        return _Popen(process_obj)

    def start(self) -> None:
        """Start the process. Raises MainModuleError while a worker process imports the main module."""
        if _LateMain.is_importing:
            raise MainModuleError(
                "the main module starts worker processes while a worker process imports it; put this under "
                '`if __name__ == "__main__":`'
            )
        super().start()

    def __reduce__(self) -> tuple[Any, ...]:
        state, self.names, self.modules = _pickled(self.__dict__)
        return _begun, (type(self), _main(), os.getpid(), state, self._streams())

    def _streams(self) -> dict[int, Any]:
        """The descriptors that the process would not inherit, by their numbers."""
        return {}


class _Context(SpawnContext):
    Process = Process


SPAWN = _Context()
"""The context that creates worker processes."""


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, or the server between them."""
    above = os.getppid()
    try:
        ended = [] if above == parent else [os.pidfd_open(parent)]
    except ProcessLookupError:
        os._exit(1)
    while os.getppid() == above and not wait(ended, _PARENT_CHECK_S):
        pass
    os._exit(1)


def ending(code: int) -> str:
    """How a process with this exit code ended, in words that follow its name."""
    return f"ended with code {code}" if code >= 0 else f"was killed by signal {-code} ({signal_name(-code)})"


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; a number for real-time signals, which have none."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def picklable(error: BaseException) -> Exception:
    """The error, or a RuntimeError with its text if the error cannot be sent to another process, or is no Exception."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


class _LateMain:
    """The `__getattr__` of a worker's main module: imports the caller's main module when a name of it is needed."""

    is_importing = False

    def __init__(self, main: dict[str, str]) -> None:
        self._main = main

    def __call__(self, name: str) -> Any:
        if name.startswith("__") or _LateMain.is_importing:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        _LateMain.is_importing = True
        try:
            spawn.prepare(self._main)
        except BaseException as error:
            if not isinstance(error, MainModuleError):
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(MAIN_FAILED)
        _LateMain.is_importing = False
        return getattr(sys.modules["__main__"], name)


def _begun(kind: type[Process], main: dict[str, str], parent: int, state: bytes, streams: dict[int, Any]) -> Process:
    """Called in the new process: rebuilds the process object, which may import the main module and much else; if the
    parent dies meanwhile, the process ends.
    """
    for number, stream in streams.items():
        os.dup2(stream.detach(), number)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.modules["__main__"].__getattr__ = _LateMain(main)  # type: ignore[method-assign]
    process = kind.__new__(kind)
    process.__dict__.update(ForkingPickler.loads(state))
    return process


def _main() -> dict[str, str]:
    """multiprocessing's name or path of the main module; empty if it has neither."""
    return {key: value for key, value in spawn.get_preparation_data("").items() if key in _OF_MAIN}


def _is_importable(main: dict[str, str]) -> bool:
    name, path = (main.get(key, "") for key in _OF_MAIN)
    return name.rpartition(".")[2] not in ("", "__main__") or Path(path).is_file()


def main_failed(names: tuple[str, ...]) -> MainModuleError:
    """The error for a process that ended with `MAIN_FAILED` because it needed `names`."""
    where = Path(_main().get("init_main_from_path", "")).name or "the main module"
    what = ", ".join(names)
    return MainModuleError(
        f"worker processes cannot import {where}, which defines {what}: put the code that it runs under "
        f'`if __name__ == "__main__":`, or put {what} into another module'
    )
