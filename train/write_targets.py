"""Writes the targets of a split: a frozen teacher's token features, or a tokenizer's ids, as shards next to the split.

A task makes the targets of one shard: it draws the clips and crops that a run will see (see pipelines' targets.py),
decodes them, and writes the teacher's output for each. Any executor runs the tasks. A task's shard and its record
appear complete or not at all, so the same call continues a killed run, and only computes targets of new shards after
samples were appended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from maskstream.pipelines.modalities.data import SplitConfig
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.targets import ARRAY
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.config import Json
from maskstream.shards.errors import ResumeError, SampleError, UnfinishedError
from maskstream.shards.format.dataset import DATASET_JSON, finish_split, read_description
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.records import Records, ShardRecord
from maskstream.shards.format.rejects import strip_tar_name
from maskstream.shards.format.sample import TARGETS, DatasetInfo, Reject, Sample, make_targets_key
from maskstream.shards.format.writer import write_shard
from maskstream.shards.limits import PositiveInt, check_value
from maskstream.shards.members.arrays import array_member
from maskstream.shards.stores.block_sums import SUMS
from maskstream.shards.stores.output import Location, Output, Sizes, open_output, split_folder_and_name, within
from maskstream.shards.stores.url import get_local_path

from .core.model import Model
from .core.recipe import Recipe, check_modality
from .core.run_folder import run_recipe, run_weights
from .core.weights import compute_weights_sum, load_model
from .evaluate.features import GivesTokens
from .nn.quantiser import Quantiser

TargetType = Literal["float32", "float16"]
SHARD = "targets-{:06d}.tar"
CPU = torch.device("cpu")


def make_targets(model: Model[Any], batch: Any) -> Tensor:
    """Return a model's output for the tokens of a batch, none of them hidden.

    Args:
        model: Encoder or tokenizer.
        batch: Batch of video or images.

    Returns:
        Token features (B, N, D), or ids int32 (B, N) of a tokenizer.

    Raises:
        ValueError: The model has neither token features nor a quantiser.
    """
    quantiser = getattr(model, "quantiser", None)
    with torch.no_grad():
        if isinstance(quantiser, Quantiser):
            return quantiser.ids(batch.video if hasattr(batch, "video") else batch.image).flatten(1).int()
        if isinstance(model, GivesTokens):
            return model.token_features(batch)
    raise ValueError(
        f"a {type(model).__name__} has neither token features nor a quantiser, so it cannot create targets"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetTask:
    """The targets of one shard.

    Attributes:
        path: Tar to write.
        weights: File of the teacher's weights.
        checksum: Checksum of the weights.
        split: Location of the split.
        version: Version of the split.
        shard: Number of the shard in the split.
        sha256: Checksum of the shard's tar.
        config: Settings of clips and crops.
        cycle: Number of epochs after which clips and crops repeat.
        dtype: Type of features.
        clips: Number of clips in the teacher's batches.
        device: Device of the teacher.
        units: Number of samples.
    """

    path: Location
    weights: Path
    checksum: str
    split: str
    version: int
    shard: int
    sha256: str
    config: SplitConfig[Any, Any]
    cycle: int
    dtype: str
    clips: int
    device: str
    units: int

    @property
    def name(self) -> str:
        """Name of the tar to write."""
        return SHARD.format(self.shard)

    def crashed(self, unit: str, reason: str) -> Self:
        """Return the same task: a crashed process is not blamed on a sample.

        Args:
            unit: Name of the unit.
            reason: Reason of the crash.
        """
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenTargets:
    """The record of a task.

    Attributes:
        shard: The written shard; None if no sample has targets.
        rejects: Samples without targets.
        source: Checksum of the tar that the targets belong to.
    """

    shard: ShardRecord | None
    rejects: tuple[Reject, ...]
    source: str

    def to_parts(self) -> Sequence[Json]:
        """See Record."""
        shard = None if self.shard is None else self.shard.to_json()
        return [{"source": self.source, "rejects": [asdict(one) for one in self.rejects]}, {"shard": shard}]

    @classmethod
    def from_parts(cls, parts: Sequence[Json]) -> Self:
        """See Record."""
        read, written = parts
        shard = None if written["shard"] is None else ShardRecord.from_json(written["shard"])
        return cls(shard=shard, rejects=tuple(Reject(**one) for one in read["rejects"]), source=read["source"])

    def stands(self, sizes: Sizes) -> bool:
        """Return whether the tar exists with its recorded size, next to its .idx and checksums."""
        if self.shard is None:
            return True
        stem = self.shard.name.removesuffix(".tar")
        beside = all(sizes.size(f"{stem}{ending}") is not None for ending in (".idx", SUMS))
        return beside and sizes.size(self.shard.name) == self.shard.size_bytes


def write_targets(task: TargetTask, report: Callable[[str], object]) -> WrittenTargets:
    """Write the shard of a task, in one thread. Unreadable samples get no targets.

    Args:
        task: The task.
        report: Called with the key of a sample before it is read, and with "" after it.

    Returns:
        The record of the task.
    """
    rejects: list[Reject] = []
    with _use_one_thread():
        samples = _samples(task, rejects, report)
        first = next(samples, None)
        shard = None if first is None else write_shard(task.path, chain([first], samples))
    return WrittenTargets(shard=shard, rejects=tuple(rejects), source=task.sha256)


def _samples(task: TargetTask, rejects: list[Reject], report: Callable[[str], object]) -> Iterator[Sample]:
    """Yield the targets of a task's samples, in the order of the split."""
    split, model = _opened(task.split, task.version), _teacher(task.weights, task.checksum, task.device)
    config = task.config.resolved(split)
    maker = _Maker(task, replace(split, kept=None), config, model)
    kept = config.chosen(split).kept
    numbers = np.flatnonzero(split.manifest.shard == task.shard)
    for index in numbers.tolist() if kept is None else np.intersect1d(numbers, kept).tolist():
        key = split.manifest.key(index)
        report(key)
        try:
            found = maker.make(index)
        except SampleError as error:
            rejects.append(Reject(source=key, stage=error.component, reason=error.reason))
        else:
            label = int(split.manifest.label[index])
            yield Sample(key=make_targets_key(key), members={ARRAY: array_member(found)}, source=key, label=label)
        report("")


