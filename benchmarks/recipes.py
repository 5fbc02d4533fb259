"""Trains every tiny recipe on its sample data with several seeds, and compares what each reaches on held-out samples.

    python benchmarks/recipes.py [RECIPE ...] [--seeds 3] [--data data] [--out runs] [--docs docs/recipes.md]

Without names it takes all tiny recipes whose modality has a sample set. A recipe's figure and its baselines are those
of its report (the first of its scores), on the split `val` of the sample set. What is done is kept in
OUT/recipes/RECIPE/SEED and not done again unless the recipe or the split has changed; a run that was stopped begins
anew. After every run it writes OUT/recipes.json, a list of {recipe, data, steps, seconds, figure, held_out,
lower_is_better, baselines, seeds}, with the medians over the seeds, the table of the docs and what `maskstream recipes`
says (--reached train/reached.json), where rows of other recipes stay. Seconds are those of processors, over all
processes of `maskstream train`, from its start to its end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from maskstream.cli.terminal import INTERRUPTED
from maskstream.preprocess.datasets import sample_sets
from maskstream.samples.debian import fetch_debian_folder
from maskstream.shards.config import with_set
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import read_dataset_json
from maskstream.train.core.metrics import read_metrics
from maskstream.train.core.recipe import Recipe
from maskstream.train.evaluate.evaluation import Score
from maskstream.train.evaluate_run import evaluate_run
from maskstream.train.recipes import RECIPES, named_recipe

BEGIN, END = "<!-- recipes, made by: make recipes -->", "<!-- end of recipes -->"
HEAD = "| recipe | data | steps | CPU seconds | held-out figure | median (best, spread) | best baseline | verdict |"
WHY = {
    "ajepa-tiny": "training costs feature directions: the untrained encoder is 2 points better; best "
    "of eight settings on the training split ([probes](probes.md))",
    "vjepa2-tiny": "ten held-out clips show little about classes; the features lie nearly along one line (effective "
    "rank 1.2), and predictions are 19% worse than the mean feature; settings were not searched",
    "ijepa-tiny": "500 steps with a slow teacher teach little; 11 points above an untrained encoder",
    "salt-tiny": "100 steps of 8 clips teach nothing: the most frequent class has 10.5, an untrained encoder 9.1, "
    "and its teacher 15.4",
    "vjepa21-tiny": "150 steps of 8 clips teach nothing that neighbours show, and 600 hardly more: an untrained "
    "encoder has 9.6",
    "lejepa-tiny": "centred garments of one size are easy to match by pixels; 12 points above an untrained encoder",
    "videolejepa-tiny": "600 steps of 8 clips teach little; 9 points above an untrained encoder",
    "dmae-tiny": "eleven photographs do not teach more than interpolation, also in longer runs (below); 30% "
    "better than the mean of the visible pixels",
}
"""Why a recipe does not beat its best baseline, by its name; the table says it."""

Row = dict[str, Any]


SETS = {
    "ajepa-tiny": "gm-notes-pitch",
    "ijepa-tiny": "fashion-mnist",
    "lejepa-tiny": "fashion-mnist",
    "maskvit-tiny": "metaworld",
    "mgmae-tiny": "moving-fashion-mnist",
    "medthink-tiny": "scenes-counting",
    "oneref-refer-tiny": "scenes-referring",
    "oneref-tiny": "scenes-referring",
    "roar-lstm-tiny": "vader",
    "roar-roberta-tiny": "vader",
    "salt-tiny": "moving-fashion-mnist",
    "sparse-tiny": "moving-fashion-mnist",
    "spiking-mst-tiny": "fashion-mnist",
    "videomae-tiny": "moving-fashion-mnist",
    "videolejepa-tiny": "moving-fashion-mnist",
    "videomae2-tiny": "moving-fashion-mnist",
    "vjepa21-tiny": "moving-fashion-mnist",
    "vqa-tiny": "easy-vqa",
    "vqframes-tiny": "metaworld",
}
"""The recipes that have another set than the sample set of their modality: futures need clips in which much moves,
answers need questions, rationales need reasons, what is referred to needs phrases, classifiers need labels.
"""

_GARMENTS = ("clip.stride=2", "data.colour=null", "data.augment.scale=[0.6,1.0]")
SETTINGS = {
    "lejepa-tiny": ("data.augment.kind=CenterCrop",),
    "mgmae-tiny": (*_GARMENTS, "schedule.steps=1450"),
    "salt-tiny": ("model.teacher=runs/videomae-tiny/model.safetensors",),
    "sparse-tiny": _GARMENTS,
    "videolejepa-tiny": ("clip.stride=2",),
    "videomae-tiny": (*_GARMENTS, "schedule.steps=2000"),
    "videomae2-tiny": (*_GARMENTS, "schedule.steps=2300"),
}
"""What is set of a recipe, as `maskstream train --set` takes it: grey garments of 40 frames need no colours."""


def set_recipe(name: str) -> Recipe[Any]:
    """The recipe of a name, with what is set of it."""
    return with_set(named_recipe(name), list(SETTINGS.get(name, ())))


TOKENIZERS = {"vader": 4096}
"""The ids of the tokenizer that a set's split has here, where they are not those that `maskstream shards` trains."""


