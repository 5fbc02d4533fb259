"""Perceptual hashes of images, audio and texts, all of 256 bits, so that one search finds near-duplicates of each.

The hash of an image has two parts of 256 bits. Waves: whether 16 x 16 coefficients of the discrete cosine transform of
a frame's luma at 64 x 64, without the constant ones, are above their median (as in PDQ: Facebook, The TMK+PDQF
Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm, 2019). They survive re-encoding. Slopes: whether luma at 12
x 12 rises from cell to cell, to the right and down. They survive overlays that cover a part of the image. Each frame
has both parts for the whole frame and for its mirror image, and the waves of central windows, which match cropped
copies: a copy is found if its sides differ from a window's by up to 2.5 % of the frame's.

Audio is hashed in overlapping windows of one second: the signs of a cosine transform of its levels in half-semitone
bands, as for an image.

A text has one hash: each bit is one bit of the smallest of its five-letter pieces in one of 256 orders (Li and König,
b-Bit Minwise Hashing, 2010). Two texts that share a fraction J of their pieces differ in 128 (1 - J) bits.
"""

import re
from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np

from maskstream.shards.arrays import Float32s, Float64s, UInt8s, UInt64s

PART_BYTES = 32
"""Size of one part of a hash in bytes."""
_SIDE, _WAVES, _CELLS, _SLOPES = 64, 16, 12, 128
_COSINES = np.cos(np.pi * (2 * np.arange(_SIDE) + 1) * np.arange(1, _WAVES + 1)[:, None] / (2 * _SIDE)).astype(
    np.float32
)
_MIDST = _WAVES * _WAVES // 2 - 1
_FAR = 3.0
"""Luma is clipped this many standard deviations from the mean: otherwise a white logo would dominate the waves of a
faint image.
"""
_STEEP = 0.5
"""A slope rises by more than this 8-bit intensity."""
_OF_PICTURES, _OF_CLIPS = (0.5, 16), (0.15, 24)
"""Smallest fraction of slopes that are steep, up or down, and smallest number that go against the majority of their
direction. With fewer, the slopes would fit any sky that grows darker or any line on paper, so waves replace them. Clips
may have fewer, because half of the frames of two clips do not match by chance.
"""
_CROPS, _CUTS = (0.95, 0.9, 0.85), (0.96, 0.92)
WINDOWS = (*((side, side) for side in _CROPS), *((cut * side, side) for side in (1.0, *_CROPS) for cut in _CUTS))
"""Fractions of the long and of the short side of a frame that its windows cover. Clips are stored with sides that are
multiples of 16, which crops up to a tenth of the long side of small ones: these have all windows, all other samples the
first three.
"""
_SMALL = 256
"""Clips whose sides are shorter, in pixels, have all windows; for others the waves of the remaining windows are
zero.
"""

RATE = 8000
"""Sample rate at which audio is hashed, in hertz."""
_HOP, _WINDOW, _LONG = 500, 2048, 16
_LOWEST, _BANDS = 207.65, 96
_STEP = 2
MOST_SOUND_S = 512
"""Only the first seconds of longer audio are hashed."""
_SILENT = 1e-5
_LETTERS = 5


