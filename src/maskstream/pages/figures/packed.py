"""Figures of packed rows: the sample of each token of a row, and the visible tokens of each sample."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from maskstream.pipelines.modalities.packed.batch import PackedBatch
from maskstream.shards.arrays import Bools, UInt8s

from .card import Card, Facts, Picture, join_picture_row, label_words
from .figures import MaskRow, mask_facts, received
from .pictures import compared, draw_row, grown, make_darker, picture, resize, spread
from .words import plural

ACROSS, CELL_PX = 64, 16
"""Number of tokens in a line of a row's image, and side of a token in pixels."""
SIDE_PX, COMPARED_PX, STEPS = 160, 224, 4
"""Longer side of a sample's image, also in comparisons, and largest number of drawn time steps of a clip."""
EMPTY = (238, 240, 245)
GOLDEN = 0.618034
"""Difference of hue between consecutive samples, as a fraction of a turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFigures:
    """Figures of packed rows: `sample` draws a row of a batch, `compared` one of its samples."""

    label_names: Sequence[str] = ()

    def about(self, batch: PackedBatch) -> tuple[str, dict[str, str]]:
        """Describe the rows and their tokens."""
        rows, n, p = len(batch.cu_rows) - 1, len(batch), batch.patch
        steps = f" in {batch.tubelet} time steps" if batch.tubelet > 1 else ""
        lede = (
            f"{received(rows, 'row')}, of {plural(n, 'sample')} at their native size and aspect ratio. A row has "
            f"room for {batch.row_tokens:,} visible tokens, and each token attends to tokens of the same sample. "
            f"A token is a patch of {p} x {p} pixels{steps}."
        )
        sizes = batch.cu_seqlens.diff()
        return lede, {
            "tokens of a sample": f"{int(sizes.min()):,} to {int(sizes.max()):,}" if n else "",
            "empty": f"{max(batch.empty, 0.0):.1%} of the rows' room",
        }

    def sample(self, batch: PackedBatch, i: int) -> Card:
        """Draw row `i`: its visible tokens in order, and its samples.

        Args:
            batch: The batch.
            i: Row.
        """
        first, last = batch.cu_rows[i : i + 2].tolist()
        mask, name = _mask(batch, first, last), f"row {i + 1}"
        seen = int(batch.cu_seqlens[first]) + np.flatnonzero(~mask.masked)
        of = np.searchsorted(batch.cu_seqlens[first + 1 : last].cpu().numpy(), seen, side="right")
        hues = np.array([_colour(number) for number in range(last - first)], np.uint8).reshape(-1, 3)
        cells = np.broadcast_to(hues[of][:, None, None], (len(of), CELL_PX, CELL_PX, 3))
        tokens = batch.tokens[seen].cpu().numpy().reshape(len(seen), batch.tubelet, batch.patch, batch.patch, 3)[:, 0]
        tokens = resize(tokens, CELL_PX, CELL_PX) if len(seen) else tokens[:, :CELL_PX, :CELL_PX]
        order = join_picture_row(
            picture(_lines(batch, cells), f"the samples of {name}", "by sample", lossless=True),
            picture(_lines(batch, tokens), f"the visible tokens of {name}", "by pixels"),
            across=1,
            title="The row",
            words=f"Each cell is a visible token, {ACROSS} to a line: above in the colour of its sample, below with "
            "its pixels. Empty cells are unused space, because no other sample fits.",
        )
        samples = join_picture_row(
            *(self._shown(batch, s, s - first) for s in range(first, last)),
            across=10,
            title="Its samples",
            words="Number of tokens, and of visible ones: bright patches are visible, grey ones hidden. The line below "
            f"has the sample's colour. For a clip, up to {STEPS} time steps are drawn.",
        )
        words = f"{plural(last - first, 'sample')}, {mask.visible:,} of {batch.row_tokens:,} visible tokens"
        return Card(
            key=batch.key[first] if last > first else name,
            title=f"Row {i + 1}",
            words=words,
            facts=(Facts(items=mask_facts(mask)),),
            figures=(replace(order, wide=True), replace(samples, wide=True)),
            missing=() if batch.mask is not None else ("The loader was built without a mask.",),
        )

    def compared(self, batch: PackedBatch, made: PackedBatch, i: int) -> Card:
        """Draw the original sample `i`, its visible part, and the model's reconstruction.

        Args:
            batch: The original batch.
            made: The reconstructed batch.
            i: Index of the sample.
        """
        pixels, hidden = _frames(batch, i, COMPARED_PX)
        shown = compared(pixels, _frames(made, i, COMPARED_PX)[0], hidden, hidden)
        montages = {name: _join_montage(frames) for name, frames in shown.items()}
        words = f"{_size(batch, i)} tokens, {_mask(batch, i, i + 1).visible:,} visible"
        return Card(key=batch.key[i], words=words, figures=(draw_row(montages, batch.key[i]),))

    def _shown(self, batch: PackedBatch, i: int, number: int) -> Picture:
        """Draw the visible tokens of a sample, with its colour below."""
        pixels, hidden = _frames(batch, i, SIDE_PX)
        shown = _join_montage(make_darker(pixels, grown(hidden, *pixels.shape[1:3])))
        line = np.broadcast_to(np.array(_colour(number), np.uint8), (6, shown.shape[1], 3))
        label = label_words(int(batch.label[i]), self.label_names)
        visible = f"{_mask(batch, i, i + 1).visible:,} visible"
        caption = f"{_size(batch, i)}, {visible}{f', {label}' if label else ''}"
        return picture(np.concatenate([shown, line]), batch.key[i], caption)


def _mask(batch: PackedBatch, first: int, last: int) -> MaskRow:
    """Return the mask of consecutive samples; without one all tokens are visible."""
    tokens, mask = slice(*batch.cu_seqlens[[first, last]].tolist()), batch.mask
    masked, targeted = np.zeros((2, tokens.stop - tokens.start), np.bool_)
    if mask is None:
        return MaskRow(masked=masked, targeted=targeted)
    wanted = slice(*mask.cu_target[[first, last]].tolist())
    targeted[mask.target[wanted].cpu().numpy() - tokens.start] = True
    return MaskRow(
        masked=mask.masked[tokens].cpu().numpy(),
        targeted=targeted,
        weightless_targets=int((mask.weight[wanted] == 0).sum()),
    )


def _size(batch: PackedBatch, i: int) -> str:
    """Format a sample's tokens along its axes, with time only if there is more than one step."""
    sizes = batch.grid_thw[i].tolist()
    return " x ".join(map(str, sizes if sizes[0] > 1 else sizes[1:]))


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.62, 0.86)
    return round(255 * red), round(255 * green), round(255 * blue)


