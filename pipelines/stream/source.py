"""A source of batches: one dataset, or a mixture of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol

from maskstream.shards.config import check_type

from .order import Int64Array
from .sampler import BatchT, DraftT, Finish, HostT, RequestT, Sampler
from .samples import Samples


class Visible(Protocol):
    """Maps the steps of a run to the number of visible tokens of a sample at each step, int64 (steps,).

    Raises ValueError if that number is not a function of the step alone.
    """

    def __call__(self, steps: int) -> Int64Array: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSource(Generic[RequestT, DraftT, HostT, BatchT]):
    """Everything that decides the content of batches, except their size.

    sampler, finish: the stages of a batch (see sampler.py). samples: the samples and their order. identity: the
    settings that a resume compares, JSON-able; the order adds its own. visible: the visible tokens of a sample, for a
    token budget; None without a mask. form: the settings, by name, that all parts of a mixture must share.
    """

    sampler: Sampler[RequestT, DraftT, HostT]
    finish: Finish[HostT, BatchT]
    samples: Samples
    identity: dict[str, Any]
    visible: Visible | None = None
    form: Mapping[str, object] = field(default_factory=dict)


def check_source(source: object, taker: str) -> None:
    """ValueError unless something is a source; taker: who takes it, such as "Loader takes"."""
    remedy = '; make one with VideoData(...).source(Split.open(FOLDER, "video")), or open FOLDER with video_loader'
    check_type(f"{taker} sources: ", source, BatchSource, remedy=remedy)