def shrink_luma(luma: UInt8s) -> Float32s:
    """Resize luma to float32 (64, 64) by area averaging."""
    return np.asarray(cv2.resize(luma, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32)


def hash_picture(luma: UInt8s, *, of_clip: bool) -> tuple[bytes, bytes, bytes]:
    """Hash a frame.

    Args:
        luma: uint8 (H, W).
        of_clip: Whether the frame belongs to a clip, which has more windows if it is small.

    Returns:
        Waves and slopes of the frame, the waves of its windows, and waves and slopes of its mirror image.
    """
    small = shrink_luma(luma)
    windows = b"".join(
        _transform_waves(shrink_luma(one)) if one.size else bytes(PART_BYTES) for one in _cut_windows(luma, of_clip)
    )
    return _hash(small, of_clip), windows, _hash(np.ascontiguousarray(small[:, ::-1]), of_clip)


def _cut_windows(luma: UInt8s, of_clip: bool) -> Iterator[UInt8s]:
    """Yield the windows of a frame, uint8 (h, w); an empty array for a window that the frame does not have."""
    height, width = luma.shape[:2]
    for at, (long, short) in enumerate(WINDOWS):
        across, down = (long, short) if width >= height else (short, long)
        left, top = round(width * (1 - across) / 2), round(height * (1 - down) / 2)
        has = at < len(_CROPS) or (of_clip and max(height, width) < _SMALL)
        yield luma[top : height - top, left : width - left] if has else luma[:0]


def _transform_waves(luma: Float32s) -> bytes:
    """Return the waves of luma float32 (64, 64)."""
    mean, deviation = (float(one[0, 0]) for one in cv2.meanStdDev(luma))
    luma = np.clip(luma, mean - _FAR * deviation, mean + _FAR * deviation)
    coefficients = _COSINES @ luma @ _COSINES.T  # a sixth of the time of cv2.dct, which makes all 64 x 64
    return np.packbits(coefficients > np.partition(coefficients.reshape(-1), _MIDST)[_MIDST]).tobytes()


def _hash(luma: Float32s, of_clip: bool) -> bytes:
    """Return the waves and the slopes of luma float32 (64, 64)."""
    waves = _transform_waves(luma)
    cells = np.asarray(cv2.resize(luma, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA))
    slopes = np.stack([np.diff(cells, axis=axis).reshape(-1)[:_SLOPES] for axis in (1, 0)])
    rises = slopes > _STEEP
    up = rises.sum(1)
    share, against = _OF_CLIPS if of_clip else _OF_PICTURES
    if (np.abs(slopes) > _STEEP).mean() < share or np.minimum(up, _SLOPES - up).sum() < against:
        return waves + waves
    return waves + np.packbits(rises).tobytes()


def hash_sound(samples: Float64s) -> tuple[Float64s, UInt8s, UInt8s]:
    """Hash the windows of audio that are not silent.

    Args:
        samples: Mono samples at RATE, (N,).

    Returns:
        Start times in seconds; the hashes, uint8 (n, 32); and the hashes of the audio shifted by a semitone.
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


def draw_levels(samples: Float64s) -> UInt8s:
    """Draw the spectrogram of the first 16 seconds of audio, uint8 (98, frames, 3), high pitches at the top."""
    levels = _measure_levels(samples[: 16 * RATE]).T[::-1]
    grey = np.round(255 * levels / max(float(levels.max(initial=0)), 1e-9)).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))


def _measure_levels(samples: Float64s) -> Float64s:
    """Return the square roots of the power in half-semitone bands, (frames, 98), 16 frames a second."""
    padded = np.concatenate([samples, np.zeros(max(_WINDOW + (_LONG - 1) * _HOP - len(samples), 0))])
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    found = []
    for first in range(0, len(frames), 1024):
        waves = np.fft.rfft(frames[first : first + 1024] * np.hanning(_WINDOW), axis=1)
        found.append(np.sqrt(np.square(np.abs(waves)) @ _build_bank()) / _WINDOW)
    return np.concatenate(found)


@cache
def _build_bank() -> Float64s:
    """Return the weight of each frequency in each band, (frequencies, 98): a triangle between the neighbouring
    bands.
    """
    pitch = 24 * np.log2(np.maximum(np.fft.rfftfreq(_WINDOW, 1 / RATE), 1) / _LOWEST)
    return np.asarray(np.maximum(1 - np.abs(pitch[:, None] - np.arange(_BANDS + 2)), 0))


def _hash_signs(levels: Float64s) -> UInt8s:
    """Return the hash of levels, (16, 96)."""
    coefficients = cv2.dct(np.ascontiguousarray(levels, np.float32))[:4, 1:65]
    return np.packbits(coefficients > np.median(coefficients))


def hash_text(text: str) -> UInt8s:
    """Return the hash of a text, uint8 (1, 32), ignoring case, spaces and punctuation; (0, 32) for a text without
    letters and digits.
    """
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


def _mix_word(words: UInt64s) -> UInt64s:
    """Mix each word by splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)), np.uint64)