class _Maker:
    """Computes the targets of samples, one after the other; a batch holds clips of one sample, so no sample depends on
    others.
    """

    def __init__(self, task: TargetTask, split: Split, config: SplitConfig[Any, Any], model: Model[Any]) -> None:
        self._task, self._model = task, model
        self._sampler, self._finish = config.sampler(split), config.finish(split)
        self._cpu, self._device = split.device, torch.device(task.device)

    def make(self, index: int) -> npt.NDArray[Any]:
        """Return a sample's targets (cycle, views, tokens, channels), or its ids; raise SampleError if it cannot be
        read.
        """
        task, made = self._task, []
        for begin in range(0, task.cycle, task.clips):
            epochs = range(begin, min(begin + task.clips, task.cycle))
            wanted = Wanted.of([index] * len(epochs), epochs)
            request = self._sampler.request(wanted)
            draft = self._sampler.allocate([request])
            self._sampler.fill(request, draft, range(len(wanted)), Stats())
            batch = self._finish(self._sampler.join(draft), self._cpu)
            found = make_targets(self._model, batch.to(self._device)).cpu()
            made.append(found.view(len(wanted), -1, *found.shape[1:]))
        whole = torch.cat(made).numpy()
        return whole if whole.dtype == np.int32 else whole.astype(task.dtype)


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Run the block with one torch thread, since each task has its own process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _opened(location: str, version: int) -> Split:
    """Return the split of a process's tasks, which is opened once."""
    manifest = Manifest.load(location, version=version)
    return Split(manifest=manifest, device=CPU, threads=1)


