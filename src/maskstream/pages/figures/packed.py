"""Figures of packed rows: which sample each token of a row is of, and what the encoder sees of each sample."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.packed.batch import PackedBatch

from .card import Card, Facts, Picture, PictureGrid, label_words
from .figures import MaskCounts, mask_facts
from .pictures import Bool, UInt8, darken, data_uri, resize
from .words import plural

ACROSS, CELL_PX = 64, 16
"""The tokens of a line of a row's picture, and the side of one in pixels."""
SIDE_PX, COMPARED_PX, STEPS = 160, 224, 4
"""The longer side of a picture of a sample, and the most time steps of a clip that are shown."""
EMPTY = (238, 240, 245)
GOLDEN = 0.618034
"""By this share of a turn the hue of each sample differs from that of the one before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFigures:
    """Of packed rows. `sample` draws a row of a batch, `compared` one of its samples."""

    label_names: Sequence[str] = ()

    def about(self, batch: PackedBatch) -> tuple[str, dict[str, str]]:
        """A description of the rows and of their tokens."""
        rows, n, p = len(batch.cu_rows) - 1, len(batch), batch.patch
        steps = f" in {batch.tubelet} time steps" if batch.tubelet > 1 else ""
        lede = (
            f"{plural(rows, 'row')} as the training loop receives {'it' if rows == 1 else 'them'}, of "
            f"{plural(n, 'sample')} at their own size and aspect. A row has room for {batch.row_tokens:,} visible "
            f"tokens, and each token attends to those of its own sample. A token is a patch of {p} x {p} pixels{steps}."
        )
        sizes = batch.cu_seqlens.diff()
        facts = {
            "tokens of a sample": f"{int(sizes.min()):,} to {int(sizes.max()):,}" if n else "",
            "empty": f"{max(batch.empty, 0.0):.1%} of the rows' room",
        }
        return lede, facts

    def sample(self, batch: PackedBatch, i: int) -> Card:
        """Row `i`: its visible tokens in the order of the row, and its samples."""
        first, last = batch.cu_rows[i : i + 2].tolist()
        samples = range(first, last)
        counts = [self._counts(batch, s) for s in samples]
        visible = sum(one.visible for one in counts)
        whole = MaskCounts(
            tokens=sum(one.tokens for one in counts),
            visible=visible,
            mask_tokens=0,
            targets=sum(one.targets for one in counts),
            weightless_targets=sum(one.weightless_targets for one in counts),
        )
        shown = tuple(self._shown(batch, s, one, s - first) for s, one in zip(samples, counts, strict=True))
        row = f"row {i + 1}"
        return Card(
            key=batch.key[first] if len(samples) else row,
            title=f"Row {i + 1}",
            words=f"{plural(len(samples), 'sample')}, {visible:,} of {batch.row_tokens:,} visible tokens",
            facts=(Facts(items=mask_facts(whole)),),
            figures=(
                PictureGrid(
                    items=(
                        Picture(
                            uri=data_uri(_colours(batch, samples), lossless=True),
                            alt=f"the samples of {row}",
                            caption="by sample",
                        ),
                        Picture(
                            uri=data_uri(_tokens(batch, samples)),
                            alt=f"the visible tokens of {row}",
                            caption="by pixels",
                        ),
                    ),
                    across=1,
                    wide=True,
                    title="The row",
                    words=f"Each cell is a visible token, {ACROSS} to a line: above in the colour of its sample, below "
                    "with its pixels. Empty cells are room that no sample fits into.",
                ),
                PictureGrid(
                    items=shown,
                    across=10,
                    wide=True,
                    title="Its samples",
                    words="Their tokens, and how many are visible: bright patches, grey ones are hidden. The line "
                    f"below has the sample's colour. Of a clip up to {STEPS} time steps are shown.",
                ),
            ),
            missing=() if batch.mask is not None else ("The loader was built without a mask.",),
        )

    def compared(self, batch: PackedBatch, made: PackedBatch, i: int) -> Card:
        """Sample `i` as it was, as the encoder saw it, and as the model makes it."""
        pixels, hidden = _frames(batch, i, COMPARED_PX)
        completed, _ = _frames(made, i, COMPARED_PX)
        seen = darken(pixels, hidden)
        shown = np.where(hidden[..., None], completed, seen).astype(np.uint8)
        items = (("original", pixels), ("the encoder saw", seen), ("reconstruction", shown))
        key, counts = batch.key[i], self._counts(batch, i)
        return Card(
            key=key,
            words=f"{_size(batch, i)} tokens, {counts.visible:,} visible",
            figures=(
                PictureGrid(
                    items=tuple(
                        Picture(uri=data_uri(_montage(frames)), alt=f"{word} of {key}", caption=word)
                        for word, frames in items
                    ),
                    across=len(items),
                ),
            ),
        )

    def _shown(self, batch: PackedBatch, i: int, counts: MaskCounts, number: int) -> Picture:
        """What the encoder sees of a sample, with its colour below."""
        pixels, hidden = _frames(batch, i, SIDE_PX)
        picture = _montage(darken(pixels, hidden))
        line = np.broadcast_to(np.array(_colour(number), np.uint8), (6, picture.shape[1], 3))
        label = label_words(int(batch.label[i]), self.label_names)
        caption = f"{_size(batch, i)}, {counts.visible:,} visible{f', {label}' if label else ''}"
        return Picture(uri=data_uri(np.concatenate([picture, line])), alt=batch.key[i], caption=caption)

    def _counts(self, batch: PackedBatch, i: int) -> MaskCounts:
        n, mask = int(batch.cu_seqlens[i : i + 2].diff()), batch.mask
        if mask is None:
            return MaskCounts(tokens=n, visible=n, mask_tokens=0, targets=0, weightless_targets=0)
        wanted = slice(*mask.cu_target[i : i + 2].tolist())
        return MaskCounts(
            tokens=n,
            visible=int(mask.cu_visible[i : i + 2].diff()),
            mask_tokens=0,
            targets=wanted.stop - wanted.start,
            weightless_targets=int((mask.weight[wanted] == 0).sum()),
        )


def _size(batch: PackedBatch, i: int) -> str:
    """The tokens of a sample along its axes; time only where there is more than one step."""
    steps, rows, columns = batch.grid_thw[i].tolist()
    return f"{steps} x {rows} x {columns}" if steps > 1 else f"{rows} x {columns}"


def _colour(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.62, 0.86)
    return round(255 * red), round(255 * green), round(255 * blue)


def _visible(batch: PackedBatch, samples: range) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The visible tokens of neighbouring samples, and the sample of each, from 0."""
    first, last = batch.cu_seqlens[[samples.start, samples.stop]].tolist()
    seen = np.arange(first, last)
    if batch.mask is not None:
        seen = seen[~batch.mask.masked[first:last].cpu().numpy()]
    ends = batch.cu_seqlens[samples.start + 1 : samples.stop].cpu().numpy()
    return seen, np.searchsorted(ends, seen, side="right")


