"""The judge decides whether a source cannot become a sample (a reject) or cannot be read at present (an outage).

An encoder cannot distinguish the two: FFmpeg reports "Input/output error" for damaged bytes too, and reads a file
truncated by a failing disk as a short one. So the source is judged, not the error. Its files are read in full before
they are encoded and must be unchanged afterwards, and a source is rejected only if a second attempt fails in the same
way.

One file never ends a job. Any other exception of an encoder or library, including a Rust panic, is a reject that
records the error and where it was raised. If the encoder itself is faulty, such rejects exceed the limit.

Encoders fail with the same messages when the machine has run out of a resource (address space, file descriptors,
threads). A failure is therefore judged only if the machine has enough of each.
"""

import mmap
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from maskstream.preprocess.raw.file_state import DamagedFileError, FileState, read_state
from maskstream.preprocess.source import PAUSES_S, RejectError, Source
from maskstream.shards.errors import DataError, MaskstreamError, OutageError
from maskstream.shards.format.sample import Reject, Sample
from maskstream.shards.stores.local_files import NEVER_OF_BYTES

ROOM_BYTES = 4 << 30
"""Address space in bytes that must be free when a source is rejected. FFmpeg never allocates more than 2 GiB at once.
"""
ROOM_DESCRIPTORS = 16

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE, which Python 3.11 does not define: only limits, not the amount of memory, refuse such a mapping."""


def check_machine(error: BaseException) -> None:
    """Raise OutageError if `error` or one of its causes may come from a lack of resources instead of the bytes.

    All failures count, because FFmpeg's decoders report "Invalid data found" when they run out of memory.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NEVER_OF_BYTES:
            raise OutageError(f"this machine cannot continue ({cause.strerror})") from error
        cause = cause.__cause__
    if lacking := _find_lacking():
        raise OutageError(f"this process is running out of {lacking}") from error


def _find_lacking() -> str | None:
    """Return the resource that this process is running out of; None if it has enough of each."""
    if not _has_memory():
        return f"address space (less than {ROOM_BYTES >> 30} GiB; raise `ulimit -v`, or the limit of the job)"
    if not _has_descriptors():
        return f"file descriptors (fewer than {ROOM_DESCRIPTORS}; raise `ulimit -n`)"
    if not _has_threads():
        return "threads (raise `ulimit -u`)"
    return None


