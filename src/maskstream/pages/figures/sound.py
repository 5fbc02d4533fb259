"""Sound on a page: the line of its waveform, and the sound itself, to be heard."""

from __future__ import annotations

import base64
from io import BytesIO

import av
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HEARD_SAMPLES = 2_000_000
"""Samples that all sounds of a page may have together, 125 s at 16 kHz: at most about 4 MB of the file."""
COLUMNS = 800
UNITS = 1000
"""The path of a waveform lies in a square of 1000 x 1000 units that is stretched to the page, silence in the middle."""


def heard_samples(n_samples: int, sounds: int) -> int:
    """How many of the samples of each of so many sounds a page holds."""
    return min(n_samples, HEARD_SAMPLES // max(sounds, 1))


def flac_uri(waveform: Floats, sample_rate: int) -> str:
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


def waveform_path(waveform: Floats) -> str:
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
