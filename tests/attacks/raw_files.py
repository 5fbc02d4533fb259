"""Small raw files of every modality, in several formats."""

from __future__ import annotations

import io
import wave
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import trimesh

from .. import flash_and_beep
from ..preprocess.encode.motion_files import motion_bytes

ENDINGS: dict[str, tuple[str, ...]] = {
    "folder": (".mp4", ".mkv", ".avi", ".webm", ".ts"),
    "audio-folder": (".wav", ".flac", ".mp3", ".ogg"),
    "audiovisual-folder": (".mp4", ".mkv"),
    "image-folder": (".jpg", ".png", ".bmp", ".tif", ".webp", ".ppm"),
    "points-folder": (".npy", ".ply", ".pcd", ".xyz", ".stl", ".off"),
    "pose-folder": (".bvh", ".npz"),
    "mesh-folder": (".obj", ".ply", ".stl", ".off", ".glb"),
}
"""The endings of the files that are made for each dataset."""


def raw_files(folder: Path) -> dict[str, dict[str, bytes]]:
    """The bytes of a good file by dataset and ending; `folder` is for the files in between."""
    makers: dict[str, Callable[[Path], None]] = {
        "folder": _video,
        "audio-folder": _sound,
        "audiovisual-folder": _video,
        "image-folder": _image,
        "points-folder": _points,
        "pose-folder": _motion,
        "mesh-folder": _mesh,
    }
    made: dict[str, dict[str, bytes]] = {}
    for dataset, endings in ENDINGS.items():
        made[dataset] = {}
        for ending in endings:
            path = folder / f"{dataset}{ending}"
            makers[dataset](path)
            made[dataset][ending] = path.read_bytes()
    return made


def audio_only_video(folder: Path) -> bytes:
    """An mp4 with a sound track and no picture."""
    path = folder / "audio-only.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*track.encode(frame), *track.encode(None)])
    return path.read_bytes()


def _video(path: Path) -> None:
    video, sound = {".avi": ("mpeg4", "mp3"), ".webm": ("libvpx", "libopus")}.get(path.suffix, ("libx264", "aac"))
    flash_and_beep.write(path, (5,), frames=24, video=video, codec=sound)


def _wave() -> np.ndarray:
    return (np.sin(np.arange(6000) / 9) * 9000 + np.random.default_rng(0).normal(0, 900, 6000)).astype("<i2")


def _sound(path: Path) -> None:
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
            out.writeframes(_wave().tobytes())
        return
    codec, form = {".flac": ("flac", "s16"), ".mp3": ("mp3", "s16p"), ".ogg": ("libopus", "s16")}[path.suffix]
    rate = 48000 if codec == "libopus" else 16000
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(_wave()[None], format=form, layout="mono")
        frame.sample_rate = rate
        container.mux([*track.encode(frame), *track.encode(None)])


def _image(path: Path) -> None:
    smooth = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(smooth, (90, 70), interpolation=cv2.INTER_CUBIC))


def _points(path: Path) -> None:
    if path.suffix not in (".npy", ".pcd", ".xyz"):
        return _mesh(path)
    file, points = io.BytesIO(), np.random.default_rng(2).normal(size=(80, 4)).astype("<f4")
    if path.suffix == ".npy":
        np.save(file, points)
    elif path.suffix == ".xyz":
        np.savetxt(file, points)
    else:
        file.write(b"FIELDS x y z i\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS 80\nDATA binary\n" + points.tobytes())
    path.write_bytes(file.getvalue())
    return None


def _motion(path: Path) -> None:
    path.write_bytes(motion_bytes(path.suffix))


def _mesh(path: Path) -> None:
    trimesh.creation.icosphere(subdivisions=1).export(path)
