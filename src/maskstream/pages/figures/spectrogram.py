"""Sound as pictures: spectrograms, what a mask hides of them, waveforms; and the sound itself, to be heard."""

import base64
import math
from io import BytesIO
from itertools import takewhile

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from maskstream.pipelines.modalities.audio.spectrogram import C1_HZ, Features, Librosa

from .card import Picture
from .chart import Tick
from .figures import MaskRow
from .pictures import Bool, Grid, UInt8, coloured, draw_masked_picture, picture

Floats = npt.NDArray[np.float32]

HEARD_SAMPLES = 2_000_000
"""Samples that all sounds of a page may have together, 125 s at 16 kHz: at most about 4 MB of the file."""
COLUMNS = 800
UNITS = 1000
"""The path of a waveform lies in a square of 1000 x 1000 units that is stretched to the page, silence in the middle."""


def limit_heard_samples(n_samples: int, sounds: int) -> int:
    """How many of the samples of each of so many sounds a page holds."""
    return min(n_samples, HEARD_SAMPLES // max(sounds, 1))


def encode_flac_uri(waveform: Floats, sample_rate: int) -> str:
    """Mono sound (n,) from -1 to 1 as a FLAC `data:` address, with 16 bits a sample."""
    samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    buffer = BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        frame.sample_rate = sample_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_waveform(waveform: Floats) -> str:
    """SVG path data of the area between the lowest and the highest value of each column of a sound (n,); the loudest
    sample reaches the edge of the square.
    """
    peak = float(np.abs(waveform).max(initial=0.0)) or 1.0
    parts = np.array_split(waveform / peak, min(COLUMNS, max(len(waveform), 1)))
    low, high = (np.array([edge(part) for part in parts if len(part)]) for edge in (np.min, np.max))
    x = (np.arange(len(high)) + 0.5) / max(len(high), 1) * UNITS
    there = [f"{a:.0f} {(1 - b) / 2 * UNITS:.0f}" for a, b in zip(x, high, strict=True)]
    back = [f"{a:.0f} {(1 - b) / 2 * UNITS:.0f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
    return f"M{'L'.join(there + back)}z" if there else ""


_LEAST_GAP = 0.11  # of the height, between two labels
_TONES_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)
_NOTES = ("C", "D", "E", "F#", "G#", "A#")
_TEMPOS = (480, 240, 120, 60, 30, 15)
"""Beats a minute."""
_WORDS = {
    "chroma": "Pitch classes rise upwards from C; bright is strong.",
    "cqt": "Frequency rises upwards, 12 bands an octave; bright is loud.",
    "mfcc": "The coefficients of the cepstrum rise upwards from 0.",
    "tempogram": "The lag rises upwards from 0; bright is where onsets come again after it.",
}


def name_features(features: Features) -> str:
    """`Fbank`, `LogMel`, `cqt`."""
    return features.feature if isinstance(features, Librosa) else type(features).__name__


def describe_bands(features: Features) -> str:
    """What a reader sees from the bottom to the top."""
    if isinstance(features, Librosa):
        return _WORDS[features.feature]
    return "Frequency rises upwards on the mel scale; bright is loud."


def format_band_ticks(features: Features) -> tuple[Tick, ...]:
    """Labels from the top, each in the middle of its band; 0 is the top. Those too near to a higher one are left out.

    Of frequencies they are octaves from 125 Hz on, of a tempogram beats a minute.
    """
    if not isinstance(features, Librosa):
        return _space_ticks(
            features.n_bins, [(_find_loudest(features, hertz), _format_tone(hertz)) for hertz in _list_tones(features)]
        )
    n = features.n_bins
    if features.feature == "cqt":
        low = features.low_hz or C1_HZ
        return _space_ticks(
            n, [(round(12 * math.log2(hertz / low)), _format_tone(hertz)) for hertz in _list_tones(features)]
        )
    if features.feature == "chroma":
        return _space_ticks(n, [(round(i * n / 6), note) for i, note in enumerate(_NOTES)])
    if features.feature == "tempogram":
        a_minute = 60 * features.sample_rate / features.hop
        return _space_ticks(n, [(round(a_minute / tempo), f"{tempo} BPM") for tempo in _TEMPOS])
    return _space_ticks(n, [(i, str(i)) for i in range(n)])


def _space_ticks(n_bins: int, labels: list[tuple[int, str]]) -> tuple[Tick, ...]:
    """Ticks of (band, label), the highest band first, as many as have room."""
    ticks: list[Tick] = []
    for band, label in sorted(labels, reverse=True):
        at = 1 - (band + 0.5) / n_bins
        if 0 <= band < n_bins and (not ticks or at - ticks[-1].at >= _LEAST_GAP):
            ticks.append(Tick(at=at, label=label))
    return tuple(ticks)


def _list_tones(features: Features) -> list[int]:
    return list(takewhile(lambda tone: tone < features.sample_rate / 2, _TONES_HZ))


def _format_tone(hertz: int) -> str:
    return f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz"


def _find_loudest(features: Features, hertz: int) -> int:
    """The band that hears a tone most. The bands are asked, so this holds for any scale."""
    time = torch.arange(features.sample_rate // 4, dtype=torch.float64) / features.sample_rate
    return int(features(torch.sin(2 * math.pi * hertz * time).float()).mean(dim=0).argmax())


WIDTH_PX, HEIGHT_PX = 1024, 128
"""What a picture is enlarged to where it is smaller, in whole steps."""
_LOUDEST, _FAINTEST = 99.8, 1.0


def draw_spectrograms(
    values: Floats, grid: Grid, mask: MaskRow | None, n_frames: int, key: str
) -> tuple[Picture, Picture | None]:
    """The spectrogram float32 (T, F), of which the first `n_frames` are sound, and what the encoder sees of it; a
    (time, freq) grid that does not cover it raises ValueError.
    """
    if tuple(np.multiply(grid.shape, grid.patch).tolist()) != values.shape:
        raise ValueError(f"a grid of {grid.shape} tokens of {grid.patch} does not cover a spectrogram {values.shape}")
    image = enlarged(paint_loudness(values, *find_loudness_range(values[: max(n_frames, 1)])))
    whole = picture(image, f"spectrogram of {key}")
    if mask is None:
        return whole, None
    return whole, draw_masked_picture(image, upright(mask.masked, grid), f"masked spectrogram of {key}")


def upright(tokens: Bool, grid: Grid) -> Bool:
    """Flags of tokens (time freq) as rows of frequency, the highest first, of columns of time."""
    return tokens.reshape(grid.shape).T[::-1]


def find_loudness_range(values: Floats) -> tuple[float, float]:
    """What is drawn black and what brightest."""
    low, high = np.percentile(values, (_FAINTEST, _LOUDEST))
    return float(low), float(high)


def paint_loudness(values: Floats, low: float, high: float) -> UInt8:
    """Values (T, F) from `low` to `high` as colours (F, T, 3), the highest frequency first."""
    return coloured(values.T[::-1], low, high, cv2.COLORMAP_MAGMA)


def enlarged(image: UInt8) -> UInt8:
    """The picture with whole numbers of pixels a value, so that tokens have sharp edges."""
    height, width = image.shape[:2]
    rows, columns = max(1, HEIGHT_PX // height), max(1, WIDTH_PX // width)
    return np.ascontiguousarray(image.repeat(rows, axis=0).repeat(columns, axis=1))
