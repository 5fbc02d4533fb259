"""Decide which of two near-duplicate images or clips is the original.

A copy can be computed from its original, up to the rounding of its own encoder. The original cannot be computed from
the copy, because the copy rounded something away. Each test below uses a trace that a copy cannot hide:

- A cropped copy is found whole within its original.
- An enlarged copy has no detail that the smaller file does not explain.
- A logo adds edges: in the original, the difference between the two has no edges in common with the image.
- The coefficients of a JPEG are multiples of its quantisation steps. The coefficients of a copy are the original's,
  changed in brightness and rounded again. Both directions are tried; in the likelier one the residuals fit the steps of
  the supposed copy, and the histogram of the supposed original has no gaps (Fan and de Queiroz, Identification of
  Bitmap Compression History, 2003; Popescu and Farid, Statistical Tools for Digital Forensics, 2004).
- Clipping: a brightened copy has lost everything beyond white, and a darkened one everything beyond black.
- Of two clips, whose quantisation steps are unknown, the original has more fine detail at equal contrast. Each
  generation of video loses detail, but less contrast also leaves less to encode. If the contrast was changed, the
  histogram is evidence too: rounding the changed values leaves gaps or spikes, which another encoding blurs but does
  not fill.
"""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Bools, Float32s, Float64s, Int64s, UInt8s
from maskstream.shards.media.image_header import detect_image_form
from maskstream.shards.members.text import JSON
from maskstream.shards.members.video import VIDEO

from .measures import Measures, keyframes

