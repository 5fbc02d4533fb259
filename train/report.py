"""The report of a run: how the loss fell, how fast the steps were, and what the model reconstructs."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open

from ..pipelines.augment import CenterCrop
from ..pipelines.batch import VideoBatch
from ..pipelines.preview.build import flow_words, shown_flow, write_page
from ..pipelines.preview.page import GridWords, clip_views, environment, picture_side, render
from ..pipelines.preview.pictures import Grid, UInt8
from ..pipelines.video import VideoLoader, video_loader
from ..shards.manifest import Manifest
from .checkpoint import latest_checkpoint
from .curves import run_curves
from .export import load_model
from .metrics import StepMetrics, read_metrics
from .recipes import Recipe, named_recipe
from .reconstruction import reconstruct, reconstruction_views

MODEL = "model.safetensors"


def report_page(
    metrics: Sequence[StepMetrics],
    batches: Sequence[VideoBatch],
    reconstructions: Sequence[UInt8],
    facts: Mapping[str, str],
    *,
    grid: Grid,
    title: str,
    label_names: Sequence[str] = (),
) -> str:
    """The report as one HTML file, complete in itself.

    metrics: of every step. batches: clips with masks over `grid`. reconstructions: for each batch uint8 (B, T, H, W,
    3), the clips with the model's predictions in place of the target tokens. facts: shown under the title, in their
    order. Raises ValueError where there is no step or the arrays do not fit together.
    """
    if len(batches) != len(reconstructions):
        raise ValueError(f"got {len(batches)} batches and {len(reconstructions)} reconstructions; each batch needs one")
    frames = sum(len(batch) * batch.video.shape[1] for batch in batches)
    pairs = list(zip(batches, reconstructions, strict=True))
    side = picture_side(frames)
    clips = [view for batch in batches for view in clip_views(batch, grid, label_names=label_names, frames=frames)]
    made = [view for batch, pictures in pairs for view in reconstruction_views(batch, pictures, grid, side)]
    return render(
        environment(__package__),
        "report.html.j2",
        title=title,
        facts=facts,
        grid=GridWords.of(grid),
        curves=run_curves(metrics),
        clips=clips,
        reconstructions=made,
    )


def write_report(
    run: str | Path, data: str | Path, out: str | Path | None = None, *, recipe: Recipe | None = None, clips: int = 8
) -> Path:
    """Writes the report of the run in the folder `run`, with clips of the split at `data`, best a validation split.

    `clips` of them are shown. The weights are those of the run's latest checkpoint, on the CPU. recipe: the run's own;
    by default the one whose name stands in run.json. Writes `out` (run/report.html by default) and returns it. Raises
    ValueError where the folder is not that of a run or its recipe is not known, ShardError where `data` holds no
    finished split.
    """
    run = Path(run)
    metrics = read_metrics(run / "metrics.jsonl")
    if not metrics:
        raise ValueError(f"{run} has no metrics.jsonl with a step in it; give the folder that `maskstream train` wrote")
    settings = _settings(run)
    recipe = recipe or _recipe(run, settings)
    manifest = Manifest.load(data)
    loader = _open(recipe, data, min(clips, len(manifest)))
    batch = next(iter(loader))
    weights = _weights(run)
    made, loss = reconstruct(load_model(weights), batch)
    facts = {
        "recipe": recipe.name,
        "clip": f"{recipe.clip.frames} frames, stride {recipe.clip.stride}, {recipe.clip.size} px",
        "samples per step": settings.get("samples_per_step", "unknown"),
        "device": settings.get("device", "unknown"),
        "seed": settings.get("seed", "unknown"),
        "weights": f"step {_step(weights)}",
        "clips below": str(data),
        "loss on these clips": f"{loss:.3f}" + ("" if loss < 1 else ": what was learned does not carry over to them"),
        "flow": flow_words(loader.flow, guides="flow" in recipe.mask.needs),
        "mask": repr(recipe.mask),
    }
    page = report_page(
        metrics,
        [batch],
        [made],
        facts,
        grid=loader.grid,
        title=f"{run.resolve().name}: {recipe.name}",
        label_names=tuple(map(str, manifest.info.get("label_names", ()))),
    )
    return write_page(page, Path(out) if out is not None else run / "report.html")


def _open(recipe: Recipe, data: str | Path, clips: int) -> VideoLoader:
    """The recipe's masks on central crops of a mixed choice of the split's samples, the same each time."""
    if clips < 1:
        raise ValueError(f"a report shows 1 or more clips, but {data} has none to show, or clips=0 was given")
    return video_loader(
        data,
        clip=recipe.clip,
        mask=recipe.mask,
        batch_size=clips,
        seed=0,
        device="cpu",
        augment=CenterCrop(),
        flow=shown_flow(recipe.mask, recipe.clip, recipe.flow),
        tubelet=recipe.tubelet,
        patch=recipe.patch,
        rank=0,
        world_size=1,
    )


def _settings(run: Path) -> dict[str, str]:
    path = run / "run.json"
    if not path.exists():
        raise ValueError(f"there is no {path}; give the folder that `maskstream train` wrote")
    settings = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not an object of settings; it was not written by `maskstream train`")
    return {str(name): str(value) for name, value in settings.items()}


def _recipe(run: Path, settings: Mapping[str, str]) -> Recipe:
    """The recipe that run.json names, if its settings are still the same."""
    try:
        recipe = named_recipe(str(ast.literal_eval(settings.get("name", "''"))))
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"the recipe of {run} is not known by its name ({error}); pass write_report(recipe=...)"
        ) from error
    changed = [name for name in ("clip", "mask", "tubelet", "patch") if recipe.settings()[name] != settings.get(name)]
    if changed:
        raise ValueError(
            f"{run} was trained with other settings than the recipe {recipe.name!r} has now ({', '.join(changed)}); "
            "pass the run's own with write_report(recipe=...)"
        )
    return recipe


def _weights(run: Path) -> Path:
    checkpoint = latest_checkpoint(run / "checkpoints")
    path = run / MODEL if checkpoint is None else checkpoint / MODEL
    if not path.exists():
        raise ValueError(f"{run} has neither a checkpoint nor a {MODEL}; it was stopped before its first checkpoint")
    return path


def _step(weights: Path) -> str:
    with safe_open(weights, framework="pt") as file:
        return str((file.metadata() or {}).get("step", "unknown"))
