"""Kernels of motion-guided masks on maps of the plane: mixed bumps, sums over tokens, and the highest tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.jit import kernel

from .map_backend import MotionDraws
from .warp import Floats, carry


@kernel
def highest_bump(down: Floats, across: Floats, chosen: npt.NDArray[np.int64], faint: np.float32) -> Floats:
    """The maximum of the chosen patches' bumps over its greatest value, at least `faint`: (H, W).

    A patch's bump is a row of down (h, H) times a row of across (w, W); patches are numbered row by row.
    """
    patches, height, width = len(across), down.shape[1], across.shape[1]
    mixed = np.zeros((height, width), dtype=np.float32)
    for patch in chosen:
        rows, column = down[patch // patches], across[patch % patches]
        for r in range(height):
            line, row = mixed[r], rows[r]
            for c in range(width):
                line[c] = max(line[c], row * column[c])
    flat, greatest = mixed.reshape(-1), np.float32(0.0)
    for n in range(flat.size):
        greatest = max(greatest, flat[n])
    for n in range(flat.size):
        flat[n] = max(flat[n] / greatest, faint)
    return mixed


@kernel
def token_sums(maps: Floats, tubelet: int, cells: int) -> Floats:
    """The sums of maps (T, H, W) over tokens of `tubelet` frames and cells x cells cells: (T / tubelet, N)."""
    frames, height, width = maps.shape
    h, w = height // cells, width // cells
    sums = np.zeros((frames // tubelet, h * w), dtype=np.float32)
    line = np.empty(width, dtype=np.float32)
    for t in range(frames // tubelet):
        for row in range(h):
            for c in range(width):
                line[c] = 0.0
            for frame in range(t * tubelet, (t + 1) * tubelet):
                for r in range(row * cells, (row + 1) * cells):
                    for c in range(width):
                        line[c] += maps[frame, r, c]
            for c in range(width):
                sums[t, row * w + c // cells] += line[c]
    return sums


@kernel
def all_but_highest(scores: Floats, visible: int, order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The map that hides all but the `visible` highest tokens of each row: bool, of scores' shape (rows, N).

    Of equal ones those stay visible that `order`, a permutation of a row's tokens, names first.
    """
    hidden = np.ones(scores.shape, dtype=np.bool_)
    best = np.empty(max(visible, 1), dtype=np.int64)  # so far, the highest first
    for row in range(len(scores) if visible else 0):
        line, count = scores[row], 0
        for n in order:
            place = count
            if count == visible:
                if line[n] <= line[best[visible - 1]]:
                    continue
                place -= 1
            else:
                count += 1
            while place > 0 and line[best[place - 1]] < line[n]:
                best[place] = best[place - 1]
                place -= 1
            best[place] = n
        for n in best[:count]:
            hidden[row, n] = False
    return hidden


class NumbaMaps:
    """`MapBackend` for lists of arrays."""

    def carry(
        self,
        draws: Sequence[MotionDraws],
        flow: list[Floats],
        *,
        cell: tuple[float, float],
        fill: bool,
        compat: bool,
    ) -> list[Floats]:
        """The start maps carried along the flow."""
        pairs = zip(draws, flow, strict=True)
        return [carry(own.start, field, own.base, cell=cell, fill=fill, compat=compat) for own, field in pairs]

    def token_sums(self, maps: list[Floats], tubelet: int, cells: int) -> list[Floats]:
        """The sums over tokens."""
        return [token_sums(own, tubelet, cells) for own in maps]

    def disturbed(self, scores: list[Floats], draws: Sequence[MotionDraws], scale: float) -> list[Floats]:
        """The scores times `scale`, plus the noise."""
        for own, drawn in zip(scores, draws, strict=True):
            own *= np.float32(scale)
            if drawn.noise is not None:
                own[drawn.noise[0]] += drawn.noise[1]
        return scores

    def all_but_highest(
        self, scores: list[Floats], draws: Sequence[MotionDraws], *, whole: bool
    ) -> list[npt.NDArray[np.bool_]]:
        """The maps of hidden tokens."""
        return [
            all_but_highest(own.reshape(1, -1) if whole else own, drawn.visible, drawn.order).reshape(-1)
            for own, drawn in zip(scores, draws, strict=True)
        ]
