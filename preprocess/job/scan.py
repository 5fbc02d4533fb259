"""Detect scenes and pauses in files, in executor tasks, and encode clips of scenes from the same decoded frames.

A task measures some files, or compares the frames of sections of a minute or two. It publishes its result in
OUT/.clips, without names, so a killed run continues, and the parts of a job share their results. Clips of scenes within
a section are kept there until their shards are written (`encode/video/kept.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import xxhash

from maskstream.preprocess.encode.audio.pauses import find_pauses
from maskstream.preprocess.encode.limits import DEFAULT, Limits, limited
from maskstream.preprocess.encode.video.kept import find_kept_video, open_scene_encoder
from maskstream.preprocess.encode.video.profile import VideoProfile
from maskstream.preprocess.encode.video.scenes import find_scenes
from maskstream.preprocess.encode.video.source import has_seeking, open_video
from maskstream.preprocess.executors.base import Again, Report
from maskstream.preprocess.raw.files import LOCAL, Hand, RawFiles
from maskstream.preprocess.source import PAUSES_S, RejectError, Source, Span
from maskstream.shards.errors import DatasetError
from maskstream.shards.media.local_media import open_media
from maskstream.shards.stores.output import LocalOutput, Output

from .cutting import TRANSNET, Cutting, compute_scene_edges
from .judge import judge_error, retried
from .ledger import CrashableTask

CLIPS = ".clips"
"""Folder in OUT for the results of scans."""
_KEPT = f"{CLIPS}/clip-"
"""Prefix of the names of clips kept there."""
STRETCH_S = 120.0
"""Seconds of a file, or of several short files together, that a task compares."""
VIDEO = ("video", "audiovisual")
_VERSION = 2  # 2: decodes all frames, as encoders do
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class ScanPart:
    """A file, or its section [begin_s, stop_s) in seconds; None is the file's end."""

    source: Source
    begin_s: float = 0.0
    stop_s: float | None = None

    @property
    def unit(self) -> str:
        return f"{self.source.id}:{self.begin_s:g}" if self.begin_s else self.source.id


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """How clips of scenes are encoded and kept in `output`.

    Attributes:
        clips: How files are cut.
        profile: How clips are encoded.
        settings: All settings that determine their bytes, besides their file.
        output: Folder that keeps them.
    """

    clips: Cutting
    profile: VideoProfile
    settings: str
    output: LocalOutput

    def at(self, source: Source, span: Span) -> str:
        """Return the file name of a clip."""
        facts = f"{source.id}\t{span.start_s}\t{span.stop_s}\t{self.settings}"
        return f"{_KEPT}{xxhash.xxh3_128_hexdigest(facts.encode('utf-8', 'surrogateescape'))}"


@dataclass(frozen=True, slots=True)
class _ClipFiles:
    """Files of the clips of a source (`ClipFiles`)."""

    keep: Keeping
    source: Source

    def spans(self, begin_s: float, stop_s: float, *, is_last: bool) -> list[Span]:
        edges = compute_scene_edges(self.keep.clips, begin_s, stop_s, is_last=is_last)
        return [Span(start_s=first, stop_s=stop) for first, stop in edges]

    def has(self, span: Span) -> bool:
        kept = self.keep.output.folder / self.keep.at(self.source, span)
        return find_kept_video(replace(self.source, kept=kept)) is not None

    def put(self, span: Span, data: bytes) -> None:
        self.keep.output.publish(self.keep.at(self.source, span), data)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanTask(CrashableTask):
    """Files to measure, or sections of files to find scenes in.

    Attributes:
        name: Name of their record in `output`.
        parts: The files or sections.
        is_look: Whether files are only measured.
        by: How clips are cut, as in `Cutting`.
        modality: Modality of the dataset.
        output: Folder for the results.
        keep: How clips of scenes are kept; None if they are not.
        files: Location of the files.
        limits: Limits on the cost of a source.
        pauses_s: Seconds to wait between attempts to read a file.
    """

    name: str
    parts: tuple[ScanPart, ...]
    is_look: bool
    by: str
    modality: str
    output: Output
    keep: Keeping | None = None
    files: RawFiles = LOCAL
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S

    @property
    def units(self) -> int:
        """Number of files or sections."""
        return len(self.parts)


def scan(task: ScanTask, report: Report) -> list[dict[str, Any]]:
    """Return the result for each part of a task.

    This is either the length of a file and whether it can be seeked, or its scenes, or a reject.

    Raises:
        OutageError: A file cannot be read.
    """
    done = ScanLedger(task.output).stands(task)
    if done is not None:  # another part was faster
        return done
    found = []
    with task.files.at_hand() as hand:
        for part, following in zip(task.parts, (*task.parts[1:], None), strict=True):
            report(part.unit)
            found.append(_scan_stretch(task, part, hand, report))
            hand.release(part.source, None if following is None else following.source)
            report("")
    return found


