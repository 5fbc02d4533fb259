"""Options of a job: which data it encodes and how, where its tasks run, and which records of earlier runs count."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskstream.preprocess.source import PAUSES_S, SOURCE
from maskstream.shards.flag import DataFlag, OutputFlag, RunFlag
from maskstream.shards.limits import check_fields
from maskstream.shards.progress import Progress

if TYPE_CHECKING:
    from maskstream.preprocess.datasets.division import Division
    from maskstream.preprocess.encode.limits import Limits
    from maskstream.preprocess.encode.video.profile import VideoProfile
    from maskstream.preprocess.executors.base import Executor

    from .cutting import Cutting
    from .plan import JobPart, Keep, Measure


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Options of every job that reads raw media.

    Attributes:
        limits: Limits on the cost of a source (pixels, frames, time, memory); a source above one is rejected.
        pauses_s: Seconds to wait before each further attempt to read a source.
        executor: Runs the tasks; default `LocalExecutor(workers)`. With 0 workers, tasks run in this process.
        progress: Shows the progress.
    """

    limits: "Limits | None" = None
    pauses_s: Sequence[float] = PAUSES_S
    workers: Annotated[
        int | None, RunFlag("Worker processes; 0 works in this process [default: one per core].", min=0)
    ] = None
    executor: "Executor | None" = None
    progress: Progress | None = None


def _read_profile(name: str) -> "VideoProfile":
    from maskstream.preprocess.encode.video.profile import PROFILES
    from maskstream.shards.named import nearest

    if name not in PROFILES:
        close = nearest(name, list(PROFILES))
        raise ValueError(f"--profile must be one of {', '.join(PROFILES)}, got {name!r}{close}")
    return PROFILES[name]


