"""Measure the samples of a split: signals, and the perceptual hashes by which near-duplicates are found.

An image is decoded whole. For a clip, keyframes are decoded for signals and reference frames for hashes; both decode
without the frames between them. Measures are stored next to the split, one file per shard, so a killed run resumes, and
a changed split is measured only where it changed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from math import prod
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soxr
from av.video.reformatter import VideoReformatter

from maskstream.shards.arrays import Float64s, Int64s, UInt8s
from maskstream.shards.errors import SampleError
from maskstream.shards.format.component import component_of
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.records import MEASURES, find_measures_cache
from maskstream.shards.media.image_header import check_image
from maskstream.shards.media.local_media import open_media
from maskstream.shards.media.sound_packets import to_floats
from maskstream.shards.members.image import IMAGE
from maskstream.shards.members.sound import SOUND
from maskstream.shards.members.text import TEXT
from maskstream.shards.members.video import VIDEO
from maskstream.shards.own_folder import make_own_folder
from maskstream.shards.progress import SILENT, Progress, as_progress

from .kept import read_kept, write_kept
from .prints import (
    MOST_SOUND_S,
    PART_BYTES,
    RATE,
    WINDOWS,
    draw_levels,
    hash_picture,
    hash_sound,
    hash_text,
    shrink_luma,
)

SIGNALS: Mapping[str, str] = {
    "width": "pixels",
    "height": "pixels",
    "pixels": "width x height",
    "bytes": "size of the image, video, audio or text file in its shard",
    "seconds": "length of a clip or audio; 0 for an image or text",
    "brightness": "mean luma, 0 (black) to 1; for a clip this and all below are medians over its keyframes",
    "contrast": "standard deviation of luma, 0 to 0.5",
    "saturation": "mean of (largest - smallest) / largest of red, green and blue, 0 (grey) to 1, over a grid of "
    "pixels, 32 or fewer along the short side",
    "entropy": "entropy of luma in 64 bins, in bits, 0 (flat) to 6",
    "sharpness": "variance of the Laplacian of 8-bit luma, averaged over whole pixels to a short side of 256 or less; "
    "low if blurred",
    "borders": "fraction of the image in dark rows and columns at its edges, as in a letterbox",
    "dark": "fraction of the frames that are almost black, 0 or 1 for an image",
    "motion": "median change of mean absolute luma from keyframe to keyframe, 0 to 1; 0 for an image",
    "still": "fraction of the steps from keyframe to keyframe in which nothing changes; 0 for an image",
}
"""Signals that are measured of each sample, with a description."""
VERSION = 8
"""Raised whenever a signal or hash changes."""
_FLAT = 4.0
"""Frames whose luma has a smaller standard deviation, in 8-bit steps, have no hash: it would be noise."""
_UNCHANGED = 0.5
_APART_S, _CLOSE_S = 0.4, 0.125
MOST_FRAMES = 256
_LETTERS = 300


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measures:
    """Signals of N samples and perceptual hashes of their F frames.

    Attributes:
        manifest: Manifest of the split.
        index: Numbers of the samples in the manifest, int64 (N,).
        components: Component of each sample that was measured, such as jpg or png.
        signals: float64 (N,) by name; NaN for samples that cannot be decoded.
        start: First frame of each sample, int64 (N + 1,).
        times: Time of each frame in seconds from the start, float64 (F,).
        whole: Waves and slopes of each frame, uint8 (F, 64).
        windows: Waves of the WINDOWS of each frame, uint8 (F, 11, 32), zeros if it has no such window; (0, 11, 32) for
            audio and texts.
        mirrored: Waves and slopes of each mirrored frame, uint8 (F, 64).
        unreadable: Reason why a sample cannot be decoded, by its position.
    """

    manifest: Manifest
    index: Int64s
    components: Sequence[str]
    signals: Mapping[str, Float64s]
    start: Int64s
    times: Float64s
    whole: UInt8s
    windows: UInt8s
    mirrored: UInt8s
    unreadable: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def media(self) -> set[str]:
        """Media of the samples, values of `_MEDIA`."""
        return {_MEDIA[self.manifest.components[name].kind] for name in set(self.components)}

    def text(self, place: int) -> str | None:
        """Return the beginning of a text; None for samples of other media."""
        number, name = int(self.index[place]), self.components[place]
        if self.manifest.components[name].kind != TEXT.name:
            return None
        (data,) = self.manifest.store.read_many([self.manifest.member(number, name)])
        return data.decode(errors="replace")[:_LETTERS]

    def picture(self, place: int) -> UInt8s:
        """Return an image of a sample for a page: the image itself, the first keyframe of a clip, or the spectrogram of
        audio.

        Args:
            place: Position of the sample among the measured ones.

        Returns:
            uint8 (H, W, 3), RGB.

        Raises:
            SampleError: The sample cannot be decoded.
        """
        number, name = int(self.index[place]), self.components[place]
        if self.manifest.components[name].kind == SOUND.name:
            with self.manifest.reading(number, name):
                return draw_levels(_read_sound(self.manifest, number, name))
        (frame,) = _read_frames_of(self.manifest, number, name, most=1)
        return np.ascontiguousarray(frame[:, :, ::-1])

    @property
    def owner(self) -> Int64s:
        """Position of the sample of each frame, int64 (F,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))


