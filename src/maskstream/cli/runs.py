"""Commands about runs: `maskstream finetune`, `export`, `embed`, `report`, `replay`, and `demo`, which creates one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskstream.shards.flag import DataFlag, ModelFlag, OutputFlag, RunFlag
from maskstream.shards.named import nearest
from maskstream.train.core.options import EmbedOptions, FineTuneOptions, SameSplit

from .options import open_split
from .terminal import INTERRUPTED, Json, say, show, tabulate, tell, working

if TYPE_CHECKING:
    from maskstream.train.core.metrics import StepMetrics
    from maskstream.train.core.replay import ReplayedStep


def finetune(
    run: Annotated[Path, ModelFlag("Folder of a run of a masked autoencoder.")],
    *,
    data: Annotated[str, DataFlag("Labelled split to train on.")],
    test: Annotated[str, DataFlag("Labelled split to test on.")],
    out: Annotated[Path | None, OutputFlag("Folder of the fine-tuned run [default: RUN/finetune].")] = None,
    options: FineTuneOptions,
    as_json: Json = False,
) -> None:
    """Train the encoder of a run further with labels, and measure its accuracy or mAP (`maskstream docs probes`).

    It writes the same files as `maskstream train`, and finetune.json, into the folder.
    """
    folder = out or run / "finetune"
    with working(f"opening {run} and {data}", as_json) as shown:
        from maskstream.train.finetune_run import finetune as train

        result = train(run, data, test, folder, replace(options, progress=shown))
    if result is None:
        raise typer.Exit(INTERRUPTED)
    (folder / "finetune.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    if as_json:
        show(result.to_dict(), as_json)
        return
    told = ("metric", "value", "majority", "confusion")
    facts = {name: value for name, value in result.to_dict().items() if name not in told}
    show({**compare_with_baselines(facts.pop("scores")), **facts}, as_json)
    say(f"wrote {folder / 'finetune.json'}")


def compare_with_baselines(scores: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the value of each score by its name, with the values of untrained predictors."""
    return {
        score["name"]: "; ".join(
            [f"{score['value']:.4g}", *(f"{name} {value:.4g}" for name, value in score["baselines"].items())]
        )
        for score in scores
    }


