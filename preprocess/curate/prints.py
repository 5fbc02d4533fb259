"""Hashes of pictures, sounds and texts, of 256 bits, so that copies of all are searched alike.

The hash of a picture has two parts of 256 bits. Waves: whether 16 x 16 coefficients of the discrete cosine transform of
a frame's luma at 64 x 64, without the constant ones, are above their median (as in PDQ: Facebook, The TMK+PDQF
Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm, 2019). They hold when a frame is coded again. Slopes:
whether luma at 12 x 12 rises from cell to cell, to the right and down. They hold when a part of it is covered. Each
frame has both of the whole and of the mirrored whole, and waves of windows of its middle, which are those of cropped
copies: a copy is found whose sides differ from a window's by up to 2.5 % of the frame's.

A sound is hashed by seconds that overlap: the signs of a cosine transform of its levels in halves of semitones, as of a
picture.

A text has one hash: each bit is a bit of the least of its pieces of five letters, in one of 256 orders (Li and König,
b-Bit Minwise Hashing, 2010). Two texts that share a part J of their pieces differ in 128 (1 - J) bits.
"""

import re
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

UInt8s = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

PART_BYTES = 32
"""Of a part of a hash."""
_SIDE, _WAVES, _CELLS, _SLOPES = 64, 16, 12, 128
_COSINES = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(1, _WAVES + 1)[:, None] / (2 * _SIDE)).astype(
    np.float32
)
_MIDST = _WAVES * _WAVES // 2 - 1
_FAR = 3.0
"""Luma further from the mean than so many deviations is cut off: the waves of a faint picture with a white logo would
be those of the logo.
"""
_STEEP = 0.5
"""A slope rises by more than this, in levels."""
_OF_PICTURES, _OF_CLIPS = (0.5, 16), (0.15, 24)
"""Which share of the slopes is steep at least, up or down, and how many go against the most of their direction: the
others would be those of any sky that grows darker, or of any line on paper, and the waves stand in their place. Half
the frames of two clips do not agree by chance, so these may have fewer.
"""
_CROPS, _CUTS = (0.95, 0.9, 0.85), (0.96, 0.92)
WINDOWS = (*((side, side) for side in _CROPS), *((cut * side, side) for side in (1.0, *_CROPS) for cut in _CUTS))
"""The shares of the long and of the short side that windows have. Clips are stored with sides that are multiples of 16,
for which up to a tenth of the long side of small ones is cut off: these have all windows, all else the first three."""
_SMALL = 256
"""Clips whose sides are below it, in pixels, have all windows; of others the waves of the rest are zero."""

RATE = 8000
"""Of the sounds that are hashed, in hertz."""
_HOP, _WINDOW, _LONG = 500, 2048, 16
_LOWEST, _BANDS = 207.65, 96
_STEP = 2
MOST_SOUND_S = 512
"""Of a longer sound the rest is not hashed."""
_SILENT = 1e-5
_LETTERS = 5