def sample_set(recipe: Recipe[Any]) -> str:
    """The set of a recipe, as a rule the sample set of its modality, such as `sample-audio`."""
    if recipe.name in SETS:
        return SETS[recipe.name]
    modality = recipe.data.modality
    return "sample" if modality == "video" else f"sample-{modality}"


def made_shards(recipe: Recipe[Any], data: Path) -> Path:
    """The folder of the splits of a recipe's sample set, which are made if they are missing.

    A model of classes of tokens gets a set of its own, with parts of speech by Debian's WordNet, and so does one with
    fewer ids than a tokenizer has by default.
    """
    dataset, words = sample_set(recipe), []
    raw, shards = data / "raw" / dataset, data / "shards" / dataset
    if getattr(recipe.model, "classes", 0):
        shards = shards.with_name(f"{dataset}-classes")
        words = ["--set", f"classes={fetch_debian_folder('wordnet-base', 'usr/share/wordnet', data / 'raw')}"]
    if ids := TOKENIZERS.get(dataset):
        shards, words = shards.with_name(f"{dataset}-{ids}"), ["--set", f"tokenizer=train:wordpiece:{ids}"]
    if not (shards / "val").exists():
        command("shards", dataset, "--root", raw, "--out", shards, *words)
    return shards


def names() -> list[str]:
    """The tiny recipes that have a sample set."""
    sets = {name for some in sample_sets().values() for name in some}
    return [name for name in RECIPES if "-tiny" in name and sample_set(named_recipe(name)) in sets]


NEEDS = ("teacher", "vq")
"""The fields of a model that name the weights of another run, RUNS/RECIPE/model.safetensors, which is trained once."""


class NoFigureError(Exception):
    """A recipe has no figure to compare; the others go on."""


def command(*words: object) -> float:
    """Runs a maskstream command: the seconds of processors that it and its processes took, loaders included.

    NoFigureError where it fails, SystemExit where a signal ended it.
    """
    print("maskstream", *words, flush=True)
    before = cpu_seconds()
    code = subprocess.run([sys.executable, "-m", "maskstream", *map(str, words)], check=False).returncode
    if code < 0 or code == INTERRUPTED:
        raise SystemExit(code)
    if code:
        raise NoFigureError(f"`maskstream {' '.join(map(str, words))}` ended with {code}")
    return cpu_seconds() - before


