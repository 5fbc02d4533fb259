"""The place of a sample in the run: its batch, its row and the progress of the run.

What a batch shares is drawn by generators of the global batch's number. A sample knows its row, so ranks and workers
agree without communication.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The place of a sample in the run. It is the same at every topology, since batches span all ranks.

    step: the number of its batch, from 0, counted through all epochs. row: its row in that global batch of `rows` rows.
    progress: in [0, 1], 0 at the first batch of the run, 1 at the last batch and after it.
    """

    step: int = 0
    row: int = 0
    rows: int = 1
    progress: float = 0.0


START = Place()


def progress_of(step: int, steps: int | None) -> float:
    """The progress of batch `step` in a run of `steps` batches; 0 if `steps` is None."""
    if steps is None:
        return 0.0
    return 1.0 if steps == 1 else min(step / (steps - 1), 1.0)
