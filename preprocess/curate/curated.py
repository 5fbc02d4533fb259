"""What a curation found, and the list of the samples that do not stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from maskstream.shards.stores.local_files import publishing

from .measures import Measures
from .rules import Rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A sample that does not stay: its place among the measured ones, why ("rule", "copy", "leak", "unreadable"), and
    in words of what. like: the sample that it is a copy of, by its measures and its place in them.
    """

    place: int
    why: str
    of: str
    like: tuple[Measures, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curated:
    """What a curation found. gone: by place. copies: the places of samples that are alike, the one that stays first.

    version: the version that was made, None of a dry run or where all stay. repeated: whether the same curation made it
    before, so that nothing was changed. failed: how many samples fail each comparison of the rule.
    """

    measures: Measures
    gone: tuple[Gone, ...]
    copies: tuple[tuple[int, ...], ...] = ()
    version: int | None = None
    repeated: bool = False
    rule: Rule | None = None
    failed: Mapping[str, int] = field(default_factory=dict)

    def write_list(self, path: Path) -> Path:
        """Writes key, why, of, and the signals of each sample that does not stay as Parquet; returns `path`."""
        with self.writing_list(path):
            return path

    @contextmanager
    def writing_list(self, path: Path) -> Iterator[None]:
        """Writes the list, which appears when the block ends without an error. ValueError for a file that is there and
        is no such list.
        """
        check_list(path)
        own, places = self.measures, [one.place for one in self.gone]
        columns: dict[str, Any] = {
            "key": own.manifest.keys([int(own.index[place]) for place in places]),
            "why": [one.why for one in self.gone],
            "of": [one.of for one in self.gone],
            **{name: values[places] for name, values in own.signals.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with publishing(path, alone=True) as stream:
            pq.write_table(pa.table(columns), stream)
            stream.flush()
            yield

    @property
    def counts(self) -> dict[str, int]:
        """How many do not stay, by why."""
        whys = [one.why for one in self.gone]
        return {why: whys.count(why) for why in dict.fromkeys(whys)}


def check_list(path: Path) -> None:
    """ValueError for a file that exists and is not a list of a curation."""
    if not path.exists():
        return
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        names = []
    if names[:3] != ["key", "why", "of"]:
        raise ValueError(
            f"{path} is not a list of what a curation left out, so it is not overwritten; give another --out, or "
            "delete the file"
        )
