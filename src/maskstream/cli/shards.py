"""`maskstream shards`, which can also pass its arguments to a cluster as a script."""

import shlex
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskstream.preprocess.encode.limits import Limits
from maskstream.preprocess.job.options import JobOptions
from maskstream.shards.flag import DataFlag, OutputFlag, RunFlag, split_list

from .options import ExecutorOptions, MaxPixels, limit_pixels
from .terminal import Json, say, show, working

if TYPE_CHECKING:
    from maskstream.preprocess import JobReport
    from maskstream.preprocess.executors.slurm import SlurmJob

_DEFAULT_PARTS = 100
_NOT_OF_PARTS = ("executor", "address", "parts", "sbatch", "workers", "retry_rejects", "as_json")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions(ExecutorOptions):
    """Options of running the tasks of a job, possibly as a Slurm job array."""

    executor: Annotated[
        str,
        RunFlag(
            "Executor of the work: local (processes of this machine), ray (a Ray cluster) or slurm (an array of parts "
            "and a finish, submitted if sbatch is installed).",
            metavar="NAME",
        ),
    ] = "local"
    parts: Annotated[
        int | None, RunFlag("With slurm: size of the array [default: one per shard, at most 100].", min=1)
    ] = None
    sbatch: Annotated[
        str | None,
        RunFlag(
            'With slurm: options of sbatch, such as "--partition=x --cpus-per-task=16 --time=8:00:00".',
            metavar="OPTIONS",
        ),
    ] = None


