"""The options of a job: what is encoded and how, where its tasks run, and which records of earlier runs count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from maskstream.preprocess.datasets.division import SOURCE, Division
from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.encode.video.profile import VideoProfile
from maskstream.preprocess.executors.base import Executor
from maskstream.shards.progress import Progress

from .cutting import Cutting
from .judge import PAUSES_S
from .plan import JobPart, Keep, Measure
from .report import MAX_REJECTS


class RunSettings(TypedDict, total=False):
    """The fields of `RunOptions`, as keyword arguments."""

    limits: Limits | None
    pauses_s: Sequence[float]
    workers: int | None
    executor: Executor | None
    progress: Progress | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of every job that reads raw media.

    limits: what a source may cost (pixels, frames, time, memory); one that costs more is a reject. pauses_s: the pauses
    in seconds after which a source that cannot be read is tried again. executor: what runs the tasks, by default
    `LocalExecutor(workers)`, which starts `workers` processes on this machine (default: one per core; 0 runs the tasks
    in this process). progress: what is told of the progress.
    """

    limits: Limits | None = None
    pauses_s: Sequence[float] = PAUSES_S
    workers: int | None = None
    executor: Executor | None = None
    progress: Progress | None = None


class JobSettings(RunSettings, total=False):
    """The fields of `JobOptions`, as keyword arguments."""

    profile: VideoProfile | None
    settings: Sequence[str]
    samples_per_shard: int | None
    splits: Sequence[str]
    as_is: bool
    outside_root: bool
    damage: str | None
    max_rejects: float
    overwrite: bool
    retry_rejects: bool
    repair: bool
    part: tuple[int, int] | None
    finish: bool
    val: float | None
    val_by: str
    val_seed: int
    clips: str | None
    min_clip: float | None
    max_clip: float | None
    keep: Keep | None
    measure: Measure | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions(RunOptions):
    """The options of `make_shards`, besides those of every job.

    profile: how video is stored (default: `train`). settings: settings of the dataset, such as "fold=2" of esc50, and
    fields of its encoder, such as "tokenizer=train:bpe:4000". samples_per_shard: how many sources a shard holds; the
    default depends on their number. splits: the names of the splits to make, by default all. as_is: make splits or
    labels that are doubtful: folders named like splits, lists of splits that are not read, no label at all, or one for
    everything. outside_root: a list or a link may lead to files that are not below the root. damage: "reject", "trim"
    or "keep" what is damaged, as the field `damage` of the encoder says; with "keep", archives too are read as far as
    they can be, with a reject that names each. max_rejects: the largest share of sources that may be rejected or
    missing. val: the share of the split train that becomes a split val, by the groups `val_by` ("source": a raw file
    and all of its samples; "sample"; "folder"; or a field of the sources) and the seed `val_seed` (see division.py).
    clips: cut files into clips, at "scenes", "transnetv2" or "silence", after so many seconds ("10s") or by a list;
    min_clip, max_clip: their least and most seconds (`Cutting`). keep: the samples that are written
    (`curate.KeepRule`); the others are listed in unkept.parquet. measure: gives the signals of each sample
    (`curate.Signals`), which become columns of the manifest.

    The others edit the records of earlier runs, or which of them are this run's, before it writes what they lack:

    overwrite: delete what a run wrote, whatever it is; then no record is left.
    retry_rejects: records with rejects do not count. With `part`, those of the part.
    repair: records count whose shards have the bytes that were written; their idx and sums files are written again if
    these are damaged. A shard that would have other bytes than before is left as it is, with ShardError.
    part: (i, n), 1 <= i <= n: write the shards i - 1, i - 1 + n, ... of each split, and stop.
    finish: write no shard; all must have a record.
    """

    profile: VideoProfile | None = None
    settings: Sequence[str] = ()
    samples_per_shard: int | None = None
    splits: Sequence[str] = ()
    as_is: bool = False
    outside_root: bool = False
    damage: str | None = None
    max_rejects: float = MAX_REJECTS
    overwrite: bool = False
    retry_rejects: bool = False
    repair: bool = False
    part: tuple[int, int] | None = None
    finish: bool = False
    val: float | None = None
    val_by: str = SOURCE
    val_seed: int = 0
    clips: str | None = None
    min_clip: float | None = None
    max_clip: float | None = None
    keep: Keep | None = None
    measure: Measure | None = None

    def __post_init__(self) -> None:
        if self.val is None and (self.val_by, self.val_seed) != (SOURCE, 0):
            raise ValueError("val_by and val_seed say how train is divided; give val too, the share, such as 0.05")
        _ = self.division, self.cutting  # raise ValueError
        part, overwrite, retry_rejects = self.part, self.overwrite, self.retry_rejects
        if not 0 <= self.max_rejects <= 1:
            raise ValueError(f"max_rejects={self.max_rejects} must be a share of the sources, from 0 to 1")
        if overwrite and retry_rejects:
            raise ValueError("overwrite and retry_rejects exclude each other: overwrite encodes every source again")
        if self.finish and (part or overwrite or retry_rejects or self.repair):
            raise ValueError(
                "finish writes no shards; part, overwrite, retry_rejects and repair belong to runs that do"
            )
        if self.repair and (part or overwrite or retry_rejects):
            raise ValueError("repair makes what was there; part, overwrite and retry_rejects belong to other runs")
        if part and overwrite:
            raise ValueError("a part cannot overwrite what other parts write; delete the output folder to start over")
        if part is not None:
            JobPart(*part)  # raises ValueError
        if self.samples_per_shard is not None and self.samples_per_shard < 1:
            raise ValueError(f"samples_per_shard={self.samples_per_shard} must be at least 1")

    @property
    def division(self) -> Division | None:
        """How the split train is divided; None if it is not."""
        return None if self.val is None else Division(share=self.val, by=self.val_by, seed=self.val_seed)

    @property
    def cutting(self) -> Cutting | None:
        """How files are cut into clips; None if they are not."""
        if self.clips is None:
            if (self.min_clip, self.max_clip) != (None, None):
                raise ValueError("min_clip and max_clip say which clips there are; give clips too, such as 'scenes'")
            return None
        return Cutting(by=self.clips, min_s=self.min_clip, max_s=self.max_clip)

    @property
    def own(self) -> JobPart | None:
        """The part that this run writes; None if it writes all."""
        return None if self.part is None else JobPart(*self.part)
