"""Settings of training, fine-tuning, embedding and probing.

None of them belongs to a recipe, and a run may be resumed with different ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from maskstream.pipelines.modalities.settings import CacheSettings
from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag, RunFlag, split_list
from maskstream.shards.limits import PositiveInt, check_fields
from maskstream.shards.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from maskstream.shards.format.manifest import SplitLocation

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto", "no", "block", "model"]
Parallel = Literal["ddp", "fsdp"]
OnNaN = Literal["stop", "skip"]
OnCollapse = Literal["auto", "off", "log", "stop", "rollback"]
FeatureType = Literal["float32", "float16"]

PROBES = ("knn10", "knn20", "linear", "attentive")
"""The probes that are measured by default."""

Device = Annotated["str | torch.device", RunFlag("Device: auto, cpu, cuda, cuda:1, ...")]
SameSplit = Annotated[bool, DataFlag("Allow evaluation on samples that were trained on, which is refused otherwise.")]
Set = Annotated[
    Sequence[str],
    ModelFlag("Set a field of the recipe, such as model.depth=6 or mask.ratio=0.8; repeatable.", metavar="FIELD=VALUE"),
]


def _read_steps(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise ValueError(f"--profile must be a first and a last step, such as 10:15, got {text!r}")
    return int(first), int(last)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """The settings of computing, saving and reporting in a run.

    Attributes:
        precision: Type of matrix products; for "auto" see `choose_precision`.
        compile: Parts that torch.compile compiles. "auto" is "no" on a CPU, where compiling gains little and takes a
            minute; for CUDA devices see `compile_parts`.
        parallel: State that ranks share: "ddp" or "fsdp".
        replicas: Number of copies of the weights with "fsdp"; see `divide`.
        checkpoint_blocks: Whether to recompute blocks in the backward pass.
        on_nan: Reaction to a non-finite loss or gradient.
        most_skips: Largest number of consecutive steps that may be skipped; more end the run.
        guard: Reaction to a collapse of features; see guard.py.
        guard_every: Steps between two measurements of the guard.
        save_every: Steps between checkpoints.
        keep: Number of newest checkpoints to keep.
        resume: Whether to continue from the newest complete checkpoint.
        progress: Display of the progress; True for a bar or lines on stderr.
        track: Names of tools that receive the metrics; see `TRACKERS`.
        losses: Whether to record the loss of each sample.
        profile: First and last step of a trace by torch's profiler.
    """

    precision: Annotated[
        Precision, RunFlag("Precision of matrix products; auto is bf16 if the device computes it faster, else fp32.")
    ] = "auto"
    compile: Annotated[
        Compile, RunFlag("Parts that torch.compile compiles; auto: on CUDA the model or its blocks.")
    ] = "auto"
    parallel: Annotated[
        Parallel,
        RunFlag("State shared by ranks: gradients (ddp), or also weights and moments, for large models (fsdp)."),
    ] = "ddp"
    replicas: Annotated[
        int,
        RunFlag(
            "With --parallel fsdp: number of copies of weights and moments, such as one per machine (HSDP); the ranks "
            "of a copy share it.",
            min=1,
        ),
    ] = 1
    checkpoint_blocks: Annotated[
        bool, RunFlag("Recompute blocks in the backward pass instead of keeping activations: less memory, slower.")
    ] = False
    on_nan: Annotated[OnNaN, RunFlag("Action if a loss or gradient is not finite: stop the run, or skip the step.")] = (
        "stop"
    )
    most_skips: PositiveInt = 20
    guard: Annotated[
        OnCollapse,
        ModelFlag(
            "Action if features collapse: log a warning, stop, or roll back to the last good checkpoint with a "
            "lower learning rate; auto logs, for models that can collapse."
        ),
    ] = "auto"
    guard_every: Annotated[int, ModelFlag("Steps between guard measurements.", min=1)] = 20
    save_every: Annotated[int, OutputFlag("Steps between checkpoints.", min=1)] = 500
    keep: Annotated[int, OutputFlag("Number of newest checkpoints to keep.", min=1)] = 2
    resume: Annotated[bool, OutputFlag("Continue from the newest complete checkpoint, if there is one.")] = True
    progress: Progress | bool = True
    track: Annotated[
        Sequence[str],
        OutputFlag(
            "Also send metrics to this tool: tensorboard, prometheus, otlp, wandb or mlflow; repeatable.",
            metavar="TOOL",
        ),
    ] = ()
    losses: Annotated[
        bool, OutputFlag("Record the loss of each sample in RUN/sample_losses.npy, for replay --worst.")
    ] = False
    profile: Annotated[
        tuple[int, int] | None,
        OutputFlag(
            "Write a trace of these steps, such as 10:15, with torch's profiler to RUN/profile.",
            metavar="FIRST:LAST",
            parse=_read_steps,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.replicas > 1 and self.parallel != "fsdp":
            raise ValueError(f"replicas need parallel='fsdp', got {self.replicas} with parallel={self.parallel!r}")
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(f"profile must be a first and a last step, counted from 1, got {self.profile}")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(LoopSettings, CacheSettings):
    """The options of every training on shards."""

    steps: Annotated[int | None, ModelFlag("Steps to train [default: the recipe's].", min=1)] = None
    seed: Annotated[int, RunFlag("Random seed (weights, data order, crops, masks, dropout).")] = 0
    device: Device = "auto"
    workers: Annotated[int, RunFlag("Worker processes that load data; 0 uses threads only.", min=0)] = 0
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingSettings):
    """The options of `train`.

    A continued run keeps the split version with which it started. Weights of `initial` are loaded where names and
    shapes match. Scores on `val` are measured on the CPU, every `every` steps and at the end; the weights with the best
    score are saved in best.safetensors. Scores on `probe` are measured on the run's device (evaluate/online.py).
    """

    set: Set = ()
    data_version: Annotated[
        int | None,
        DataFlag("Version of the split [default: the current one; a continued run keeps its version].", min=1),
    ] = None
    batch_size: Annotated[int | None, ModelFlag("Samples per rank [default: the recipe's].", min=1)] = None
    accumulate: Annotated[
        int | None, ModelFlag("Batches per rank and optimiser step [default: the recipe's].", min=1)
    ] = None
    initial: Annotated[
        Path | str | None,
        ModelFlag(
            "Initial weights: a model.safetensors, such as a pre-training's, a folder of transformers, or a .pth file "
            "of VideoMAE or MAE."
        ),
    ] = None
    val: Annotated[
        str | Path | None, DataFlag("Validation split on which the recipe's scores are measured during training.")
    ] = None
    every: Annotated[int, RunFlag("Steps between validations.", min=1)] = 500
    best: Annotated[
        str | None,
        OutputFlag("Score whose best weights are kept in RUN/best.safetensors [default: the recipe's first]."),
    ] = None
    same_split: Annotated[bool, DataFlag("Allow validation on samples that are also trained on.")] = False
    probe: Annotated[
        str | Path | None,
        DataFlag("Labelled split; a k-NN and a linear probe of its samples are measured during training."),
    ] = None
    probe_every: Annotated[int, RunFlag("Steps between probe measurements.", min=1)] = 500


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions(TrainingSettings):
    """The options of `finetune`."""

    set: Annotated[
        Sequence[str],
        ModelFlag(
            "Set a field, such as schedule.epochs=20, schedule.base_lr=5e-4 or model.mixup=0; repeatable.",
            metavar="FIELD=VALUE",
        ),
    ] = ()
    points: Annotated[
        str, DataFlag("For point clouds: column with the label of each point, such as part, for part segmentation.")
    ] = ""
    scratch: Annotated[bool, ModelFlag("Start from initial weights instead of the run's, for comparison.")] = False
    steps: Annotated[int | None, ModelFlag("Steps to train [default: 50 epochs].", min=1)] = None
    compile: Annotated[
        Compile, RunFlag("Parts that torch.compile compiles; auto: on CUDA the model or its blocks.")
    ] = "no"
    val: Annotated[
        "SplitLocation | None",
        DataFlag("Validation split of the training data; the weights with the best score on it are tested."),
    ] = None
    every: Annotated[int, RunFlag("Steps between measurements on --val.", min=1)] = 500
    patience: Annotated[
        int | None, RunFlag("Stop after this many measurements on --val without improvement.", min=1)
    ] = None
    balanced: Annotated[bool, ModelFlag("Weight the classes equally in the loss, however many samples each has.")] = (
        False
    )
    same_split: SameSplit = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedOptions:
    """The options of `write_embeddings`."""

    dtype: Annotated[FeatureType, OutputFlag("Data type of the features.")] = "float32"
    batch_size: Annotated[int, RunFlag("Samples per batch of the encoder.", min=1)] = 64
    file_rows: Annotated[
        int, OutputFlag("Maximum samples per file; a larger split is written to several files.", min=1)
    ] = 1 << 16
    workers: Annotated[int, RunFlag("Worker processes that decode; 0 uses threads only.", min=0)] = 0
    device: Device = "auto"
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeOptions:
    """The options of `compare_probes`."""

    probes: Annotated[
        Sequence[str],
        ModelFlag(
            "Probes, separated by commas: knn10, knn20, whitened10, linear, attentive.",
            metavar="NAMES",
            parse=split_list,
        ),
    ] = PROBES
    seeds: Annotated[int, ModelFlag("Number of untrained encoders for comparison.", min=1)] = 3
    samples: Annotated[int, DataFlag("Maximum samples per split.", min=1)] = 10_000
    device: Device = "auto"
    same_split: SameSplit = False
    progress: Progress = SILENT

    def __post_init__(self) -> None:
        check_fields(self)