def cpu_seconds() -> float:
    """The seconds of processors of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scored(name: str, seed: int, shards: Path, run: Path) -> Row:
    """Trains a recipe with one seed and evaluates it: its settings, steps, seconds, figure and baselines."""
    recipe, file = set_recipe(name), run / "score.json"
    settings, splits = recipe.to_dict(identity=True), checksums(shards)
    done = json.loads(file.read_text()) if file.exists() else {}
    if done.get("settings") == settings and done.get("splits") == splits:
        return dict(done)
    for needed in (getattr(recipe.model, field, None) for field in NEEDS):
        if needed is not None and not Path(needed).exists():
            other = Path(needed).parent
            command("train", other.name, "--data", shards / "train", "--out", other)
    words = [word for one in SETTINGS.get(name, ()) for word in ("--set", one)]
    spent = command("train", name, "--data", shards / "train", "--out", run, "--seed", seed, "--no-resume", *words)
    score = score_of(recipe, run, shards / "val")
    done = {
        "settings": settings,
        "splits": splits,
        "seed": seed,
        "steps": len(read_metrics(run / "metrics.jsonl")),
        "seconds": round(spent, 1),
        **figure_of(score),
    }
    file.write_text(json.dumps(done, indent=1))
    return done


def checksums(shards: Path) -> dict[str, list[str]]:
    """The checksums of the manifests of the splits of a set, by the name of the split."""
    found = {}
    for split in ("train", "val"):
        info = read_dataset_json(shards / split)
        found[split] = [str(info["files"][part["name"]]["xxh3_128"]) for part in info["parts"]]
    return found


def score_of(recipe: Recipe[Any], run: Path, data: Path) -> Score:
    """The figure of a run on a split, that of its report, which the run keeps in evaluation.json."""
    try:
        return evaluate_run(run, data, recipe=recipe).scores[0]
    except ValueError as error:
        raise NoFigureError(str(error)) from error


NAMES = {
    "right classes by 20 nearest neighbours": "k-NN accuracy (k = 20)",
    "boxes with an overlap of 0.5": "phrases with a box IoU of at least 0.5",
    "right answers": "answer accuracy",
    "right classes": "accuracy",
    "right classes of the spiking network in 16 time steps": "accuracy of the spiking network in 16 time steps",
    "root mean squared error of a pixel": "RMSE per pixel",
    "squared error of a normalised patch": "MSE of normalised patches",
    "squared error of a normalised token": "MSE of normalised tokens",
    "squared error of normalised video patches": "MSE of normalised video patches",
    "squared error of denoised video patches": "MSE of denoised video patches",
    "squared error of fields at hidden nodes": "MSE of fields at hidden nodes",
    "squared error of one step's change": "MSE of the change in one step",
    "squared error of the noise": "MSE of the noise",
    "bound of the negative log-likelihood": "upper bound on the negative log-likelihood per token",
    "distance of hidden joints": "mean error of hidden joints",
    "levels of 255": "8-bit intensity levels",
    "that to the same words": "the most frequent answer to the same words",
    "every patch's mean": "the mean of each patch",
    "every token's mean": "the mean of each token",
    "counts after the id last seen at the place": "counts after the id last seen at the position",
    "a copy of the same place in the first view": "a copy of the same position in the first view",
    "images shrunk to a pixel per cell": "images downscaled to one pixel per cell",
}
"""Names in the table of scores, units and baselines, by their names in a run's evaluation.json."""


def figure_of(score: Score) -> Row:
    """A score in the units of the table: fractions are percentages."""
    factor = 100 if score.unit == "%" else 1
    name, unit = NAMES.get(score.name, score.name), NAMES.get(score.unit, score.unit)
    return {
        "figure": f"{name}, {unit}" if unit else name,
        "held_out": factor * score.value,
        "lower_is_better": score.lower_is_better,
        "baselines": {NAMES.get(guess, guess): factor * value for guess, value in score.baselines.items()},
    }


