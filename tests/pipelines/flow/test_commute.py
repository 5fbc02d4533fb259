"""Flip, crop, resize and stride commute with the flow of every source, on a video of the profile `train`.

The flow of a changed view and the changed flow of the view differ by less than a quarter of a pixel on average. `raft`
is not among them: no weights come with the package, and those of chance follow no motion.
"""

from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.decode.cpu import decode_frames, to_rgb
from maskstream.pipelines.flow import BatchFlow, Codec, DecodedClip, Dis, FlowSource, Lk, SampleFlow
from maskstream.preprocess.encode.video.video import PROFILES, EncodedVideo, encode_video
from maskstream.shards.media.gop_notes import gop_notes

WIDTH, HEIGHT, FRAMES, SIZE, CELL = 208, 176, 44, 160, 8
VIEW = Crop(x=24, y=8, width=SIZE, height=SIZE)
LIMIT_PX = 0.25
pytestmark = pytest.mark.slow
SOURCES: dict[str, FlowSource] = {"codec": Codec(), "dis": Dis(), "lk": Lk()}


@pytest.fixture(scope="module")
def video(tmp_path_factory: Any) -> EncodedVideo:
    """A texture that drifts, turns and grows."""
    noise = np.random.default_rng(0).random((400, 440, 3)).astype(np.float32)
    texture = sum(cv2.GaussianBlur(noise, (0, 0), s) * s for s in (2, 5, 12))
    picture = np.asarray(cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX), dtype=np.uint8)
    path = tmp_path_factory.mktemp("raw") / "drift.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t in range(FRAMES):
            pose = cv2.getRotationMatrix2D((220, 200), 0.25 * t, 1.003**t)
            pose[:, 2] += (WIDTH / 2 - 220 + 0.8 * t, HEIGHT / 2 - 200 - 0.5 * t)
            frame = cv2.warpAffine(picture, pose, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return encode_video(path, PROFILES["train"])


def flow_of(video: EncodedVideo, name: str, crop: Crop, size: int, stride: int = 4) -> np.ndarray:
    """The flow (T-1, h, w, 2) of the view of all frames, `stride` apart, that `crop` and `size` make."""
    numbers, source = np.arange(0, FRAMES, stride), SOURCES[name]
    data = memoryview(video.data)[video.index.header_size :]
    notes = gop_notes(data, WIDTH, HEIGHT)
    decoded = decode_frames(
        video.data[: video.index.header_size],
        data,
        0,
        numbers,
        size=(WIDTH, HEIGHT),
        vectors_of=Codec().vectors_of(numbers),
        stored=notes.flows,
    )
    pixels = np.empty((len(numbers), size, size, 3), dtype=np.uint8)
    to_rgb(decoded.frames, crop, (size, size), pixels)
    if isinstance(source, BatchFlow):
        with torch.no_grad():
            return source.of_clips(torch.from_numpy(pixels)[None])[0].movedim(1, 3).numpy()
    assert isinstance(source, SampleFlow)
    clip = DecodedClip(
        pixels=pixels, crop=crop, source=(WIDTH, HEIGHT), frames=numbers, vectors=decoded.vectors, starts=notes.starts
    )
    return source.of_clip(clip).vectors


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean distance of two fields, which are not at rest."""
    assert one.shape == other.shape
    assert np.linalg.norm(one, axis=-1).mean() > 1
    return float(np.linalg.norm(one - other, axis=-1).mean())


@pytest.fixture(scope="module")
def flows(video: EncodedVideo) -> dict[str, np.ndarray]:
    return {name: flow_of(video, name, VIEW, SIZE) for name in SOURCES}


@pytest.mark.parametrize("name", SOURCES)
def test_a_flip_commutes(video: EncodedVideo, flows: dict[str, np.ndarray], name: str) -> None:
    mirrored = Crop(x=VIEW.x, y=VIEW.y, width=SIZE, height=SIZE, flip=True)
    found = distance(flow_of(video, name, mirrored, SIZE), flows[name][:, :, ::-1] * (-1, 1))
    assert found < LIMIT_PX


@pytest.mark.parametrize("name", SOURCES)
def test_a_crop_commutes(video: EncodedVideo, flows: dict[str, np.ndarray], name: str) -> None:
    half, at = SIZE // 2, SIZE // 4
    inner = Crop(x=VIEW.x + at, y=VIEW.y + at, width=half, height=half)
    cells = slice(at // CELL, (at + half) // CELL)
    found = distance(flow_of(video, name, inner, half), flows[name][:, cells, cells])
    assert found < LIMIT_PX


@pytest.mark.parametrize("name", SOURCES)
def test_a_resize_commutes(video: EncodedVideo, flows: dict[str, np.ndarray], name: str) -> None:
    """The flow of the view at half its size is half the mean of four cells."""
    cells = SIZE // 2 // CELL
    halved = flows[name].reshape(-1, cells, 2, cells, 2, 2).mean((2, 4)) / 2
    found = distance(flow_of(video, name, VIEW, SIZE // 2), halved)
    assert found < LIMIT_PX


@pytest.mark.parametrize("name", SOURCES)
def test_a_stride_commutes(video: EncodedVideo, flows: dict[str, np.ndarray], name: str) -> None:
    """The flow over two sampled frames is that from the later to the one between, and on to the earlier."""
    earlier, later = (np.ascontiguousarray(flows[name][n::2].astype(np.float32)) for n in (0, 1))
    r, c = np.indices(later.shape[1:3]).astype(np.float32)
    joined = np.empty_like(later)
    for pair, field in enumerate(later):
        at = (c + field[..., 0] / CELL, r + field[..., 1] / CELL)
        joined[pair] = field + cv2.remap(earlier[pair], *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = distance(flow_of(video, name, VIEW, SIZE, stride=8), joined)
    assert found < LIMIT_PX
