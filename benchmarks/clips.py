"""The videos of the benchmark: files like those of Kinetics-400, and the shards made from them.

Real footage of the `sample` dataset becomes files of 10 s, 340 x 256 pixels, 30 frames a second, encoded as such files
are found: x264 medium, crf 21, a keyframe every 250 frames. Footage that is too short runs forwards and backwards,
without a cut. From these files `maskstream shards folder` makes the profiles. The files as
they are, in a plain WebDataset tar, are what `maskstream index` reads: the variant `found`.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from maskstream.preprocess.encode.video.profile import PROFILES
from maskstream.preprocess.foreign.job import index_tars
from maskstream.preprocess.job.shards import make_shards
from maskstream.samples.video.sample import sample
from maskstream.shards.format.dataset import DATASET_JSON
from maskstream.shards.format.manifest import Manifest

UInt8Array = npt.NDArray[np.uint8]

FOOTAGE = ("WolfgangLanger_Pexels", "bigbuckbunny", "bikes", "carphone_pristine", "demo")
"""The videos of the sample dataset that show motion and are large enough."""

DONE = "done.json"


FILES, FRAMES, WIDTH, HEIGHT, FPS = 16, 300, 340, 256, 30
CODED = {"preset": "medium", "crf": "21", "x264-params": "keyint=250:threads=1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """The same videos in one form: shards, and sample i as a plain file `files[i]` for readers that open files.

    The plain files of `found` and `copy` are the original ones. Sample i is the same video, under the same key, in all.
    """

    name: str
    manifest: Manifest
    files: list[Path]


def build(folder: Path, media: Path, profiles: tuple[str, ...]) -> dict[str, Variant]:
    """The variant `found` and the profiles, of which `copy` is one, from the sample dataset in `media`; made once."""
    found = folder / "found"
    settings = json.dumps([FILES, FRAMES, WIDTH, HEIGHT, FPS, CODED])
    done = found / DONE
    if not done.exists() or done.read_text() != settings:
        found.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "indexed", ignore_errors=True)
        for old in found.glob("*.mp4"):
            old.unlink()
        _write_found(found, media)
        done.write_text(settings)
    ours = {profile: _variant(profile, folder, found) for profile in profiles}
    return {"found": _indexed(folder / "indexed", ours["copy"]), **ours}


def _write_found(found: Path, media: Path) -> None:
    """Several files of each piece of footage, that begin at other frames and show other parts of the picture."""
    paths = {source.path.stem: source.path for split in sample(media).splits.values() for source in split}
    per_source = -(-FILES // len(FOOTAGE))
    for i in range(FILES):
        name, nth = FOOTAGE[i % len(FOOTAGE)], i // len(FOOTAGE)
        pictures = _pictures(paths[name], nth / max(per_source - 1, 1))
        numbers = _forth_and_back(len(pictures), start=nth * len(pictures) // per_source, count=FRAMES)
        _encode(found / f"{i:02d}-{name}.mp4", (pictures[n] for n in numbers))


def _pictures(path: Path, place: float) -> list[UInt8Array]:
    """All frames at WIDTH x HEIGHT, cut to its shape: `place` 0 is the left or upper end of a frame, 1 the other."""
    pictures: list[Any] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            rgb = frame.to_ndarray(format="rgb24")
            height, width = rgb.shape[:2]
            w, h = min(width, height * WIDTH // HEIGHT), min(height, width * HEIGHT // WIDTH)
            x, y = round((width - w) * place), round((height - h) * place)
            pictures.append(cv2.resize(rgb[y : y + h, x : x + w], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return pictures


def _forth_and_back(length: int, *, start: int, count: int) -> list[int]:
    period = 2 * (length - 1)
    return [min(k % period, period - k % period) for k in range(start, start + count)]


def _encode(path: Path, pictures: Iterator[UInt8Array]) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options=CODED)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _variant(profile: str, folder: Path, found: Path) -> Variant:
    make_shards("folder", found, folder / profile, profile=PROFILES[profile], as_is=True, overwrite=True)
    variant = built(folder, profile)
    if profile != "copy":
        variant.files[0].parent.mkdir(exist_ok=True)
        for i, file in enumerate(variant.files):
            _remux(variant.manifest.store.read(*variant.manifest.member(i, "mp4")), file)
    return variant


def built(folder: Path, profile: str) -> Variant:
    """A profile that `build` has made."""
    manifest = Manifest.load(folder / profile / "train")
    plain = folder / "found" if profile == "copy" else folder / profile / "files"
    return Variant(
        name=profile, manifest=manifest, files=[plain / Path(source).name for source in manifest.sources().to_pylist()]
    )


def _indexed(folder: Path, copy: Variant) -> Variant:
    """The original files under the keys of `copy` in a tar that others could have written, and its index."""
    if not (folder / DATASET_JSON).exists():
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / "found-000000.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key, file in zip(copy.manifest.keys(range(len(copy.files))), copy.files, strict=True):
                tar.add(file, arcname=f"{key}.mp4")
        index_tars([folder / "found-000000.tar"], as_is=True)
    manifest, same = Manifest.load(folder), range(len(copy.files))
    if len(manifest) != len(copy.files) or manifest.keys(same) != copy.manifest.keys(same):
        raise SystemExit(f"{folder} does not contain the videos of {copy.manifest.folder} in their order; delete it")
    return Variant(name="found", manifest=manifest, files=copy.files)


def _remux(data: bytes, path: Path) -> None:
    """The same packets as an ordinary MP4 that begins at 0, its index in front: what other readers seek best in."""
    with av.open(io.BytesIO(data), "r") as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        first = min(packet.pts or 0 for packet in packets)
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in packets:
            packet.pts, packet.dts = (packet.pts or 0) - first, (packet.dts or 0) - first
            packet.stream = stream
            target.mux(packet)
