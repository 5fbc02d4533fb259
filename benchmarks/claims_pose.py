"""The claim of MPM in direction: lifting after masked pre-training against lifting from scratch, three seeds.

    python benchmarks/claims_pose.py --data data/shards/sample-pose --out runs/claims/lifting

--data is the folder with the splits train and val. Every variant is trained with each seed by the loader and the loop
of the product, with the recipes `mpm-tiny` and `mpm-lift-tiny`, and measured on the same clips of held-out motions. It
writes OUT/lifting.json after each run and prints a table for docs/poses.md. Called again, it goes on with the runs that
are not there yet.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from claims import SEEDS, Figures, table
from machine import facts

from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.pose.data import PoseData
from maskstream.shards.format.manifest import Manifest
from maskstream.train import Recipe, load_model
from maskstream.train.core.run import train_recipe
from maskstream.train.papers.mpm.evaluate import held_out_clips, measure_lifting
from maskstream.train.papers.mpm.model import PoseModel
from maskstream.train.papers.mpm.recipe import mpm_lift_tiny, mpm_tiny

SAYS = "masked pre-training makes lifted poses better than training from scratch"


def with_steps(recipe: Recipe[PoseBatch], steps: int) -> Recipe[PoseBatch]:
    """The recipe with so many steps."""
    return replace(recipe, schedule=replace(recipe.schedule, steps=steps))


def variants() -> dict[str, list[Recipe[PoseBatch]]]:
    """The runs of each variant, each of which begins with the weights of the one before."""
    masked, lift = mpm_tiny(), mpm_lift_tiny()
    first, then = (recipe.schedule.steps or 0 for recipe in (masked, lift))
    return {
        f"from scratch, {then} steps": [lift],
        f"pre-trained {first} steps, {then} steps": [masked, lift],
        f"from scratch, {first + then} steps": [with_steps(lift, first + then)],
    }


def trained(runs: list[Recipe[PoseBatch]], data: Path, seed: int, out: Path) -> PoseModel:
    """The model of the last of several runs, whose folders stay below `out`."""
    weights: Path | None = None
    for recipe in runs:
        folder = out / f"seed-{seed}" / f"{recipe.name}{'-pre-trained' if weights else ''}-{recipe.schedule.steps}"
        if not (folder / "model.safetensors").exists():
            train_recipe(recipe, data / "train", folder, seed=seed, initial=weights, device="cpu", progress=False)
        weights = folder / "model.safetensors"
    model = load_model(weights or out)
    if not isinstance(model, PoseModel):
        raise TypeError(f"the recipe {runs[-1].name} trains no model of poses")
    return model


def main() -> None:
    """Trains the variants, seed by seed, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/claims/lifting"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = mpm_lift_tiny().data
    assert isinstance(plain, PoseData)
    clips = held_out_clips(plain, Manifest.load(options.data / "val"))
    file = options.out / "lifting.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text())["runs"] if file.exists() else []
    done = {(run["variant"], run["seed"]) for run in runs}
    options.out.mkdir(parents=True, exist_ok=True)
    paired, alone = list(variants().items())[:2], list(variants().items())[2:]
    for seed, (name, recipes) in (*product(SEEDS, paired), *product(SEEDS, alone)):
        if (name, seed) in done:
            continue
        start = time.process_time()
        model = trained(recipes, options.data, seed, options.out)
        spent = round(time.process_time() - start, 1)
        found = measure_lifting(model, clips)
        figures = {"MPJPE, mm": found.model, "P-MPJPE, mm": found.aligned}
        runs.append({"variant": name, "seed": seed, "cpu_seconds": spent, "figures": figures})
        print(f"{name}, seed {seed}: {figures}, {spent:.0f} CPU s", flush=True)
        trivial = {"best linear map": {"MPJPE, mm": found.linear}, "mean pose": {"MPJPE, mm": found.mean}}
        about = {"claim": SAYS, "data": options.data.name, "machine": facts(("torch",)), "baselines": trivial}
        file.write_text(json.dumps({**about, "runs": runs}, indent=2) + "\n")
    of: dict[str, list[Figures]] = {
        name: [run["figures"] for run in runs if run["variant"] == name] for name in variants()
    }
    print(table(of, json.loads(file.read_text())["baselines"]))


if __name__ == "__main__":
    main()