def _read_part(text: str) -> tuple[int, int]:
    from .plan import JobPart

    part = JobPart.parse(text)
    return part.number, part.count


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions(RunOptions):
    """Options of `make_shards`, in addition to the options of every job.

    Some edit the records of earlier runs, or choose which of them count, before a run writes the missing shards:

    - overwrite: all records are deleted.
    - retry_rejects: records with rejects do not count; with `part`, only those of the part.
    - repair: records count if their shards still have the bytes that were written. Damaged idx and sums files are
      rewritten. A shard that cannot be reproduced byte for byte is left unchanged and raises ShardError.
    - finish: every shard must have a record.

    Attributes:
        keep: Chooses the samples that are written (`curate.KeepRule`); unkept.parquet lists the rest.
        measure: Computes signals of each sample (`curate.Signals`), which become columns of the manifest.
    """

    profile: Annotated[
        "VideoProfile | None",
        DataFlag(
            "How video is encoded: train, fast, copy or fps (`maskstream docs shard-format`) [default: train].",
            metavar="NAME",
            parse=_read_profile,
        ),
    ] = None
    settings: Annotated[
        Sequence[str],
        DataFlag(
            "Change a setting of the dataset, such as fold=2 (esc50, hmdb51, ucf101), or a field of its encoder, such "
            "as tokenizer=train:wordpiece:8000 or tokenizer=FILE (text) or short_side=256 (images); repeatable.",
            "--set",
            "FIELD=VALUE",
        ),
    ] = ()
    samples_per_shard: Annotated[
        int | None, OutputFlag("Source files per shard [default: depends on their number].", min=1)
    ] = None
    splits: Annotated[
        Sequence[str], DataFlag("A split to write, such as val; repeatable [default: all].", "--split", "NAME")
    ] = ()
    as_is: Annotated[
        bool, DataFlag("Accept ROOT although its splits or labels look wrong (the error message explains why).")
    ] = False
    outside_root: Annotated[
        bool,
        DataFlag(
            "Allow lists and links to point to files outside ROOT. Use it only with lists that you trust: they may "
            "name any file that you can read."
        ),
    ] = False
    damage: Annotated[
        str | None,
        DataFlag(
            "What to do with damaged or truncated videos: reject, trim (stop before the first damaged frame, if half "
            "is left) or keep (as the decoder conceals it). keep also reads what is readable of damaged archives, "
            "which are an error otherwise [default: reject].",
            metavar="WORD",
        ),
    ] = None
    max_rejects: Annotated[
        float,
        RunFlag(
            "Largest fraction of sources that may be rejected or missing; above it the run fails and the split "
            "stays unfinished. Lists of web videos (audioset, vggsound, k400) often contain videos that no "
            "longer exist.",
            min=0,
            max=1,
        ),
    ] = 0.05
    overwrite: Annotated[bool, OutputFlag("Delete what an earlier run wrote to OUT and start over.")] = False
    retry_rejects: Annotated[bool, RunFlag("Encode shards with rejects again, also in a finished split.")] = False
    repair: Annotated[
        bool, RunFlag("Read a finished split and rewrite what is damaged, with exactly the bytes it had.")
    ] = False
    part: Annotated[
        tuple[int, int] | None,
        RunFlag(
            "Write only every N-th shard, starting with the I-th, and no index: the part of one of N machines.",
            metavar="I/N",
            parse=_read_part,
        ),
    ] = None
    finish: Annotated[bool, RunFlag("Write the index of the shards of all parts, and verify.")] = False
    val: Annotated[
        float | None,
        DataFlag(
            "Move this fraction of the split train, such as 0.05, to a split val, equally for each label.",
            metavar="FRACTION",
        ),
    ] = None
    val_by: Annotated[
        str,
        DataFlag(
            "What --val keeps together: source (all samples of a raw file), sample (nothing), folder, or a field of "
            "the samples, such as speaker.",
            metavar="WORD",
        ),
    ] = SOURCE
    val_seed: Annotated[int, DataFlag("Random seed of --val.")] = 0
    clips: Annotated[
        str | None,
        DataFlag(
            "Cut long files into clips: at scenes, or with a network, transnetv2 (video), at silence (audio), at "
            "a fixed interval, such as 10s, or by a list (.csv) with the columns path, start and end "
            "(`maskstream docs data`).",
            metavar="HOW",
        ),
    ] = None
    min_clip: Annotated[
        float | None, DataFlag("With --clips: drop shorter clips [default: 2].", metavar="SECONDS", min=0)
    ] = None
    max_clip: Annotated[
        float | None,
        DataFlag(
            "With --clips scenes or silence: split longer clips into several [default: 20].", metavar="SECONDS", min=0
        ),
    ] = None
    keep: "Keep | None" = None
    measure: "Measure | None" = None

    def __post_init__(self) -> None:
        if self.val is None and (self.val_by, self.val_seed) != (SOURCE, 0):
            raise ValueError(
                "val_by and val_seed set how train is divided; also pass the fraction as val, such as 0.05"
            )
        check_fields(self)
        _ = self.division, self.cutting, self.own  # both raise ValueError
        part, overwrite, retry_rejects = self.part, self.overwrite, self.retry_rejects
        if overwrite and retry_rejects:
            raise ValueError(
                "overwrite and retry_rejects cannot be combined, because overwrite encodes every source again"
            )
        if self.finish and (part or overwrite or retry_rejects or self.repair):
            raise ValueError(
                "finish writes no shards and cannot be combined with part, overwrite, retry_rejects or repair"
            )
        if self.repair and (part or overwrite or retry_rejects):
            raise ValueError(
                "repair restores existing shards and cannot be combined with part, overwrite or retry_rejects"
            )
        if part and overwrite:
            raise ValueError("a part cannot overwrite what other parts write; delete the output folder to start over")

    @property
    def division(self) -> "Division | None":
        """Division of the split train; None if it is not divided."""
        from maskstream.preprocess.datasets.division import Division

        return None if self.val is None else Division(share=self.val, by=self.val_by, seed=self.val_seed)

    @property
    def cutting(self) -> "Cutting | None":
        """How files are cut into clips; None if they are not cut."""
        from .cutting import Cutting

        if self.clips is None:
            if (self.min_clip, self.max_clip) != (None, None):
                raise ValueError("min_clip and max_clip need clips; pass clips too, such as 'scenes'")
            return None
        return Cutting(by=self.clips, min_s=self.min_clip, max_s=self.max_clip)

    @property
    def own(self) -> "JobPart | None":
        """Part that this run writes; None if it writes all."""
        from .plan import JobPart

        return None if self.part is None else JobPart(*self.part)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexOptions(RunOptions):
    """Options of `index_tars`, in addition to the options of every job.

    Labels in `labels` take precedence over labels in the tars. Samples are matched by the last part of their key.
    Without `fast`, every entry point of a video is decoded and compared with a full decode, as always for audio.
    """

    modality: Annotated[str | None, DataFlag("video or audio [default: as the first sample].")] = None
    labels: Annotated[
        Path | str | None, DataFlag("A csv file with the labels of the samples, such as Kinetics' train.csv.")
    ] = None
    match: Annotated[
        str | None,
        DataFlag(
            "Column of --labels that identifies a sample [default: the first of key, id, video_id, youtube_id, path, "
            "file, filename and wav that exists]."
        ),
    ] = None
    as_is: Annotated[bool, DataFlag("Has no effect: samples need no label.", hidden=True)] = False
    fast: Annotated[
        bool, RunFlag("Trust the keyframe flags of video containers instead of checking them by decoding.")
    ] = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.match is not None and self.labels is None:
            raise ValueError("match selects a column in labels; pass both")
