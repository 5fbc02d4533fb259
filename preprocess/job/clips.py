"""Cuts long files into clips before shards are planned: at scenes or pauses, after so many seconds, or as a list says.

Files are looked at, and stretches of a minute or two of them compared frame by frame, in tasks of an executor. Each
task publishes what it found in OUT/.clips, without names, so a run that is killed goes on, and the parts of a job use
what others found. A part begins with its own share and takes what nobody has done yet; whoever does it finds the same.
The clips of scenes that lie in a stretch are encoded from the same frames and kept there until their shards are written
(`encode/video/kept.py`), but for those of the shares of others.
Clips are sources with a span of their own, and all else is as with files that a list cuts (`datasets/listed.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import av
import xxhash

from maskstream.preprocess.datasets import Dataset
from maskstream.preprocess.datasets.listed import MediaList, listed_sources, time_word
from maskstream.preprocess.encode.audio.pauses import find_pauses
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.limits import DEFAULT, Limits, limited
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.kept import encoding_scenes, kept_video
from maskstream.preprocess.encode.video.profile import VideoProfile
from maskstream.preprocess.encode.video.scenes import SceneStart, find_scenes
from maskstream.preprocess.encode.video.source import can_seek, open_video
from maskstream.preprocess.executors.base import Again, Executor, Report
from maskstream.preprocess.raw.files import LOCAL, Hand, RawFiles
from maskstream.preprocess.source import RejectError, Source, Span
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.sample import Reject
from maskstream.shards.media.local_media import open_media
from maskstream.shards.named import first_few
from maskstream.shards.stores.output import LocalOutput, Output

from .judge import PAUSES_S, retried, verdict_on
from .ledger import CrashableTask, InEnvironment, libraries, run_tasks
from .plan import JobPart
from .progress import Progress

CLIPS = ".clips"
"""The folder in OUT that has what was found."""
KEPT = f"{CLIPS}/clip-"
"""How the names of the clips begin that are kept there."""
SCENES, TRANSNET, SILENCE = "scenes", "transnetv2", "silence"
STRETCH_S = 120.0
"""How much of a file a task compares, and how much of short files together."""
_LOOKED_AT = 64
"""How many files a task looks at."""
_VERSION = 2  # 2: all frames are decoded, as encoders do
_EVERY = re.compile(r"(\d+(?:\.\d+)?)s")
_VIDEO, _TIMED = ("video", "audiovisual"), ("video", "audiovisual", "audio")
_MOST_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutting:
    """How files are cut. by: "scenes", "transnetv2" (scenes as that network tells them), "silence" (sounds, at their
    pauses), a number of seconds such as "10s", or the path of a list with the columns path, start and end. min_s: a
    shorter clip is left out, by default one of less than 2 s, or than half of `by`. max_s: a longer scene, or sound
    between pauses, is cut into equal clips.
    """

    by: str
    min_s: float | None = None
    max_s: float | None = None

    def __post_init__(self) -> None:
        if (
            not self.is_found
            and self.every_s is None
            and Path(self.by).suffix.lower()
            not in (
                ".csv",
                ".tsv",
                ".jsonl",
                ".parquet",
            )
        ):
            raise ValueError(
                f"clips={self.by!r} is not 'scenes', 'transnetv2', 'silence', a number of seconds such as '10s', or a "
                "list (.csv, .tsv, .jsonl, .parquet) with the columns path, start and end"
            )
        if self.every_s is not None and not 0.1 <= self.every_s <= 86400:
            raise ValueError(f"clips={self.by!r} must be from 0.1s to 86400s")
        if not self.is_found and self.max_s is not None:
            raise ValueError("max_clip divides long scenes and sounds; it belongs to clips='scenes' and 'silence'")
        if not (self.is_found or self.every_s) and self.min_s is not None:
            raise ValueError("min_clip leaves out short scenes and rests; a list says itself which clips there are")
        if not 0 <= self.least_s <= self.most_s / 2:
            raise ValueError(
                f"min_clip={self.least_s:g} and max_clip={self.most_s:g} do not fit: min_clip must be at most half of "
                "max_clip, for a scene that is a little longer than max_clip becomes two clips"
            )

    @property
    def is_found(self) -> bool:
        """Whether it is looked for in the files where clips begin."""
        return self.by in (SCENES, TRANSNET, SILENCE)

    @property
    def every_s(self) -> float | None:
        """The seconds of a clip; None if it is cut otherwise."""
        found = _EVERY.fullmatch(self.by)
        return float(found[1]) if found else None

    @property
    def least_s(self) -> float:
        """The least seconds of a clip."""
        return min(2.0, (self.every_s or 4.0) / 2) if self.min_s is None else self.min_s

    @property
    def most_s(self) -> float:
        """The most seconds of a clip of a scene."""
        return (self.every_s or 20.0) * (2 if self.every_s else 1) if self.max_s is None else self.max_s


@dataclass(frozen=True, slots=True)
class _Part:
    """A file, or the stretch [begin_s, stop_s) of one; None is its end."""

    source: Source
    begin_s: float = 0.0
    stop_s: float | None = None

    @property
    def unit(self) -> str:
        return f"{self.source.id}:{self.begin_s:g}" if self.begin_s else self.source.id


@dataclass(frozen=True, kw_only=True, slots=True)
class _Keep:
    """How clips of scenes are encoded that are kept in `output`. settings: all that decides their bytes, besides their
    file.
    """

    clips: Cutting
    profile: VideoProfile
    settings: str
    output: LocalOutput

    def at(self, source: Source, span: Span) -> str:
        """The name of a clip."""
        facts = f"{source.id}\t{span.start_s}\t{span.stop_s}\t{self.settings}"
        return f"{KEPT}{xxhash.xxh3_128_hexdigest(facts.encode('utf-8', 'surrogateescape'))}"


@dataclass(frozen=True, slots=True)
class _ClipFiles:
    """The files of the clips of a source (`ClipFiles`)."""

    keep: _Keep
    source: Source

    def spans(self, begin_s: float, stop_s: float, *, is_last: bool) -> list[Span]:
        edges = _divided(self.keep.clips, begin_s, stop_s, is_last=is_last)
        return [Span(start_s=first, stop_s=stop) for first, stop in edges]

    def has(self, span: Span) -> bool:
        kept = self.keep.output.folder / self.keep.at(self.source, span)
        return kept_video(replace(self.source, kept=kept)) is not None

    def put(self, span: Span, data: bytes) -> None:
        self.keep.output.publish(self.keep.at(self.source, span), data)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanTask(CrashableTask):
    """Some files to look at, or some stretches of files to find scenes in; `name` is that of their record in `output`.
    keep: how the clips of scenes are kept, if they are.
    """

    name: str
    parts: tuple[_Part, ...]
    is_look: bool
    by: str
    modality: str
    output: Output
    keep: _Keep | None = None
    files: RawFiles = LOCAL
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S

    @property
    def units(self) -> int:
        """The number of files or stretches."""
        return len(self.parts)


def scan(task: ScanTask, report: Report) -> list[dict[str, Any]]:
    """What is found in each part of a task: how long a file is and whether it can be sought in, or scenes; or the
    reject that it is. Raises OutageError if a file cannot be read.
    """
    done = _Found(task.output).stands(task)
    if done is not None:  # another part was faster
        return done
    found = []
    with task.files.at_hand() as hand:
        for part, following in zip(task.parts, (*task.parts[1:], None), strict=True):
            report(part.unit)
            found.append(_scanned(task, part, hand, report))
            hand.release(part.source, None if following is None else following.source)
            report("")
    return found


def _scanned(task: ScanTask, part: _Part, hand: Hand, report: Report) -> dict[str, Any]:
    here = hand.located(part.source)

    def attempt() -> dict[str, Any]:
        try:
            task.crashes.check(part.unit)
            if here.path != part.source.path:
                hand.read(here.path)
            with limited(part.unit, task.limits, report):
                if task.is_look:
                    return _looked_at(here.path, task.modality)
                return _scenes(here.path, part, task) if task.modality in _VIDEO else _sounds(here.path)
        except BaseException as error:
            reject = verdict_on(error, part.source.path)
            return {"reject": [reject.stage, reject.reason]}
        finally:
            report(part.unit)

    return retried(f"the source {part.source.id!r}", attempt, task.pauses_s, lambda why: report(Again(why)))


def _looked_at(path: Path, modality: str) -> dict[str, Any]:
    """When a file ends, in seconds as `Span` counts, None if it does not say so; and whether it can be sought in."""
    if modality in _VIDEO:
        with open_video(path) as (container, stream):
            seeks = can_seek(container)
            if stream.duration is not None and stream.time_base is not None:
                begin_s = (stream.start_time or 0) * stream.time_base - (container.start_time or 0) / av.time_base
                return {"end_s": float(begin_s + stream.duration * stream.time_base), "seeks": seeks}
            return {"end_s": _whole_s(container.duration), "seeks": seeks}
    try:
        with open_media(path) as container:
            return {"end_s": _whole_s(container.duration), "seeks": False}
    except (av.FFmpegError, ValueError) as error:
        raise RejectError("open", f"is no sound that FFmpeg can open ({error})") from error


def _whole_s(duration: int | None) -> float | None:
    return None if duration is None else duration / av.time_base


def _scenes(path: Path, part: _Part, task: ScanTask) -> dict[str, Any]:
    """The scenes of a stretch, whose clips are kept: but of a file that was fetched, and of a stretch that ended a
    process, which may be the encoder's fault.
    """
    if task.by == TRANSNET:
        from .transnet import find_shots  # which imports torch

        found = find_shots(path, part.begin_s, part.stop_s)
    elif task.keep is None or path != part.source.path or part.unit in task.crashes.suspects:
        found = find_scenes(path, part.begin_s, part.stop_s)
    else:
        with encoding_scenes(path, task.keep.profile, _ClipFiles(task.keep, part.source)) as frames:
            found = find_scenes(path, part.begin_s, part.stop_s, frames)
    return {"last_s": found.last_s, "starts": [[one.time_s, one.hard, one.black] for one in found.starts]}


def _sounds(path: Path) -> dict[str, Any]:
    """As `_scenes`; pauses are what is black of a film."""
    starts, end_s = find_pauses(path)
    return {"last_s": end_s, "starts": [[time_s, False, is_pause] for time_s, is_pause in starts]}


class _Found:
    """The ledger of scans, whose records are files in OUT."""

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
        """The record of a task that was run."""
        found = self.stands(task)
        if found is None:
            raise DatasetError(f"{task.name} in {self.output.location} is gone; run the same command again")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutter:
    """Cuts the sources of a dataset into clips. output: the folder of all splits."""

    clips: Cutting
    output: Output
    executor: Executor
    progress: Progress
    part: JobPart | None = None
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S

    def cut(self, raw: Dataset, root: Path, files: RawFiles) -> Dataset:
        """The dataset with its clips as sources. A file that cannot be opened, or of which nothing can be decoded, is
        among its missing ones. Raises DatasetError for a modality that has no clips, and for a list of other files.
        """
        legal = {SCENES: _VIDEO, TRANSNET: _VIDEO, SILENCE: ("audio",)}.get(self.clips.by, _TIMED)
        if raw.modality not in legal:
            raise DatasetError(
                f"clips={self.clips.by!r} cuts {', '.join(legal)}, but {raw.name} is {raw.modality}; leave --clips out"
            )
        if strange := next((s for own in raw.splits.values() for s in own if _is_no_file(s)), None):
            raise DatasetError(f"{raw.name}: {strange.id!r} is no whole file, so --clips cannot cut it; leave it out")
        if not self.clips.is_found and self.clips.every_s is None:
            return _by_list(raw, root, Path(self.clips.by))
        splits: dict[str, list[Source]] = {}
        missing = {name: [*rejects] for name, rejects in raw.missing.items()}
        for name, sources in raw.splits.items():
            splits[name], rejects, left_out = self._cut(sources, raw.encoder, files)
            missing.setdefault(name, []).extend(rejects)
            if left_out:
                self.progress.say(
                    f"{name}: {left_out} stretches shorter than {self.clips.least_s:g} s, black or silent, are left out"
                )
            if not splits[name]:
                reasons = first_few([f"{one.source} ({one.stage}: {one.reason})" for one in rejects])
                raise DatasetError(
                    f"{raw.name}: no clip of {self.clips.least_s:g} s or more is in the {len(sources)} files of the "
                    f"split {name!r}{f': {reasons}' if rejects else ''}; take a smaller --min-clip"
                )
        return replace(raw, splits=splits, missing=missing)

    def _cut(
        self, sources: Sequence[Source], encoder: Encoder, files: RawFiles
    ) -> tuple[list[Source], list[Reject], int]:
        """The clips of some files, the rejects among these, and how many stretches are left out."""
        keep = self._keep(encoder)
        whole = [_Part(source) for source in sorted(sources, key=lambda one: one.id)]
        groups = [whole[at : at + _LOOKED_AT] for at in range(0, len(whole), _LOOKED_AT)]
        looks = self._run(groups, encoder, files, is_look=True)
        bad = {one.unit: look["reject"] for one, look in looks if "reject" in look}
        ends = {one.unit: look["end_s"] for one, look in looks if "reject" not in look}
        found: dict[str, list[SceneStart]] = {}
        if self.clips.is_found:
            seeks = {one.unit: look["seeks"] for one, look in looks if "reject" not in look}
            stretches = [
                stretch
                for one, _ in looks
                if one.unit in ends
                for stretch in _stretches(
                    one.source, ends[one.unit], may_seek=seeks[one.unit] and type(files) is RawFiles
                )
            ]
            lasts: dict[str, float | None] = {}
            for stretch, scenes in self._run(_grouped(stretches, ends), encoder, files, is_look=False):
                own = stretch.source.id
                if "reject" in scenes:
                    bad[own] = scenes["reject"]
                    continue
                found.setdefault(own, []).extend(SceneStart(*start) for start in scenes["starts"])
                lasts[own] = scenes["last_s"] if scenes["last_s"] is not None else lasts.get(own)
            for own, starts in found.items():
                if not starts and own not in bad:
                    bad[own] = ["decode", "none of its frames can be decoded"]
            ends |= lasts
        made: list[Source] = []
        left_out = 0
        for source in sources:
            if source.id in bad:
                continue
            end_s = ends[source.id]
            if end_s is None:
                bad[source.id] = ["open", "does not say how long it is; cut it with clips='scenes', or by a list"]
                continue
            edges, skipped = _edges(self.clips, found.get(source.id), end_s)
            left_out += skipped
            made += (_clip(source, begin_s, stop_s, keep) for begin_s, stop_s in edges)
        rejects = [
            Reject(source=one.id, stage=bad[one.id][0], reason=bad[one.id][1]) for one in sources if one.id in bad
        ]
        return made, rejects, left_out

    def _keep(self, encoder: Encoder) -> _Keep | None:
        """How clips are kept: in a folder on a disk, as the encoder of whole videos makes them."""
        if not isinstance(encoder, VideoEncoder | AudioVisualEncoder) or encoder.video.name == "copy":
            return None
        if isinstance(encoder, VideoEncoder) and encoder.damage != "reject":
            return None
        if self.clips.by != SCENES or not isinstance(self.output, LocalOutput):
            return None
        settings = json.dumps([encoder.to_dict(defaults=True), libraries(encoder.modality)], sort_keys=True)
        return _Keep(clips=self.clips, profile=encoder.video, settings=settings, output=self.output)

    def _run(
        self, groups: Sequence[Sequence[_Part]], encoder: Encoder, files: RawFiles, *, is_look: bool
    ) -> list[tuple[_Part, dict[str, Any]]]:
        """What is found in each part; in a part of the job, its own tasks come first, then those of the next parts."""
        shots = "shots" if self.clips.by == TRANSNET else "scenes"
        keep = None if is_look else self._keep(encoder)
        tasks = [
            ScanTask(
                name=f"{CLIPS}/{'files' if is_look else shots}-{_digest(group)}.json",
                parts=tuple(group),
                is_look=is_look,
                by=self.clips.by,
                modality=encoder.modality,
                output=self.output,
                keep=keep,
                files=files,
                limits=self.limits,
                pauses_s=self.pauses_s,
            )
            for group in groups
        ]
        work = InEnvironment(scan, encoder.modality, libraries(encoder.modality))
        self.output.make()
        ledger = _Found(self.output)
        first, count = (1, 1) if self.part is None else (self.part.number, self.part.count)
        for number in range(first, first + count):
            share = JobPart((number - 1) % count + 1, count).of(tasks)
            if number != first:
                share = [replace(task, keep=None) for task in share]
            what, unit = ("files", "files") if is_look else ("scenes", "stretches")
            run_tasks(self.executor, work, share, ledger, self.progress, phase=what, unit=unit)
        return [pair for task in tasks for pair in zip(task.parts, ledger.of(task), strict=True)]


def _is_no_file(source: Source) -> bool:
    return source.computed or bool(source.parts) or source.window is not None or source.span is not None


def _stretches(source: Source, end_s: float | None, *, may_seek: bool) -> list[_Part]:
    """The stretches of a file that are compared apart; the last one has what is behind the end that it declares."""
    if end_s is None or not may_seek or end_s < 1.5 * STRETCH_S:
        return [_Part(source)]
    count = int(end_s // STRETCH_S)
    stops = [*(number * STRETCH_S for number in range(1, count)), None]
    return [_Part(source, number * STRETCH_S, stop_s) for number, stop_s in enumerate(stops)]


def _grouped(stretches: Sequence[_Part], ends: dict[str, float | None]) -> list[list[_Part]]:
    """Stretches of short files together, of long ones alone."""
    groups: list[list[_Part]] = []
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


def _digest(group: Sequence[_Part]) -> str:
    """A word for some stretches of files as they are: another size or age has another word."""
    digest = xxhash.xxh3_128(f"{_VERSION}\n".encode())
    for one in group:
        try:
            found = one.source.path.stat()
            state = f"{found.st_size}\t{found.st_mtime_ns}"
        except OSError:  # a member of an archive
            state = ""
        digest.update(f"{one.source.id}\t{one.begin_s}\t{one.stop_s}\t{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _edges(
    clips: Cutting, starts: Sequence[SceneStart] | None, end_s: float
) -> tuple[list[tuple[float, float | None]], int]:
    """Begin and stop of each clip of a file that ends at `end_s`, None where it ends with the file; and how many
    stretches are black or too short.
    """
    if starts is None:
        every_s = clips.every_s or end_s
        times = [number * every_s for number in range(max(1, ceil(end_s / every_s - 1e-6)))]
        black = [False] * len(times)
    else:
        times, black = [one.time_s for one in starts], [one.black for one in starts]
    found: list[tuple[float, float | None]] = []
    skipped = 0
    for n, begin_s in enumerate(times):
        is_last = n + 1 == len(times)
        stop_s = end_s if is_last else times[n + 1]
        own = [] if black[n] else _divided(clips, begin_s, stop_s, is_last=is_last)
        skipped += not own
        found += own
    return found, skipped


def _divided(clips: Cutting, begin_s: float, stop_s: float, *, is_last: bool) -> list[tuple[float, float | None]]:
    """Begin and stop of each clip of a scene, or of a part of a fixed length; none of a short one."""
    if stop_s - begin_s < clips.least_s - 1e-6:
        return []
    count = ceil((stop_s - begin_s) / clips.most_s - 1e-6) if clips.is_found else 1
    inner = [round(begin_s + (stop_s - begin_s) * number / count, 3) for number in range(count)]
    return list(zip(inner, [*inner[1:], None if is_last else round(stop_s, 3)], strict=True))


def _clip(source: Source, begin_s: float, stop_s: float | None, keep: _Keep | None) -> Source:
    span = Span(start_s=begin_s, stop_s=stop_s)
    meta = {**source.meta, "start": begin_s} | ({} if stop_s is None else {"end": stop_s})
    kept = None if keep is None else keep.output.folder / keep.at(source, span)
    return replace(source, id=f"{source.id}:{time_word(span)}", span=span, meta=meta, cut_from=source.id, kept=kept)


def _by_list(raw: Dataset, root: Path, path: Path) -> Dataset:
    """The parts that a list names of the files of a dataset, with their labels and splits, and the list's columns."""
    if not path.is_file():
        raise DatasetError(
            f"there is no list {path}; --clips is scenes, such as 10s, or a list with path, start and end"
        )
    obtain = "A list of --clips has the columns path (relative to ROOT), start and end"
    rows = listed_sources([MediaList(path=path)], root, raw.encoder, obtain=obtain)
    by_path: dict[Path, list[Source]] = {}
    for own in rows.splits.values():
        for one in own:
            if one.span is None:
                raise DatasetError(f"{path} has no start and end of {one.id!r}. {obtain}")
            by_path.setdefault(one.path, []).append(one)
    splits = {
        name: [
            replace(
                one,
                label=source.label,
                meta={**source.meta, **one.meta},
                cut_from=source.id,
            )
            for source in sources
            for one in by_path.get(source.path, ())
        ]
        for name, sources in raw.splits.items()
    }
    known = {source.path for sources in raw.splits.values() for source in sources}
    if strange := [str(one) for one in by_path if one not in known]:
        raise DatasetError(
            f"{path} names {len(strange)} files that {raw.name} does not have: {first_few(strange)}. {obtain}"
        )
    if empty := [name for name, own in splits.items() if not own]:
        raise DatasetError(f"{path} names no file of the split {empty[0]!r}. {obtain}")
    return replace(raw, splits=splits)


def forget_kept(output: Output) -> None:
    """Delete clips that were kept and are in no shard, as those that other settings wanted."""
    if isinstance(output, LocalOutput):
        output.remove(output.names(KEPT))


Cut = Callable[[Dataset, Path, RawFiles], Dataset]


def clips_settings(clips: Cutting) -> dict[str, Any]:
    """What dataset.json says of how files were cut; of a list its name only, for the sources have the rest."""
    return {**asdict(clips), "min_s": clips.least_s, "max_s": clips.most_s, "by": Path(clips.by).name}