def _has_memory() -> bool:
    try:
        mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def _has_descriptors() -> bool:
    taken: list[int] = []
    try:
        taken += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(ROOM_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for descriptor in taken:
            os.close(descriptor)
    return True


def _has_threads() -> bool:
    thread = threading.Thread(target=bool, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


ResultT = TypeVar("ResultT")


def retried(
    what: str, attempt: Callable[[], ResultT], pauses_s: Sequence[float], report: Callable[[str], None]
) -> ResultT:
    """Return the result of `attempt`, calling it again after each pause if it raises OutageError.

    Args:
        what: Subject of messages, such as "the source 'a.mp4'".
        attempt: Function to call.
        pauses_s: Seconds to wait before each retry.
        report: Receives a message before each pause.

    Raises:
        OutageError: The attempt after the last pause fails too.
    """
    for pause_s in pauses_s:
        try:
            return attempt()
        except OutageError as error:
            report(f"{what}: {error}; retrying in {pause_s:g} s")
            time.sleep(pause_s)
    try:
        return attempt()
    except OutageError as error:
        raise OutageError(
            f"{what} failed {len(pauses_s) + 1} times in {sum(pauses_s):g} s: {error}. No damage was found in its "
            "bytes, so the file is not rejected; fix the cause and run the same command again to continue "
            "(without --overwrite)"
        ) from error


UNKEPT = "unkept"
"""Stage of a sample that a rule leaves out."""
_ATTEMPTS = 3
"""Number of rejects after which the last one counts, even if their reasons differ."""
_FRESH_NS = 2 * 10**9
"""Age in ns below which a file may change without a new modification time, since that clock is coarse."""
_NOT_OF_BYTES = (MaskstreamError, ImportError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that are never caused by a source's bytes; they end the task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """Verdict on a source: a sample or a reject, and the states of its files."""

    outcome: Sample | Reject
    files: tuple[FileState, ...]


class Judge:
    """Judges sources, whose files `read` reads in full.

    It remembers the hashes of the last files, since many sources may be in the same file.
    """

    def __init__(
        self,
        pauses_s: Sequence[float] = PAUSES_S,
        remembered: int = 64,
        read: Callable[[Path], FileState] | None = None,
    ) -> None:
        self._pauses_s = tuple(pauses_s)
        self._states: OrderedDict[Path, FileState] = OrderedDict()
        self._damage: dict[Path, DamagedFileError] = {}
        self._remembered = remembered
        self._read_state = read or read_state

    def judge(self, source: Source, encode: Callable[[Source], Sample], report: Callable[[str], None]) -> Judged:
        """Encode a source.

        Args:
            source: Source with local files.
            encode: Encodes it, or raises RejectError.
            report: Receives a message before each pause.

        Raises:
            OutageError: The source cannot be read, or changes while it is read, even after the last pause.
        """
        return retried(f"the source {source.id!r}", lambda: self._judged(source, encode), self._pauses_s, report)

    def _judged(self, source: Source, encode: Callable[[Source], Sample]) -> Judged:
        rejects: list[RejectError] = []
        files = self._read(source)
        while True:
            damage = next((self._damage[path] for path in source.files if path in self._damage), None)
            outcome = damage or _try_source(source, encode)
            self._check_unchanged(source, files)
            if isinstance(outcome, Sample):
                return Judged(outcome=outcome, files=files)
            again = tuple(map(self._state, source.files))
            if again != files:
                raise OutageError(f"{source.path} changed while it was read")
            is_sure = outcome.stage == UNKEPT or any(outcome.args == before.args for before in rejects)
            if is_sure or len(rejects) + 1 == _ATTEMPTS:
                return Judged(outcome=Reject(source=source.id, stage=outcome.stage, reason=outcome.reason), files=files)
            rejects.append(outcome)

    def _read(self, source: Source) -> tuple[FileState, ...]:
        """Return the states of the source's files; a file with an unchanged time is not read again."""
        for path in source.files:
            known = self._states.get(path)
            if known is None or path in self._damage or not _is_settled(path, known):
                self._states[path] = self._state(path)
            self._states.move_to_end(path)
        files = tuple(self._states[path] for path in source.files)
        while len(self._states) > self._remembered:
            self._states.popitem(last=False)
        return files

    def forget(self, paths: Iterable[Path]) -> None:
        """Forget files that were deleted; they are read again if a source needs them."""
        for path in paths:
            self._states.pop(path, None)
            self._damage.pop(path, None)

    def _state(self, path: Path) -> FileState:
        self._damage.pop(path, None)
        try:
            return self._read_state(path)
        except DamagedFileError as error:
            self._damage[path] = error
            return error.state
        except OSError as error:
            raise OutageError(f"{path} cannot be read ({error.strerror or error})") from error

    def _check_unchanged(self, source: Source, files: Sequence[FileState]) -> None:
        """Raise OutageError if a file has changed since it was read, before it was encoded."""
        for path, before in zip(source.files, files, strict=True):
            if path not in self._damage and not _is_settled(path, before) and self._state(path) != before:
                raise OutageError(f"{path} changed while it was read")


def _try_source(source: Source, encode: Callable[[Source], Sample]) -> Sample | RejectError:
    try:
        return encode(source)
    except BaseException as error:
        return judge_error(error, source.path)


def judge_error(error: BaseException, path: object) -> RejectError:
    """Return the reject for a source in the file `path` whose encoder raised this error.

    Raises:
        OutageError: The machine may be to blame.
        BaseException: The error itself, if bytes cannot cause it.
    """
    if isinstance(error, _NOT_OF_BYTES) and not isinstance(error, RejectError):
        raise error
    if isinstance(error, OSError) and error.errno is not None:
        raise OutageError(f"{error.filename or path} cannot be read or written ({error.strerror})") from error
    check_machine(error)
    if isinstance(error, RejectError):
        return error
    if isinstance(error, MemoryError):
        return RejectError("decode", f"needs more memory than a process can have ({error or 'out of memory'})")
    return RejectError("decode", _format_error(error))


def _format_error(error: BaseException) -> str:
    """Format an error that no encoder expects."""
    what = " ".join(str(error).split())[:300]
    if isinstance(error, DataError):
        return what
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"its encoder raised {type(error).__name__}: {what} ({Path(place.filename).name}:{place.lineno})"


def _is_settled(path: Path, known: FileState) -> bool:
    """Return whether a file's time is unchanged, and old enough that any change would show."""
    try:
        return known.is_as_old(path) and time.time_ns() - known.mtime_ns > _FRESH_NS
    except OSError as error:
        raise OutageError(f"{path} cannot be read ({error.strerror or error})") from error