def measure(
    location: SplitLocation,
    *,
    component: str | None = None,
    kept: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | Callable[[int, int], object] = SILENT,
) -> Measures:
    """Measure all samples of a split of images, clips, audio or texts, except removed ones.

    Args:
        location: Folder or URL of the split.
        component: Component to measure if samples have several; by default images, then the only clip, audio file or
            text.
        kept: Folder in which measures are stored. By default `.measures` in a local split, or the user's cache if the
            split is read-only; a split at a URL, or whose tars lie in other splits, stores nothing by default.
        threads: Threads that decode; one per core by default.
        progress: Progress display, or a function of the number of measured samples and of all samples.

    Returns:
        Signals and hashes of each sample; samples that cannot be decoded are listed in `unreadable`.

    Raises:
        ValueError: The split has no such component, or several of one kind.
        ShardError: The location is not a complete split.
    """
    manifest, progress = Manifest.load(location), as_progress(progress)
    names = _names(manifest, component)
    folders = [Path(kept)] if kept is not None else _folders(manifest)
    numbers = np.setdiff1d(np.arange(len(manifest)), manifest.removed)
    present = np.stack([manifest.components[name].offset[numbers] > 0 for name in names])
    numbers, which = numbers[present.any(0)], present.argmax(0)[present.any(0)]
    tables: list[pa.Table] = []
    progress.phase(f"measuring {manifest.location}", len(numbers), unit="samples")
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        for shard, facts in enumerate(manifest.shards()):
            mine = manifest.shard[numbers] == shard
            if mine.any():
                file = f"{facts.sha256[:32]}-{component or 'any'}-{VERSION}.parquet"
                paths = [folder / file for folder in folders]
                own = [names[at] for at in which[mine]]
                tables.append(_measure_shard(manifest, own, numbers[mine], paths, pool))
                progress.advance(len(own))
    table = pa.concat_tables(tables) if tables else _SCHEMA.empty_table()
    counts = table.column("frames").to_numpy()
    reasons = table.column("reason").to_pylist()
    return Measures(
        manifest=manifest,
        index=numbers,
        components=[names[at] for at in which],
        signals={signal: table.column(signal).to_numpy().astype(np.float64) for signal in SIGNALS},
        start=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        times=np.frombuffer(b"".join(table.column("times").to_pylist()), np.float64),
        **{
            name: np.frombuffer(b"".join(table.column(name).to_pylist()), np.uint8).reshape(-1, *shape)
            for name, shape in _HASHES.items()
        },
        unreadable={place: reason for place, reason in enumerate(reasons) if reason},
    )


