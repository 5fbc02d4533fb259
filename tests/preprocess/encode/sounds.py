"""Sounds in any container and codec that FFmpeg writes, made with PyAV."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def wave(n: int, channels: int = 1, seed: int = 0, peak: float = 0.8) -> npt.NDArray[np.float32]:
    """Tones that wander and noise that comes and goes, float32 (n, channels); no two segments are alike."""
    rng = np.random.default_rng(seed)
    time = np.arange(n)[:, None] / 16000
    hertz = rng.uniform(150, 900, channels)
    x = np.sin(2 * np.pi * (hertz * time + 20 * np.sin(1.3 * time))) + 0.3 * np.sin(2 * np.pi * 3.7 * hertz * time)
    x += rng.normal(0, 0.4, (n, channels)) * (np.sin(0.9 * time) > 0.3)
    return (x / np.abs(x).max() * peak).astype(np.float32)


def write_sound(
    path: Path,
    samples: npt.NDArray[np.float32],
    rate: int,
    codec: str,
    *,
    form: str | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> bytes:
    """Encode samples float32 (n, channels); form: the container where the name's ending does not say it."""
    layout = LAYOUTS[samples.shape[1]]
    with av.open(str(path), "w", format=form, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout, options=options or {})
        for first in range(0, len(samples), 1024):
            part = np.ascontiguousarray(samples[first : first + 1024].T)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()
