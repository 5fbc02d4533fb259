"""`maskstream shards`, which also hands its own words over to a cluster as a script."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskstream.shards.named import nearest

from .options import Address, MaxPixels, MemoryLimit, TimeLimit, Workers, chosen_limits, executor_named
from .terminal import Json, say, show, working

if TYPE_CHECKING:
    from maskstream.preprocess import JobReport
    from maskstream.preprocess.executors.slurm import SlurmJob
    from maskstream.preprocess.job.options import JobOptions

_DEFAULT_PARTS = 100
_NOT_OF_PARTS = ("executor", "address", "parts", "sbatch", "workers", "retry_rejects", "as_json")

Dataset = Annotated[
    str,
    typer.Argument(
        help="A dataset, such as k400, ssv2, folder or sample, or package.module:name for your own. An unknown "
        "name lists all.",
        show_default=False,
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        help="The raw data: a path or a URL (docs/scaling.md) [default: data/raw/DATASET]", show_default=False
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="The shards: a folder, or the URL of one in an object store (s3://BUCKET/FOLDER, gs://, az://) "
        "[default: data/shards/DATASET]",
        show_default=False,
    ),
]
Profile = Annotated[str, typer.Option(help="How video is encoded: train, fast, copy or fps (docs/shard-format.md).")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a setting of the dataset, such as fold=2 (esc50, hmdb51, ucf101), or a field of its encoder: "
        "tokenizer=train:wordpiece:8000 or tokenizer=FILE (texts), short_side=256 (images), ...",
        show_default=False,
    ),
]
SamplesPerShard = Annotated[int | None, typer.Option(min=1, help="Source files per shard.", show_default=False)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Delete what an earlier run wrote to OUT, and start over.")
]
MaxRejects = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="The largest share of sources that may be rejected or missing; with more, the run fails and the split "
        "is not finished. Lists of videos from the web (audioset, vggsound, k400) often name more than there is.",
    ),
]
RetryRejects = Annotated[
    bool,
    typer.Option("--retry-rejects", help="Encode the shards with rejects again, also of a finished split."),
]
Repair = Annotated[
    bool,
    typer.Option("--repair", help="Read a finished split, and write again what is damaged, to the bytes that it had."),
]
Append = Annotated[
    bool,
    typer.Option(
        "--append",
        help="Encode only the sources that finished splits lack, and append them as new versions.",
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="A split to make, such as val; repeatable [default: all].",
        show_default=False,
    ),
]
Val = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Divide the split train: this share of it becomes a split val, of each label alike, such as 0.05.",
        show_default=False,
    ),
]
ValBy = Annotated[
    str,
    typer.Option(
        metavar="WORD",
        help="What --val keeps together: source (all samples of a raw file), sample (nothing), folder, or a field of "
        "the samples, such as speaker.",
    ),
]
ValSeed = Annotated[int, typer.Option(help="The seed of --val.")]
AsIs = Annotated[
    bool,
    typer.Option("--as-is", help="Take ROOT as it is, though its splits or labels are doubtful (the error says why)."),
]
OutsideRoot = Annotated[
    bool,
    typer.Option(
        "--outside-root",
        help="Lists and links may lead to files that are not below ROOT. Only for lists that you trust: they may "
        "name any file that you can read.",
    ),
]
Damage = Annotated[
    str | None,
    typer.Option(
        metavar="WORD",
        help="What to do with videos that are damaged or cut off: reject, trim (end before the first damaged "
        "frame, if half is left) or keep (as the decoder conceals it). keep also takes what can be read of damaged "
        "archives, which else are an error [default: reject]",
        show_default=False,
    ),
]
ClipsBy = Annotated[
    str | None,
    typer.Option(
        "--clips",
        metavar="HOW",
        help="Cut long files into clips: at scenes or, by a network, transnetv2 (videos), at silence (sounds), after "
        "so many seconds, such as 10s, or by a list (.csv) with the columns path, start and end (docs/data.md).",
        show_default=False,
    ),
]
MinClip = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="With --clips: shorter ones are left out [default: 2]",
        show_default=False,
    ),
]
MaxClip = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="With --clips scenes or silence: longer scenes and sounds become several clips [default: 20]",
        show_default=False,
    ),
]
KeepText = Annotated[
    str | None,
    typer.Option(
        "--keep",
        metavar="RULE",
        help="Write only pictures and clips that meet a rule, as 'motion>0.01 and dark<0.5' (docs/curation.md); "
        "unkept.parquet lists the others.",
        show_default=False,
    ),
]
MeasureSignals = Annotated[
    bool,
    typer.Option("--signals", help="Measure each sample, for weights and rules of loaders (docs/curation.md)."),
]
Languages = Annotated[
    str | None,
    typer.Option(
        metavar="CODES",
        help="With --signals: how likely a text is in each of these languages, such as en,de (docs/curation.md).",
        show_default=False,
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What runs the work: local (processes of this machine), ray (a Ray cluster) or slurm (an array of "
        "parts and a finish, submitted if sbatch is here).",
    ),
]
Parts = Annotated[
    int | None,
    typer.Option(
        min=1, help="With slurm: the size of the array [default: one per shard, at most 100]", show_default=False
    ),
]
Sbatch = Annotated[
    str | None,
    typer.Option(
        metavar="OPTIONS",
        help='With slurm: options of sbatch, such as "--partition=x --cpus-per-task=16 --time=8:00:00".',
        show_default=False,
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the progress into this file, such as job.prom, as Prometheus reads it.",
        show_default=False,
    ),
]
OwnPart = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Write only every N-th shard, from the I-th on, and no index: the part of one machine of N.",
        show_default=False,
    ),
]
Finish = Annotated[
    bool, typer.Option("--finish", help="Write the index of the shards that all parts wrote, and verify.")
]


def shards(
    context: typer.Context,
    dataset: Dataset,
    root: Root = None,
    out: Out = None,
    profile: Profile = "train",
    settings: Settings = None,
    workers: Workers = None,
    samples_per_shard: SamplesPerShard = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
    time_limit: TimeLimit = 60.0,
    memory_limit: MemoryLimit = None,
    max_rejects: MaxRejects = 0.05,
    retry_rejects: RetryRejects = False,
    repair: Repair = False,
    append: Append = False,
    split: Splits = None,
    val: Val = None,
    val_by: ValBy = "source",
    val_seed: ValSeed = 0,
    as_is: AsIs = False,
    outside_root: OutsideRoot = False,
    damage: Damage = None,
    clips: ClipsBy = None,
    min_clip: MinClip = None,
    max_clip: MaxClip = None,
    keep: KeepText = None,
    signals: MeasureSignals = False,
    languages: Languages = None,
    executor: ExecutorName = "local",
    address: Address = None,
    parts: Parts = None,
    sbatch: Sbatch = None,
    part: OwnPart = None,
    finish: Finish = False,
    metrics: Metrics = None,
    as_json: Json = False,
) -> None:
    """Convert raw data in its publisher's layout into verified shards for training.

    An interrupted run continues where it stopped, so does one that a missing disk or a lack of memory ended. Files that
    cannot be decoded are listed in rejects.parquet with the reason.

    Many machines share a job with --executor slurm, or with --part 1/N to N/N at the same time and in one OUT, and then
    --finish (docs/cluster.md). A part that was killed is run again; N may change.
    """
    from maskstream.preprocess import PROFILES, make_shards
    from maskstream.preprocess.curate import KeepRule, Signals
    from maskstream.preprocess.job.options import JobOptions
    from maskstream.preprocess.job.plan import JobPart
    from maskstream.preprocess.job.progress import ProgressFile
    from maskstream.preprocess.versions import add_sources

    own = None if part is None else JobPart.parse(part)
    if profile not in PROFILES:
        close = nearest(profile, list(PROFILES))
        raise ValueError(f"--profile is one of {', '.join(PROFILES)}, got {profile!r}{close}")
    folder = dataset.rpartition(":")[2]
    root, out = root or f"data/raw/{folder}", out or f"data/shards/{folder}"
    if languages is not None and not signals:
        raise ValueError("--languages are signals of texts; give --signals too, or leave them out")
    spoken = tuple(code.strip() for code in (languages or "").split(",") if code.strip())
    options = JobOptions(
        profile=PROFILES[profile],
        settings=settings or [],
        workers=workers,
        executor=executor_named(executor, workers, address, also=("slurm",)),
        samples_per_shard=samples_per_shard,
        overwrite=overwrite,
        limits=chosen_limits(max_pixels, time_limit, memory_limit),
        max_rejects=max_rejects,
        retry_rejects=retry_rejects,
        repair=repair,
        part=None if own is None else (own.number, own.count),
        finish=finish,
        splits=split or (),
        val=val,
        val_by=val_by,
        val_seed=val_seed,
        as_is=as_is,
        outside_root=outside_root,
        damage=damage,
        clips=clips,
        min_clip=min_clip,
        max_clip=max_clip,
        keep=None if keep is None else KeepRule(keep),
        measure=Signals(languages=spoken) if signals else None,
    )
    if executor == "slurm":
        if metrics is not None:
            raise ValueError("--metrics is of one process; leave it out with --executor slurm")
        submit(_slurm_job(context, dataset, root, options, append=append, parts=parts, sbatch=sbatch), as_json)
        return
    if parts or sbatch:
        raise ValueError("--parts and --sbatch belong to --executor slurm")
    with ExitStack() as stack:
        shown = stack.enter_context(working(f"reading {root}", as_json))
        if metrics is not None:
            shown = stack.enter_context(ProgressFile(metrics, folder, shown))
        report = (add_sources if append else make_shards)(dataset, root, out, replace(options, progress=shown))
    show(_facts(report), as_json)


def _slurm_job(
    context: typer.Context,
    dataset: str,
    root: str,
    options: JobOptions,
    *,
    append: bool,
    parts: int | None,
    sbatch: str | None,
) -> SlurmJob:
    from maskstream.preprocess.executors.slurm import SlurmJob
    from maskstream.preprocess.job.shards import largest_split

    if options.part or options.finish or options.overwrite or options.repair or append:
        raise ValueError(
            "--executor slurm starts parts and a finish itself; leave out --part, --finish, --repair and "
            "--append, and delete the output folder instead of --overwrite"
        )
    name = dataset.rpartition(":")[2]
    return SlurmJob(
        name=f"maskstream-{name}",
        folder=Path(f"slurm-{name}"),
        command=("shards", *given_words(context, leave=_NOT_OF_PARTS)),
        for_parts=("--retry-rejects",) if options.retry_rejects else (),
        parts=max(1, parts or min(_DEFAULT_PARTS, largest_split(dataset, root, options))),
        workers=options.workers,
        options=tuple(shlex.split(sbatch or "")),
    )


def _facts(report: JobReport) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for name, split in report.splits.items():
        counts = {key: value for key, value in split.counts.items() if key != "rejected"}
        splits[name] = {"state": split.state, **counts, **split.counts.get("rejected", {}), "folder": str(split.folder)}
    rate = {"sources_per_s": round(report.n_sources / report.wall_s, 2)} if report.n_sources else {}
    return {"dataset": report.dataset, "profile": report.profile, **splits, "seconds": round(report.wall_s, 1), **rate}


def given_words(context: typer.Context, leave: Collection[str]) -> list[str]:
    """The words of the command line of `context`, after the command, without the parameters named in `leave`."""
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


def submit(job: SlurmJob, as_json: bool) -> None:
    """Write the scripts of a job, print them, and submit them where there is Slurm."""
    paths = job.write()
    if not as_json:
        for path, text in zip(paths, job.scripts().values(), strict=True):
            for line in (f"# {path}", *text.splitlines(), ""):
                say(line)
    jobs = job.submit()
    facts = {"parts": job.parts, "scripts": [str(path) for path in paths], "submit": job.by_hand()}
    if jobs is not None:
        show(
            {**facts, "jobs": list(jobs)} if as_json else {"submitted": f"{jobs[0]} and, after it, {jobs[1]}"}, as_json
        )
    elif as_json:
        show(facts, as_json)
    else:
        say("there is no sbatch on this machine; on one of the cluster, run")
        say(job.by_hand())
