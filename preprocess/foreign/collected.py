"""What the tars of an index hold together: labels are numbered, and a key counts once.

The rows of one tar are in memory; the records of the tars are read several times instead. Of each sample there are 8
bytes in memory, a hash of its key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from maskstream.shards.errors import DatasetError, ShardError
from maskstream.shards.format.record import Row, ShardRecord
from maskstream.shards.format.records import Records
from maskstream.shards.format.sample import Reject
from maskstream.shards.format.unique_keys import Hashes, hashes_of
from maskstream.shards.format.ustar import idx_text
from maskstream.shards.media.packet_table import sidecar_name
from maskstream.shards.stores.output import Output

from .labels import Label, LabelTable, Numbers
from .task import IndexedTar, TarTask


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """The tars of `tasks`, which have `records`.

    table: labels that lie beside the tars, which come before those in them. samples: how many there are, `named` of
    them by the table. empty: the names of the tars without one. rejects: of all tars, and the samples with a key that
    an earlier tar holds, whose hashes are `twice`. unlabelled: whether no sample has a label.
    """

    tasks: Sequence[TarTask]
    records: Records[IndexedTar]
    table: LabelTable | None
    numbers: Numbers
    samples: int
    named: int
    empty: tuple[str, ...]
    rejects: list[Reject]
    twice: frozenset[int]
    unlabelled: bool

    @classmethod
    def of(cls, tasks: Sequence[TarTask], records: Records[IndexedTar], table: LabelTable | None = None) -> Self:
        """Read the records of the tars, and again if a key may occur twice.

        Raises DatasetError if the table names none of the samples.
        """
        hashes: list[Hashes] = []
        named: dict[str, int] = {}
        example = ""
        labels: set[Label] = set()
        rejects: list[Reject] = []
        for tar in _read(tasks, records, table):
            if table is not None and tar.shard.rows:
                named[tar.shard.name] = sum(table.names_one(row.key) for row in tar.shard.rows)
                example = example or tar.shard.rows[0].key
            hashes.append(hashes_of(row.key for row in tar.shard.rows))
            labels.update(tar.labels)
            rejects += tar.rejects
        if table is not None and example and not any(named.values()):
            raise DatasetError(
                f"{table.path} names none of the samples: it has names such as {next(iter(table.labels), '')!r}, and a "
                f"sample has the key {example!r}; name the column of keys, ids or paths with --match"
            )
        twice = _repeated(hashes)
        counts = {task.name: len(some) for task, some in zip(tasks, hashes, strict=True)}
        if twice:
            for tar, kept, refused in _kept(_read(tasks, records, table), twice):
                counts[tar.shard.name] = len(kept)
                if table is not None:
                    named[tar.shard.name] = sum(table.names_one(row.key) for row, _ in kept)
                rejects += refused
        for tar in _read([task for task in tasks if not counts[task.name]], records, table):
            if not tar.rejects:
                rejects.append(Reject(source=tar.shard.name, stage="tar", reason="holds no sample"))
        return cls(
            tasks=tasks,
            records=records,
            table=table,
            numbers=Numbers.of(labels),
            samples=sum(counts.values()),
            named=sum(named.values()),
            empty=tuple(name for name, count in counts.items() if not count),
            rejects=rejects,
            twice=twice,
            unlabelled=not labels - {None},
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The sorted names of the labels; () if all are numbers."""
        return self.numbers.names

    def shards(self, output: Output) -> Iterator[ShardRecord]:
        """The shards with their labels, in the order of their names. The idx of each is written to `output`."""
        for tar, kept, _ in _kept(_read(self.tasks, self.records, self.table), self.twice):
            if not kept:
                continue
            rows = tuple(replace(row, label=self.numbers.of_label(label)) for row, label in kept)
            shard = replace(tar.shard, rows=rows)
            index = idx_text((row.key, row.spans) for row in rows)
            output.publish(sidecar_name(shard.name, ".idx"), index.encode())
            yield shard


def _read(tasks: Sequence[TarTask], records: Records[IndexedTar], table: LabelTable | None) -> Iterator[IndexedTar]:
    """The tars, with the labels of the table where it names a sample."""
    for task in tasks:
        tar = records.read(task)
        if tar is None:
            raise ShardError(f"the record of {task.name} is damaged or gone; run the same command again")
        if table is not None:
            both = zip(tar.shard.rows, tar.labels, strict=True)
            tar = replace(tar, labels=tuple(table.label(row.key, label) for row, label in both))
        yield tar


def _repeated(hashes: Sequence[Hashes]) -> frozenset[int]:
    """The hashes that occur more than once."""
    every = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    return frozenset(every[1:][every[1:] == every[:-1]].tolist())


def _kept(
    tars: Iterator[IndexedTar], twice: frozenset[int]
) -> Iterator[tuple[IndexedTar, list[tuple[Row, Label]], list[Reject]]]:
    """Each tar with the rows to keep and their labels, and the rejects of those whose key an earlier tar holds."""
    taken: dict[str, str] = {}
    for tar in tars:
        kept, refused = [], []
        found = hashes_of(row.key for row in tar.shard.rows).tolist() if twice else [None] * len(tar.shard.rows)
        for row, label, number in zip(tar.shard.rows, tar.labels, found, strict=True):
            if number in twice:
                if row.key in taken:
                    reason = f"its key is in {taken[row.key]} too; keys must be unique within a split"
                    refused.append(Reject(source=row.source, stage="tar", reason=reason))
                    continue
                taken[row.key] = tar.shard.name
            kept.append((row, label))
        yield tar, kept, refused
