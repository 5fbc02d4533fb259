"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The end of a run: steps done, steps planned, and the mean loss of the last 20 (None if this call did none)."""

    out: Path
    step: int
    steps: int
    loss: float | None

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done; False after a signal."""
        return self.step >= self.steps
