"""A run in the formats of others: a folder that transformers, timm, torch or onnxruntime reads, with a model card.

What was written is read again by the library that it is for, and its features of samples of the run's split are
compared with the run's own. A folder appears whole, and only where they agree.
"""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from maskstream.pipelines.modalities.split import open_manifest
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.named import nearest
from maskstream.shards.stores.url import local_path, split_name

from .core.data import told_splits
from .core.export import load_model
from .core.recipe import Recipe, check_modality
from .core.run_folder import run_recipe, run_weights
from .evaluate.features import GivesFeatures, without_augmentation
from .evaluations import kept_evaluations
from .graphs import to_graph
from .targets import Way, list_targets, to_hf, to_timm

TARGETS = ("hf", "timm", "torch", "onnx")
SAMPLES = 8
"""How many samples are compared."""
TRACED = 3
"""With how many a graph is traced: another number, as it has to take any."""
TOLERANCE = 1e-5
"""How far the features of a sample may lie apart, as a share of their norm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written. reader: what reads it. difference: how far the features of `samples` samples lie apart, as a
    share of their norm; the largest.
    """

    reader: str
    difference: float
    samples: int


def export_run(run: str | Path, out: str | Path, data: SplitLocation | None = None, *, to: str = "hf") -> Exported:
    """Writes the newest weights of a run into the new folder `out`, for a target, and compares its features.

    to: "hf", a folder for transformers' `from_pretrained`: config.json, model.safetensors, and preprocessor_config.json
    of pictures and video or tokenizer.json of texts. "timm": model.safetensors for `create_model(checkpoint_path=)`,
    and config.json for `create_model("local-dir:OUT", pretrained=True)`. "torch": model.pt2 for `torch.export.load`,
    and "onnx": model.onnx, graphs of the features of any model that has some. All have README.md. data: the split whose
    samples are compared, and whose tokenizer goes along; by default the one that the run trained on.

    ValueError for a target that has no counterpart of the model, which names those that have; for features that lie
    apart; for a target whose library is not installed; and for a folder that is not empty.
    """
    run, out = local_path(run, "the run"), local_path(out, "out")
    if to not in TARGETS:
        raise ValueError(f"there is no target {to!r}{nearest(to, list(TARGETS))}; legal are {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not empty; give a new folder")
    recipe, weights = run_recipe(run), run_weights(run)
    model = load_model(weights)
    split = split_of_run(run, data)
    check_modality(recipe, split)
    if not isinstance(model, GivesFeatures):
        raise ValueError(f"a {type(model).__name__} gives no features of whole samples, so nothing can be exported")
    batch = _sample_batch(recipe, split)
    try:
        if to == "hf":
            way = to_hf(model, recipe, split)
        elif to == "timm":
            way = to_timm(model, recipe)
        else:
            way = to_graph(model, _sample_batch(recipe, split, TRACED), onnx=to == "onnx")
    except ValueError as error:
        others = [*list_targets(model), "torch"]
        raise ValueError(
            f"{error}; for this run --to {' or '.join(others)} works" if to in ("hf", "timm") else str(error)
        ) from error
    with torch.no_grad():
        ours = model.features(batch)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        new = Path(made) / out.name
        new.mkdir()
        way.write(new)
        apart = _compare(ours, way.read(new, batch), way.reader)
        done = Exported(reader=way.reader, difference=apart, samples=len(ours))
        (new / "README.md").write_text(_card(run, recipe, way, done))
        new.replace(out)  # an empty folder too
    return done


def split_of_run(run: Path, data: SplitLocation | None = None) -> Manifest:
    """The split at `data`, or else the version of the one that a run trained on, of a mixture the first. ValueError if
    the run does not say.
    """
    if data is not None:
        return Manifest.load(data)
    if not (told := told_splits(run)):
        raise ValueError(f"{run} does not say which split it was trained on; name one with --data")
    return open_manifest(str(told[0]["location"]), version=int(told[0]["version"]))


def _sample_batch(recipe: Recipe[Any], split: Manifest, samples: int = SAMPLES) -> Batch:
    """The first samples of a split, in one batch, as an encoder is given them after training."""
    config = without_augmentation(recipe.data, split)
    size = min(samples, len(split))
    with closing(config.whole().loader(split, batch_size=size, shuffle=False, device="cpu", threads=1)) as loader:
        batch: Batch = next(iter(loader))
    return batch


def _compare(ours: Tensor, theirs: Tensor, reader: str) -> float:
    """The largest distance of a sample's features. ValueError if it is no number, or above `TOLERANCE`."""
    if theirs.shape != ours.shape:
        raise ValueError(f"{reader} gives features of the shape {tuple(theirs.shape)}, the run {tuple(ours.shape)}")
    ours, theirs = ours.double(), theirs.double()
    apart = float(((theirs - ours).norm(dim=1) / ours.norm(dim=1)).max())
    if not apart <= TOLERANCE:
        raise ValueError(
            f"the features of {reader} differ from the run's by {apart:.1e} of their norm, and {TOLERANCE:g} is "
            "allowed; nothing was written. Report it with the versions of `maskstream doctor`"
        )
    return apart


def _card(run: Path, recipe: Recipe[Any], way: Way, done: Exported) -> str:
    """The model card: what reads it, how it was trained, and what the run's evaluation.json says of it."""
    lines = [
        f"# {run.resolve().name}",
        "",
        f"`{way.call}` reads it. It was trained with the recipe `{recipe.name}` of "
        "[maskstream](https://pypi.org/project/maskstream/). Its features of "
        f"{done.samples} samples differ from the run's by {done.difference:.1e} of their norm.",
        "",
        "```python",
        way.card,
        "```",
    ]
    if isinstance(recipe.data, VideoData):
        clip = recipe.data.clip
        lines += ["", f"A clip has {clip.frames} frames, every {clip.stride}th of a video, at {clip.size} pixels."]
    if found := kept_evaluations(run):
        lines += ["", "| split | samples | figure | value | baseline |", "| --- | ---: | --- | ---: | --- |"]
    for one in found:
        lines += [
            f"| {split_name(one.data.location, one.data.split)} | {score.count:,} | {score.name} | {score.value:.4g}"
            + (f" | {score.best}: {score.baselines[score.best]:.4g} |" if score.baselines else " | |")
            for score in one.scores
        ]
    settings = json.dumps(recipe.to_dict(), indent=2)
    return "\n".join([*lines, "", "## The recipe", "", "```json", settings, "```", ""])
