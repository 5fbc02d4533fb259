"""What the scripts of claims share: every variant with each seed by the loader and the loop of the product, measured on
the same held-out samples. OUT/NAME.json is written after each run; called again, it goes on with what is not there.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import facts

from maskstream.train import Recipe, load_model
from maskstream.train.core.run import train_recipe

SEEDS = (0, 1, 2)
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A recipe, and the split that it is trained on. measure: the figures of its models, by default the claim's."""

    recipe: Recipe[Any]
    train: Path
    measure: Callable[[Any], Figures] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim: the variants that are compared, and the figures of a trained model on held-out samples.

    baselines: figures that need no training.
    """

    says: str
    variants: Mapping[str, Variant]
    measure: Callable[[Any], Figures]
    baselines: Mapping[str, Figures]


def compared(claim: Claim, name: str, out: Path, steps: int, seeds: Sequence[int] = SEEDS) -> None:
    """Trains what is not in OUT/NAME.json yet, seed by seed, for `steps` steps, and prints the table."""
    torch.set_num_threads(1)
    file = out / f"{name}.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.exists() else []
    done = {(run["variant"], run["seed"]) for run in runs if run["steps"] == steps}
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for variant, chosen in claim.variants.items():
            if (variant, seed) in done:
                continue
            model, spent = trained(chosen, steps, seed)
            figures = (chosen.measure or claim.measure)(model)
            runs.append({"variant": variant, "seed": seed, "steps": steps, "cpu_seconds": spent, "figures": figures})
            print(f"{variant}, seed {seed}: {figures}, {spent:.0f} CPU s", flush=True)
            about = {"claim": claim.says, "machine": facts(("torch",))}
            file.write_text(json.dumps({**about, "baselines": claim.baselines, "runs": runs}, indent=2) + "\n")
    found = {
        variant: [run["figures"] for run in runs if run["variant"] == variant and run["steps"] == steps]
        for variant in claim.variants
    }
    print(table(found, claim.baselines))


def trained(variant: Variant, steps: int, seed: int) -> tuple[Any, float]:
    """A model of the variant, and the CPU seconds of its training."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        options: dict[str, Any] = {"device": "cpu", "save_every": 1 << 30, "progress": False}
        train_recipe(variant.recipe, variant.train, out, steps=steps, seed=seed, **options)
        model = load_model(Path(out) / "model.safetensors")
    return model, round(time.process_time() - start, 1)


def table(found: Mapping[str, Sequence[Figures]], baselines: Mapping[str, Figures]) -> str:
    """The means over the seeds, and the range behind them, as Markdown."""
    names = list(next(iter(found.values()))[0])
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for variant, runs in found.items():
        cells = []
        for name in names:
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    for baseline, figures in baselines.items():
        lines.append(f"| {baseline} | " + " | ".join(f"{figures[n]:.3f}" if n in figures else "" for n in names) + " |")
    return "\n".join(lines)
