"""A video with its sound in which a flash and a beep begin at the same time, in any container, and finding both."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

FPS = 25
WIDTH, HEIGHT = 64, 48


def write(
    path: Path,
    at: tuple[int, ...],
    *,
    frames: int = 100,
    codec: str = "aac",
    rate: int = 48000,
    late: int = 0,
    ends: int | None = None,
    video_late: int = 0,
    level: float = 0.5,
    skip: tuple[int, int] | None = None,
    video: str = "libx264",
) -> Path:
    """A video that is white in two frames from each number of `at` on, where a beep begins too.

    late, ends: the frames at which the sound track begins and ends. video_late: the frame of the container's clock at
    which the video begins. video, codec: of the two tracks. level: of the beep. skip: samples [first, stop) that are
    left out, a gap.
    """
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "bf": "2"} if video == "libx264" else {}
        picture = container.add_stream(video, rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.codec_context.thread_count = 1
        picture.codec_context.time_base = Fraction(1, FPS)
        sound = container.add_stream(codec, rate=rate, layout="mono")
        packets = []
        for number in range(frames):
            lit = any(first <= number < first + 2 for first in at)
            frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 235 if lit else 20, np.uint8))
            frame.pts, frame.time_base = number + video_late, Fraction(1, FPS)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        wave = beeps(at, frames, rate, level)
        first, stop = late * rate // FPS, (frames if ends is None else ends) * rate // FPS
        for begin in range(first, stop, 1024):
            if skip is not None and skip[0] <= begin < skip[1]:
                continue
            part = wave[None, begin : min(begin + 1024, stop)]
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", "mono")
            block.sample_rate, block.time_base = rate, Fraction(1, rate)
            block.pts = begin + video_late * rate // FPS
            packets += encoded(sound, block)
        packets += encoded(sound, None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def encoded(stream, frame):
    """The packets of a frame in the format that its encoder takes."""
    if frame is None:
        return stream.encode(None)
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=frame.sample_rate)
    return [packet for made in resampler.resample(frame) for packet in stream.encode(made)]


def beeps(at: tuple[int, ...], frames: int, rate: int, level: float) -> npt.NDArray[np.float32]:
    """80 ms of 1 kHz from each of the frames on."""
    time = np.arange(frames * rate // FPS) / rate
    on = np.zeros(len(time), bool)
    for first in at:
        on |= (time >= first / FPS) & (time < first / FPS + 0.08)
    return (level * on * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)


def onsets(wave: npt.NDArray[np.floating], rate: int) -> npt.NDArray[np.float64]:
    """When beeps begin, in seconds from the first sample."""
    loud = np.abs(wave) > 0.3 * np.abs(wave).max()
    at = np.flatnonzero(loud)
    return at[np.diff(at, prepend=-rate) > 0.1 * rate] / rate


def flashes(frames: npt.NDArray[np.uint8], times: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """When white begins in frames (T, H, W, 3) that are shown at `times`."""
    lit = frames.mean(axis=(1, 2, 3)) > 128
    return np.asarray(times)[np.flatnonzero(lit & ~np.concatenate([[False], lit[:-1]]))]
