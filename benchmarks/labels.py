"""What pre-training gives with few labels: fine-tuned runs beside the same model from scratch, over the runs' seeds.

    python benchmarks/labels.py RUN [RUN ...] --data TRAIN --test VAL [--few 10,30,100] [--steps 300] [--longer STEPS]
        [--set FIELD=VALUE ...] [--out runs/labels]

The runs have one recipe and differ in their seeds. For each number of labels a class (`maskstream split --few`, with
the run's place in the list as its seed) and for all labels, it fine-tunes the run's encoder and the same model with
initial weights, with equal steps (`maskstream finetune`, `--scratch`). --longer is the steps of a third one, from
scratch too, which may take the CPU time of pre-training and fine-tuning together. It prints a table with the mean, the
spread (largest less smallest) and the CPU seconds of one fine-tuning, and continues where it was stopped.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from maskstream.shards.stores.local_files import publish

KINDS = ("pre-trained", "from scratch", "longer")


def command(*words: object) -> float:
    """Runs a maskstream command; returns the CPU seconds of its processes. SystemExit where it fails."""
    print("maskstream", *words, file=sys.stderr, flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "maskstream", *map(str, words)], check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tuned(
    run: Path, kind: str, data: Path, test: Path, steps: int, seed: int, out: Path, fields: Sequence[str]
) -> dict[str, float]:
    """The accuracy (or mAP), the guess by frequencies, and the CPU seconds of a fine-tuning, which is kept in `out`."""
    kept, settings = out / "labels.json", [str(data), str(test), steps, seed, *fields]
    if kept.exists() and (done := json.loads(kept.read_text()))["settings"] == settings:
        return dict(done["found"])
    words: list[object] = [word for one in fields for word in ("--set", one)]
    words += ["--scratch"] if kind != KINDS[0] else []
    spent = command(
        "finetune",
        run,
        "--data",
        data,
        "--test",
        test,
        "--out",
        out,
        "--steps",
        steps,
        "--seed",
        seed,
        "--no-resume",
        *words,
    )
    result = json.loads((out / "finetune.json").read_text())
    found = {"value": result["value"], "majority": result["majority"], "seconds": spent}
    publish(kept, json.dumps({"settings": settings, "found": found}).encode())
    return found


def few(data: Path, each: int, seed: int) -> Path:
    """The split of `each` samples of a label, which is made if it is missing."""
    out = data.parent / f"few-{each}-{seed}"
    if not (out / "dataset.json").exists():
        command("split", data, "--few", each, "--val-seed", seed, "--out", out)
    return out


def in_words(found: Sequence[dict[str, float]]) -> str:
    """A cell of the table."""
    values = [one["value"] for one in found]
    seconds = sum(one["seconds"] for one in found) / len(found)
    return f"{sum(values) / len(values):.3f} ({max(values) - min(values):.3f}), {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--few", default="10,30,100", help="labels a class, with commas; all labels come last")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--longer", type=int, help="steps of a third one, from scratch")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    args = parser.parse_args()
    kinds = KINDS if args.longer else KINDS[:2]
    print(f"| labels a class | {' | '.join(kinds)} | a guess |\n|{' --- |' * (len(kinds) + 2)}", flush=True)
    for each in [*map(int, filter(None, args.few.split(","))), None]:
        cells, guess = [], 0.0
        for kind in kinds:
            steps = args.longer if kind == KINDS[2] else args.steps
            found = []
            for seed, run in enumerate(args.run):
                data = args.data if each is None else few(args.data, each, seed)
                out = args.out / run.name / f"{each or 'all'}-{kind.replace(' ', '-')}"
                found.append(tuned(run, kind, data, args.test, steps, seed, out, args.set))
            cells.append(in_words(found))
            guess = sum(one["majority"] for one in found) / len(found)
        print(f"| {each or 'all'} | {' | '.join(cells)} | {guess:.3f} |", flush=True)


if __name__ == "__main__":
    main()