def _lines(batch: PackedBatch, cells: UInt8s) -> UInt8s:
    """Arrange cells (n, CELL_PX, CELL_PX, 3) in lines of ACROSS with thin gaps, followed by empty cells."""
    n = -(-max(batch.row_tokens, len(cells)) // ACROSS) * ACROSS
    whole = np.full((n, CELL_PX, CELL_PX, 3), 255, np.uint8)
    whole[: batch.row_tokens] = EMPTY
    whole[: len(cells)] = cells
    whole[:, -1], whole[:, :, -1] = 255, 255
    return whole.reshape(-1, ACROSS, CELL_PX, CELL_PX, 3).swapaxes(1, 2).reshape(-1, ACROSS * CELL_PX, 3)


def _frames(batch: PackedBatch, i: int, side_px: int) -> tuple[UInt8s, Bools]:
    """Return the first frame of each time step of a sample, uint8 (t, H, W, 3), at most STEPS of them, and the hidden
    tokens, bool (t, h, w).
    """
    (t, h, w), p = batch.grid_thw[i].tolist(), batch.patch
    cells = batch.tokens[slice(*batch.cu_seqlens[i : i + 2].tolist())].cpu().numpy()
    kept = spread(t, STEPS)
    cell = max(1, round(side_px / max(h, w)))
    whole = cells.reshape(t, h, w, batch.tubelet, p, p, 3)[kept, :, :, 0].swapaxes(2, 3)
    frames = resize(whole.reshape(len(kept), h * p, w * p, 3), h * cell, w * cell)
    return frames, _mask(batch, i, i + 1).masked.reshape(t, h, w)[kept]


def _join_montage(frames: UInt8s) -> UInt8s:
    """Arrange frames (t, h, w, 3) in reading order in a square on white."""
    t, h, w, _ = frames.shape
    across = ceil(t**0.5)
    whole = np.full((-(-t // across) * across, h, w, 3), 255, np.uint8)
    whole[:t] = frames
    return whole.reshape(-1, across, h, w, 3).swapaxes(1, 2).reshape(-1, across * w, 3)
