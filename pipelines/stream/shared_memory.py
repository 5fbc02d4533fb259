"""Objects that processes send each other through a socket; large arrays travel in memory files.

A memory file has no name and belongs to nobody: it is gone with the last process that has it open. So a process that is
killed at any moment leaves nothing behind, and what it sent before can still be received.

Both ends are processes of one loader, so nothing is unpickled that comes from data.

On the socket a message is a header, then the pickled object if that is small. All else comes as file descriptors: the
pickled object if it is large, and each array of `_LARGE` bytes or more.
"""

import errno
import io
import mmap
import os
import pickle
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeAlias

import torch
from torch import Tensor

_HEADER = struct.Struct("!II")
"""The bytes that follow the header, or 0 if the first file holds the pickled object; and the number of files."""
_SMALL = 4096
"""Pickled objects up to this size stay on the socket, so many messages fit into a socket before a sender waits."""
_LARGE = 65536
"""Arrays of at least this size get a memory file of their own; it is freed with the array."""
_MOST_FILES = 250
"""Linux passes at most 253 file descriptors at once."""
_AGAIN_S = 0.01

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap


def send(pipe: socket.socket, message: object) -> None:
    """Sends an object. Nothing is sent if it cannot be pickled.

    Errors: TimeoutError if the receiver reads nothing within the socket's timeout, BrokenPipeError or
    ConnectionResetError if it is gone, OSError if there is no memory.
    """
    large: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _LARGE or len(large) == _MOST_FILES:
            return True
        large.append(view)
        return False

    pickled = io.BytesIO()
    _Pickler(pickled, protocol=5, buffer_callback=stays).dump(message)
    small = pickled.getbuffer() if pickled.tell() <= _SMALL else memoryview(b"")
    parts = large if small else [pickled.getbuffer(), *large]
    files: list[int] = []
    try:
        for part in parts:
            files.append(_memory_file())
            _write(files[-1], part)
        _send(pipe, [_HEADER.pack(len(small), len(files)), small], files)
    finally:
        for file in files:
            os.close(file)


def receive(pipe: socket.socket) -> Any:
    """The next object. Waits for it up to the socket's timeout.

    Errors: EOFError if the sender is gone and no whole message is left, TimeoutError, OSError if this process has too
    many open files.
    """
    try:
        head, files, _, _ = socket.recv_fds(pipe, _HEADER.size, _MOST_FILES + 1)
    except ConnectionError:
        raise EOFError from None
    try:
        n_bytes, n_files = _HEADER.unpack(head + _exactly(pipe, _HEADER.size - len(head)))
        pickled: Buffer = _exactly(pipe, n_bytes)
        if n_files != len(files):
            raise OSError(
                errno.EMFILE,
                f"a worker process handed over {n_files} files and {len(files)} arrived, because this process has too "
                "many open files; raise `ulimit -n`, or keep fewer batches",
            )
        maps = [mmap.mmap(file, os.fstat(file).st_size) for file in files]
    finally:
        for file in files:
            os.close(file)
    if not n_bytes:
        pickled = maps.pop(0)
    return ForkingPickler.loads(pickled, buffers=maps)


class _Pickler(pickle.Pickler):
    """Pickles tensors as buffers, views and all: tensors that share memory share it at the receiver."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and obj.device.type == "cpu" and obj.layout is torch.strided and not _is_lazy(obj):
            place = obj.storage_offset(), tuple(obj.size()), obj.stride()
            return _tensor, (obj.untyped_storage(), obj.dtype, *place)
        if type(obj) is torch.UntypedStorage:
            view: Buffer = torch.empty(0, dtype=torch.uint8).set_(obj).numpy().data
            return _storage, (pickle.PickleBuffer(view) if len(view) else b"",)
        return NotImplemented


def _is_lazy(tensor: Tensor) -> bool:
    """Whether the values are not those of the memory alone, or need a graph."""
    return tensor.requires_grad or tensor.is_conj() or tensor.is_neg() or tensor.is_quantized


def _storage(buffer: Buffer) -> torch.UntypedStorage:
    empty = torch.empty(0, dtype=torch.uint8)
    return (torch.frombuffer(buffer, dtype=torch.uint8) if len(buffer) else empty).untyped_storage()


def _tensor(
    storage: torch.UntypedStorage, dtype: torch.dtype, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)


def _memory_file() -> int:
    """The descriptor of a new file in memory (on Linux) or on disk, which has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("maskstream")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def _send(pipe: socket.socket, data: Sequence[Buffer], files: Sequence[int]) -> None:
    """Sends the bytes, and the files with the first of them.

    The system limits the files of one user that are sent and not yet received; the sender then waits until some are.
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


def _exactly(pipe: socket.socket, size: int) -> bytes:
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