_HASHES = {"whole": (2 * PART_BYTES,), "windows": (len(WINDOWS), PART_BYTES), "mirrored": (2 * PART_BYTES,)}
"""Shapes of the hashes of one frame."""
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        *((signal, pa.float64()) for signal in SIGNALS),
        ("frames", pa.int64()),
        *((name, pa.binary()) for name in ("times", *_HASHES)),
        ("reason", pa.string()),
    ]
)


def _names(manifest: Manifest, component: str | None) -> list[str]:
    """Return the components to measure: the requested one, else images of any format, else the only component of the
    next kind.
    """
    pictures = [name for name, one in manifest.components.items() if one.kind == IMAGE.name]
    if component is None and pictures:
        return pictures
    kinds = [kind for kind in _MEDIA if any(one.kind == kind for one in manifest.components.values())]
    try:
        return [component_of(manifest.components, [*_MEDIA] if component or not kinds else kinds[:1], component).name]
    except ValueError as error:
        raise ValueError(f"only images, clips, audio and texts can be measured; {manifest}: {error}") from error


IMAGES = "images and clips"
_MEDIA = {
    IMAGE.name: IMAGES,
    VIDEO.name: IMAGES,
    SOUND.name: "audio",
    TEXT.name: "texts",
}
"""Media of each kind of component. If a split has several, the first one is measured."""


def _folders(manifest: Manifest) -> list[Path]:
    """Return the folders that may contain measures; new ones go to the first that is writable."""
    try:
        folders = [manifest.folder / MEASURES]
    except ValueError:  # it is not one local folder
        return []
    if not os.access(manifest.folder, os.W_OK):
        with suppress(OSError, ValueError):  # then nothing is kept
            folders.append(make_own_folder(find_measures_cache()))
    return folders


def _measure_shard(
    manifest: Manifest,
    names: Sequence[str],
    numbers: Int64s,
    paths: Sequence[Path],
    pool: ThreadPoolExecutor,
) -> pa.Table:
    """Return the measures of samples of one shard: those stored in `paths`, and newly measured ones, which are then
    stored.
    """
    keys = manifest.keys(numbers)
    tables = (read_kept(path, _SCHEMA) for path in paths)
    table = pa.concat_tables([_SCHEMA.empty_table(), *filter(_is_possible, tables)])
    place = {key: at for at, key in enumerate(table.column("key").to_pylist())}
    of_all = zip(keys, numbers.tolist(), names, strict=True)
    missing = [(key, number, name) for key, number, name in of_all if key not in place]
    if missing:
        rows = pool.map(lambda one: {"key": one[0], **_of_sample(manifest, one[1], one[2])}, missing)
        place |= {key: len(table) + at for at, (key, *_) in enumerate(missing)}
        table = pa.concat_tables([table, pa.Table.from_pylist(list(rows), schema=_SCHEMA)])
        write_kept(table.take([*place.values()]), paths)
    return table.take([place[key] for key in keys])


_LIMITS = {
    **dict.fromkeys(("brightness", "contrast", "saturation", "borders", "dark", "motion", "still"), 1.0),
    "entropy": 6.0,
    "sharpness": 1020.0**2,
}
"""Largest possible values of signals; the smallest is 0."""
_MOST_HASHED = 1 << 16


def _is_possible(table: pa.Table) -> bool:
    """Return whether the numbers of a table are plausible measures. A matching checksum alone does not prove it, since
    anyone can compute it.
    """
    if any(table[name].null_count for name in ("key", "frames", "times", *_HASHES, "reason")):
        return False
    frames, sizes = table["frames"].to_numpy(), {"times": 8} | {name: prod(shape) for name, shape in _HASHES.items()}
    if ((frames < 0) | (frames > _MOST_HASHED)).any():
        return False
    for name, size in sizes.items():
        lengths = pc.binary_length(table[name]).to_numpy()
        if not ((lengths == size * frames) | ((lengths == 0) & (name == "windows"))).all():
            return False
    values = [(table[name].drop_null().to_numpy(), _LIMITS.get(name, 1e15)) for name in SIGNALS]
    values.append((np.frombuffer(b"".join(table["times"].to_pylist()), np.float64), 1e15))
    return all(bool(((one >= 0) & (one <= most + 1e-6)).all()) for one, most in values)


