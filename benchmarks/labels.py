"""What pre-training gives with few labels: fine-tuned runs beside the same model from scratch, and probes of frozen
features beside those of untrained encoders and raw inputs, over the runs' seeds.

    python benchmarks/labels.py RUN [RUN ...] --data TRAIN --test VAL [--few 10,30,100] [--steps 300] [--longer STEPS]
        [--set FIELD=VALUE ...] [--scratch-set FIELD=VALUE ...] [--probes linear] [--samples N] [--out runs/labels]

The runs have one recipe and differ in their seeds. For each number of labels a class (`maskstream split --few`, with
the run's place in the list as its seed) and for all labels, it fine-tunes the run's encoder and the same model with
initial weights, with equal steps (as `maskstream finetune` and its --scratch), and probes both on the same labels (as
`maskstream probe`). --scratch-set is set of the models from scratch alone: what is right for pre-trained weights may be
wrong for initial ones. --longer is the steps of a third one, from scratch too, which may take the CPU time of
pre-training and fine-tuning together. It prints a table of each, with means, spreads (largest less smallest) and the
CPU seconds of one fine-tuning and its test; `gain` is the mean of pre-trained less from scratch over the seeds, with
the least and the most. It continues where it was stopped.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import torch

from maskstream.cli.terminal import INTERRUPTED
from maskstream.preprocess.versions import take_few
from maskstream.shards.stores.local_files import publish
from maskstream.train.core.run_folder import run_settings
from maskstream.train.evaluate.probe import INPUTS, TRAINED, UNTRAINED, probe
from maskstream.train.finetunes import finetune

KINDS = (TRAINED, "from scratch", "longer")
CPU = torch.device("cpu")
Found = dict[str, Any]
P = ParamSpec("P")


def cpu_seconds() -> float:
    """The seconds of processors of this process and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def kept(file: Path, make: Callable[P, Found], *args: P.args, **settings: P.kwargs) -> Found:
    """What `make` returned for these arguments, which `file` keeps."""
    told = [*map(str, args), *map(str, settings.values())]
    if file.exists() and (done := json.loads(file.read_text()))["settings"] == told:
        return dict(done["found"])
    print(file, *told, file=sys.stderr, flush=True)
    found = make(*args, **settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    publish(file, json.dumps({"settings": told, "found": found}).encode())
    return found


def tuned(
    run: Path, data: Path, test: Path, out: Path, *, steps: int, seed: int, scratch: bool, fields: Sequence[str]
) -> Found:
    """The accuracy (or mAP) of a fine-tuning, that of the most frequent class, and the CPU seconds."""
    before = cpu_seconds()
    options: Any = {"save_every": 1 << 30, "resume": False, "progress": False}
    result = finetune(run, data, test, out, set=fields, steps=steps, scratch=scratch, seed=seed, device=CPU, **options)
    if result is None:
        raise SystemExit(INTERRUPTED)
    return {"value": result.value, "majority": result.majority, "seconds": cpu_seconds() - before}


def probed(run: Path, data: Path, test: Path, probes: Sequence[str], samples: int) -> Found:
    """The figures of the probes by their names and encoders."""
    result = probe([run], data, test, probes=probes, seeds=1, samples=samples, device=CPU)
    return {f"{one.probe}, {one.encoder}": one.mean for one in result.reached}


def seed_of(run: Path) -> int:
    """The seed of a run."""
    return int(run_settings(run).get("seed", 0))


def few(data: Path, each: int, seed: int) -> Path:
    """The split of `each` samples of a label, which is made if it is missing."""
    out = data.parent / f"few-{each}-{seed}"
    if not (out / "dataset.json").exists():
        take_few(data, each, out=out, seed=seed)
    return out


def in_words(values: Sequence[float]) -> str:
    """A cell of the table: the mean, and the largest less the smallest."""
    return f"{sum(values) / len(values):.3f} ({max(values) - min(values):.3f})"


def rows(each: int | None, args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """The cells of a number of labels a class, None for all, by their columns: of fine-tuning and of probes."""
    labels = {"labels a class": str(each or "all")}
    cells = dict(labels)
    values: dict[str, list[float]] = {}
    guesses: list[float] = []
    splits = [args.data if each is None else few(args.data, each, place) for place in range(len(args.run))]
    for kind in KINDS if args.longer else KINDS[:2]:
        steps, seconds = args.longer if kind == KINDS[2] else args.steps, []
        scratch = kind != TRAINED
        fields = [*args.set, *(args.scratch_set if scratch else ())]
        for run, data in zip(args.run, splits, strict=True):
            out, seed = args.out / run.name / f"{each or 'all'}-{kind.replace(' ', '-')}", seed_of(run)
            chosen: Any = {"steps": steps, "seed": seed, "scratch": scratch, "fields": fields}
            found = kept(out.with_suffix(".json"), tuned, run, data, args.test, out, **chosen)
            values.setdefault(kind, []).append(found["value"])
            guesses.append(found["majority"])
            seconds.append(found["seconds"])
        cells[kind] = f"{in_words(values[kind])}, {sum(seconds) / len(seconds):.0f} s"
    gains = [own - other for own, other in zip(values[TRAINED], values[KINDS[1]], strict=True)]
    cells["gain"] = f"{sum(gains) / len(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})"
    probes: dict[str, list[float]] = {f"{p}, {kind}": [] for p in args.probes for kind in (TRAINED, UNTRAINED, INPUTS)}
    for run, data in zip(args.run, splits, strict=True) if args.probes else ():
        file = args.out / run.name / f"{each or 'all'}-probe.json"
        for name, value in kept(file, probed, run, data, args.test, args.probes, args.samples).items():
            probes[name].append(value)
    cells["a guess"] = f"{sum(guesses) / len(guesses):.3f}"
    return cells, labels | {name: in_words(some) for name, some in probes.items() if some}


def table(of: Sequence[dict[str, str]]) -> str:
    """Rows as Markdown."""
    lines = [
        f"| {' | '.join(of[0])} |",
        f"|{' --- |' * len(of[0])}",
        *(f"| {' | '.join(one.values())} |" for one in of),
    ]
    return "\n".join(lines)


def words(text: str) -> list[str]:
    """The words of a list with commas."""
    return [*filter(None, text.split(","))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--few", type=words, default="10,30,100", help="labels a class, with commas; all come last")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--probes", type=words, default="linear", help="names with commas, such as knn10,linear")
    parser.add_argument("--samples", type=int, default=10_000, help="the most of each split that probes use")
    parser.add_argument("--longer", type=int, help="steps of a third one, from scratch")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--scratch-set", action="append", default=[], help="set of the models from scratch alone")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    args = parser.parse_args()
    done: list[tuple[dict[str, str], dict[str, str]]] = []
    try:
        for each in [*map(int, args.few), None]:
            done.append(rows(each, args))
    finally:
        for of in zip(*done, strict=True):
            if len(of[0]) > 1:
                print(f"{table(of)}\n", flush=True)


if __name__ == "__main__":
    main()
