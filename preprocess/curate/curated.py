"""The result of a curation, and the list of the removed samples."""

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
    """A sample that is removed.

    Attributes:
        place: Position among the measured samples.
        why: Reason: "rule", "copy", "leak" or "unreadable".
        of: Rule, key of the original, or decoding error.
        like: Measures and position of the sample that it duplicates; None for other reasons.
    """

    place: int
    why: str
    of: str
    like: tuple[Measures, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curated:
    """The result of a curation.

    Attributes:
        measures: Measures of all samples, with the signals from scores and manifest.
        gone: Removed samples, by position.
        copies: Groups of near-duplicates, as positions; the kept sample comes first.
        version: Number of the new version; None for a dry run, or if all samples are kept.
        repeated: True if the same curation had already created this version, so nothing was changed.
        rule: The rule that samples had to meet, None without one.
        failed: Number of samples that fail each comparison of the rule.
    """

    measures: Measures
    gone: tuple[Gone, ...]
    copies: tuple[tuple[int, ...], ...] = ()
    version: int | None = None
    repeated: bool = False
    rule: Rule | None = None
    failed: Mapping[str, int] = field(default_factory=dict)

    def write_list(self, path: Path) -> Path:
        """Write the key, reason and signals of each removed sample as a Parquet file.

        Args:
            path: File to write; an earlier list is overwritten.

        Returns:
            `path`.

        Raises:
            ValueError: The file exists and is not such a list.
        """
        with self.writing_list(path):
            return path

    @contextmanager
    def writing_list(self, path: Path) -> Iterator[None]:
        """Write the list as `write_list` does; it is published when the block ends without an error.

        Args:
            path: File to write; an earlier list is overwritten.

        Raises:
            ValueError: The file exists and is not such a list.
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
        """Number of removed samples for each reason."""
        whys = [one.why for one in self.gone]
        return {why: whys.count(why) for why in dict.fromkeys(whys)}


def check_list(path: Path) -> None:
    """Raise ValueError if a file exists and is not the list of a curation."""
    if not path.exists():
        return
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        names = []
    if names[:3] != ["key", "why", "of"]:
        raise ValueError(
            f"{path} exists and is not a curation list, so it is not overwritten. Pass a different --out, or delete "
            "the file"
        )