@lru_cache(maxsize=1)
def _teacher(weights: Path, checksum: str, device: str) -> Model[Any]:
    """Return the teacher of a process's tasks, which is loaded once; raise ValueError if the file's checksum has
    changed.
    """
    if (found := compute_weights_sum(weights)[0]) != checksum:
        raise ValueError(f"{weights} has the checksum {found}, but the job began with {checksum}; restore that file")
    return load_model(weights).to(device)


class TargetsJob:
    """The job that writes the targets of a split, and the ledger of its tasks.

    The executor calls `stands` and `record` while it runs the tasks.

    Args:
        run: Folder of the teacher's run, or its model.safetensors.
        data: Location of the split.
        out: Folder of the targets. Defaults to a folder next to the split, named by a digest of the weights and
            settings.
        recipe: Recipe of the student, whose clips and crops are drawn; None for the teacher's.
        cycle: Number of clips of each sample.
        dtype: Type of features; ids are int32.
        clips: Number of clips in the teacher's batches.
        device: Device of the teacher.

    Raises:
        ValueError: The model has no targets, the split has another modality or several cameras, or the teacher does not
            fit the data.
        ResumeError: The folder has targets of other weights, clips or type.
    """

    def __init__(
        self,
        run: str | Path,
        data: SplitLocation,
        out: Location | None = None,
        *,
        recipe: Recipe[Any] | None = None,
        cycle: int = 1,
        dtype: TargetType = "float32",
        clips: int = 16,
        device: torch.device = CPU,
    ) -> None:
        check_value("dtype", dtype, TargetType)
        check_value("clips", clips, PositiveInt)
        check_value("cycle", cycle, PositiveInt)
        path = get_local_path(run, "the run")
        self.weights = path if path.suffix == ".safetensors" else run_weights(path)
        self.checksum = compute_weights_sum(self.weights)[0]
        recipe = recipe or run_recipe(path if path.is_dir() else path.parent)
        data = Manifest.load(data)
        self.split = _opened(data.location, data.version)
        check_modality(recipe, self.split.manifest)
        self.config = _config(recipe, self.split)
        model = _teacher(self.weights, self.checksum, str(device))
        if model.grids != self.config.grids:
            raise ValueError(
                f"the teacher of {run} reads {dict(model.grids)}, but {recipe.name} has {dict(self.config.grids)}; "
                "teacher and student must have the same tokens, so use a recipe (--recipe, --set) with the same grid"
            )
        rows = self.config.rows(self.split)
        settings = {
            "weights": self.checksum,
            "geometry": self.config.geometry(rows, self.split),
            "cycle": cycle,
            "dtype": dtype,
        }
        self.settings: Json = json.loads(json.dumps(settings))
        self.output: Output = open_output(
            _name_folder_beside(self.split.manifest, self.settings) if out is None else out
        )
        self._records = Records(self.output, WrittenTargets)
        self._sizes: Sizes = self.output
        manifest = self.split.manifest
        samples = np.bincount(manifest.shard, minlength=len(manifest.shard_names)).tolist()
        config = replace(self.config, **{"cycle": cycle})
        self.tasks = [
            TargetTask(
                path=within(self.output.location, SHARD.format(number)),
                weights=self.weights,
                checksum=self.checksum,
                split=manifest.location,
                version=manifest.version,
                shard=number,
                sha256=facts.sha256,
                config=config,
                cycle=cycle,
                dtype=dtype,
                clips=clips,
                device=str(device),
                units=samples[number],
            )
            for number, facts in enumerate(manifest.shards())
        ]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the folder while tasks run; at the end of the block it is a finished split.

        Raises:
            BusyError: Another run writes to the folder.
            ResumeError: The folder holds something else.
        """
        with self.output.sole_writer():
            self._records.check(self.settings)
            if self._records.job() is None and self.output.size(DATASET_JSON) is not None:
                raise ResumeError(f"{self.output.location} contains a different split; pass a different --out")
            self._records.begin(self.settings)
            self.output.remove_leftovers()
            self._sizes = self.output.sizes()
            if self.output.is_locked and not all(map(self.stands, self.tasks)):
                self.output.remove([DATASET_JSON])  # shards that it describes may be replaced from now on
            yield
            self._finish()

    def stands(self, task: TargetTask) -> WrittenTargets | None:
        """Return the record of a task whose shard is finished and belongs to the split's current tar; None
        otherwise.
        """
        found = self._records.stands(task, self._sizes)
        return found if found is not None and found.source == task.sha256 else None

    def record(self, task: TargetTask, done: WrittenTargets, restarts: int) -> None:
        """Record a finished task.

        Args:
            task: The task.
            done: Written targets of the task.
            restarts: Number of processes that died on the task in this run.
        """
        self._records.record(task, done)

    def counts(self) -> dict[str, int]:
        """Return the numbers of samples, shards, bytes and rejects of the finished folder."""
        return dict(read_description(self.output.store)["counts"])

    def _finish(self) -> None:
        self._sizes = self.output.sizes()
        found = [self.stands(task) for task in self.tasks]
        shards = [one.shard for one in found if one is not None and one.shard is not None]
        rejects = [reject for one in found if one is not None for reject in one.rejects]
        if None in found:
            raise UnfinishedError(f"{self.output.location}: {found.count(None)} shards are missing; run it again")
        if not shards:
            raise ValueError(
                f"no sample of {self.split.manifest} could be read: {rejects[0].reason if rejects else ''}"
            )
        member = shards[0].rows[0].members[ARRAY]
        manifest = self.split.manifest
        facts = {
            **self.settings,
            "shape": member.lists["shape"].tolist()[1:],
            "dtype": member.words["dtype"],
            "fingerprint": manifest.fingerprint,
            "version": manifest.version,
        }
        info = DatasetInfo(
            dataset=manifest.info["dataset"],
            split=manifest.info["split"],
            modality=TARGETS,
            profile=TARGETS,
            label_names=tuple(manifest.info["label_names"]),
            settings={TARGETS: facts},
        )
        finish_split(self.output, info, shards, rejects)
        self.output.remove(self._erased([shard.name for shard in shards]))
        self._records.verified()

    def _erased(self, kept: Sequence[str]) -> list[str]:
        """Return the files of shards that an erasure wrote under another name and that the job has written again
        since.
        """
        ours, endings = {task.name for task in self.tasks}, (".tar", ".idx", SUMS)
        there = [name for name in self.output.names() if name.endswith(endings)]
        tars = {name: f"{name.rpartition('.')[0]}.tar" for name in there}
        return [name for name, tar in tars.items() if tar not in kept and f"{strip_tar_name(tar)}.tar" in ours]


def _config(recipe: Recipe[Any], split: Split) -> SplitConfig[Any, Any]:
    """Return the settings of clips and crops of a recipe, without masks."""
    data = recipe.data
    if not isinstance(data, SplitConfig) or "cycle" not in {f.name for f in fields(data)}:
        raise ValueError(f"targets need images or videos, but {recipe.name} loads {data.modality}")
    if isinstance(several := getattr(data, "component", None), tuple):
        raise ValueError(f"a teacher reads one video per sample, but component={several} specifies {len(several)}")
    return data.resolved(split).alone()


def _name_folder_beside(split: Manifest, settings: Json) -> Location:
    """Return the default folder of targets next to a split, named by a digest of the settings."""
    folder, name = split_folder_and_name(split.location)
    digest = xxhash.xxh3_64_hexdigest(json.dumps(settings, sort_keys=True).encode())
    return within(folder, f"{name}-targets-{digest[:8]}")