def _colours(batch: PackedBatch, samples: range) -> UInt8:
    """The cells of a row in the colours of their samples."""
    _, of = _visible(batch, samples)
    table = np.array([_colour(number) for number in range(len(samples))], np.uint8).reshape(-1, 3)
    return _lines(batch, np.broadcast_to(table[of][:, None, None], (len(of), CELL_PX, CELL_PX, 3)))


def _tokens(batch: PackedBatch, samples: range) -> UInt8:
    """The cells of a row with the pixels of their tokens."""
    seen, _ = _visible(batch, samples)
    side = batch.patch
    pixels = batch.tokens[seen].cpu().numpy().reshape(len(seen), batch.tubelet, side, side, 3)[:, 0]
    return _lines(batch, resize(pixels, CELL_PX, CELL_PX) if len(seen) else pixels[:, :CELL_PX, :CELL_PX])


def _lines(batch: PackedBatch, cells: npt.NDArray[np.uint8]) -> UInt8:
    """Cells (n, CELL_PX, CELL_PX, 3) in lines of ACROSS with thin gaps, and room that is left as empty cells."""
    n = -(-max(batch.row_tokens, len(cells)) // ACROSS) * ACROSS
    whole = np.full((n, CELL_PX, CELL_PX, 3), 255, np.uint8)
    whole[: batch.row_tokens] = EMPTY
    whole[: len(cells)] = cells
    whole[:, -1], whole[:, :, -1] = 255, 255
    return whole.reshape(-1, ACROSS, CELL_PX, CELL_PX, 3).swapaxes(1, 2).reshape(-1, ACROSS * CELL_PX, 3)


def _frames(batch: PackedBatch, i: int, side_px: int) -> tuple[UInt8, Bool]:
    """The first frame of each of a sample's time steps, uint8 (t, h, w, 3), at most STEPS of them, and which pixels the
    encoder does not see, bool (t, h, w).
    """
    own = slice(*batch.cu_seqlens[i : i + 2].tolist())
    (t, h, w), p = batch.grid_thw[i].tolist(), batch.patch
    cells = batch.tokens[own].cpu().numpy().reshape(t, h, w, batch.tubelet, p, p, 3)[:, :, :, 0]
    kept = np.unique(np.linspace(0, t - 1, min(t, STEPS)).round().astype(np.int64))
    cell = max(1, round(side_px / max(h, w)))
    frames = resize(cells[kept].swapaxes(2, 3).reshape(len(kept), h * p, w * p, 3), h * cell, w * cell)
    hidden = np.zeros((t, h, w), np.bool_)
    if batch.mask is not None:
        hidden = batch.mask.masked[own].cpu().numpy().reshape(t, h, w)
    return frames, hidden[kept].repeat(cell, axis=1).repeat(cell, axis=2)


def _montage(frames: UInt8) -> UInt8:
    """Frames (t, h, w, 3) in reading order, as many across as down, on white."""
    t, h, w, _ = frames.shape
    across = ceil(t**0.5)
    whole = np.full((-(-t // across) * across, h, w, 3), 255, np.uint8)
    whole[:t] = frames
    return whole.reshape(-1, across, h, w, 3).swapaxes(1, 2).reshape(-1, across * w, 3)
