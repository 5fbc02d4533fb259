"""`maskstream targets`: writes the features of a frozen teacher as shards, which a loader reads with a split."""

from pathlib import Path
from typing import Annotated

from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag, RunFlag
from maskstream.train.core.options import FeatureType, Set

from .options import ExecutorOptions, Workers
from .terminal import Data, Device, Json, tell, working


def targets(
    run: Annotated[Path, ModelFlag("Folder of the teacher's run, or its model.safetensors.")],
    data: Data,
    *,
    out: Annotated[str | None, OutputFlag("Folder of the targets, or a URL [default: next to DATA].")] = None,
    recipe: Annotated[
        str | None, ModelFlag("Recipe of the student, which decides clips and crops [default: recipe of RUN].")
    ] = None,
    set_: Set = (),
    cycle: Annotated[
        int, DataFlag("Clips and crops per sample; training repeats them after that many epochs.", min=1)
    ] = 1,
    dtype: Annotated[FeatureType, OutputFlag("Data type of the features.")] = "float32",
    clips: Annotated[int, RunFlag("Clips per batch of the teacher.", min=1)] = 16,
    executor: ExecutorOptions,
    workers: Workers = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the token features of a frozen teacher, or the ids of a tokenizer, for each sample of a split, as shards.

    See `maskstream docs exports#targets-in-shards`. `--set data.targets=OUT` of `maskstream train` then reads them
    instead of computing them. The same command continues a stopped run and, after samples were appended, writes only
    theirs.
    """
    with working(f"opening {run} and {data}", as_json) as shown:
        from maskstream.pipelines.stream.topology import usable_device
        from maskstream.preprocess.executors.local import choose_executor
        from maskstream.preprocess.job.ledger import run_tasks
        from maskstream.train.core.run_folder import run_recipe
        from maskstream.train.recipes import chosen_recipe
        from maskstream.train.write_targets import TargetsJob, write_targets

        named = recipe or run_recipe(run if run.is_dir() else run.parent)
        job = TargetsJob(
            run,
            data,
            out,
            recipe=chosen_recipe(named, set_),
            cycle=cycle,
            dtype=dtype,
            clips=clips,
            device=usable_device(device),
        )
        runner = choose_executor(executor.choose(workers), workers)
        with job.writing():
            run_tasks(runner, write_targets, job.tasks, job, shown, phase="targets", unit="samples")
    folder, counts = str(job.output.location), job.counts()
    line = f"wrote targets of {counts['samples']:,} samples to {folder}, {counts['bytes'] / 1e6:,.1f} MB"
    tell({"folder": folder, "weights": job.checksum, **counts}, [line], as_json)
