"""Exports runs to a folder for transformers, timm, torch or onnxruntime, with a model card.

The card's code is run in a process without this package, on raw samples: original samples of the run's split, and
random ones of other sizes and lengths. The results are compared with the features of `maskstream embed`. A folder
appears only when it is complete, and only if both agree.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.split import open_manifest
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.named import nearest
from maskstream.shards.stores.local_files import sole_writer
from maskstream.shards.stores.url import get_local_path, split_name
from maskstream.train.core.data import read_label_names, read_splits
from maskstream.train.core.model import Model
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run_folder import run_recipe, run_weights
from maskstream.train.core.weights import load_model
from maskstream.train.evaluate.classifier import Classifier, EncoderClassifier
from maskstream.train.evaluate.features import GivesFeatures, drop_augmentation, from_middle
from maskstream.train.evaluate_run import read_evaluations

from .architecture import list_targets
from .card import Way
from .graph import list_tensors, score_batch, to_graph
from .raw import RawKind, choose_raw_kind, store_raw
from .target import to_hf, to_timm

TARGETS = ("hf", "timm", "torch", "onnx")
SAMPLES = 8
"""Number of compared samples of the split, and of unusual ones."""
TRACED = 3
"""Number of samples that a graph is traced with; different from other batch sizes, since the graph must accept any."""
TOLERANCE = 1e-5
"""Largest allowed distance between the features of a sample, relative to their norm."""
CARD = "README.md"
EXTRA = "pip install 'maskstream[export]'"
RUN_CARD = """
import importlib.abc, json, re, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "maskstream":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
import numpy as np

