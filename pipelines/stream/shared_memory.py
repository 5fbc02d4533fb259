"""Message passing between processes through a socket, with large arrays in memory files that both have mapped.

Memory files are anonymous: they disappear with the last process that has them open. A process that is killed at any
moment therefore leaves nothing behind, and messages that it sent before can still be received.

Both ends are processes of one loader, so data from outside is never unpickled.

Each end reuses the files that it created (`Ring`). A file with sent data is not rewritten until nothing refers to it at
the receiver, which reports this in its next message. The sender never waits for that: without an idle file it creates a
new one, and keeps it unless there are many.

On the socket, a message is a header, the numbers that it counts, then the pickled object if it is small. A large
pickled object is stored in a file, and so is each array of `LARGE` bytes or more. Files that are new to the receiver
are sent as descriptors.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import pickle
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from maskstream.shards.process_main import unpickle
from maskstream.shards.processes import open_memory_file

from .kept import LARGE, AnyArray, Covers, KeptMemory, Slot
from .tensors import HostArray, torch

if TYPE_CHECKING:
    from torch import Tensor

_HEADER = struct.Struct("!5I")
"""Size of the pickled object, or 0 if the first part holds it; number of parts, new files, returned files, and deleted
files.
"""
_SMALL = 4096
"""Larger pickled objects are sent in a file, so that many messages fit into the socket before a sender has to wait."""
_MOST_FILES = 250
"""Linux passes at most 253 file descriptors at once."""
_MOST_KEPT = 64
"""Maximum number of kept files; others are used once."""
_ONCE = -1
_STEP = 1 << 16
_AGAIN_S = 0.01
_BYTE = np.dtype(np.uint8)

Buffer: TypeAlias = bytes | bytearray | memoryview

_forks = 0
"""Number of forks of this process. A child may refer indefinitely to memory that was mapped before."""


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(before=_count_fork)


class MemoryFile(Slot):
    """A mapped file.

    `number` is its name at the receiver, or _ONCE if it is not kept; `file` its descriptor until it is sent; `held`
    whether an array in this process uses it; `abroad` whether the receiver may refer to it.
    """

    __slots__ = ("abroad", "file", "held", "number")

    def __init__(self, number: int, size: int) -> None:
        self.number, self.held, self.abroad = number, False, False
        self.file: int | None = open_memory_file(size)
        try:
            super().__init__(memoryview(mmap.mmap(self.file, size)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the descriptor; the mapping ends with the last reference to it."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


class Ring(KeptMemory[MemoryFile]):
    """Memory files of one end. Arrays allocated here are sent without a copy.

    A file is idle when neither an array here nor the receiver uses it. Idle files are closed after a while (see
    `KeptMemory`), and there are at most `_MOST_KEPT`; further arrays use ordinary memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gone: deque[int] = deque()
        self._lock = threading.Lock()
        self._left: deque[MemoryFile] = deque()
        self._files: dict[int, MemoryFile] = {}
        self._at: dict[int, MemoryFile] = {}
        self._made = 0

    def placed(self, part: memoryview) -> MemoryFile:
        """Return the file that contains a part of a message, now in use by the receiver; parts allocated elsewhere are
        copied.
        """
        data = np.frombuffer(part, np.uint8)
        with self._lock:
            self._settle()
            file = self._at.get(_find_address(data))
            if file is not None and file.held and not file.abroad and data.size <= len(file.view):
                file.abroad = True
                return file
            file = self._file(data.size) or MemoryFile(_ONCE, data.size)
            file.abroad = True
        np.frombuffer(file.view, np.uint8, data.size)[:] = data
        return file

    def take_unsent(self, files: Sequence[MemoryFile]) -> None:
        """Reclaim files that were not sent."""
        with self._lock:
            for file in files:
                self._take_back(file)

    def take_returned(self, numbers: Sequence[int]) -> None:
        """Process returned files; ~number means that the receiver keeps the file, which is dropped here."""
        with self._lock:
            self._settle()
            for number in numbers:
                if number < 0:
                    self._give_up(self._files[~number])
                else:
                    self._take_back(self._files[number])

    def _slot(self, size: int) -> MemoryFile | None:
        with self._lock, suppress(OSError):  # the error occurs again, and is reported, when the array is sent
            if (file := self._file(size)) is not None:
                file.held = True
            return file
        return None

    def _ended(self, slot: MemoryFile) -> None:
        self._left.append(slot)

    def _settle(self) -> None:
        """Process the files whose arrays ended."""
        while self._left:
            file = self._left.popleft()
            file.held = False
            if not file.abroad:
                self._add_idle(file)

    def _take_back(self, file: MemoryFile) -> None:
        file.abroad = False
        if not file.held:
            self._add_idle(file)

    def _file(self, size: int) -> MemoryFile | None:
        """Return an idle or new file; None if there are too many."""
        self._settle()
        for old in self._take_old():
            self._give_up(old)
        size = -(-size // _STEP) * _STEP
        if (file := self._take_idle(size)) is not None:
            return file
        if len(self._files) == _MOST_KEPT:
            if not self._idle:
                return None
            self._give_up(self._idle.popleft())
        file = MemoryFile(self._made, size)
        self._made += 1
        self._files[file.number] = self._at[_find_address(file.view)] = file
        return file

    def _give_up(self, file: MemoryFile) -> None:
        """Close a file that no process uses any more, or that now belongs to the receiver."""
        del self._files[file.number], self._at[_find_address(file.view)]
        file.close()
        self.gone.append(file.number)


class Channel:
    """One end of a socket between two processes, and the memory files of both. Used by a single thread.

    `ring` contains the files at this end of the connection.
    """

    def __init__(self, pipe: socket.socket) -> None:
        self.pipe, self.ring = pipe, Ring()
        self._theirs: dict[int, mmap.mmap] = {}
        self._covers = Covers[tuple[int, int]](self._free_unused)
        self._back: deque[int] = deque()
        self._owner = os.getpid()

    def send(self, message: object) -> None:
        """Send an object; nothing is sent if it cannot be pickled.

        Raises:
            TimeoutError: The receiver reads nothing within the socket's timeout.
            BrokenPipeError: The receiver is gone; also ConnectionResetError.
            OSError: There is not enough memory.
        """
        large: list[memoryview] = []

        def stays(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < LARGE or len(large) == _MOST_FILES:
                return True
            large.append(view)
            return False

        pickled = io.BytesIO()
        _Pickler(pickled, protocol=5, buffer_callback=stays).dump(message)
        small = pickled.getbuffer() if pickled.tell() <= _SMALL else memoryview(b"")
        parts = large if small else [pickled.getbuffer(), *large]
        files: list[MemoryFile] = []
        try:
            for part in parts:
                files.append(self.ring.placed(part))
        except BaseException:
            self.ring.take_unsent(files)
            raise
        back, gone = list(_drain(self._back)), list(_drain(self.ring.gone))
        new = [file.file for file in files if file.file is not None]
        counts = len(small), len(parts), len(new), len(back), len(gone)
        numbers = [*(file.number for file in files), *(part.nbytes for part in parts), *back, *gone]
        try:
            _send(self.pipe, [_HEADER.pack(*counts), np.array(numbers, np.int64).data, small], new)
        finally:
            for file in files:
                file.close()
        for number in back:
            if number < 0:
                self._theirs.pop(~number, None)

    def receive(self) -> Any:
        """Receive the next object, waiting up to the socket's timeout.

        Raises:
            EOFError: The sender is gone and no complete message is left.
            TimeoutError: Nothing arrived in time.
            OSError: This process has too many open files.
        """
        try:
            head, files, _, _ = socket.recv_fds(self.pipe, _HEADER.size, _MOST_FILES + 1)
        except ConnectionError:
            raise EOFError from None
        try:
            counts = _HEADER.unpack(head + _receive_exactly(self.pipe, _HEADER.size - len(head)))
            n_bytes, n_parts, n_files, n_back, n_gone = counts
            words = _receive_exactly(self.pipe, 8 * (2 * n_parts + n_back + n_gone))
            pickled: Buffer = _receive_exactly(self.pipe, n_bytes)
            if n_files != len(files):
                raise OSError(
                    errno.EMFILE,
                    f"a worker process sent {n_files} files but {len(files)} arrived, because this process "
                    "has too many open files; raise `ulimit -n`, or keep fewer batches",
                )
            numbers = iter(np.frombuffer(words, np.int64).tolist())
            named, sizes = list(islice(numbers, n_parts)), list(islice(numbers, n_parts))
            self.ring.take_returned(list(islice(numbers, n_back)))
            for number in numbers:
                self._theirs.pop(number, None)
            new = iter(files)
            parts = [self._part(number, size, new) for number, size in zip(named, sizes, strict=True)]
        finally:
            for file in files:
                os.close(file)
        if not n_bytes:
            pickled = parts.pop(0)
        return unpickle(pickled, parts)

    def close(self) -> None:
        """Close the connection. Received objects remain valid as long as anything refers to them."""
        self.pipe.close()
        self._theirs.clear()

    def _part(self, number: int, size: int, new: Iterator[int]) -> memoryview:
        """Return a part of a message, in a known file or the next of the new ones."""
        if number == _ONCE:
            return memoryview(mmap.mmap(next(new), size))
        if (known := self._theirs.get(number)) is None:
            if (file := next(new, None)) is None:
                raise EOFError  # an earlier message did not arrive
            known = self._theirs[number] = mmap.mmap(file, 0)
        return self._covers.made((number, _forks), memoryview(known), _BYTE, size).data

    def _free_unused(self, of: tuple[int, int]) -> None:
        number, forks = of
        if os.getpid() == self._owner:
            self._back.append(number if forks == _forks else ~number)


def _drain(numbers: deque[int]) -> Iterator[int]:
    while numbers:
        yield numbers.popleft()


def _find_address(memory: memoryview | AnyArray) -> int:
    return _find_address_of(np.frombuffer(memory, np.uint8))


def _find_address_of(array: AnyArray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


class _Pickler(pickle.Pickler):
    """Pickles tensors as buffers, including views: tensors that share memory still share it at the receiver.

    A `HostArray` becomes a tensor there.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is HostArray:
            return _reduce_array(obj)
        if "torch" not in sys.modules:
            return NotImplemented
        if type(obj) is torch.Tensor and obj.device.type == "cpu" and obj.layout is torch.strided and not _is_lazy(obj):
            place = obj.storage_offset(), tuple(obj.size()), obj.stride()
            return _restore_tensor, (obj.untyped_storage(), obj.dtype, *place)
        if type(obj) is torch.UntypedStorage:
            view: Buffer = torch.empty(0, dtype=torch.uint8).set_(obj).numpy().data
            return _map_storage, (pickle.PickleBuffer(view) if len(view) else b"",)
        return NotImplemented


def _reduce_array(array: HostArray) -> tuple[Any, ...]:
    """Pickle an array as its whole underlying memory and its position there."""
    own = whole = array.numpy()
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    whole = whole.view(np.ndarray) if isinstance(whole, HostArray) else whole
    if not whole.flags.c_contiguous:
        own = whole = np.ascontiguousarray(own)
    return _map_tensor, (whole, own.dtype.str, _find_address_of(own) - _find_address_of(whole), own.shape, own.strides)


def _map_tensor(whole: AnyArray, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.ndarray(shape, dtype, whole, offset, strides))


def _is_lazy(tensor: Tensor) -> bool:
    """Return whether the values are not simply the memory's contents, or require a graph."""
    return tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or tensor.is_quantized


def _map_storage(buffer: Buffer) -> torch.UntypedStorage:
    empty = torch.empty(0, dtype=torch.uint8)
    return (torch.frombuffer(buffer, dtype=torch.uint8) if len(buffer) else empty).untyped_storage()


def _restore_tensor(
    storage: torch.UntypedStorage, dtype: torch.dtype, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)


def _send(pipe: socket.socket, data: Sequence[Buffer], files: Sequence[int]) -> None:
    """Send the bytes, and the files with the first of them.

    The system limits a user's files that are sent but not yet received; the sender then waits until some are.
    """
    timeout, begun = pipe.gettimeout(), time.monotonic()
    whole = memoryview(b"".join(data))
    while True:
        try:
            sent = socket.send_fds(pipe, [whole], files)
            break
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS or (timeout is not None and time.monotonic() - begun > timeout):
                raise
        time.sleep(_AGAIN_S)
    pipe.sendall(whole[sent:])


def _receive_exactly(pipe: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = pipe.recv(size - len(data))
        except ConnectionError:
            more = b""
        if not more:
            raise EOFError
        data += more
    return data
