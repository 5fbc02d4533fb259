"""What a run counts over all its restarts, and keeps in its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .loss_scale import LossScale


@dataclass(kw_only=True, slots=True)
class Tally:
    """began_unix_s: when the run began for the first time. useful_s: seconds of the steps that count, without waiting
    for data; steps that a restart repeats count once. skipped: steps that were left out. scale: of the loss in float16.
    """

    began_unix_s: float = field(default_factory=time.time)
    useful_s: float = 0.0
    skipped: int = 0
    scale: LossScale = field(default_factory=LossScale)

    @property
    def goodput(self) -> float:
        """The share, in [0, 1], of the wall time since the run began that went into steps that count."""
        return min(self.useful_s / max(time.time() - self.began_unix_s, 1e-9), 1.0)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """The tally of a checkpoint. One of an earlier release has none, and begins here."""
        if not saved:
            return cls()
        scale = saved["scale"]
        return cls(
            began_unix_s=float(saved["began_unix_s"]),
            useful_s=float(saved["useful_s"]),
            skipped=int(saved["skipped"]),
            scale=LossScale(value=float(scale["value"]), good_steps=int(scale["good_steps"])),
        )