given, out = sys.argv[1:]
names = {}
blocks = re.findall("```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
exec(compile(blocks[0], "README.md", "exec"), names)
call = names["scores"] if "scores" in names else names["features"]
if given.endswith(".npz"):
    found = {"card": call(**np.load(given))}
else:
    samples = json.load(open(given))
    found = {"card": call(samples)}
    if len(blocks) > 1:
        exec(compile(blocks[1], "README.md", "exec"), names)
        found["own"] = names["by_processor"](samples)
np.savez(out, **{name: np.asarray(own) for name, own in found.items()})
"""
"""Runs the code of a card in its folder, without this package, and stores the results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        reader: Class or function that reads the folder.
        difference: Largest distance between the features of a sample, relative to their norm.
        samples: Number of compared samples.
        raw: Whether these are raw samples.
        own: The same distance with the target's image processor; None if it has none.
    """

    reader: str
    difference: float
    samples: int
    raw: bool = True
    own: float | None = None


def export_run(run: str | Path, out: str | Path, data: SplitLocation | None = None, *, to: str = "hf") -> Exported:
    """Write the newest weights of a run into a new folder for a target, and compare its features.

    All folders have a README.md. Graphs of a fine-tuned classifier include its head and the names of its classes.

    Args:
        run: Folder of the run.
        out: Folder to write.
        data: Split whose samples are compared and whose tokenizer is included; defaults to the training split.
        to: "hf", a folder for transformers' `from_pretrained`: config.json, model.safetensors, and
            preprocessor_config.json of images and video or tokenizer.json of texts. "timm": model.safetensors for
            `create_model(checkpoint_path=)`, and config.json for `create_model("local-dir:OUT", pretrained=True)`.
            "torch": model.pt2 for `torch.export.load`. "onnx": model.onnx. The last two are graphs of any model with
            features.

    Raises:
        ValueError: The target has no counterpart of the model (the message names possible targets), the features
            differ, a library is not installed, or the folder is not empty.
    """
    run, out = get_local_path(run, "the run"), get_local_path(out, "out")
    if to not in TARGETS:
        raise ValueError(f"unknown target {to!r}{nearest(to, list(TARGETS))}; choose from {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty; pass a new folder")
    recipe, weights = run_recipe(run), run_weights(run)
    model = load_model(weights)
    split = split_of_run(run, data)
    check_modality(recipe, split)
    if not isinstance(model, GivesFeatures):
        raise ValueError(f"{type(model).__name__} has no features of whole samples, so it cannot be exported")
    config = from_middle(drop_augmentation(recipe.data, split)).whole()
    kind, classes = choose_raw_kind(config, split), list_classes(model, run, split)
    partial = out.parent / f".{out.name}.partial"
    with sole_writer(partial):
        for left in partial.iterdir():  # of an export that was killed
            if left.is_dir():
                shutil.rmtree(left)
        try:
            way = _find_way(model, recipe, kind, classes, to, _sample_batch(config, split, TRACED))
            new = partial / out.name
            new.mkdir()
            way.write(new)
            (new / CARD).write_text("\n\n".join(_code(lines) for lines in (way.card, way.own) if lines))
            done = _check(model, way, new, kind, split, _sample_batch(config, split))
            (new / CARD).write_text(_card(run, recipe, way, done))
            new.replace(out)  # an empty folder too
        finally:
            shutil.rmtree(partial)
    return done


def _check(model: Model[Any], way: Way, folder: Path, kind: RawKind | None, split: Manifest, batch: Batch) -> Exported:
    """Compare the card's results with the model's on a batch of the split and random samples; raise ValueError if they
    differ.
    """
    with TemporaryDirectory() as made:
        scratch, batches, rows = Path(made), [batch], [True] * len(batch)
        if kind is None or way.inputs:
            tensors = dict(list_tensors(batch))
            given, arrays = scratch / "given.npz", {name: tensors[name].numpy() for name in way.inputs}
            np.savez(given, **cast(Any, arrays))
        else:
            given = scratch / "given.json"
            stored, odd = _read_raw_samples(kind, split, batch, scratch)
            rows, batches = [one is not None for one in stored], [batch, kind.batch(odd)]
            given.write_text(json.dumps([*(one for one in stored if one is not None), *odd]))
        with torch.no_grad():
            ours, *more = [score_batch(model, one) for one in batches]
        ours = torch.cat([ours[torch.tensor(rows)], *more])
        theirs = _run_card(folder, given, way.reader)
    return Exported(
        reader=way.reader,
        difference=_compare(ours, theirs["card"], way),
        samples=len(ours),
        raw=not way.inputs,
        own=_measure_distance(ours, theirs["own"], way) if "own" in theirs else None,
    )


def _find_way(
    model: Model[Any], recipe: Recipe[Any], kind: RawKind | None, classes: Sequence[str], to: str, traced: Batch
) -> Way:
    """Return the export of the model to a target; raise ValueError with the possible targets if there is none."""
    if to not in ("hf", "timm"):
        return to_graph(model, traced, kind, classes, onnx=to == "onnx")
    try:
        return to_hf(model, recipe, kind, classes) if to == "hf" else to_timm(model, kind, classes)
    except ValueError as error:
        others = [*list_targets(model), "torch"]
        raise ValueError(f"{error}; this run can be exported with --to {' or '.join(others)}") from error


def split_of_run(run: Path, data: SplitLocation | None = None) -> Manifest:
    """Return a run's training split, in the version that it read; of a mixture the first split.

    Args:
        run: Folder of the run.
        data: Location of another split to return.

    Raises:
        ValueError: The run does not record its split.
    """
    if data is not None:
        return Manifest.load(data)
    if not (told := read_splits(run)):
        raise ValueError(f"{run} does not record the split that it was trained on; pass one with --data")
    return open_manifest(str(told[0]["location"]), version=int(told[0]["version"]))


def list_classes(model: Model[Any], run: Path, split: Manifest) -> list[str]:
    """Return the class names of a run's classifier, in order; empty for other models.

    Runs of earlier releases do not record them; the split's names are returned instead.

    Args:
        model: The model.
        run: Folder of the run.
        split: Training split.

    Raises:
        ValueError: The split has another number of classes.
    """
    if not isinstance(model, Classifier | EncoderClassifier):
        return []
    names = read_label_names(run) or split.label_names
    if len(names) != model.config.classes:
        raise ValueError(
            f"{split} has {len(names)} classes, but the model has {model.config.classes}; pass the split it was "
            "trained on"
        )
    return list(map(str, names))


def _sample_batch(config: DataConfig[Any], split: Manifest, samples: int = SAMPLES) -> Batch:
    """Return the first samples of a split in one batch, as `maskstream embed` reads them."""
    size = min(samples, len(split))
    with closing(config.loader(split, batch_size=size, shuffle=False, device="cpu", threads=1)) as loader:
        batch: Batch = next(iter(loader))
    return batch


def _read_raw_samples(kind: RawKind, split: Manifest, batch: Batch, folder: Path) -> tuple[list[str | None], list[str]]:
    """Return the original samples of a batch of the split, None for those without a file, and random samples."""
    numbers = {key: n for n, key in enumerate(split.keys(range(len(split))))}
    stored = [store_raw(kind, split, numbers[key], folder) for key in batch.key]
    draws = np.random.default_rng(0)
    return stored, [kind.draw(folder / f"odd{n}", draws) for n in range(SAMPLES)]


def _run_card(folder: Path, given: Path, reader: str) -> dict[str, Tensor]:
    """Run the card's code on samples, without this package; raise ValueError if it fails.

    Returns float (n, D) as "card", and as "own" with the target's image processor.
    """
    found = given.with_name("found.npz")
    words = [sys.executable, "-P", "-c", RUN_CARD, str(given.resolve()), str(found.resolve())]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]
        remedy = f"; {EXTRA}" if "No module named" in said else ""
        raise ValueError(f"the model card's code for {reader} fails, so nothing was written: {said}{remedy}")
    with np.load(found) as values:
        return {name: torch.from_numpy(values[name]) for name in values}


def _compare(ours: Tensor, theirs: Tensor, way: Way) -> float:
    """Return the largest distance between a sample's features; raise ValueError if it is NaN or above `TOLERANCE`."""
    if theirs.shape != ours.shape:
        raise ValueError(
            f"{way.reader} returns features of the shape {tuple(theirs.shape)}, but the run returns {tuple(ours.shape)}"
        )
    apart = _measure_distance(ours, theirs, way)
    if not apart <= TOLERANCE:
        raise ValueError(
            f"the features of {way.reader} differ from the run's by {apart:.1e} of their norm, but at most "
            f"{TOLERANCE:g} is allowed, so nothing was written. Report it with the versions of `maskstream doctor`"
        )
    return apart


def _measure_distance(ours: Tensor, theirs: Tensor, way: Way) -> float:
    """Return the largest distance between a sample's features, relative to their norm; for scores, which may all be
    near 0, relative to the mean norm.
    """
    ours, theirs = ours.double(), theirs.double()
    norms = ours.norm(dim=1)
    return float(((theirs - ours).norm(dim=1) / (norms.mean() if way.classes else norms)).max())


def _code(lines: str) -> str:
    """Return Python code in Markdown."""
    return f"```python\n{lines}\n```"


def _card(run: Path, recipe: Recipe[Any], way: Way, done: Exported) -> str:
    """Return the model card: usage, training, and the scores in the run's evaluation.json."""
    what = "Scores" if way.classes else "Features"
    if done.raw:
        measured = f"raw samples of the split and of other sizes and lengths: {what.lower()}"
    else:
        measured = f"samples as the loader gives them (they take tensors, not files): {what.lower()}"
    lines = [
        f"# {run.resolve().name}",
        "",
        f"`{way.call}` reads it. It was trained with the recipe `{recipe.name}` of "
        "[maskstream](https://pypi.org/project/maskstream/). The lines below were run without it on "
        f"{done.samples} {measured} differ from the run's by at most {TOLERANCE:g} of their norm.",
        "",
        _code(way.card),
    ]
    if done.own is not None:
        lines += [
            "",
            f"The library's own processor rounds and positions pixels differently. With it, {what.lower()} of the "
            f"same samples differ by at most {done.own:.1e} of their norm:",
            "",
            _code(way.own),
        ]
    if isinstance(recipe.data, VideoData):
        clip = recipe.data.clip
        lines += ["", f"A clip has {clip.frames} frames, every {clip.stride}th of a video, at {clip.size} pixels."]
    if found := read_evaluations(run):
        lines += ["", "| split | samples | figure | value | baseline |", "| --- | ---: | --- | ---: | --- |"]
    for one in found:
        lines += [
            f"| {split_name(one.data.location, one.data.split)} | {score.count:,} | {score.name} | {score.value:.4g}"
            + (f" | {score.best}: {score.baselines[score.best]:.4g} |" if score.baselines else " | |")
            for score in one.scores
        ]
    settings = json.dumps(recipe.to_dict(), indent=2)
    return "\n".join([*lines, "", "## The recipe", "", "```json", settings, "```", ""])
