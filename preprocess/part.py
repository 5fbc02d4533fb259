"""A part of a job: every n-th task of each split. The parts of a job run at the same time, on any machines, and need no
driver: `make_shards(..., part=(i, n))` writes shards and their records, and a last run with `finish` the rest.

Each shard is published by a rename, and is the same bytes from whoever writes it. Parts hold a shared lock, a whole run
and `finish` a sole one; where a file system has no locks, nothing but wasted work comes of it. A part deletes no
temporary files, for they may be another's; `finish` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """The part `number` (from 1) of `count`. Records name shards and not parts, so `count` may change between runs."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"the part {self} is none; legal are 1/N to N/N, such as 3/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of a text such as "3/8". Raises ValueError for any other text."""
        number, slash, count = text.partition("/")
        if not (slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"the part {text!r} is none; legal are 1/N to N/N, such as 3/8")
        return cls(int(number), int(count))

    def of(self, tasks: Sequence[T]) -> list[T]:
        """The tasks of this part, by their numbers: those of all parts are all tasks, each once."""
        return list(tasks[self.number - 1 :: self.count])
