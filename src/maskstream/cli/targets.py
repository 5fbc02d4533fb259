"""`maskstream targets`: what a frozen teacher makes of a split, as shards that a loader reads beside it."""

from pathlib import Path
from typing import Annotated, cast

import typer

from .options import Address, ExecutorName, Workers, executor_named
from .terminal import Data, Device, Json, tell, working


def targets(
    run: Annotated[
        Path, typer.Argument(help="The folder of the teacher's run, or its model.safetensors.", show_default=False)
    ],
    data: Data,
    out: Annotated[
        str | None,
        typer.Option(help="The folder of the targets, or a URL [default: one beside DATA]", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The recipe of the student, whose clips and crops are drawn [default: that of RUN]", show_default=False
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set a field of the recipe, such as data.clip.stride=2; repeatable."),
    ] = None,
    cycle: Annotated[
        int, typer.Option(min=1, help="Clips and crops of each sample; a run shows them again after as many epochs.")
    ] = 1,
    dtype: Annotated[str, typer.Option(help="The type of a feature: float32 or float16.")] = "float32",
    clips: Annotated[int, typer.Option(min=1, help="Clips of a sample that the teacher sees at once.")] = 16,
    executor: ExecutorName = "local",
    workers: Workers = None,
    address: Address = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write what a frozen teacher, or a tokenizer, makes of each sample of a split, as shards.

    See docs/training.md#targets-in-shards. `--set data.targets=OUT` of `maskstream train` then reads them instead of
    computing them. A run that is stopped continues; one after samples were appended writes theirs.
    """
    with working(f"opening {run} and {data}", as_json) as shown:
        from maskstream.pipelines.stream.topology import usable_device
        from maskstream.preprocess.executors.local import choose_executor
        from maskstream.preprocess.job.ledger import run_tasks
        from maskstream.train.core.run_folder import run_recipe
        from maskstream.train.recipes import chosen_recipe
        from maskstream.train.write_targets import TargetsJob, TargetType, write_targets

        named = recipe or run_recipe(run if run.is_dir() else run.parent)
        job = TargetsJob(
            run,
            data,
            out,
            recipe=chosen_recipe(named, set_ or ()),
            cycle=cycle,
            dtype=cast(TargetType, dtype),  # which the job checks
            clips=clips,
            device=usable_device(device),
        )
        runner = choose_executor(executor_named(executor, workers, address), workers)
        with job.writing():
            run_tasks(runner, write_targets, job.tasks, job, shown, phase="targets", unit="samples")
    folder, counts = str(job.output.location), job.counts()
    line = f"wrote targets of {counts['samples']:,} samples to {folder}, {counts['bytes'] / 1e6:,.1f} MB"
    tell({"folder": folder, "weights": job.checksum, **counts}, [line], as_json)