def _of_sample(manifest: Manifest, number: int, name: str) -> dict[str, object]:
    """Return the row of a sample. A sample that cannot be decoded has a reason instead of signals."""
    component = manifest.components[name]
    try:
        measured = _measure_print if component.kind in (SOUND.name, TEXT.name) else _measure_frames
        return {**measured(manifest, number, name), "reason": ""}
    except SampleError as error:
        return {"frames": 0, **dict.fromkeys(("times", *_HASHES), b""), "reason": error.reason}


def _measure_print(manifest: Manifest, number: int, name: str) -> dict[str, object]:
    """Return the row of audio or a text: its size, length and hashes; it has no windows."""
    component = manifest.components[name]
    size_bytes, seconds = int(component.size[number]), 0.0
    lower = np.empty((0, PART_BYTES), np.uint8)
    with manifest.reading(number, name):
        if component.kind == SOUND.name:
            facts = component.facts_of(number)
            seconds = int(facts["n_samples"]) / float(facts["sample_rate"])
            times, own, lower = hash_sound(_read_sound(manifest, number, name))
        else:
            (data,) = manifest.store.read_many([manifest.member(number, name)])
            own = hash_text(data.decode())
            times = np.zeros(len(own))
    # Both parts of a hash are the same: waves.
    own, lower = (np.concatenate([one, one], axis=1) for one in (own, lower))
    columns = {"times": times.tobytes(), "whole": own.tobytes(), "windows": b"", "mirrored": lower.tobytes()}
    return {**list_known_signals(0, 0, size_bytes, seconds), "frames": len(own), **columns}


def _read_sound(manifest: Manifest, number: int, name: str) -> Float64s:
    """Read the first MOST_SOUND_S seconds of audio, mono at RATE, float64 (N,)."""
    (data,) = manifest.store.read_many([manifest.member(number, name)])
    with open_media(data) as container:
        parts, seconds, rate = [], 0.0, 0
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            parts.append(to_floats(frame).mean(1))
            seconds += frame.samples / rate
            if seconds >= MOST_SOUND_S:
                break
    if not parts:
        raise ValueError("none of its samples can be decoded")
    return np.asarray(soxr.resample(np.concatenate(parts), rate, RATE), np.float64)[: MOST_SOUND_S * RATE]


def _measure_frames(manifest: Manifest, number: int, name: str) -> dict[str, object]:
    """Return the row of an image or clip."""
    component = manifest.components[name]
    facts = component.facts_of(number)
    width, height = int(facts["width"]), int(facts["height"])
    is_clip = component.kind == VIDEO.name
    seconds = int(facts["n_frames"]) / float(facts["fps"]) if is_clip else 0.0
    known = list_known_signals(width, height, int(component.size[number]), seconds)
    frames = _read_frames_of(manifest, number, name)
    if is_clip:
        with manifest.reading(number, name):
            (data,) = manifest.store.read_many([manifest.member(number, name)])
            shown = list(islice(moments(data), MOST_FRAMES))
    else:
        shown = [(0.0, np.asarray(cv2.cvtColor(_shrink_frame(frames[0]), cv2.COLOR_BGR2GRAY), np.uint8))]
    hashed = [(time, *hash_picture(luma, of_clip=is_clip)) for time, luma in shown if float(luma.std()) >= _FLAT]
    times, *hashes = zip(*hashed, strict=True) if hashed else ((), *[()] * len(_HASHES))
    columns = {name: b"".join(one) for name, one in zip(_HASHES, hashes, strict=True)}
    return {
        **known,
        **looks_of(frames),
        "frames": len(times),
        "times": np.array(times).tobytes(),
        **columns,
    }


