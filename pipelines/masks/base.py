"""What every mask is: a frozen config that draws, and the helper that turns a map of tokens into a MaskBatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..batch import Flow, MaskBatch
from .grid import TokenGrid


class Mask(ABC):
    """A rule that draws masks. A pattern says in `hide` what happens to one sample; `draw` makes the batch.

    A sample's mask depends on its own generator (and its own flow) and on nothing else: neither on the batch that it is
    drawn in nor on any global state. Subclasses are frozen dataclasses: picklable, and their repr rebuilds them.
    """

    __slots__ = ()

    @property
    def needs_flow(self) -> bool:
        """Whether `draw` must be given the clips' flow."""
        return False

    @abstractmethod
    def hide(
        self,
        grid: TokenGrid,
        rng: np.random.Generator,
        *,
        flow: npt.NDArray[np.float32] | None,
        progress: float,
    ) -> npt.NDArray[np.bool_]:
        """The hidden tokens of one sample, bool (N,). `flow` is its part of `Flow.vectors`, (T-1, h, w, 2)."""

    def draw(
        self,
        grid: TokenGrid,
        rngs: Sequence[np.random.Generator],
        *,
        flow: Flow | None = None,
        progress: float = 0.0,
    ) -> MaskBatch:
        """Masks for len(rngs) samples, on the CPU.

        `flow` holds the flow of the same samples in the same order (ignored unless `needs_flow`); `progress` is how far
        training has come, in [0, 1], for laws that change with it. Raises ValueError where the grid has not the axes or
        the lengths that the pattern needs, where flow is missing, and where samples got different counts.
        """
        masked = np.empty((len(rngs), grid.size), dtype=np.bool_)
        vectors = self._vectors(flow, len(rngs)) if self.needs_flow else [None] * len(rngs)
        for i, rng in enumerate(rngs):
            masked[i] = self.hide(grid, rng, flow=vectors[i], progress=progress)
        return mask_batch(masked)

    def _vectors(self, flow: Flow | None, samples: int) -> Sequence[npt.NDArray[np.float32]]:
        if flow is None:
            raise ValueError(f"{type(self).__name__} is guided by motion: give draw(flow=...), got None")
        if flow.vectors.ndim != 5 or len(flow.vectors) != samples or flow.vectors.shape[-1] != 2:
            raise ValueError(
                f"flow.vectors is (B, T-1, h, w, 2) for the B={samples} samples, got {tuple(flow.vectors.shape)}"
            )
        vectors: npt.NDArray[np.float32] = flow.vectors.numpy(force=True)
        return list(vectors)


def mask_batch(masked: npt.NDArray[np.bool_], target: npt.NDArray[np.bool_] | None = None) -> MaskBatch:
    """The MaskBatch of `masked` bool (B, N), True = hidden from the encoder, and `target` bool (B, N).

    Without `target` every masked token is reconstructed and counts 1. With it, those tokens are, and one that the
    encoder saw counts 0. Raises ValueError where the samples' counts differ: index tensors are rectangular.
    """
    weight = masked if target is None else masked & target
    target_index = _positions(masked if target is None else target, "targets")
    return MaskBatch(
        masked=torch.from_numpy(masked),
        visible=_positions(~masked, "visible tokens"),
        target=target_index,
        weight=torch.from_numpy(weight).gather(1, target_index).to(torch.float32),
    )


def _positions(chosen: npt.NDArray[np.bool_], what: str) -> Tensor:
    """The sorted int64 (B, count) positions of the True tokens of each row."""
    counts = chosen.sum(axis=1)
    count = int(counts[0]) if len(counts) else 0
    if (counts != count).any():
        raise ValueError(
            f"the samples of a batch need equally many {what}, got from {counts.min()} to {counts.max()}; "
            "use a law that gives one ratio to the whole batch"
        )
    return torch.from_numpy(np.nonzero(chosen)[1].reshape(len(chosen), count).astype(np.int64, copy=False))
