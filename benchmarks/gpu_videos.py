"""Videos of every format that the acceptance of the GPU path decodes, made here, and their splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.video import video_member

CLOSED = {"x264-params": "keyint=32:min-keyint=32:scenecut=0:open-gop=0:bframes=3:log-level=none"}
OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0:log-level=none"}
HEVC = {"x265-params": "keyint=32:min-keyint=32:open-gop=0:bframes=3:scenecut=0:log-level=none"}
HEVC_OPEN = {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0:log-level=none"}
VP9 = {"g": "32", "deadline": "realtime", "cpu-used": "8", "b": "800k"}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Videos of one format. on_cpu: whether all, some ("some") or none of their clips belong on the CPU."""

    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(CLOSED))
    size: tuple[int, int] = (448, 256)
    pixels: str = "yuv420p"
    matrix: str = "ITU601"
    level: str = "MPEG"
    on_cpu: str = "none"


KINDS = {
    "340 wide": Kind(size=(340, 256)),
    "448 wide": Kind(),
    "456 wide": Kind(size=(456, 256)),
    "110x90": Kind(size=(110, 90)),
    "open GOP": Kind(options=OPEN, on_cpu="some"),
    "hevc": Kind(codec="libx265", options=HEVC),
    "hevc, open GOP": Kind(codec="libx265", options=HEVC_OPEN),
    "BT.709": Kind(matrix="ITU709"),
    "full range": Kind(level="JPEG"),
    "High 10": Kind(pixels="yuv420p10le", on_cpu="all"),
}
ON_A_CPU = {
    "vp9": Kind(codec="libvpx-vp9", options=VP9, size=(176, 144)),
    "vp9, BT.709": Kind(codec="libvpx-vp9", options=VP9, size=(176, 144), matrix="ITU709"),
}
"""What DALI decodes without a card."""


def picture(number: int, size: tuple[int, int], shift: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth moving pattern, whose brightness tells the number of the frame."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin((x + 2 * number + shift) / 9), np.sin((y - number) / 7), np.cos((x + y) / 11 + number / 5)]
    return (50 + 2 * number + 40 * np.stack(waves, axis=-1)).clip(0, 255).astype(np.uint8)


def write_kind(folder: Path, kind: Kind, *, videos: int = 8, frames: int = 64) -> Path:
    """A split of some videos of a kind, packets unchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for n in range(videos):
        path = folder / f"{n}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(kind.codec, rate=30, options=kind.options)
            stream.width, stream.height, stream.pix_fmt = *kind.size, kind.pixels
            stream.codec_context.colorspace = 1 if kind.matrix == "ITU709" else 5
            stream.codec_context.color_range = 2 if kind.level == "JPEG" else 1
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(picture(number, kind.size, 31 * n), format="rgb24")
                made = frame.reformat(format=kind.pixels, dst_colorspace=kind.matrix, dst_color_range=kind.level)
                made.colorspace = 1 if kind.matrix == "ITU709" else 5
                made.color_range = 2 if kind.level == "JPEG" else 1
                container.mux(stream.encode(made))
            container.mux(stream.encode(None))
        video = encode_video(path, PROFILES["copy"])
        member = video_member(video.data, video.index)
        samples.append(Sample(key=f"v/{n}", members={"mp4": member}, source=path.name, label=n))
        path.unlink()
    shards = [write_shard(folder / "v-000000.tar", samples)]
    finish_split(folder, DatasetInfo(dataset="v", split="train", modality="video", profile="copy"), shards, [])
    return folder