def shards(
    context: typer.Context,
    dataset: Annotated[
        str,
        DataFlag(
            "Dataset, such as k400, ssv2, folder or sample, or package.module:name for your own. An unknown name lists "
            "all."
        ),
    ],
    *,
    root: Annotated[
        str | None, DataFlag("Raw data: a path or a URL (`maskstream docs scaling`) [default: data/raw/DATASET].")
    ] = None,
    out: Annotated[
        str | None,
        OutputFlag(
            "Folder of the shards, or its URL in an object store (s3://BUCKET/FOLDER, gs://, az://) [default: "
            "data/shards/DATASET]."
        ),
    ] = None,
    append: Annotated[
        bool, OutputFlag("Encode only the sources that finished splits lack, and append them as new versions.")
    ] = False,
    options: JobOptions,
    keep: Annotated[
        str | None,
        DataFlag(
            "Write only images and clips that meet a rule, such as 'motion>0.01 and dark<0.5' "
            "(`maskstream docs curation`); unkept.parquet lists the others.",
            metavar="RULE",
        ),
    ] = None,
    max_pixels: MaxPixels = None,
    limits: Limits,
    signals: Annotated[
        bool, OutputFlag("Measure each sample, for use in weights and rules (`maskstream docs curation`).")
    ] = False,
    languages: Annotated[
        Sequence[str],
        OutputFlag(
            "With --signals: also store the probability that a text is in each of these languages, such as en,de.",
            metavar="CODES",
            parse=split_list,
        ),
    ] = (),
    cluster: ClusterOptions,
    metrics: Annotated[
        Path | None,
        OutputFlag("Also write the progress to this file, such as job.prom, for Prometheus.", metavar="FILE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert raw data in its publisher's layout into verified shards for training.

    An interrupted run continues where it stopped, even after a missing disk or a lack of memory. Files that cannot be
    decoded are listed in rejects.parquet with the reason.

    Several machines share a job with --executor slurm, or with --part 1/N to N/N at the same time and in one OUT, and
    then --finish (`maskstream docs cluster`). Rerun a part that was killed; N may change.
    """
    from maskstream.preprocess import make_shards
    from maskstream.preprocess.curate import KeepRule, Signals
    from maskstream.preprocess.job.progress import ProgressFile
    from maskstream.preprocess.versions import add_sources

    folder = dataset.rpartition(":")[2]
    root, out = root or f"data/raw/{folder}", out or f"data/shards/{folder}"
    if languages and not signals:
        raise ValueError("--languages adds text signals; pass --signals too, or leave them out")
    options = replace(
        options,
        executor=cluster.choose(options.workers, also=("slurm",)),
        limits=limit_pixels(limits, max_pixels),
        keep=None if keep is None else KeepRule(keep),
        measure=Signals(languages=tuple(languages)) if signals else None,
    )
    if cluster.executor == "slurm":
        if metrics is not None:
            raise ValueError("--metrics works in a single process only; leave it out with --executor slurm")
        submit(_describe_slurm_job(context, dataset, root, options, cluster, append=append), as_json)
        return
    if cluster.parts or cluster.sbatch:
        raise ValueError("--parts and --sbatch require --executor slurm")
    with ExitStack() as stack:
        shown = stack.enter_context(working(f"reading {root}", as_json))
        if metrics is not None:
            shown = stack.enter_context(ProgressFile(metrics, folder, shown))
        report = (add_sources if append else make_shards)(dataset, root, out, replace(options, progress=shown))
    show(_facts(report), as_json)


def _describe_slurm_job(
    context: typer.Context,
    dataset: str,
    root: str,
    options: JobOptions,
    cluster: ClusterOptions,
    *,
    append: bool,
) -> "SlurmJob":
    from maskstream.preprocess.executors.slurm import SlurmJob
    from maskstream.preprocess.job.shards import find_largest_split

    if options.part or options.finish or options.overwrite or options.repair or append:
        raise ValueError(
            "--executor slurm starts the parts and the final step itself; leave out --part, --finish, --repair and "
            "--append, and delete the output folder instead of --overwrite"
        )
    name = dataset.rpartition(":")[2]
    return SlurmJob(
        name=f"maskstream-{name}",
        folder=Path(f"slurm-{name}"),
        command=("shards", *given_words(context, leave=_NOT_OF_PARTS)),
        for_parts=("--retry-rejects",) if options.retry_rejects else (),
        parts=max(1, cluster.parts or min(_DEFAULT_PARTS, find_largest_split(dataset, root, options))),
        workers=options.workers,
        options=tuple(shlex.split(cluster.sbatch or "")),
    )


def _facts(report: "JobReport") -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for name, split in report.splits.items():
        counts = {key: value for key, value in split.counts.items() if key != "rejected"}
        splits[name] = {"state": split.state, **counts, **split.counts.get("rejected", {}), "folder": str(split.folder)}
    rate = {"sources_per_s": round(report.n_sources / report.wall_s, 2)} if report.n_sources else {}
    return {"dataset": report.dataset, "profile": report.profile, **splits, "seconds": round(report.wall_s, 1), **rate}


def given_words(context: typer.Context, leave: Collection[str]) -> list[str]:
    """Return the words of a command line after the command, without some parameters.

    Args:
        context: Context of the command.
        leave: Names of the parameters to leave out.
    """
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in leave or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(parameter.opts[0])
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (parameter.opts[0], str(one))]
        else:
            words += [parameter.opts[0], str(value)]
    return words


def submit(job: "SlurmJob", as_json: bool) -> None:
    """Write the scripts of a job, print them, and submit them if Slurm is installed.

    Args:
        job: The job.
        as_json: Whether to print JSON.
    """
    paths = job.write()
    if not as_json:
        for path, text in zip(paths, job.scripts().values(), strict=True):
            for line in (f"# {path}", *text.splitlines(), ""):
                say(line)
    jobs = job.submit()
    facts = {"parts": job.parts, "scripts": [str(path) for path in paths], "submit": job.by_hand()}
    if jobs is not None:
        show(
            {**facts, "jobs": list(jobs)} if as_json else {"submitted": f"{jobs[0]} and, afterwards, {jobs[1]}"},
            as_json,
        )
    elif as_json:
        show(facts, as_json)
    else:
        say("sbatch is not installed on this machine; run on a machine of the cluster:")
        say(job.by_hand())
