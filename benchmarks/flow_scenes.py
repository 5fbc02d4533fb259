"""Clips whose flow is known: frames of real videos, moved by known motions, and real clips joined at known frames.

A scene is a picture of a real video, seen by a camera that pans, turns, zooms or does all three, or with pieces of
another picture moving over it. Everything is drawn from the scene's number. The frames have sensor noise, and are
encoded with the profile `train`, as every source of flow meets them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.pipelines.augment import Crop
from maskstream.preprocess.encode.video.profile import PROFILES, VideoProfile
from maskstream.preprocess.encode.video.video import EncodedVideo, encode_video
from maskstream.samples.video.sample import sample

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

KINDS = ("pan", "turn", "zoom", "mix", "objects")
TEXTURES = (
    "WolfgangLanger_Pexels",
    "bigbuckbunny",
    "bikes",
    "carphone_pristine",
    "demo",
)
"""The videos of the sample dataset whose pictures are moved."""
ONE_SCENE = {
    "WolfgangLanger_Pexels": 0,
    "bigbuckbunny": 0,
    "bikes": 77,
    "carphone_pristine": 0,
    "demo": 100,
    "small": 0,
}
"""Videos of the sample dataset, and a frame from which on they show one scene for 60 frames."""
WIDTH, HEIGHT, FRAMES = 336, 256, 64
NOISE = 2.0
"""The standard deviation of the sensor's noise, in levels."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture that moves: `poses` float64 (T, 3, 3), from its pixels to those of each frame; its outline is an
    ellipse with these half axes about its centre, or the whole frame.
    """

    picture: UInt8
    poses: npt.NDArray[np.float64]
    ellipse: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Frames uint8 (T, HEIGHT, WIDTH, 3) and the layers that they show, the last one on top."""

    name: str
    kind: str
    frames: UInt8
    layers: tuple[Layer, ...]

    def layer_at(self, t: int, points: Floats) -> npt.NDArray[np.int64]:
        """The layer that is seen at `points` (..., 2), x and y in pixels, of frame t."""
        found = np.zeros(points.shape[:-1], dtype=np.int64)
        for number, layer in enumerate(self.layers[1:], start=1):
            found[inside(layer, t, points)] = number
        return found

    def moved(self, later: int, earlier: int, points: Floats, seen: npt.NDArray[np.int64]) -> Floats:
        """Where what is seen of the layers `seen` at `points` (..., 2) of frame `later` is in frame `earlier`."""
        found = np.empty(points.shape, dtype=np.float32)
        for number, layer in enumerate(self.layers):
            own = seen == number
            found[own] = transformed(layer.poses[earlier] @ np.linalg.inv(layer.poses[later]), points[own])
        return found


def inside(layer: Layer, t: int, points: Floats) -> npt.NDArray[np.bool_]:
    """Whether `points` (..., 2) of frame t lie on a layer with an outline."""
    height, width = layer.picture.shape[:2]
    assert layer.ellipse is not None
    own = transformed(np.linalg.inv(layer.poses[t]), points) - np.array([width / 2, height / 2])
    return np.asarray(np.square(own / np.array(layer.ellipse)).sum(-1) <= 1)


