"""Readers that make batches of the same samples and take turns: what they cost, beside the first of them.

A turn is an epoch of a small set, in whole batches. All batches of a turn are made and dropped as in a training loop,
so that memory for batches, and joining rows to a batch, are part of what is measured; maskstream's loaders and the
streams of others go on from turn to turn, so that none starts anew. One epoch before the first round warms all up and
shows whether they read the same.
"""

import gc
import importlib
import io
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from libraries import why_missing
from turns import quartiles

from maskstream.pipelines.stream.loader import Loader

Items = Sequence[Any]
Make = Callable[[Items], Iterator[Any]]
SCALE = {"ms": 1e3, "µs": 1e6}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A name, and what makes the batches of some items. `in_order` is True for a reader that takes all samples in the
    order of the set, whatever is asked for; it gets the items in that order. `same` is False where the rows are not
    those of the items: other draws, or no picture.
    """

    name: str
    make: Make
    in_order: bool = False
    same: bool = True


@dataclass(kw_only=True)
class Contest:
    """Readers of one set. The first is a loader of maskstream.

    items(epoch): what the first reader shows in an epoch, in the order of the set; each has a `key`. rows_of(batch):
    the rows of a batch of the first reader to compare, in the order of its keys. difference(ours, theirs) of a row must
    be at most `most`. wall: whether wall time is measured instead of CPU time. ahead: how many batches at either end of
    a turn do not count, so that readers that make batches ahead begin with as many as they end with. column: the set,
    where contests of one title share a table.
    """

    name: str
    title: str
    unit: str
    items: Callable[[int], Items]
    rows_of: Callable[[Any], Any]
    difference: Callable[[Any, Any], float]
    most: float
    wall: bool = False
    ahead: int = 0
    column: str = ""
    readers: list[Reader] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    taken: dict[str, list[float]] = field(default_factory=dict)
    differs: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, needs: str, make: Callable[[], Make], **about: Any) -> None:
        """Adds a reader that imports the modules `needs`, or says why there is none."""
        try:
            for module in needs.split():
                importlib.import_module(module)
        except (ImportError, RuntimeError, OSError) as error:  # also libraries that are not found
            self.missing.append(why_missing(name, error))
            return
        self.readers.append(Reader(name=name, make=make(), **about))

    def warm_up(self) -> None:
        """An epoch of each reader; SystemExit where one reads something else than the first."""
        items = self.items(0)
        first, *others = self.readers
        ours = {}
        for batch in first.make(items):
            ours.update(zip(batch.key, self.rows_of(batch), strict=True))
        for reader in others:
            rows = [row for batch in reader.make(items) for row in (batch if reader.same else [])]
            if not reader.same:
                continue
            if len(rows) != len(items):
                raise SystemExit(f"{reader.name} returned {len(rows)} rows for {len(items)} items")
            apart = [self.difference(ours[item.key], row) for item, row in zip(items, rows, strict=True)]
            self.differs[reader.name] = float(np.mean(apart))
            if self.differs[reader.name] > self.most:
                raise SystemExit(f"{reader.name} returns different data: {self.differs[reader.name]:.2f} apart")
        gc.collect()
        gc.freeze()  # objects that already exist are kept, so that collecting a turn's garbage is quick

    def round(self, number: int) -> None:
        """A turn of each reader, of whom another one begins each time."""
        items, rng = self.items(number), np.random.default_rng(number)
        mixed = [items[i] for i in rng.permutation(len(items))]
        for reader in self.readers[number % len(self.readers) :] + self.readers[: number % len(self.readers)]:
            gc.collect()
            times = [self._now()]
            for batch in reader.make(items if reader.in_order else mixed):
                del batch
                times.append(self._now())
            times[-1] = self._now()  # with what ends a turn
            counted = times[self.ahead : len(times) - self.ahead]
            share = (len(counted) - 1) / (len(times) - 1)
            taken = (counted[-1] - counted[0]) / (len(items) * share)
            self.taken.setdefault(reader.name, []).append(taken * SCALE[self.unit])

    def _now(self) -> float:
        return time.perf_counter() if self.wall else time.process_time()

    def ratio(self, one: str, other: str) -> list[float]:
        """The quartiles of the ratio of two readers within a round; empty where one is missing."""
        if not {one, other} <= self.taken.keys():
            return []
        return quartiles([a / b for a, b in zip(self.taken[one], self.taken[other], strict=True)])

    def cell(self, name: str) -> str:
        """The median of a reader and of its ratio to the first; empty where it takes no part."""
        if name not in self.taken:
            return ""
        return f"{shown(median(self.taken[name]))} ({self.ratio(name, self.readers[0].name)[1]:.2f})"

    def as_rows(self) -> list[dict[str, Any]]:
        """What was measured, as JSON."""
        return [
            {
                "contest": self.name,
                "reader": name,
                f"{'wall' if self.wall else 'cpu'}_{self.unit}": round(median(taken), 4),
                "of_ours": [round(value, 4) for value in self.ratio(name, self.readers[0].name)],
                "difference": self.differs.get(name),
                "rounds": [round(value, 4) for value in taken],
            }
            for name, taken in self.taken.items()
        ]


def table(contests: Sequence[Contest]) -> str:
    """Contests of one title as a table in Markdown with a column for each, and what is missing."""
    first = contests[0]
    clock = f"{'wall' if first.wall else 'CPU'} {first.unit}"
    lines = [
        f"{first.title}: {clock} (ratio to the column's first row)",
        "",
        f"| | {' | '.join(contest.column or clock for contest in contests)} |",
        f"| --- |{' ---: |' * len(contests)}",
    ]
    for name in dict.fromkeys(reader.name for contest in contests for reader in contest.readers):
        cells = [contest.cell(name) for contest in contests]
        is_first = name in {contest.readers[0].name for contest in contests}
        lines.append(f"| {f'**{name}**' if is_first else name} | {' | '.join(cells)} |")
    missing = {f"Missing: {reason}." for contest in contests for reason in contest.missing}
    notes = [f"- {note}" for note in (*(note for contest in contests for note in contest.notes), *sorted(missing))]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def shown(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ours(loader: Loader[Any], take: Callable[[Any], Any] = lambda batch: batch, epochs: int = 1) -> Make:
    """The next epochs of a loader, which goes on from call to call."""
    stream = loader.repeat()

    def make(items: Items) -> Iterator[Any]:
        for _ in range(epochs * len(loader)):
            yield take(next(stream))

    return make


def batched(read: Callable[[Any], Any], size: int, stack: Callable[[list[Any]], Any] = np.stack) -> Make:
    """Batches of `size` items that are read one after the other and stacked, as a DataLoader does."""

    def make(items: Items) -> Iterator[Any]:
        for first in range(0, len(items), size):
            yield stack([read(item) for item in items[first : first + size]])

    return make


def streamed(
    samples: Callable[[], Iterator[Any]],
    read: Callable[[Any, Any], Any],
    size: int,
    stack: Callable[[list[Any]], Any] = np.stack,
) -> Make:
    """Batches of the samples of a stream, read(sample, item) each; the stream has the order of the set."""

    def make(items: Items) -> Iterator[Any]:
        rows: list[Any] = []
        for sample, item in zip(samples(), items, strict=True):
            rows.append(read(sample, item))
            if len(rows) == size:
                yield stack(rows)
                rows = []
        if rows:
            yield stack(rows)

    return make


def mds_of(folder: Path, columns: dict[str, str], samples: Iterable[dict[str, Any]]) -> Any:
    """A StreamingDataset of the samples, which are written to `folder` anew."""
    streaming = importlib.import_module("streaming")
    shutil.rmtree(folder, ignore_errors=True)
    with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
        for sample in samples:
            writer.write(sample)
    return streaming.StreamingDataset(local=str(folder), shuffle=False, batch_size=1)


def tar_of(path: Path, members: Iterable[tuple[str, bytes]]) -> str:
    """A plain tar of members with names and bytes, as WebDataset reads it."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return str(path)


def webdataset_of(tars: Any, read: Callable[[Any, Any], Any], size: int, stack: Callable[..., Any] = np.stack) -> Make:
    """webdataset's stream of tars, in order; read(sample, item) makes a row."""
    dataset = importlib.import_module("webdataset").WebDataset(tars, shardshuffle=False)
    return streamed(lambda: iter(dataset), read, size, stack)


def lance_of(folder: Path, table: Any) -> Any:
    """Write an Arrow table to `folder` as a new Lance dataset."""
    lance = importlib.import_module("lance")
    lance.write_dataset(table, folder, mode="overwrite")
    return lance.dataset(folder)


def by_batch(read: Callable[[list[Any]], Any], size: int) -> Make:
    """A reader that takes the items of a batch together."""
    return lambda items: (read(list(items[first : first + size])) for first in range(0, len(items), size))