def _scan_stretch(task: ScanTask, part: ScanPart, hand: Hand, report: Report) -> dict[str, Any]:
    here = hand.located(part.source)

    def attempt() -> dict[str, Any]:
        try:
            task.crashes.check(part.unit)
            if here.path != part.source.path:
                hand.read(here.path)
            with limited(part.unit, task.limits, report):
                if task.is_look:
                    return _measure_end(here.path, task.modality)
                return _find_scenes(here.path, part, task) if task.modality in VIDEO else _find_sounds(here.path)
        except BaseException as error:
            reject = judge_error(error, part.source.path)
            return {"reject": [reject.stage, reject.reason]}
        finally:
            report(part.unit)

    return retried(f"the source {part.source.id!r}", attempt, task.pauses_s, lambda why: report(Again(why)))


def _measure_end(path: Path, modality: str) -> dict[str, Any]:
    """Return the end of a file in seconds, as `Span` counts (None if it is not declared), and whether it can be
    seeked.
    """
    if modality in VIDEO:
        with open_video(path) as (container, stream):
            seeks = has_seeking(container)
            if stream.duration is not None and stream.time_base is not None:
                begin_s = (stream.start_time or 0) * stream.time_base - (container.start_time or 0) / av.time_base
                return {"end_s": float(begin_s + stream.duration * stream.time_base), "seeks": seeks}
            return {"end_s": _round_seconds(container.duration), "seeks": seeks}
    try:
        with open_media(path) as container:
            return {"end_s": _round_seconds(container.duration), "seeks": False}
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"is not audio that FFmpeg can open ({error})") from error


def _round_seconds(duration: int | None) -> float | None:
    return None if duration is None else duration / av.time_base


def _find_scenes(path: Path, part: ScanPart, task: ScanTask) -> dict[str, Any]:
    """Find the scenes of a section and keep their clips.

    Clips are not kept if the file was fetched, or if the section crashed a process, which may be the encoder's fault.
    """
    if task.by == TRANSNET:
        from .transnet import find_shots  # which imports torch

        found = find_shots(path, part.begin_s, part.stop_s)
    elif task.keep is None or path != part.source.path or part.unit in task.crashes.suspects:
        found = find_scenes(path, part.begin_s, part.stop_s)
    else:
        with open_scene_encoder(path, task.keep.profile, _ClipFiles(task.keep, part.source)) as frames:
            found = find_scenes(path, part.begin_s, part.stop_s, frames)
    return {"last_s": found.last_s, "starts": [[one.time_s, one.hard, one.black] for one in found.starts]}


def _find_sounds(path: Path) -> dict[str, Any]:
    """Find the pauses of an audio file, in the format of `_find_scenes`; pauses correspond to black scenes."""
    starts, end_s = find_pauses(path)
    return {"last_s": end_s, "starts": [[time_s, False, is_pause] for time_s, is_pause in starts]}


class ScanLedger:
    """Ledger of scans, whose records are files in OUT."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def stands(self, task: ScanTask) -> list[dict[str, Any]] | None:
        data = self.output.whole(task.name, _MOST_BYTES)
        try:
            found = None if data is None else json.loads(data)
        except ValueError:
            return None
        return found if isinstance(found, list) and len(found) == len(task.parts) else None

    def record(self, task: ScanTask, done: list[dict[str, Any]], restarts: int) -> None:
        self.output.publish(task.name, json.dumps(done).encode())

    def of(self, task: ScanTask) -> list[dict[str, Any]]:
        """Return the record of a finished task."""
        found = self.stands(task)
        if found is None:
            raise DatasetError(f"{task.name} in {self.output.location} is missing; run the same command again")
        return found


def split_into_stretches(source: Source, end_s: float | None, *, may_seek: bool) -> list[ScanPart]:
    """Split a file into sections that are compared separately. The last one continues past the declared end."""
    if end_s is None or not may_seek or end_s < 1.5 * STRETCH_S:
        return [ScanPart(source)]
    count = int(end_s // STRETCH_S)
    stops = [*(number * STRETCH_S for number in range(1, count)), None]
    return [ScanPart(source, number * STRETCH_S, stop_s) for number, stop_s in enumerate(stops)]


def group_stretches(stretches: Sequence[ScanPart], ends: dict[str, float | None]) -> list[list[ScanPart]]:
    """Group the sections of short files; each section of a long file is a group."""
    groups: list[list[ScanPart]] = []
    held_s = STRETCH_S
    for one in stretches:
        stop_s = one.stop_s or ends[one.source.id]
        length_s = STRETCH_S if stop_s is None else stop_s - one.begin_s
        if held_s + length_s > STRETCH_S:
            groups.append([])
            held_s = 0.0
        groups[-1].append(one)
        held_s += length_s
    return groups


def hash_stretches(group: Sequence[ScanPart]) -> str:
    """Hash some sections of files, including the files' sizes and modification times."""
    digest = xxhash.xxh3_128(f"{_VERSION}\n".encode())
    for one in group:
        try:
            found = one.source.path.stat()
            state = f"{found.st_size}\t{found.st_mtime_ns}"
        except OSError:  # the file is in an archive
            state = ""
        digest.update(f"{one.source.id}\t{one.begin_s}\t{one.stop_s}\t{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def forget_kept(output: Output) -> None:
    """Delete kept clips that are in no shard, such as clips of other settings."""
    if isinstance(output, LocalOutput):
        output.remove(output.names(_KEPT))