def looks_of(frames: Sequence[UInt8s]) -> dict[str, float]:
    """Return the signals of an image, or of the keyframes of a clip.

    Args:
        frames: One image, or keyframes, each uint8 (H, W, 3), BGR.

    Returns:
        Values by signal name: for a clip medians over its frames, but means for `dark` and `still`.
    """
    from .looks import average_luma, look  # compiled kernels take 0.2 s to load, needless for audio and texts

    looks = [look(frame) for frame in frames]
    if len(looks) == 1:
        return {**looks[0], "motion": 0.0, "still": 0.0}
    signals = {signal: float(np.median([one[signal] for one in looks])) for signal in looks[0]}
    signals["dark"] = float(np.mean([one["dark"] for one in looks]))
    changes = [float(np.abs(b - a).mean()) for a, b in pairwise(shrink_luma(average_luma(frame)) for frame in frames)]
    signals["motion"] = float(np.median(changes)) / 255
    signals["still"] = float(np.mean(np.array(changes) < _UNCHANGED))
    return signals


def list_known_signals(width: int, height: int, size_bytes: int, seconds: float) -> dict[str, float]:
    """Return the signals of a sample that need no decoding, by name.

    Args:
        width: Width in pixels, 0 for audio and texts.
        height: Height in pixels, 0 for audio and texts.
        size_bytes: Size of the file in bytes.
        seconds: Length in seconds, 0 for images and texts.
    """
    return {"width": width, "height": height, "pixels": width * height, "bytes": size_bytes, "seconds": seconds}


def _read_frames_of(manifest: Manifest, number: int, name: str, most: int = MOST_FRAMES) -> list[UInt8s]:
    """Decode the image of a sample, or the keyframes of a clip, uint8 (H, W, 3), BGR. Raise SampleError if there is
    none.
    """
    component = manifest.components[name]
    member = manifest.member(number, name)
    with manifest.reading(number, name):
        (data,) = manifest.store.read_many([member])
        if component.kind == VIDEO.name:
            frames = list(islice(keyframes(data), most))
        else:
            facts = component.facts_of(number)
            check_image(data, int(facts["width"]), int(facts["height"]))
            frames = [picture(data)]
    if not frames:
        raise manifest.sample_error(number, name, "none of its keyframes can be decoded")
    return frames


def picture(data: bytes) -> UInt8s:
    """Decode an image, uint8 (H, W, 3), BGR. Raise ValueError if it cannot be decoded."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("it cannot be decoded")
    return np.asarray(pixels, np.uint8)


def keyframes(data: bytes) -> Iterator[UInt8s]:
    """Yield the keyframes of a video file that are at least 0.4 s apart, uint8 (H, W, 3), BGR."""
    with open_media(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONKEY"
        to_bgr, last = VideoReformatter(), -np.inf
        for frame in container.decode(stream):
            if frame.time is not None and frame.time < last + _APART_S:
                continue
            last = last if frame.time is None else frame.time
            yield np.asarray(to_bgr.reformat(frame, format="bgr24", threads=1).to_ndarray(), np.uint8)


def moments(data: bytes) -> Iterator[tuple[float, UInt8s]]:
    """Yield the times in seconds and the luma, uint8 (H, W), of the reference frames of a video.

    Frames are at least 1/8 s apart, or further in a long video, so that there are about MOST_FRAMES at most.
    """
    with open_media(data) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONREF"
        seconds = 0.0 if container.duration is None else container.duration / 1e6
        apart, first, last = max(_CLOSE_S, seconds / MOST_FRAMES), 0.0, -np.inf
        for number, frame in enumerate(container.decode(stream)):
            time = number * apart if frame.time is None else frame.time
            first = min(first, time) if number else time
            if time >= last + apart - 1e-6:
                last = time
                yield time - first, _shrink_frame(np.asarray(frame.to_ndarray(format="gray"), np.uint8))


def _shrink_frame(pixels: UInt8s) -> UInt8s:
    """Resize a frame so that its short side is at most 256."""
    height, width = pixels.shape[:2]
    scale = 256 / min(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
