"""Where in a run a sample is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A sample's place: the same at every topology, since batches are counted over all ranks.

    step: the number of its batch in the run, from 0, epochs counted through. row: its number within that batch, of
    `rows`. progress: how far the run has come, in [0, 1]: 0 at the first batch, 1 at the last and from then on.
    """

    step: int = 0
    row: int = 0
    rows: int = 1
    progress: float = 0.0


START = Place()


def progress_of(step: int, steps: int | None) -> float:
    """The progress of batch `step` in a run of `steps` batches; 0 where the length of the run is not known."""
    if steps is None:
        return 0.0
    return 1.0 if steps == 1 else min(step / (steps - 1), 1.0)
