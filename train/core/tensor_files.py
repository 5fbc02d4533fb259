"""Tensors in one or more safetensors files, whose rows follow one another in the order of the files.

One rank writes NAME.safetensors, several write NAME-00000-of-00002.safetensors and so on. A tensor that is not divided
lies in the first file alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from safetensors import safe_open
from torch import Tensor

from .rows import divided_like, is_divided


def part_name(name: str, part: int, parts: int) -> str:
    """The name of a part of the file `name`; its own if there is one part."""
    stem, _, suffix = name.rpartition(".")
    return name if parts == 1 else f"{stem}-{part:05d}-of-{parts:05d}.{suffix}"


def files_of(path: Path) -> list[Path]:
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
        return divided_like(target, shape, lambda first, stop: self._rows(slices, first, stop))

    def _rows(self, slices: Sequence[Any], first: int, stop: int) -> Tensor:
        begin, parts = 0, []
        for one in slices:
            end = begin + one.get_shape()[0]
            if max(begin, first) < min(end, stop):
                parts.append(one[max(first - begin, 0) : min(stop, end) - begin])
            begin = end
        return torch.cat(parts) if parts else slices[0][0:0]
