"""What a loader goes through: one dataset, or several that are mixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol

from .order import Int64Array
from .sampler import BatchT, DraftT, Finish, HostT, RequestT, Sampler
from .samples import Samples


class Visible(Protocol):
    """Called with the steps of a run it says how many tokens of a sample are visible at each, int64 (steps,).

    ValueError where that is not a function of the step alone.
    """

    def __call__(self, steps: int) -> Int64Array: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Source(Generic[RequestT, DraftT, HostT, BatchT]):
    """Everything that decides batches but their size, and what makes them.

    sampler, finish: the stages of a batch (see sampler.py). samples: which, in which order. identity: what a resume
    compares, JSON-able; the order says its own. visible: the visible tokens of a sample, for a token budget; None
    without a mask. form: settings by name in which all parts of a mixture must agree, because they share batches.
    """

    sampler: Sampler[RequestT, DraftT, HostT]
    finish: Finish[HostT, BatchT]
    samples: Samples
    identity: dict[str, Any]
    visible: Visible | None = None
    form: Mapping[str, object] = field(default_factory=dict)
