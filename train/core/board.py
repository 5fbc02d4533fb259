"""Metrics for TensorBoard, besides metrics.jsonl."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Self

from .metrics import StepMetrics

FOLDER = "tensorboard"


class Board:
    """Writes metrics into the folder `tensorboard` of a run while it is entered; without a run it writes nothing.

    Steps that a restart repeats are written again, and TensorBoard shows the later ones. Raises ValueError if
    TensorBoard is not installed.
    """

    def __init__(self, run: Path | None, step: int) -> None:
        self._writer = None
        if run is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(
                "tensorboard is not installed: pip install 'maskstream[tensorboard]', or leave out --tensorboard"
            ) from error
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, metrics: StepMetrics) -> None:
        """Adds the numbers of a step that are finite."""
        if self._writer is None:
            return
        numbers = {
            "loss": metrics.loss,
            **{f"loss/{name}": value for name, value in metrics.parts.items()},
            "learning rate": metrics.lr,
            "gradient norm": metrics.grad_norm,
            "clips a second": metrics.clips_per_s,
            "waiting for data": metrics.data_wait_share,
            "goodput": metrics.goodput,
            "MFU": metrics.mfu,
        }
        for name, value in numbers.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, metrics.step)
