"""`maskstream train`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import Components, settings
from .terminal import INTERRUPTED, Cache, CacheGB, Device, working

RecipeName = Annotated[
    str,
    typer.Argument(
        help="A recipe, such as videomae-tiny or mgmae-small, or package.module:name for your own. An unknown name "
        "lists all.",
        show_default=False,
    ),
]
TrainingSplits = Annotated[
    list[str] | None,
    typer.Option(
        help="The training split, a folder or a URL (docs/stores.md); repeatable, or a JSON file of a mixture "
        "(docs/training.md#several-splits).",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="The weights of several --data in their order, such as 0.7,0.3 [default: all alike]", show_default=False
    ),
]
DataVersion = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The version of the split [default: the current one; a run that is continued stays in its version]",
        show_default=False,
    ),
]
RunFolder = Annotated[Path | None, typer.Option(help="The run's folder [default: runs/RECIPE]", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a field of the recipe, such as model.depth=6 or mask.ratio=0.8; repeatable.",
        show_default=False,
    ),
]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the whole recipe as JSON and train nothing.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps to train [default: the recipe's]", show_default=False)]
InitialWeights = Annotated[
    Path | None,
    typer.Option(
        help="A model.safetensors with initial weights, such as a pre-training's; or a folder of transformers or a "
        ".pth file of VideoMAE or MAE.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Samples per rank [default: the recipe's]", show_default=False)
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Batches per rank and step, whose gradients are those of one batch [default: the recipe's]",
        show_default=False,
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seed of the weights, the order, the crops, the masks and what the model draws.")
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="Of matrix products; auto is bf16 where the device multiplies it faster, or fp32."),
]
Compile = Annotated[
    Literal["auto", "no", "block", "model"],
    typer.Option(
        "--compile",
        help="What torch.compile compiles; auto: on CUDA the model or its blocks.",
    ),
]
CheckpointBlocks = Annotated[
    bool,
    typer.Option(
        "--checkpoint-blocks",
        help="Compute blocks again in the backward pass instead of keeping their activations: less memory, slower.",
    ),
]
Parallel = Annotated[
    Literal["ddp", "fsdp"],
    typer.Option(help="What ranks share: gradients (ddp), or also weights and moments, for large models (fsdp)."),
]
Replicas = Annotated[
    int,
    typer.Option(
        min=1,
        help="With --parallel fsdp: how many copies of weights and moments, such as one a machine (HSDP); ranks within "
        "a copy divide it.",
    ),
]
OnNan = Annotated[
    Literal["stop", "skip"],
    typer.Option(help="What a loss or gradient that is not finite does: stop the run, or skip its step."),
]
Guard = Annotated[
    Literal["auto", "off", "log", "stop", "rollback"],
    typer.Option(
        help="What is done where features have collapsed: log a warning, stop, or go back to the last sound checkpoint "
        "with a lower learning rate; auto logs, for models that may collapse."
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(
        help="A labelled split; k-NN and a linear probe of its samples are measured meanwhile.", show_default=False
    ),
]
ProbeEvery = Annotated[int, typer.Option(min=1, help="Steps between two measurements of --probe.")]
Val = Annotated[
    str | None,
    typer.Option(help="A held-out split on which the recipe's scores are measured meanwhile.", show_default=False),
]
Every = Annotated[int, typer.Option(min=1, help="Steps between two validations.")]
Best = Annotated[
    str | None,
    typer.Option(
        help="The score whose best weights stay in RUN/best.safetensors [default: the recipe's first]",
        show_default=False,
    ),
]
SameSplit = Annotated[bool, typer.Option("--same-split", help="Validate on samples that are trained on, too.")]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST:LAST",
        help="Write a trace of these steps, such as 10:15, by torch's profiler into RUN/profile.",
        show_default=False,
    ),
]
Losses = Annotated[
    bool, typer.Option("--losses", help="Record the loss of each sample in RUN/sample_losses.npy, for replay --worst.")
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TOOL",
        help="Also give metrics to this tool: tensorboard, prometheus, otlp, wandb or mlflow (repeatable).",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option(help="Continue from the run's newest checkpoint that is whole, if there is one.")]


def train(
    recipe: RecipeName,
    data: TrainingSplits = None,
    weights: Weights = None,
    data_version: DataVersion = None,
    out: RunFolder = None,
    set_: Settings = None,
    component: Components = None,
    print_config: PrintConfig = False,
    steps: Steps = None,
    initial: InitialWeights = None,
    batch_size: BatchSize = None,
    accumulate: Accumulate = None,
    seed: Seed = 0,
    precision: Precision = "auto",
    compile_: Compile = "auto",
    checkpoint_blocks: CheckpointBlocks = False,
    parallel: Parallel = "ddp",
    replicas: Replicas = 1,
    on_nan: OnNan = "stop",
    guard: Guard = "auto",
    guard_every: Annotated[int, typer.Option(min=1, help="Steps between two measurements of the guard.")] = 20,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Worker processes; 0 uses threads only.")] = 0,
    cache: Cache = None,
    cache_gb: CacheGB = 100.0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest checkpoints stay.")] = 2,
    val: Val = None,
    every: Every = 500,
    best: Best = None,
    same_split: SameSplit = False,
    probe: Probe = None,
    probe_every: ProbeEvery = 500,
    track: Track = None,
    losses: Losses = False,
    profile: Profile = None,
    resume: Resume = True,
) -> None:
    """Train a recipe on shards, and write metrics.jsonl, checkpoints and model.safetensors into the run's folder."""
    with working(f"opening {', '.join(data or ())} for {recipe}", as_json=print_config) as shown:
        from maskstream.pipelines.modalities.mixture import mixture_of
        from maskstream.train.recipes import chosen_recipe
        from maskstream.train.recipes import train as run

        chosen = chosen_recipe(
            recipe, settings(set_, **{"data.component": component}), batch_size=batch_size, accumulate=accumulate
        )
        if print_config:
            print(json.dumps(chosen.to_dict(defaults=True), indent=2))
            return
        if not data:
            raise typer.BadParameter("give the training split, a folder or a URL", param_hint="--data")
        result = run(
            chosen,
            mixture_of(data, weights),
            out or Path("runs") / recipe.rpartition(":")[2],
            data_version=data_version,
            steps=steps,
            initial=initial,
            seed=seed,
            device=device,
            workers=workers,
            cache=cache,
            cache_gb=cache_gb,
            precision=precision,
            compile=compile_,
            checkpoint_blocks=checkpoint_blocks,
            parallel=parallel,
            replicas=replicas,
            on_nan=on_nan,
            guard=guard,
            guard_every=guard_every,
            val=val,
            every=every,
            best=best,
            same_split=same_split,
            probe=probe,
            probe_every=probe_every,
            track=track or (),
            losses=losses,
            profile=None if profile is None else _steps(profile),
            save_every=save_every,
            keep=keep,
            resume=resume,
            progress=shown,
        )
    if not result.finished:
        raise typer.Exit(INTERRUPTED)


def _steps(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal()):
        raise typer.BadParameter(
            f"give the first and the last step, such as 10:15, got {text!r}", param_hint="--profile"
        )
    return int(first), int(last)