def merged(name: str, dataset: str, done: Sequence[Row]) -> Row:
    """The row of a recipe: medians over its seeds."""
    baselines = {guess: median(one["baselines"][guess] for one in done) for guess in done[0]["baselines"]}
    return {
        "recipe": name,
        "data": dataset,
        **{key: median(one[key] for one in done) for key in ("steps", "seconds", "held_out")},
        "figure": done[0]["figure"],
        "lower_is_better": done[0]["lower_is_better"],
        "baselines": baselines,
        "seeds": [{"seed": one["seed"], "held_out": one["held_out"], "seconds": one["seconds"]} for one in done],
    }


def in_words(row: Row) -> str:
    """A row of the table in the docs."""
    lower, values = row["lower_is_better"], [one["held_out"] for one in row["seeds"]]
    best = (min if lower else max)(row["baselines"], key=lambda guess: row["baselines"][guess])
    own, trivial = row["held_out"], row["baselines"][best]
    change = own / trivial - 1 if lower else own - trivial
    amount = f"{abs(change):.0%}" if lower else f"{abs(change):.1f}"
    worst = (max if lower else min)(values)
    beaten = own < trivial if lower else own > trivial
    verdict = f"{amount} better" if beaten else f"**{amount} worse**: {WHY.get(row['recipe'], 'not known why')}"
    if beaten and not (worst < trivial if lower else worst > trivial):
        verdict += ", but not with every seed"
    seeds = "" if len(values) == 3 else f"; seeds: {len(values)}"
    cells = (
        *(f"`{row['recipe']}`", f"`{row['data']}`", f"{row['steps']:g}", f"{row['seconds']:.0f}", row["figure"]),
        f"{own:.3g} ({(min if lower else max)(values):.3g}, {max(values) - min(values):.2g}{seeds})",
        *(f"{best}: {trivial:.3g}", verdict),
    )
    return f"| {' | '.join(cells)} |"


def reached_by(row: Row) -> Row:
    """What `maskstream recipes` says of a row, in the digits of the table."""
    best = (min if row["lower_is_better"] else max)(row["baselines"], key=lambda guess: row["baselines"][guess])
    return {
        "data": row["data"],
        "figure": row["figure"],
        "held_out": float(f"{row['held_out']:.3g}"),
        "baseline": best,
        "of_baseline": float(f"{row['baselines'][best]:.3g}"),
    }


def write(rows: Sequence[Row], out: Path, docs: Path, shown: Path) -> None:
    """Writes recipes.json, these rows into the table between the two marks of the docs, and what they say into `shown`,
    which `maskstream recipes` reads.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipes.json").write_text(json.dumps(rows, indent=1) + "\n")
    before, _, rest = docs.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    words = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")}
    words |= {row["recipe"]: in_words(row) for row in rows}
    reached = json.loads(shown.read_text()) | {row["recipe"]: reached_by(row) for row in rows}
    shown.write_text(json.dumps(dict(sorted(reached.items())), indent=1) + "\n")
    table = "\n".join((HEAD, "|" + " --- |" * HEAD.count(" | ") + " --- |", *(words[name] for name in sorted(words))))
    docs.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="*", help="names of recipes; by default all tiny ones that have a sample set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=Path("docs/recipes.md"))
    parser.add_argument("--reached", type=Path, default=Path("train/reached.json"))
    args = parser.parse_args()
    kept = args.out / "recipes.json"
    rows = {row["recipe"]: row for row in json.loads(kept.read_text())} if kept.exists() else {}
    failed: dict[str, str] = {}
    for name in args.recipe or names():
        done: list[Row] = []
        try:
            shards = made_shards(named_recipe(name), args.data)
            for seed in range(args.seeds):
                done.append(scored(name, seed, shards, args.out / "recipes" / name / str(seed)))
                rows[name] = merged(name, shards.name, done)
                write([rows[one] for one in sorted(rows)], args.out, args.docs, args.reached)
        except (NoFigureError, DatasetError) as error:
            failed[name] = str(error)
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
