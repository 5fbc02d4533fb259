"""Audio as images: spectrograms with their masks, and waveforms; and audio data for players."""

import base64
import math
from collections.abc import Mapping
from io import BytesIO
from itertools import takewhile

import av
import cv2
import numpy as np
import torch

from maskstream.pipelines.modalities.audio.spectrogram import C1_HZ, Features, Librosa
from maskstream.shards.arrays import Bools, Float32s, UInt8s

from .card import Picture
from .chart import Tick
from .figures import MaskRow
from .pictures import Grid, check_grid, coloured, draw_masked_picture, picture

HEARD_SAMPLES = 2_000_000
"""Total number of audio samples on a page, 125 s at 16 kHz: at most about 4 MB of the file."""
COLUMNS = 800
UNITS = 1000
"""The path of a waveform lies in a square of 1000 x 1000 units that is stretched to the page, silence in the middle."""


def limit_heard_samples(n_samples: int, sounds: int) -> int:
    """Return how many samples of each clip a page includes.

    Args:
        n_samples: Samples of a clip.
        sounds: Number of clips on the page.
    """
    return min(n_samples, HEARD_SAMPLES // max(sounds, 1))


def encode_flac_uri(waveform: Float32s, sample_rate: int) -> str:
    """Encode mono audio (n,) from -1 to 1 as a FLAC `data:` address, with 16 bits a sample.

    Args:
        waveform: The audio.
        sample_rate: Sampling rate in Hz.
    """
    samples = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    buffer = BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        frame.sample_rate = sample_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def draw_waveform(waveform: Float32s) -> str:
    """Return an SVG path of the area between the lowest and the highest value of each column of audio (n,); the loudest
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
    "tempogram": "The lag rises upwards from 0; bright lags are those at which onsets recur.",
}


def name_features(features: Features) -> str:
    """Return the name of features: `Fbank`, `LogMel`, `cqt`."""
    return features.feature if isinstance(features, Librosa) else type(features).__name__


def describe_bands(features: Features) -> str:
    """Describe the vertical axis of a spectrogram."""
    if isinstance(features, Librosa):
        return _WORDS[features.feature]
    return "Frequency rises upwards on the mel scale; bright is loud."


def format_band_ticks(features: Features) -> tuple[Tick, ...]:
    """Return labels from the top, each in the middle of its band; 0 is the top.

    Labels too close to a higher one are left out. For frequencies they are octaves from 125 Hz on, for a tempogram
    beats per minute.
    """
    n, tones = features.n_bins, takewhile(lambda tone: tone < features.sample_rate / 2, _TONES_HZ)
    bands: Mapping[str, int] = {str(i): i for i in range(n)}
    if not isinstance(features, Librosa):
        bands = {_format_tone(hertz): _find_loudest(features, hertz) for hertz in tones}
    elif features.feature == "cqt":
        low = features.low_hz or C1_HZ
        bands = {_format_tone(hertz): round(12 * math.log2(hertz / low)) for hertz in tones}
    elif features.feature == "chroma":
        bands = {note: round(i * n / 6) for i, note in enumerate(_NOTES)}
    elif features.feature == "tempogram":
        a_minute = 60 * features.sample_rate / features.hop
        bands = {f"{tempo} BPM": round(a_minute / tempo) for tempo in _TEMPOS}
    ticks: list[Tick] = []
    for band, label in sorted(((band, label) for label, band in bands.items()), reverse=True):
        at = 1 - (band + 0.5) / n
        if 0 <= band < n and (not ticks or at - ticks[-1].at >= _LEAST_GAP):
            ticks.append(Tick(at=at, label=label))
    return tuple(ticks)


def _format_tone(hertz: int) -> str:
    return f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz"


def _find_loudest(features: Features, hertz: int) -> int:
    """Return the band with the strongest response to a tone; bands are evaluated, so this is valid for any scale."""
    time = torch.arange(features.sample_rate // 4, dtype=torch.float64) / features.sample_rate
    return int(features(torch.sin(2 * math.pi * hertz * time).float()).mean(dim=0).argmax())


WIDTH_PX, HEIGHT_PX = 1024, 128
"""Size up to which smaller images are enlarged, by whole factors."""
_LOUDEST, _FAINTEST = 99.8, 1.0


def draw_spectrograms(
    values: Float32s, grid: Grid, mask: MaskRow | None, n_frames: int, key: str
) -> tuple[Picture, Picture | None]:
    """Draw a spectrogram, and its visible tokens.

    Args:
        values: Spectrogram float32 (T, F).
        grid: Grid of the tokens (time, freq).
        mask: The mask, or None.
        n_frames: Number of frames before the padding.
        key: Key of the sample.

    Raises:
        ValueError: The grid does not cover the spectrogram.
    """
    check_grid(grid, values.shape, "the spectrograms")
    image = enlarged(paint_loudness(values, *find_loudness_range(values[: max(n_frames, 1)])))
    whole = picture(image, f"spectrogram of {key}")
    if mask is None:
        return whole, None
    return whole, draw_masked_picture(image, upright(mask.masked, grid), f"masked spectrogram of {key}")


def upright(tokens: Bools, grid: Grid) -> Bools:
    """Return flags of tokens (time freq) as rows of frequency, highest first, and columns of time.

    Args:
        tokens: Flags of tokens.
        grid: Grid of the tokens.
    """
    return tokens.reshape(grid.shape).T[::-1]


def find_loudness_range(values: Float32s) -> tuple[float, float]:
    """Return the values that are drawn black and brightest."""
    low, high = np.percentile(values, (_FAINTEST, _LOUDEST))
    return float(low), float(high)


def paint_loudness(values: Float32s, low: float, high: float) -> UInt8s:
    """Draw values (T, F) as colours (F, T, 3), highest frequency first.

    Args:
        values: The values.
        low: Value of the darkest colour.
        high: Value of the brightest colour.
    """
    return coloured(values.T[::-1], low, high, cv2.COLORMAP_MAGMA)


def enlarged(image: UInt8s) -> UInt8s:
    """Enlarge an image by whole factors, so that tokens keep sharp edges."""
    height, width = image.shape[:2]
    rows, columns = max(1, HEIGHT_PX // height), max(1, WIDTH_PX // width)
    return np.ascontiguousarray(image.repeat(rows, axis=0).repeat(columns, axis=1))
