"""What one process does: encode the sources of a shard and write its tar."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain

from ..shards.record import ShardRecord
from ..shards.sample import Reject, Sample
from ..shards.writer import write_shard
from .datasets.dataset import Source
from .encode.profile import VideoProfile
from .encode.reject import RejectError
from .encode.video import encode_video
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
            sample = video_sample(source, task.profile)
        except RejectError as error:
            rejects.append(Reject(source=source.id, stage=error.stage, reason=error.reason))
        except Exception as error:
            error.add_note(f"while working on the source {source.id!r}, {source.path}")
            raise
        else:
            yield sample
        report("")


def video_sample(source: Source, profile: VideoProfile) -> Sample:
    """One source as a sample of the members `mp4` and `json`; RejectError where it cannot become one."""
    encoded = encode_video(source.path, profile, source.window)
    described = {"label": source.label, "source": source.id, **encoded.meta}
    return Sample(
        key=sample_key(source.id),
        components={"mp4": encoded.data, "json": json.dumps(described).encode()},
        source=source.id,
        label=source.label,
        video=encoded.index,
    )