def shrink_luma(luma: UInt8s) -> npt.NDArray[np.float32]:
    """Luma float32 (64, 64), averaged over area."""
    return np.asarray(cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def hash_picture(luma: UInt8s, *, of_clip: bool) -> tuple[bytes, bytes, bytes]:
    """The hashes of a frame by its luma, uint8 (H, W): of the whole, the waves of its windows, and of the mirrored
    whole.
    """
    small = shrink_luma(luma)
    windows = b"".join(
        _transform_waves(shrink_luma(one)) if one.size else bytes(PART_BYTES) for one in _cut_windows(luma, of_clip)
    )
    return _hash(small, of_clip), windows, _hash(np.ascontiguousarray(small[:, ::-1]), of_clip)


def _cut_windows(luma: UInt8s, of_clip: bool) -> Iterator[UInt8s]:
    """The windows of a frame, uint8 (h, w), without pixels where it has none."""
    height, width = luma.shape[:2]
    for at, (long, short) in enumerate(WINDOWS):
        across, down = (long, short) if width >= height else (short, long)
        left, top = round(width * (1 - across) / 2), round(height * (1 - down) / 2)
        has = at < len(_CROPS) or (of_clip and max(height, width) < _SMALL)
        yield luma[top : height - top, left : width - left] if has else luma[:0]


def _transform_waves(luma: npt.NDArray[np.float32]) -> bytes:
    """The waves of luma float32 (64, 64)."""
    mean, deviation = (float(one[0, 0]) for one in cv2.meanStdDev(luma))
    luma = np.clip(luma, mean - _FAR * deviation, mean + _FAR * deviation)
    coefficients = _COSINES @ luma @ _COSINES.T  # a sixth of the time of cv2.dct, which makes all 64 x 64
    return np.packbits(coefficients > np.partition(coefficients.reshape(-1), _MIDST)[_MIDST]).tobytes()


def _hash(luma: npt.NDArray[np.float32], of_clip: bool) -> bytes:
    """The waves and the slopes of luma float32 (64, 64)."""
    waves = _transform_waves(luma)
    cells = np.asarray(cv2.resize(luma, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA))
    slopes = np.stack([np.diff(cells, axis=axis).reshape(-1)[:_SLOPES] for axis in (1, 0)])
    rises = slopes > _STEEP
    up = rises.sum(1)
    share, against = _OF_CLIPS if of_clip else _OF_PICTURES
    if (np.abs(slopes) > _STEEP).mean() < share or np.minimum(up, _SLOPES - up).sum() < against:
        return waves + waves
    return waves + np.packbits(rises).tobytes()


def hash_sound(samples: Floats) -> tuple[Floats, UInt8s, UInt8s]:
    """The times, in seconds, of a sound's hashes; the hashes, uint8 (n, 32); and those of the sound as if it were a
    semitone lower. samples: (N,) at RATE. A silent second has none.
    """
    levels = _measure_levels(samples)
    times, own, lower = [], [], []
    for first in range(0, max(len(levels) - _LONG, 0) + 1, _STEP):
        some = levels[first : first + _LONG]
        if some.max(initial=0) > _SILENT:
            times.append(first * _HOP / RATE)
            own.append(_hash_signs(some[:, :_BANDS]))
            lower.append(_hash_signs(some[:, 2:]))
    shape = (len(times), 32)
    return np.array(times), np.array(own, np.uint8).reshape(shape), np.array(lower, np.uint8).reshape(shape)


def draw_levels(samples: Floats) -> UInt8s:
    """A picture of the levels of a sound, uint8 (98, frames, 3), high pitches above."""
    levels = _measure_levels(samples[: 16 * RATE]).T[::-1]
    grey = np.round(255 * levels / max(float(levels.max(initial=0)), 1e-9)).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def _measure_levels(samples: Floats) -> Floats:
    """The roots of the power in each half of a semitone, (frames, 98), 16 frames a second."""
    padded = np.concatenate([samples, np.zeros(max(_WINDOW + (_LONG - 1) * _HOP - len(samples), 0))])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    found = []
    for first in range(0, len(frames), 1024):
        waves = np.fft.rfft(frames[first : first + 1024] * np.hanning(_WINDOW), axis=1)
        found.append(np.sqrt(np.square(np.abs(waves)) @ _build_bank()) / _WINDOW)
    return np.concatenate(found)


@cache
def _build_bank() -> Floats:
    """How much of each frequency a band has, (frequencies, 98): a triangle from that below to that above."""
    pitch = 24 * np.log2(np.maximum(np.fft.rfftfreq(_WINDOW, 1 / RATE), 1) / _LOWEST)
    return np.asarray(np.maximum(1 - np.abs(pitch[:, None] - np.arange(_BANDS + 2)), 0))


def _hash_signs(levels: Floats) -> UInt8s:
    """The hash of levels, (16, 96)."""
    coefficients = cv2.dct(np.ascontiguousarray(levels, np.float32))[:4, 1:65]
    return np.packbits(coefficients > np.median(coefficients))


def hash_text(text: str) -> UInt8s:
    """The hash of a text, uint8 (1, 32), whatever its case and spaces; (0, 32) of one without letters and digits."""
    plain = " ".join(re.findall(r"\w+", text.lower()))
    if not plain:
        return np.empty((0, 32), np.uint8)
    letters = np.frombuffer(plain.encode("utf-32-le"), np.uint32).astype(np.uint64)
    letters = np.concatenate([letters, np.zeros(max(_LETTERS - len(letters), 0), np.uint64)])
    pieces = np.lib.stride_tricks.sliding_window_view(letters, _LETTERS)
    codes = np.unique(_mix_word(pieces @ (np.uint64(0x100000001B3) ** np.arange(_LETTERS, dtype=np.uint64))))
    seeds = _mix_word(np.arange(1, 257, dtype=np.uint64))
    least = np.full(256, np.iinfo(np.uint64).max, np.uint64)
    for first in range(0, len(codes), 1024):
        some = _mix_word(codes[None, first : first + 1024] ^ seeds[:, None])
        least = np.minimum(least, some.min(1))
    return np.packbits(_mix_word(least) & np.uint64(1))[None]


def _mix_word(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Each word as one that looks drawn: splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number
    Generators, 2014).
    """
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)), np.uint64)