_MOST_BLOCKS = 1 << 12
"""Blocks of 8 x 8 pixels that are compared, evenly spread."""
_COSINES = np.array(
    [[np.sqrt((1 if k == 0 else 2) / 8) * np.cos(np.pi * (2 * n + 1) * k / 16) for n in range(8)] for k in range(8)],
    np.float32,
)
_ZIGZAG = sorted(range(64), key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8))
_LOW = [at for at in _ZIGZAG[1:] if at // 8 + at % 8 <= 5]
"""Coefficients whose histograms are compared: the others are zero in most blocks."""
_LOSSY_STEP = 8.0
"""Assumed step of video and WebP: about the step of H.264 at a QP of 22."""
_NOISE = (0.3, 0.45, 0.65, 0.95)
"""Candidate standard deviations of a coefficient after intermediate rounding to 8 bits; the likeliest one is used."""
_STRAY = 0.1
"""Fraction of coefficients that may be anything, because the image was also changed in other ways."""
_MOST_STEPS = 60
_MUCH_CLIPPED = 0.5
"""Mean 8-bit intensity lost to clipping above which it outweighs all other evidence except a logo."""
_SIMILAR_CONTRAST = 0.06
"""Logarithm of the contrast change below which video can lose clipped values by encoding alone."""
_EVIDENCE = np.array([1.0, 0.5, 2.0, -0.5])
"""Weights of the evidence on two clips whose contrast differs: fine detail, clipping, roughness of the histogram, and
contrast. They were chosen on 300 pairs of clips; other pairs gave the figures in docs/curation.md.
"""
_PLACED, _PLACES = 64, np.arange(1, 0.8, -0.03).tolist()
"""Side of the frames in which a cropped copy is searched, and the fractions of a side that it may have."""
_MOST_PLACED = 4
_SIMILAR_SIZE = 1.2
"""Ratio of the heights of clips up to which the larger one may be an enlarged copy; beyond it, the noise of the larger
clip is as strong as the detail of an original.
"""
_MOST_FRAMES = 8
_MOST_COMPARED = 32
"""Members of a group that are compared; the others are rarely better."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """The pixels and quantisation steps of an image or clip that are compared.

    Attributes:
        frames: Frames of one size, uint8 (H, W, 3), BGR.
        luma: Luma of each frame, uint8 (H, W).
        steps: Quantisation steps of luma, (8, 8); ones if lossless, None if unknown.
        source_pixels: Width x height of the source before it was resized.
    """

    frames: Sequence[UInt8s]
    luma: Sequence[UInt8s]
    steps: Float32s | None
    source_pixels: int

    @classmethod
    def from_image(cls, data: bytes, source_pixels: int) -> "Look":
        """Decode an image file that OpenCV reads."""
        packed = np.frombuffer(data, np.uint8)
        colours, luma = (cv2.imdecode(packed, how) for how in (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE))
        return cls(
            frames=[np.asarray(colours, np.uint8)],
            luma=[np.asarray(luma, np.uint8)],
            steps=read_luma_steps(data),
            source_pixels=source_pixels,
        )

    @classmethod
    def from_frames(cls, frames: Sequence[UInt8s], source_pixels: int) -> "Look":
        """Use decoded frames of a clip."""
        luma = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8) for frame in frames]
        return cls(frames=frames, luma=luma, steps=None, source_pixels=source_pixels)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.luma[0].shape
        return height, width

    @property
    def table(self) -> Float32s:
        """Quantisation steps, or an estimate of them."""
        return np.full((8, 8), _LOSSY_STEP, np.float32) if self.steps is None else self.steps

    @cached_property
    def blocks(self) -> tuple[Float32s, UInt8s]:
        """Some 8 x 8 blocks of luma, (n, 8, 8), and of the frames, (n, 8, 8, 3)."""
        return _blocks(self.luma).astype(np.float32), _blocks(self.frames)


def read_luma_steps(data: bytes) -> Float32s | None:
    """Read the quantisation steps of luma from an image file.

    Args:
        data: Bytes of the file.

    Returns:
        The first luma table of a JPEG, float32 (8, 8); ones for lossless formats; None for WebP or a JPEG without a
            table.
    """
    if detect_image_form(data) != "jpg":
        return None if detect_image_form(data) == "webp" else np.ones((8, 8), np.float32)
    at = 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xDB and data[at + 4] & 15 == 0:
            kind = ">u2" if data[at + 4] >> 4 else ">u1"
            table = np.zeros(64, np.float32)
            table[_ZIGZAG] = np.frombuffer(data, kind, 64, at + 5)
            return np.maximum(table.reshape(8, 8), 1)
        at += 2 + length
    return None


def compare(one: Look, other: Look) -> float:
    """Compare two near-duplicates.

    Args:
        one: One image or clip.
        other: Its near-duplicate.

    Returns:
        Positive if `other` seems to be made from `one`, negative for the reverse, 0 if there is no evidence.
    """
    part = float(_is_part(other, one)) - float(_is_part(one, other))
    if part:
        return part
    if one.size != other.size:
        if one.size[0] * one.size[1] < other.size[0] * other.size[1]:
            return -compare(other, one)
        return -1.0 if _is_enlarged(one, other) else 1.0
    if abs(one.source_pixels - other.source_pixels) > 0.02 * one.source_pixels:
        return 1.0 if one.source_pixels > other.source_pixels else -1.0
    if not _is_aligned(one, other):
        return 0.0
    forth, back = _Tone(one, other), _Tone(other, one)
    logo = _find_overlay(one, other, forth), -_find_overlay(other, one, back)
    if logo[0] * logo[1] > 0:
        return logo[0]
    clipped = _compare_clipping(one, other, forth) - _compare_clipping(other, one, back)
    if one.steps is None:
        detail, contrast = _compare_detail(one, other, forth, back), _compare_contrast(forth, back)
        if abs(contrast) < _SIMILAR_CONTRAST:
            return detail
        rougher = float(np.log(_measure_roughness(other) / _measure_roughness(one)))
        evidence = np.array([detail, np.sign(clipped), rougher, contrast])
        return float(evidence @ _EVIDENCE)
    found = clipped if abs(clipped) > _MUCH_CLIPPED else _measure_rounding(one, other, forth, back)
    return found or clipped or _compare_detail(one, other, forth, back) or float(other.table.mean() - one.table.mean())


def _is_part(one: Look, whole: Look) -> bool:
    """Return whether an image shows a part of the other: cut on both axes, because storing a clip crops one axis to a
    multiple of 16.
    """
    side, misfit = _PLACED, np.zeros((len(_PLACES), len(_PLACES)))
    for frame, within in list(zip(one.luma, whole.luma, strict=False))[:_MOST_PLACED]:
        large = cv2.resize(within, (side, side), interpolation=cv2.INTER_AREA)
        for at in np.ndindex(misfit.shape):
            size = (round(side * _PLACES[at[0]]), round(side * _PLACES[at[1]]))
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            misfit[at] += 1 - cv2.matchTemplate(large, small, cv2.TM_CCOEFF_NORMED).max()
    cut, uncut = misfit[1:, 1:].min(), min(misfit[0].min(), misfit[:, 0].min())
    return bool(cut < 0.1 * min(_MOST_PLACED, _count_shared(one, whole)) and 2.2 * cut < uncut)


def _is_aligned(one: Look, other: Look) -> bool:
    """Return whether images of one size correspond pixel by pixel: false if one is mirrored, or a clip begins
    elsewhere.
    """
    small = [
        np.stack(
            [
                cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA)
                for frame in some.luma[: _count_shared(one, other)]
            ]
        )
        for some in (one, other)
    ]
    return bool(np.corrcoef(small[0].reshape(-1), small[1].reshape(-1))[0, 1] > 0.5)


def _count_shared(one: Look, other: Look) -> int:
    return min(len(one.luma), len(other.luma))


def _blocks(frames: Sequence[UInt8s]) -> UInt8s:
    """Return blocks of frames (H, W, ...), evenly spread, (n, 8, 8, ...)."""
    height, width = (side // 8 for side in frames[0].shape[:2])
    total = height * width * len(frames)
    chosen = np.linspace(0, total - 1, min(total, _MOST_BLOCKS)).astype(np.int64)
    found = []
    for number, frame in enumerate(frames):
        tiles = frame[: 8 * height, : 8 * width].reshape(height, 8, width, 8, *frame.shape[2:])
        own = chosen[chosen // (height * width) == number] % (height * width)
        found.append(tiles[own // width, :, own % width])
    return np.concatenate(found)


def _transform_blocks(blocks: Float32s) -> Float32s:
    """Return the DCT coefficients of blocks (n, 8, 8), as in a JPEG."""
    return np.asarray(_COSINES @ blocks @ _COSINES.T, np.float32)


class _Tone:
    """The mapping from the luma of one image to the luma of another: a cubic polynomial, fitted to blocks without
    clipping.

    Attributes:
        usable: Blocks to which it was fitted and which it explains.
        ok: Whether there are enough of them.
    """

    def __init__(self, one: Look, other: Look) -> None:
        (luma, colours), (to, to_colours) = one.blocks, other.blocks
        inside = np.ones(len(luma), bool)
        for some in (colours, to_colours):
            inside &= (some.max((1, 2, 3), initial=0) < 254) & (some.min((1, 2, 3), initial=255) > 1)
        if int(inside.sum()) < 200:  # most pixels have a pure colour
            inside = (luma.max((1, 2), initial=0) < 254) & (luma.min((1, 2), initial=255) > 1)
            inside &= (to.max((1, 2), initial=0) < 254) & (to.min((1, 2), initial=255) > 1)
        self.usable = inside
        self.ok = int(inside.sum()) >= 20
        self.coefficients = np.array([1.0, 0.0])
        for _ in range(4 if self.ok else 0):
            levels, wanted = luma[self.usable].reshape(-1) / 128 - 1, to[self.usable].reshape(-1) / 128 - 1
            powers = np.vander(levels, 4 if np.ptp(levels) > 0.5 else 2)
            self.coefficients = np.linalg.lstsq(powers.astype(np.float64), wanted, rcond=None)[0]
            misfit = np.sqrt(np.square(to - self.apply(luma)).mean((1, 2)))
            self.usable = inside & (misfit <= max(2.5 * float(np.median(misfit[self.usable])), 1.0))
        slope = np.polyval(np.polyder(self.coefficients), luma.mean((1, 2)) / 128 - 1)
        self.gain = np.maximum(slope, 0.05)
        """Slope of the tone in each block."""

    def apply(self, luma: Float32s) -> Float32s:
        return np.asarray(128 * np.polyval(self.coefficients, luma / 128 - 1) + 128, np.float32)


def _is_enlarged(larger: Look, smaller: Look) -> bool:
    """Return whether the larger image is explained by the smaller one, scaled up by any mixture of kernels; for clips
    of almost one size, whether it has less detail.
    """
    if larger.steps is None:
        height = smaller.size[0]
        similar = larger.size[0] < _SIMILAR_SIZE * height
        return similar and _measure_fine_power(larger, height) < _measure_fine_power(smaller, height)
    left = _measure_unexplained(larger, smaller)
    return left < 0.01 and left - _measure_unexplained(smaller, larger) <= 0.001


def _measure_fine_power(look: Look, height: int) -> float:
    """Return the logarithm of the power of the finest detail of frames of this height, relative to the power of coarse
    detail.
    """
    fine = coarse = 0.0
    for luma in look.luma:
        rows, columns = luma.shape
        window = np.outer(np.hanning(rows), np.hanning(columns))
        power = np.square(np.abs(np.fft.rfft2((luma - luma.mean()) * window))) / luma.size**2
        cycles = np.hypot(np.fft.fftfreq(rows, 1 / rows)[:, None], np.fft.rfftfreq(columns, 1 / columns))
        fine += float(power[(cycles >= 0.4 * height) & (cycles < 0.5 * height)].mean())
        coarse += float(power[(cycles >= 8) & (cycles < 16)].mean())
    return float(np.log((fine + 1e-7) / (coarse + 1e-7)))


def _measure_unexplained(one: Look, by: Look) -> float:
    """Return the fraction of coefficients of `one` that differ from the other image, resized, by more than rounding."""
    up = one.size > by.size
    kernels = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4 if up else cv2.INTER_AREA)
    luma, _ = one.blocks
    size = one.size[::-1]
    scaled = [
        _blocks([np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8) for frame in by.luma])
        for how in kernels
    ]
    features = np.stack([*(some.reshape(-1).astype(np.float64) for some in scaled), np.ones(luma.size)], 1)
    weights = np.linalg.lstsq(features, luma.reshape(-1), rcond=None)[0]
    residual = np.abs(_transform_blocks(luma - (features @ weights).reshape(luma.shape).astype(np.float32)))
    residual[:, 0, 0] = 0
    return float((residual > one.table / 2 + 1.5).mean())


def _find_overlay(one: Look, other: Look, tone: _Tone) -> float:
    """Return evidence of a logo: where two images differ in a small region, the edges of the difference are edges of
    one of them.
    """
    scale = max(min(one.size) / 256, 1.0)
    size = (round(one.size[1] / scale), round(one.size[0] / scale))
    before, after = (np.zeros(size[::-1], np.float32) for _ in range(2))
    for frame, to in zip(one.luma, other.luma, strict=False):
        before += np.clip(tone.apply(cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)), 0, 255)
        after += cv2.resize(to, size, interpolation=cv2.INTER_AREA)
    count = _count_shared(one, other)
    before, after = before / count, after / count
    change = after - before
    # Image encoders preserve the mean of a block, video encoders less well; a logo does not.
    region = np.abs(cv2.blur(change, (8, 8))) > (6 if one.steps is not None else 10)
    if not 2e-4 < region.mean() < 0.2:
        return 0.0
    near = cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    strong = max(8.0, 0.35 * float(np.percentile(np.abs(change[near]), 95)))
    inside = ((np.abs(cv2.blur(change, (3, 3))) > strong) & near).astype(np.uint8)
    border = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    if int(border.sum()) < 30:
        return 0.0
    energy = [
        sum(float(np.square(cv2.Sobel(some, cv2.CV_32F, axis, 1 - axis)[border]).mean()) for axis in (0, 1))
        for some in (before, after, change)
    ]
    found = (energy[1] - energy[0]) / energy[2]
    return found if 0.4 < abs(found) < 1.15 else 0.0


def _measure_rounding(one: Look, other: Look, forth: _Tone, back: _Tone) -> float:
    """Return the log-likelihood ratio per coefficient by quantisation steps, for files that have them.

    The tone is fitted in both directions; each hypothesis uses the better fit.
    """
    usable = forth.usable & back.usable
    if one.steps is None or other.steps is None or int(usable.sum()) < 20:
        return 0.0
    copied, copying = _compare_likelihoods(one, other, forth, usable)
    copying_back, copied_back = _compare_likelihoods(other, one, back, usable)
    found = max(copied, copied_back) - max(copying, copying_back)
    return found if abs(found) > 0.001 else 0.0


def _compare_likelihoods(one: Look, other: Look, tone: _Tone, usable: Bools) -> tuple[float, float]:
    """Return the mean log-likelihood of the coefficients of both images if `other` is made from `one`, and for the
    reverse.
    """
    steps, other_steps = one.table, other.table
    luma, to = one.blocks[0][usable], other.blocks[0][usable]
    here, there = (_transform_blocks(some - 128) for some in (luma, to))
    moved, gain = _transform_blocks(tone.apply(luma) - 128), tone.gain[usable]
    factor = _estimate_factor(moved, there, other_steps)
    gain, residual = gain * factor, there - factor * moved
    ours, theirs = (np.rint(some / by).astype(np.int64) for some, by in ((here, steps), (there, other_steps)))
    totals, count, mean_gain = np.zeros((2, len(_NOISE))), 0, float(gain.mean())
    for row, column in (divmod(at, 8) for at in _LOW):
        a, b = np.abs(ours[:, row, column]), np.abs(theirs[:, row, column])
        kept = (a < _MOST_STEPS) & (b < _MOST_STEPS)
        a, b, left, by = a[kept], b[kept], residual[kept, row, column], gain[kept]
        if np.count_nonzero(a) + np.count_nonzero(b) < 20:
            continue
        of_a, of_b = _smooth_mass(a)[a], _smooth_mass(b)[b]
        for n, noise in enumerate(_NOISE):
            after = noise * np.sqrt((1 + mean_gain**2) / 2)
            totals[0, n] += np.log(of_a).sum() + _measure_rounded(left, other_steps[row, column], of_b, after)
            totals[1, n] += np.log(of_b).sum() + _measure_rounded(
                left / by, steps[row, column], of_a, after / mean_gain
            )
        count += len(a)
    copied, copying = totals.max(1) / max(count, 1)
    return float(copied), float(copying)


def _estimate_factor(moved: Float32s, there: Float32s, steps: Float32s) -> float:
    """Return the factor that large coefficients still need, because a tone is not fitted exactly."""
    large = np.abs(moved) > 8
    large[:, 0, 0] = False
    if int(large.sum()) < 50:
        return 1.0
    weights = 1 / np.broadcast_to(steps, moved.shape)[large]
    a, b, found = moved[large] * weights, there[large] * weights, 1.0
    for _ in range(3):
        left = np.abs(b - found * a)
        close = left <= 3 * np.median(left) + 0.3
        found = float((a * b)[close].sum() / np.square(a[close]).sum())
    return found


def _measure_rounded(residual: npt.NDArray[np.floating], step: float, by_chance: Float64s, noise: float) -> float:
    """Return the log-likelihood of residuals that are noise, rounded to multiples of a step."""
    ends = [0.5 + 0.5 * np.tanh(0.851 * (residual + sign * step / 2) / noise) for sign in (1, -1)]
    return float(np.maximum(np.log((1 - _STRAY) * (ends[0] - ends[1]) + _STRAY * by_chance), -6).sum())


def _smooth_mass(values: Int64s) -> Float64s:
    """Return the probability of each value 0, 1, ... by a histogram without gaps: a Poisson regression of its
    counts.
    """
    counts = np.bincount(values, minlength=2).astype(np.float64)
    numbers = np.arange(1, len(counts), dtype=np.float64)
    powers = np.stack([np.ones_like(numbers), numbers / 10, np.sqrt(numbers)], 1)[:, : 3 if len(numbers) > 4 else 2]
    mean = counts[1:] + 0.5
    for _ in range(6 if len(numbers) > 2 else 0):
        root = np.sqrt(mean)[:, None]
        target = np.log(mean) + (counts[1:] - mean) / mean
        fitted = np.linalg.lstsq(powers * root, target * root[:, 0], rcond=None)[0]
        mean = np.exp(np.clip(powers @ fitted, -7, 20))
    zero = (counts[0] + 0.5) / (counts.sum() + 1)
    return np.concatenate([[zero], (1 - zero) * mean / mean.sum() / 2])


def _compare_clipping(one: Look, other: Look, tone: _Tone) -> float:
    """Return the difference of what each image lost to clipping, in 8-bit intensities of a mean pixel."""
    if not tone.ok:
        return 0.0
    gain = float(np.median(tone.gain[tone.usable]))
    offset = float(np.median(other.blocks[0][tone.usable]) - gain * np.median(one.blocks[0][tone.usable]))
    here, there = (some.blocks[1].astype(np.float32) for some in (one, other))
    lost = _measure_lost(there, gain * here + offset) - _measure_lost(here, (there - offset) / gain)
    return lost if abs(lost) > 0.1 else 0.0


def _measure_lost(clipped: Float32s, whole: Float32s) -> float:
    above, below = np.clip(whole - 256, 0, None) * (clipped >= 254), np.clip(-1 - whole, 0, None) * (clipped <= 1)
    return float((above + below).mean())


def _compare_contrast(forth: _Tone, back: _Tone) -> float:
    """Return the logarithm of the contrast of the second image relative to the first, by both fits."""
    usable = forth.usable & back.usable
    if not (forth.ok and back.ok and usable.any()):
        return 0.0
    return 0.5 * float(np.log(np.median(forth.gain[usable]) / np.median(back.gain[usable])))


def _measure_roughness(look: Look) -> float:
    """Return the relative deviation of the luma histogram from its smoothed form, where it is not almost empty."""
    counts = np.bincount(np.concatenate([luma.reshape(-1) for luma in look.luma]), minlength=256).astype(np.float64)
    kernel = np.exp(-np.square(np.arange(-8, 9)) / 8)
    # Mirrored at both ends, so that clipped values do not count as an edge.
    smooth = np.convolve(np.pad(counts, 8, "symmetric"), kernel / kernel.sum(), "valid")
    usual = smooth > 0.2 * counts.mean()
    return max(float(np.sqrt(np.square(counts[usual] / smooth[usual] - 1).mean())), 1e-3)


def _compare_detail(one: Look, other: Look, forth: _Tone, back: _Tone) -> float:
    """Return how much more fine detail one image has at equal contrast. Encoders first remove it from blocks that have
    little.
    """
    usable = forth.usable & back.usable
    if not (forth.ok and back.ok) or int(usable.sum()) < 20:
        return 0.0
    gain = np.sqrt(forth.gain / back.gain)[usable, None, None]
    here = np.square(_transform_blocks(one.blocks[0][usable] - 128) * np.sqrt(gain))
    there = np.square(_transform_blocks(other.blocks[0][usable] - 128) / np.sqrt(gain))
    order = np.add.outer(np.arange(8), np.arange(8))
    fine, finest = (
        [some[:, (order >= low) & (order < high)].mean(1) for some in (here, there)] for low, high in ((6, 8), (8, 11))
    )
    plain = sum(fine) <= np.median(sum(fine))
    of_plain = [float(some[plain].mean()) + 0.1 for some in fine]
    found = float(np.log(of_plain[0] / of_plain[1])) + 2 * float(np.log((finest[0] + 0.5) / (finest[1] + 0.5)).mean())
    return found if abs(found) > 0.01 else 0.0


def sort_originals_first(own: Measures, order: Int64s, groups: Mapping[int, Sequence[int]]) -> Int64s:
    """Reorder samples so that the original of each group takes the position of its first member.

    Args:
        own: Measures of the split.
        order: Positions of the samples, best first, int64 (n,).
        groups: Members of each group by its first one, as `find_copies` returns them.

    Returns:
        The new order, int64 (n,).
    """
    rank = np.zeros(len(own), np.int64)
    rank[order] = np.arange(len(order))
    order = order.copy()

    def original(group: tuple[int, Sequence[int]]) -> int:
        first, others = group
        # Equal files are compared once.
        different = {
            bytes(own.manifest.components[own.components[place]].digest[int(own.index[place])]): place
            for place in sorted([*others, first], key=lambda at: -rank[at])
        }
        best, *rest = sorted(different.values(), key=lambda at: int(rank[at]))
        look = _look(own, best) if rest else None
        for place in rest[:_MOST_COMPARED]:
            challenger = _look(own, place)
            if look is not None and compare(look, challenger) < 0:
                best, look = place, challenger
        return best

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for first, best in zip(groups, pool.map(original, groups.items()), strict=True):
            order[rank[first]], order[rank[best]] = best, first
    return order


def _look(own: Measures, place: int) -> Look:
    """Read the image or clip of a sample for comparison. The source size of a video is read from its `json`."""
    manifest, number, name = own.manifest, int(own.index[place]), own.components[place]
    (data,) = manifest.store.read_many([manifest.member(number, name)])
    pixels = int(own.signals["pixels"][place])
    if manifest.components[name].kind != VIDEO.name:
        return Look.from_image(data, pixels)
    if JSON.name in manifest.components and manifest.components[JSON.name].offset[number] > 0:
        (words,) = manifest.store.read_many([manifest.member(number, JSON.name)])
        source = json.loads(words).get("original") or {}
        pixels = int(source.get("width", 0)) * int(source.get("height", 0)) or pixels
    return Look.from_frames(list(islice(keyframes(data), _MOST_FRAMES)), pixels)
