"""Files of a run as they were written: their sums, and tensors in one or more safetensors files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
import xxhash
from safetensors import safe_open
from torch import Tensor

from maskstream.shards.errors import ResumeError

from .distributed import divide_like, is_divided

_CHUNK_BYTES = 1 << 20


class RunFileError(ResumeError):
    """A file of a run is not as it was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSum:
    """The size of a file, or of its beginning, and the xxh3_128 of these bytes as 32 hex digits."""

    size_bytes: int
    xxh3_128: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The sum of bytes."""
        return cls(size_bytes=len(data), xxh3_128=xxhash.xxh3_128_hexdigest(data))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The sum that `asdict` made a dict of."""
        return cls(size_bytes=int(data["size_bytes"]), xxh3_128=str(data["xxh3_128"]))

    def check(self, path: Path) -> None:
        """Raises DamageError unless the file has these bytes and no others."""
        self.begun(path)
        if (size := path.stat().st_size) != self.size_bytes:
            raise RunFileError(f"{path.name} has {size} bytes, but was written with {self.size_bytes}")

    def begun(self, path: Path) -> xxhash.xxh3_128:
        """The hash of a file that begins with these bytes, after which more can be added.

        Raises DamageError if the file begins otherwise, is shorter, missing or no regular file, or cannot be read.
        """
        if not path.is_file():
            raise RunFileError(f"{path.name} is {'no file' if path.exists() else 'missing'}")
        found, left = xxhash.xxh3_128(), self.size_bytes
        try:
            with path.open("rb") as file:
                while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
                    found.update(chunk)
                    left -= len(chunk)
        except OSError as error:
            raise RunFileError(f"{path.name} cannot be read ({error.strerror})") from error
        if left:
            raise RunFileError(
                f"{path.name} has {self.size_bytes - left} bytes, but was written with {self.size_bytes}"
            )
        if found.hexdigest() != self.xxh3_128:
            raise RunFileError(f"{path.name} has other contents than were written (its checksum differs)")
        return found


NO_BYTES = FileSum.of(b"")


def part_name(name: str, part: int, parts: int) -> str:
    """The name of a part of the file `name`; its own if there is one part."""
    stem, _, suffix = name.rpartition(".")
    return name if parts == 1 else f"{stem}-{part:05d}-of-{parts:05d}.{suffix}"


def find_files(path: Path) -> list[Path]:
    """The file at `path`, or its parts in order if there is none but parts; [path] if there is neither."""
    if path.exists():
        return [path]
    found = sorted(path.parent.glob(f"{path.stem}-[0-9]*-of-[0-9]*{path.suffix}"))
    whole = [path.with_name(part_name(path.name, part, len(found))) for part in range(len(found))]
    return found if found and found == whole else [path]


class TensorFiles:
    """Open files of tensors. OSError or SafetensorError if one cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._files: list[Any] = [self._stack.enter_context(safe_open(path, framework="pt")) for path in paths]
        self._holders: dict[str, list[Any]] = {}
        for file in self._files:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                self._holders.setdefault(name, []).append(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._holders)

    def metadata(self) -> dict[str, str]:
        """The metadata of the first file."""
        return dict(self._files[0].metadata() or {})

    def whole(self, name: str) -> Tensor:
        """A tensor with all its rows."""
        parts = [cast(Tensor, file.get_tensor(name)) for file in self._holders[name]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def like(self, name: str, target: Tensor | None) -> Tensor:
        """A tensor divided as `target` is: only the rows of this rank are read. Single numbers are never divided."""
        if target is None or not is_divided(target):
            return self.whole(name)
        slices = [file.get_slice(name) for file in self._holders[name]]
        if not slices[0].get_shape():
            return self.whole(name)
        shape = [sum(one.get_shape()[0] for one in slices), *slices[0].get_shape()[1:]]
        return divide_like(target, shape, lambda first, stop: self._rows(slices, first, stop))

    def _rows(self, slices: Sequence[Any], first: int, stop: int) -> Tensor:
        begin, parts = 0, []
        for one in slices:
            end = begin + one.get_shape()[0]
            if max(begin, first) < min(end, stop):
                parts.append(one[max(first - begin, 0) : min(stop, end) - begin])
            begin = end
        return torch.cat(parts) if parts else slices[0][0:0]
