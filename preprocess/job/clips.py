"""Cut long files into clips before shards are planned: at scenes or pauses, at fixed intervals, or by a list.

Executor tasks measure files and detect scenes and pauses (`scan.py`). Each part of a job starts with its own tasks and
then takes unfinished ones of other parts. Any part finds the same scenes, but keeps no encoded clips of other parts'
tasks. Clips are sources with their own span; all else works as for files that a list cuts (`datasets/listed.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets import Dataset
from maskstream.preprocess.datasets.listed import MediaList, format_time_word, listed_sources
from maskstream.preprocess.encode.audiovisual.encoder import AudioVisualEncoder
from maskstream.preprocess.encode.encoder import Encoder
from maskstream.preprocess.encode.limits import DEFAULT, Limits
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.scenes import SceneStart
from maskstream.preprocess.executors.base import Executor
from maskstream.preprocess.raw.files import RawFiles
from maskstream.preprocess.source import PAUSES_S, Source, Span
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.sample import Reject
from maskstream.shards.named import list_few
from maskstream.shards.progress import Progress
from maskstream.shards.stores.output import LocalOutput, Output

from .cutting import SCENES, SILENCE, TRANSNET, Cutting, clip_edges
from .ledger import InEnvironment, libraries, run_tasks
from .plan import JobPart
from .scan import (
    CLIPS,
    VIDEO,
    Keeping,
    ScanLedger,
    ScanPart,
    ScanTask,
    group_stretches,
    hash_stretches,
    scan,
    split_into_stretches,
)

_LOOKED_AT = 64
"""Number of files that a task measures."""
_TIMED = (*VIDEO, "audio")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutter:
    """Cuts the sources of a dataset into clips.

    Attributes:
        clips: How files are cut.
        output: Folder of all splits.
        executor: Runs the tasks.
        progress: Shows the progress.
        part: Part of the job that this run does; None for all.
        limits: Limits on the cost of a source.
        pauses_s: Seconds to wait between attempts to read a file.
    """

    clips: Cutting
    output: Output
    executor: Executor
    progress: Progress
    part: JobPart | None = None
    limits: Limits = DEFAULT
    pauses_s: tuple[float, ...] = PAUSES_S

    def cut(self, raw: Dataset, root: Path, files: RawFiles) -> Dataset:
        """Return the dataset with clips as its sources.

        Files that cannot be opened or decoded at all are listed as missing.

        Raises:
            DatasetError: The modality cannot be cut this way, or the list names other files.
        """
        legal = {SCENES: VIDEO, TRANSNET: VIDEO, SILENCE: ("audio",)}.get(self.clips.by, _TIMED)
        if raw.modality not in legal:
            raise DatasetError(
                f"clips={self.clips.by!r} cuts {', '.join(legal)}, but {raw.name} is {raw.modality}; leave out --clips"
            )
        if strange := next((s for own in raw.splits.values() for s in own if _is_no_file(s)), None):
            raise DatasetError(
                f"{raw.name}: {strange.id!r} is not a whole file, so --clips cannot cut it; leave it out"
            )
        if not self.clips.is_found and self.clips.every_s is None:
            return _cut_by_list(raw, root, Path(self.clips.by))
        splits: dict[str, list[Source]] = {}
        missing = {name: [*rejects] for name, rejects in raw.missing.items()}
        for name, sources in raw.splits.items():
            splits[name], rejects, left_out = self._cut(sources, raw.encoder, files)
            missing.setdefault(name, []).extend(rejects)
            if left_out:
                self.progress.say(
                    f"{name}: skipped {left_out} part(s) shorter than {self.clips.least_s:g} s, black or silent"
                )
            if not splits[name]:
                reasons = list_few([f"{one.source} ({one.stage}: {one.reason})" for one in rejects])
                raise DatasetError(
                    f"{raw.name}: no clip of {self.clips.least_s:g} s or more was found in the {len(sources)} files "
                    f"of the split {name!r}{f': {reasons}' if rejects else ''}; use a smaller --min-clip"
                )
        return replace(raw, splits=splits, missing=missing)

    def _cut(
        self, sources: Sequence[Source], encoder: Encoder, files: RawFiles
    ) -> tuple[list[Source], list[Reject], int]:
        """Return the clips of some files, the files that were rejected, and the number of sections left out."""
        keep = self._keep(encoder)
        whole = [ScanPart(source) for source in sorted(sources, key=lambda one: one.id)]
        groups = [whole[at : at + _LOOKED_AT] for at in range(0, len(whole), _LOOKED_AT)]
        looks = self._run(groups, encoder, files, is_look=True)
        bad = {one.unit: look["reject"] for one, look in looks if "reject" in look}
        ends = {one.unit: look["end_s"] for one, look in looks if "reject" not in look}
        found: dict[str, list[SceneStart]] = {}
        if self.clips.is_found:
            found, lasts = self._find_scenes(looks, encoder, files, bad)
            ends |= lasts
        made: list[Source] = []
        left_out = 0
        for source in sources:
            if source.id in bad:
                continue
            end_s = ends[source.id]
            if end_s is None:
                bad[source.id] = ["open", "does not declare its duration; cut it with clips='scenes', or with a list"]
                continue
            edges, skipped = clip_edges(self.clips, found.get(source.id), end_s)
            left_out += skipped
            made += (_clip(source, begin_s, stop_s, keep) for begin_s, stop_s in edges)
        rejects = [
            Reject(source=one.id, stage=bad[one.id][0], reason=bad[one.id][1]) for one in sources if one.id in bad
        ]
        return made, rejects, left_out

    def _find_scenes(
        self,
        looks: Sequence[tuple[ScanPart, dict[str, Any]]],
        encoder: Encoder,
        files: RawFiles,
        bad: dict[str, Any],
    ) -> tuple[dict[str, list[SceneStart]], dict[str, float | None]]:
        """Return the starts of scenes and the last time of each file by its id; adds files without one to `bad`."""
        usable = [(one, look) for one, look in looks if "reject" not in look]
        ends = {one.unit: look["end_s"] for one, look in usable}
        stretches = [
            stretch
            for one, look in usable
            for stretch in split_into_stretches(
                one.source, look["end_s"], may_seek=look["seeks"] and type(files) is RawFiles
            )
        ]
        found: dict[str, list[SceneStart]] = {}
        lasts: dict[str, float | None] = {}
        for stretch, scenes in self._run(group_stretches(stretches, ends), encoder, files, is_look=False):
            own = stretch.source.id
            if "reject" in scenes:
                bad[own] = scenes["reject"]
                continue
            found.setdefault(own, []).extend(SceneStart(*start) for start in scenes["starts"])
            lasts[own] = scenes["last_s"] if scenes["last_s"] is not None else lasts.get(own)
        for own, starts in found.items():
            if not starts and own not in bad:
                bad[own] = ["decode", "none of its frames can be decoded"]
        return found, lasts

    def _keep(self, encoder: Encoder) -> Keeping | None:
        """Return how to keep encoded clips: on a local disk, as the encoder of whole videos encodes them; else None."""
        if not isinstance(encoder, VideoEncoder | AudioVisualEncoder) or encoder.video.name == "copy":
            return None
        if isinstance(encoder, VideoEncoder) and encoder.damage != "reject":
            return None
        if self.clips.by != SCENES or not isinstance(self.output, LocalOutput):
            return None
        settings = json.dumps([encoder.to_dict(defaults=True), libraries(encoder.modality)], sort_keys=True)
        return Keeping(clips=self.clips, profile=encoder.video, settings=settings, output=self.output)

    def _run(
        self, groups: Sequence[Sequence[ScanPart]], encoder: Encoder, files: RawFiles, *, is_look: bool
    ) -> list[tuple[ScanPart, dict[str, Any]]]:
        """Return the result of each part of the files.

        A part of a job first runs its tasks, then those of the parts after it.
        """
        shots = "shots" if self.clips.by == TRANSNET else "scenes"
        keep = None if is_look else self._keep(encoder)
        tasks = [
            ScanTask(
                name=f"{CLIPS}/{'files' if is_look else shots}-{hash_stretches(group)}.json",
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
        ledger = ScanLedger(self.output)
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


def _clip(source: Source, begin_s: float, stop_s: float | None, keep: Keeping | None) -> Source:
    span = Span(start_s=begin_s, stop_s=stop_s)
    meta = {**source.meta, "start": begin_s} | ({} if stop_s is None else {"end": stop_s})
    kept = None if keep is None else keep.output.folder / keep.at(source, span)
    return replace(
        source, id=f"{source.id}:{format_time_word(span)}", span=span, meta=meta, cut_from=source.id, kept=kept
    )


def _cut_by_list(raw: Dataset, root: Path, path: Path) -> Dataset:
    """Return the dataset cut into the clips that a list specifies, with the list's labels, splits and columns."""
    if not path.is_file():
        raise DatasetError(
            f"the list {path} does not exist; --clips takes scenes, a duration such as 10s, or a list with path, "
            "start and end"
        )
    obtain = "A list for --clips needs the columns path (relative to ROOT), start and end"
    rows = listed_sources([MediaList(path=path)], root, raw.encoder, obtain=obtain)
    by_path: dict[Path, list[Source]] = {}
    for own in rows.splits.values():
        for one in own:
            if one.span is None:
                raise DatasetError(f"{path} has no start and end for {one.id!r}. {obtain}")
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
            f"{path} lists {len(strange)} files that {raw.name} does not contain: {list_few(strange)}. {obtain}"
        )
    if empty := [name for name, own in splits.items() if not own]:
        raise DatasetError(f"{path} lists no file from the split {empty[0]!r}. {obtain}")
    return replace(raw, splits=splits)


Cut = Callable[[Dataset, Path, RawFiles], Dataset]