def export(
    run: Annotated[Path, ModelFlag("Folder of a run.")],
    *,
    out: Annotated[Path, OutputFlag("New folder to write.")],
    to: Annotated[str, OutputFlag("Format: hf (transformers), timm, torch or onnx.")] = "hf",
    data: Annotated[
        str | None,
        DataFlag("Split for comparing samples, whose tokenizer is exported with the model [default: the run's]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run in the format of another library, with its processor or tokenizer and a model card.

    The code of the model card is run without maskstream, on raw samples of the split and random ones, and the results
    are compared with the run's features. A fine-tuned classifier keeps the names of its classes. `maskstream recipes
    NAME` lists the possible formats of a recipe's model.
    """
    with working(f"exporting {run} to {out}", as_json):
        from maskstream.train.export.run import export_run

        done = export_run(run, out, data, to=to)
    what = "raw samples" if done.raw else "samples"
    lines = [
        f"wrote {out} for {done.reader}; with the code of its README.md, {done.samples} {what} differ from the "
        f"run's features by at most {done.difference:.1e} of their norm"
    ]
    if done.own is not None:
        lines.append(f"with the library's own processor they differ by {done.own:.1e}; README.md has both")
    facts = {"class": done.reader.rpartition(".")[2], "folder": str(out), "difference": done.difference}
    tell({**facts, "samples": done.samples, "raw": done.raw, "processor": done.own}, lines, as_json)


def embed(
    run: Annotated[Path, ModelFlag("Folder of a run.")],
    data: Annotated[str, DataFlag("Split whose samples are embedded.")],
    *,
    out: Annotated[Path, OutputFlag("New file to write, such as features.parquet.")],
    page: Annotated[
        Path | None, OutputFlag("HTML file to write as well: a map of the features (PCA) with samples.")
    ] = None,
    options: EmbedOptions,
    as_json: Json = False,
) -> None:
    """Write the features of all samples of a split, in its order, as Parquet: key, label and a vector each.

    Nothing is augmented and no token is hidden. After a kill, the same command continues after the last complete file.
    `maskstream.train.embed.read_features` reads them.
    """
    with working(f"opening {run} and {data}", as_json) as shown:
        from maskstream.train.embed import write_embeddings

        done = write_embeddings(run, data, out, replace(options, progress=shown))
        if page is not None:
            from maskstream.pages.embedded import write_map

            split, modality = open_split(data, run=run)
            write_map(modality, split, out, page)
    files = [str(path) for path in done.files]
    named = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    facts = {"files": files, "samples": done.samples, "width": done.width, "skipped": done.skipped}
    tell(facts, [f"wrote {done.samples:,} features of {done.width} numbers to {named}"], as_json)


def report(
    runs: Annotated[Sequence[Path], ModelFlag("Folder of a run, such as runs/demo, or of several to compare.")],
    *,
    data: Annotated[str, DataFlag("Split whose samples are reconstructed, preferably for validation.")],
    unseen: Annotated[
        str | None, DataFlag("Split of sources that the run was not trained on; its results appear separately.")
    ] = None,
    out: Annotated[
        Path | None,
        OutputFlag("HTML file [default: RUN/report.html; for several runs compared.html in the first]."),
    ] = None,
    follow: Annotated[
        bool, RunFlag("While a process trains the run, write its curves to a page that reloads automatically.")
    ] = False,
    same_split: SameSplit = False,
) -> None:
    """Write one HTML page about a run: loss, throughput, reconstructions, and samples with their masks.

    It prints the run's scores on these samples, compared with trivial predictors. Several runs are compared on one
    page: first the settings that differ, then their scores, in a column each.
    """
    with working(f"opening {', '.join(map(str, runs))} and {data}"):
        from maskstream.pages.report.compared import compare_runs
        from maskstream.pages.report.report import follow_run, write_report

        run, *others = runs
        if follow and others:
            raise ValueError(f"--follow takes one run, got {len(runs)}; pass only the run that is being trained")
        split, modality = open_split(data, run=run)
        if others:
            if unseen is not None:
                raise ValueError(
                    f"--unseen {unseen} applies to the report of one run, got {len(runs)} runs; leave it out"
                )
            found = compare_runs(modality, runs, split, out, same_split=same_split)
            none = [""] * len(runs)
            lines = [
                [(title, none), *((f"  {name}", cells) for name, cells in some)] for title, some in found.rows.items()
            ]
            for line in tabulate(found.names, list(chain.from_iterable(lines))):
                say(line)
            say(f"wrote {found.page}")
            return
        if follow:
            follow_run(run, out)
        written = write_report(modality, run, split, out, unseen=unseen, same_split=same_split)
        show(written.facts, as_json=False)
        say(f"wrote {written.page}")


def replay(
    run: Annotated[Path, ModelFlag("Folder of a run, such as runs/demo.")],
    *,
    step: Annotated[Sequence[int], RunFlag("Step, from 1; repeatable.", min=1)] = (),
    worst: Annotated[
        int,
        RunFlag("Also show this many steps whose losses stand out most, and with --losses the worst samples.", min=0),
    ] = 0,
    rank: Annotated[int | None, RunFlag("Show only one rank's part [default: all].", min=0)] = None,
    data: Annotated[
        Sequence[str],
        DataFlag("Current location of the split, one per split of a mixture [default: where the run read it]."),
    ] = (),
    data_version: Annotated[
        int | None, DataFlag("Version of the split [default: the one that the run read].", min=1)
    ] = None,
    samples: Annotated[int, OutputFlag("Maximum samples of a step to show.", min=1, max=64)] = 8,
    out: Annotated[Path | None, OutputFlag("HTML file [default: RUN/replay.html].")] = None,
    as_json: Json = False,
) -> None:
    """Show the batches of any step of a run again: its clips, crops and masks as the model had them.

    They are recreated from the run's settings and the split, so nothing must have been saved, and the topology may
    differ. `maskstream.train.replay(run, step)` returns the batches in Python.
    """
    with working(f"opening {run}", as_json) as shown:
        from maskstream.modalities import modality_of
        from maskstream.pages.replay import ALL_RANKS, write_replay
        from maskstream.pipelines.modalities.mixture import list_manifests
        from maskstream.train.core.metrics import read_metrics
        from maskstream.train.core.replay import UNRECORDED
        from maskstream.train.core.replay import replay as made_again
        from maskstream.train.core.sample_losses import worst_samples

        metrics = read_metrics(run / "metrics.jsonl")
        chosen = _choose_steps(run, step, worst, metrics)
        largest = worst_samples(run, worst) if rank is None else []
        wanted = dict.fromkeys([*chosen, *(one for one, _, _ in largest)])
        places = data[0] if len(data) == 1 else data or None
        shown.phase("recreating batches", len(wanted), unit="steps")
        made = {}
        for one in wanted:
            made[one] = made_again(run, one, data=places, version=data_version, rank=rank)
            shown.advance(1)
        found = [made[one] for one in chosen]
        by_step = {one.step: one for one in metrics}
        page = write_replay(
            modality_of(list_manifests(found[0].data)[0], data=found[0].recipe.data),
            run,
            found,
            by_step,
            out or run / "replay.html",
            samples=samples,
            samples_of=ALL_RANKS if rank is None else f"rank {rank}",
            worst=[(made[one], place, loss) for one, place, loss in largest],
        )
    samples_seen = [_sample_seen(made[one], place, loss) for one, place, loss in largest]
    steps = [_describe_step(one, by_step.get(one.step)) for one in found]
    lines = [line for one in found for line in _list_step(one)]
    lines += [f"loss {one['loss']:.4g} in step {one['step']}: {one['key'] or one['gone']}" for one in samples_seen]
    lines += [UNRECORDED] if not all(one.recorded for one in made.values()) else []
    tell({"page": str(page), "steps": steps, "worst_samples": samples_seen}, [*lines, f"wrote {page}"], as_json)


def _choose_steps(run: Path, steps: Sequence[int], worst: int, metrics: Sequence[StepMetrics]) -> list[int]:
    """Return the given steps of a run, then the `worst` ones. Raises ValueError if none is chosen."""
    from maskstream.train.core.replay import find_worst_steps

    if worst and not metrics:
        raise ValueError(
            f"{run} has no metrics.jsonl with a step in it, so no loss stands out; choose a step with --step"
        )
    chosen = list(dict.fromkeys([*steps, *(one.step for one, _ in find_worst_steps(metrics, worst))]))
    if not chosen:
        raise ValueError("choose a step with --step, or select steps with --worst")
    return chosen


def _describe_step(step: ReplayedStep, metrics: StepMetrics | None) -> dict[str, Any]:
    """Return a replayed step as JSON."""
    from maskstream.pipelines.modalities.mixture import list_manifests

    return {
        "step": step.step,
        "epoch": step.epoch,
        "batch": step.batch,
        "loss": None if metrics is None else metrics.loss,
        "replaced": [asdict(gone) for gone in step.replaced.values()],
        "recorded": step.recorded,
        "versions": [split.version for split in list_manifests(step.data)],
        "keys": step.keys,
    }


def _list_step(step: ReplayedStep) -> Iterator[str]:
    """Yield a line about a replayed step, and one per row that shows a different sample."""
    yield f"step {step.step}: epoch {step.epoch}, batch {step.batch}: {_format_first_keys(step.keys)}"
    for place, gone in step.replaced.items():
        yield f"step {step.step}: row {place + 1} shows another sample instead of {gone}"


def _sample_seen(step: ReplayedStep, place: int, loss: float) -> dict[str, Any]:
    """Describe a sample of a step; if another one has replaced it, include the reason."""
    gone = step.replaced_at(place)
    if gone is None:
        return {"step": step.step, "key": step.keys[place], "loss": loss}
    return {"step": step.step, "key": gone.key, "loss": loss, "gone": str(gone)}


def _format_first_keys(keys: object) -> str:
    """Return the first keys, and how many more there are."""
    assert isinstance(keys, list)
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return ", ".join(map(str, keys[:4])) + more


def demo(
    modality: Annotated[
        str,
        DataFlag("video, audio, audiovisual, image, image-text, text, points, mesh, pose, trajectory or native."),
    ] = "video",
) -> None:
    """Make shards of a modality, train on them for a few minutes, and write pages about data and model.

    It prints the commands that it runs, and writes to data/ and runs/ in the current folder. If it was interrupted, the
    same command continues.
    """
    from maskstream.modalities import MODALITIES, WAYS

    demos = {name: one.demo for name, one in (MODALITIES | WAYS).items() if one.demo is not None}
    if modality not in demos:
        close = nearest(modality, list(demos))
        raise ValueError(f"unknown demo {modality!r}{close}; choose from {', '.join(demos)}")
    pages = []
    for command in demos[modality].commands(modality):
        say(f"maskstream {shlex.join(command)}")
        ended = subprocess.run([sys.executable, "-m", "maskstream", *command], check=False)
        if ended.returncode:
            raise typer.Exit(ended.returncode)
        pages += [word for word in command if word.endswith(".html")]
    for page in pages:
        say(f"open {Path(page)}")
