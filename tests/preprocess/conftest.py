"""Tiny videos of every kind, made with PyAV; each frame can be told from the others."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

Pixels = npt.NDArray[np.uint8]


def picture(number: int, width: int, height: int) -> Pixels:
    """RGB (height, width, 3): smooth gradients, and a bright bar that moves with the frame's number."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = (40 + 2 * np.arange(width) * 64 // width)[None]
    image[..., 1] = (30 + 3 * np.arange(height) * 48 // height)[:, None]
    image[..., 2] = 90 + number % 50
    left = (3 * number) % (width - width // 8)
    image[height // 4 : height // 2, left : left + width // 8] = 230
    return image


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """make_video(name, n=40, ...) writes tmp_path/name and returns its path.

    `pts` and `time_base` set the time stamps, `setup` gets the stream before encoding, `muxer` are container options.
    """

    def make(
        name: str,
        n: int = 40,
        *,
        width: int = 64,
        height: int = 48,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        rate: int = 25,
        pts: list[int] | None = None,
        time_base: Fraction | None = None,
        options: dict[str, str] | None = None,
        muxer: dict[str, str] | None = None,
        setup: Callable[[av.VideoStream], None] | None = None,
        audio: bool = False,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=muxer or {}) as container:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.thread_count = 1
            if time_base is not None:
                stream.codec_context.time_base = time_base
            if setup is not None:
                setup(stream)
            sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
            for number in range(n):
                frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
                frame = frame.reformat(format=pix_fmt)
                frame.pts = number if pts is None else pts[number]
                frame.time_base = time_base or Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound is not None:
                tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
                tone.sample_rate = 16000
                container.mux(sound.encode(tone))
                container.mux(sound.encode(None))
        return path

    return make


@pytest.fixture
def raw(make_video: Callable[..., Path], tmp_path: Path) -> Path:
    """Ten videos in two classes for training, two for validation, and two that are none."""
    for number in range(10):
        make_video(f"raw/train/{'ab'[number % 2]}/clip {number}.mp4", 4 + number)
    for number in range(2):
        make_video(f"raw/val/a/clip {number}.mkv", 5)
    (tmp_path / "raw/train/a/text.mp4").write_text("not a video")
    (tmp_path / "raw/train/b/empty.mp4").touch()
    return tmp_path / "raw"


@pytest.fixture
def recut(tmp_path: Path) -> Callable[..., Path]:
    """recut(path, name, skip=0, shift=0) copies packets to tmp_path/name without the first `skip`, times moved."""

    def copy(path: Path, name: str, *, skip: int = 0, shift: int = 0) -> Path:
        with av.open(str(path)) as source, av.open(str(tmp_path / name), "w") as target:
            stream = source.streams.video[0]
            ours = target.add_stream_from_template(stream, opaque=True)
            for packet in [packet for packet in source.demux(stream) if packet.size][skip:]:
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, ours
                target.mux(packet)
        return tmp_path / name

    return copy


@pytest.fixture
def rgb() -> Callable[[bytes | Path], Pixels]:
    """All frames of a video as RGB uint8 (T, H, W, 3)."""

    def read(video: bytes | Path) -> Pixels:
        with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video), "r") as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])

    return read


@pytest.fixture
def planes() -> Callable[[bytes], list[tuple[int, str, bytes]]]:
    """All frames of a video as (pts, picture type, the bytes of the planes without padding)."""

    def read(video: bytes) -> list[tuple[int, str, bytes]]:
        def rows() -> Iterator[tuple[int, str, bytes]]:
            with av.open(io.BytesIO(video), "r") as container:
                for frame in container.decode(video=0):
                    kind = av.video.frame.PictureType(frame.pict_type).name
                    if "10" in frame.format.name and int(av.__version__.partition(".")[0]) < 18:
                        pytest.skip(f"PyAV {av.__version__} makes no array of {frame.format.name}")
                    yield frame.pts or 0, kind, frame.to_ndarray().tobytes()

        return list(rows())

    return read
