"""Feedback channel: the trainer sends class scores to the loader, for masks that follow them.

    feedback = Feedback(classes=17)
    mask = masks.ByClass(feedback=feedback)                    # passed to the loader and to its worker processes
    ...
    for batch in loader:                                       # batch.mask.version: version of the scores it used
        loss, classes = ...                                    # of the tokens at batch.mask.target
        feedback.publish(smoothed(feedback.read().scores, loss, classes))

The loader prepares batches ahead with the scores available at that time, so a batch's version lags by up to the
prefetch depth. Each rank has its own channel. To share one set of scores, reduce the losses over the ranks first and
publish the same scores on each.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xxhash

from maskstream.pipelines.stream.tensors import torch
from maskstream.shards.arrays import Float64s
from maskstream.shards.descriptors import Descriptor, is_starting_process
from maskstream.shards.processes import open_memory_file

if TYPE_CHECKING:
    from torch import Tensor

_TRIES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One version of the scores, float64 (classes,). A new channel has version 0."""

    version: int
    scores: Float64s


class Feedback:
    """Channel for the scores of `classes` classes: the process that created it publishes, all processes read.

    The scores are in an anonymous memory file whose descriptor worker processes inherit, so nothing is left behind when
    processes are killed. Two slots are written in turn, each with a version and a checksum, and readers use the newest
    slot with a valid checksum. Readers therefore need no lock and never see a half-written slot.

    Args:
        classes: Number of classes.
        scores: Initial scores, by default 0; after a resume, the last scores returned by `read`.
        version: Version of the initial scores.
    """

    _file: int | None = None

    def __init__(
        self, classes: int, scores: Sequence[float] | npt.NDArray[Any] | None = None, version: int = 0
    ) -> None:
        if classes < 1 or version < 0:
            raise ValueError(
                f"a channel must have at least 1 class and a version of at least 0, got {classes=} and {version=}"
            )
        self.classes = classes
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._map(open_memory_file(2 * 8 * (classes + 2)))
        self._write(version, self._checked(np.zeros(classes) if scores is None else scores))

    def publish(self, scores: Sequence[float] | npt.NDArray[Any] | Tensor) -> int:
        """Publish `scores`, (classes,), and return their version.

        Raises:
            ValueError: The shape is wrong or a value is not finite.
            RuntimeError: This process did not create the channel.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("only the process that created the channel, such as the trainer, may publish")
        checked = self._checked(scores.detach().cpu().numpy() if isinstance(scores, torch.Tensor) else scores)
        with self._lock:
            version = self.read().version + 1
            self._write(version, checked)
        return version

    def read(self) -> Published:
        """Return the newest complete scores; can be called from any process and thread."""
        for _ in range(_TRIES):
            first, second = self._slot(0), self._slot(1)
            if second is not None:
                return second if first is None or first.version < second.version else first
            again = self._slot(0)
            if first is not None and again is not None and first.version == again.version:
                return first  # otherwise the writer started to overwrite the first slot before the second was complete
        raise RuntimeError("the feedback contains no complete scores: another program has written to its shared memory")

    def _checked(self, scores: Sequence[float] | npt.NDArray[Any]) -> Float64s:
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (self.classes,) or not np.isfinite(values).all():
            raise ValueError(f"the scores must be {self.classes} finite numbers, got {scores!r}")
        return values

    def _write(self, version: int, scores: Float64s) -> None:
        data = version.to_bytes(8, "little") + scores.tobytes()
        self._memory[version % 2] = np.frombuffer(data + xxhash.xxh3_64_digest(data), dtype=np.uint8)

    def _slot(self, place: int) -> Published | None:
        """Return the scores of one of the two slots, or None if it is incomplete."""
        copy = self._memory[place].tobytes()
        if xxhash.xxh3_64_digest(copy[:-8]) != copy[-8:]:
            return None
        return Published(version=int.from_bytes(copy[:8], "little"), scores=np.frombuffer(copy[8:-8]))

    def _map(self, file: int) -> None:
        """Map the memory file with this descriptor, which is closed with this object."""
        self._file = file
        memory = mmap.mmap(file, 2 * 8 * (self.classes + 2))
        self._memory = np.frombuffer(memory, np.uint8).reshape(2, -1)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._file is not None:
            close(self._file)

    def __getstate__(self) -> tuple[int, int, Descriptor]:
        if not is_starting_process() or self._file is None:  # a copied buffer would never change
            raise RuntimeError("feedback can be pickled only for a process that is being started, as loaders do")
        return self.classes, self._owner, Descriptor(self._file)

    def __setstate__(self, state: tuple[int, int, Descriptor]) -> None:
        self.classes, self._owner, descriptor = state
        self._lock = threading.Lock()
        self._map(descriptor.number)


def smoothed(scores: Float64s, loss: Tensor, classes: Tensor, momentum: float = 0.999) -> Float64s:
    """Update moving averages of the class losses with one batch: momentum * score + (1 - momentum) * mean loss.

    Classes that do not occur keep their score. On CUDA this synchronises once. Source: Yang et al. 2023, POS-tagging
    weighted masking.

    Args:
        scores: float64 (C,), the moving averages.
        loss: float (M,), loss of each masked token.
        classes: int64 (M,), their classes; below 0 for none.
        momentum: Weight of the old average.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    if loss.shape != classes.shape:
        raise ValueError(f"each loss needs a class, got losses {tuple(loss.shape)} and classes {tuple(classes.shape)}")
    n = len(scores)
    places = torch.where(classes < 0, n + 1, classes.clamp(max=n)).flatten()
    sums = torch.zeros(2, n + 2, dtype=torch.float64, device=loss.device)
    ones = torch.ones_like(places, dtype=torch.float64)
    sums.index_add_(1, places, torch.stack([loss.detach().flatten().double(), ones]))
    known = sums.cpu().numpy()
    if known[1, n]:
        raise ValueError(
            f"there are scores only for classes 0 to {n - 1}, got {int(known[1, n])} losses for higher classes"
        )
    total, count = known[:, :n]
    mean = total / np.maximum(count, 1)
    return np.where(count > 0, momentum * scores + (1 - momentum) * mean, scores)
