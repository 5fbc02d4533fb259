"""What one process does: encode the sources of a shard and write its tar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain

from ..shards.format.record import ShardRecord
from ..shards.format.sample import Reject, Sample
from ..shards.format.writer import write_shard
from .datasets.dataset import Source
from .encode.encoder import Encoder
from .encode.reject import RejectError
from .plan import ShardTask, sample_key


def write_task(task: ShardTask, report: Callable[[str], None]) -> tuple[ShardRecord | None, list[Reject]]:
    """Write the shard of `task`; the record is None, and there is no tar, where every source was rejected.

    `report` gets the id of each source before it is worked on, and an empty word when it is done.
    """
    rejects: list[Reject] = []
    samples = _samples(task, rejects, report)
    first = next(samples, None)
    if first is None:
        return None, rejects
    return write_shard(task.path, chain([first], samples)), rejects


def _samples(task: ShardTask, rejects: list[Reject], report: Callable[[str], None]) -> Iterator[Sample]:
    for source in task.sources:
        report(source.id)
        try:
            sample = encoded_sample(source, task.encoder)
        except RejectError as error:
            rejects.append(Reject(source=source.id, stage=error.stage, reason=error.reason))
        except Exception as error:
            error.add_note(f"while working on the source {source.id!r}, {source.path}")
            raise
        else:
            yield sample
        report("")


def encoded_sample(source: Source, encoder: Encoder) -> Sample:
    """One source as a sample: the encoder's members and `json`; RejectError where it cannot become one."""
    encoded = encoder.encode(source)
    described = {"label": source.label, "source": source.id, **source.meta, **encoded.meta}
    return Sample(
        key=sample_key(source.id),
        components={**encoded.members, "json": json.dumps(described).encode()},
        source=source.id,
        label=source.label,
        video=encoded.video,
        facts=encoded.facts,
        sums=encoded.sums,
    )