def transformed(matrix: npt.NDArray[np.float64], points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The points (..., 2) after an affine map (3, 3)."""
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2])


def scenes(media: Path, textures: Sequence[str] = TEXTURES) -> Iterator[Scene]:
    """Every kind of motion on every texture; media: where the sample dataset is kept."""
    pictures = {name: first_frames(media, name, 1)[0] for name in TEXTURES}
    for kind in KINDS:
        for name in textures:
            number = len(KINDS) * TEXTURES.index(name) + KINDS.index(kind)
            other = pictures[TEXTURES[(TEXTURES.index(name) + 2) % len(TEXTURES)]]
            yield scene(f"{kind}-{name}", kind, pictures[name], other, np.random.default_rng(number))


def scene(name: str, kind: str, picture: UInt8, other: UInt8, rng: np.random.Generator) -> Scene:
    """A scene of one kind, drawn from `rng`."""
    layers = [Layer(picture, camera(kind, picture, rng))]
    if kind == "objects":
        layers += [piece(other, rng, n) for n in range(4)]
    noise = np.random.default_rng(rng.integers(1 << 32))
    frames = np.empty((FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    found = Scene(name=name, kind=kind, frames=frames, layers=tuple(layers))
    places = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).astype(np.float32)
    for t in range(FRAMES):
        shown = warped(layers[0], t).astype(np.float32)
        for layer in layers[1:]:
            on = inside(layer, t, places)
            shown[on] = warped(layer, t)[on]
        shown += noise.normal(0, NOISE, shown.shape).astype(np.float32)
        frames[t] = np.clip(np.rint(shown), 0, 255)
    return found


def warped(layer: Layer, t: int) -> UInt8:
    """The layer in frame t, without its outline."""
    return np.asarray(
        cv2.warpAffine(
            layer.picture,
            layer.poses[t][:2],
            (WIDTH, HEIGHT),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        dtype=np.uint8,
    )


def camera(kind: str, picture: UInt8, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Poses (T, 3, 3) of the background: about 1 pixel a frame, a little faster or slower from frame to frame."""
    height, width = picture.shape[:2]
    fits = max(1.15 * WIDTH / width, 1.15 * HEIGHT / height)
    time = np.arange(FRAMES) + 6 * np.sin(np.arange(FRAMES) / 9 + rng.uniform(0, 6))
    angle, zoom, shift = np.zeros(FRAMES), np.zeros(FRAMES), np.zeros((FRAMES, 2))
    if kind in ("pan", "mix"):
        heading = rng.uniform(0, 2 * np.pi)
        speed = rng.uniform(0.7, 1.4) if kind == "pan" else rng.uniform(0.3, 0.9)
        shift = (time - FRAMES / 2)[:, None] * speed * np.array([np.cos(heading), np.sin(heading)])
    if kind in ("turn", "mix"):
        angle = np.deg2rad(rng.choice([-1, 1]) * rng.uniform(0.3, 0.7)) * (time - FRAMES / 2)
    if kind in ("zoom", "mix"):
        zoom = rng.choice([-1, 1]) * rng.uniform(0.006, 0.011) * (time - FRAMES / 2)
    if kind == "objects":
        shift = (time - FRAMES / 2)[:, None] * rng.uniform(-0.3, 0.3, 2)
    centre, scales = (WIDTH / 2, HEIGHT / 2), fits * np.exp(zoom)
    return np.stack([pose((width, height), centre, z, a, s) for z, a, s in zip(scales, angle, shift, strict=True)])


def piece(picture: UInt8, rng: np.random.Generator, number: int) -> Layer:
    """An elliptic piece of a picture that crosses the frame, turning a little."""
    height, width = picture.shape[:2]
    cut = min(height, width, 160)
    top, left = rng.integers(height - cut + 1), rng.integers(width - cut + 1)
    heading, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.6)
    time = np.arange(FRAMES) - FRAMES / 2
    way = time[:, None] * speed * np.array([np.cos(heading), np.sin(heading)])
    at = (WIDTH * (0.2 + 0.2 * number), HEIGHT * rng.uniform(0.3, 0.7))
    turn = np.deg2rad(rng.uniform(-0.3, 0.3)) * time
    axes = rng.uniform(24, 48, 2)
    poses = np.stack([pose((cut, cut), at, 1.0, a, s) for a, s in zip(turn, way, strict=True)])
    return Layer(
        np.ascontiguousarray(picture[top : top + cut, left : left + cut]), poses, (float(axes[0]), float(axes[1]))
    )


def pose(
    size: tuple[int, int], at: tuple[float, float], scale: float, angle: float, shift: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The map of a picture of `size` pixels whose centre is shown at `at` + `shift`, scaled and turned about it."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    x, y = size[0] / 2, size[1] / 2
    return np.array([[c, -s, at[0] + shift[0] - c * x + s * y], [s, c, at[1] + shift[1] - s * x - c * y], [0, 0, 1]])


def joined(media: Path, cut: int) -> Iterator[list[UInt8]]:
    """Real clips of FRAMES frames, each of two videos: the second begins at frame `cut`."""
    real = {name: first_frames(media, name, 60, start) for name, start in ONE_SCENE.items()}
    for first, second in permutations(real, 2):
        frames = [*real[first][:cut], *real[second][: FRAMES - cut]]
        sized = [cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames]
        yield [np.asarray(frame, dtype=np.uint8) for frame in sized]


def first_frames(media: Path, name: str, count: int, start: int | None = None) -> list[UInt8]:
    """Frames of a video of the sample dataset, from `start` or from its middle on."""
    paths = {source.path.stem: source.path for split in sample(media).splits.values() for source in split}
    with av.open(str(paths[name])) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    start = len(found) // 2 if start is None else start
    return found[start : start + count]


def encoded(frames: Sequence[UInt8] | UInt8, profile: VideoProfile = PROFILES["train"]) -> EncodedVideo:
    """The frames as a shard has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mkv"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("ffv1", rate=30)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode(None))
        return encode_video(path, profile)


def true_flow(found: Scene, numbers: npt.NDArray[np.int64], crop: Crop, size: int) -> tuple[Floats, Floats, Floats]:
    """The backward flow of a view in its own pixels, per pixel: vectors (T-1, size, size, 2); whether its origin lies
    in the picture; and whether an object is there.
    """
    points = source_points(crop, size)
    scale = np.array([size / crop.width * (-1 if crop.flip else 1), size / crop.height])
    vectors = np.empty((len(numbers) - 1, size, size, 2), dtype=np.float32)
    known, objects = np.empty(vectors.shape[:3], dtype=np.float32), np.empty(vectors.shape[:3], dtype=np.float32)
    for pair, (before, now) in enumerate(zip(numbers[:-1].tolist(), numbers[1:].tolist(), strict=True)):
        seen = found.layer_at(now, points)
        origin = found.moved(now, before, points, seen)
        vectors[pair] = (origin - points) * scale
        known[pair] = ((origin >= 0) & (origin <= (WIDTH - 1, HEIGHT - 1))).all(-1)
        objects[pair] = seen > 0
    return vectors, known, objects


def source_points(crop: Crop, size: int) -> Floats:
    """The places in the source, (size, size, 2), of a view's pixels."""
    at = (np.arange(size) + 0.5) / size
    x, y = crop.x + at * crop.width - 0.5, crop.y + at * crop.height - 0.5
    return np.stack(np.meshgrid(x[::-1] if crop.flip else x, y), axis=-1).astype(np.float32)
