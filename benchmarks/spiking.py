"""What dropping spikes costs in accuracy and saves in additions: the Masked Spiking Transformer at several ratios.

    maskstream shards fashion-mnist --root data/raw/fashion-mnist --out data/shards/fashion-mnist
    python benchmarks/spiking.py --data data/shards/fashion-mnist

At each ratio and seed `spiking-mst-tiny` is trained with it, and measured on held-out images: its activations, and its
neurons in 4, 8 and 16 time steps. What is done is kept in --out, and the same command continues. It prints a table and
writes spiking.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.export import load_model
from maskstream.train.core.run_folder import run_recipe, run_weights
from maskstream.train.papers.spiking_mst.evaluate import held_out_images, measure_spiking
from maskstream.train.papers.spiking_mst.model import SpikingTransformer
from maskstream.train.papers.spiking_mst.recipe import spiking_mst_tiny

RATIOS, STEPS = (0.0, 0.25, 0.5, 0.75), (4, 8, 16)


def measured(ratio: float, seed: int, data: Path, out: Path, samples: int, steps: int) -> dict[str, float]:
    """The figures of a run, which is trained and measured unless it is there."""
    run = out / f"{ratio}-{seed}"
    done: dict[str, float]
    if (run / "row.json").exists():
        done = json.loads((run / "row.json").read_text())
        return done
    if not (run / "model.safetensors").exists():
        words = ["--data", str(data / "train"), "--out", str(run), "--seed", str(seed), "--steps", str(steps)]
        command = [sys.executable, "-m", "maskstream", "train", "spiking-mst-tiny", *words]
        subprocess.run([*command, "--set", f"model.spikes.ratio={ratio}"], check=True)
    model = load_model(run_weights(run))
    assert isinstance(model, SpikingTransformer)
    found = measure_spiking(
        model, held_out_images(run_recipe(run).data, Manifest.load(data / "val"), samples), max(STEPS)
    )
    done = {"ratio": ratio, "seed": seed, "images": found.images, "ann": found.ann, "ann_nj": found.ann_nj}
    done |= {"multiplied": found.multiplied}
    for time in STEPS:
        done |= {f"snn_{time}": found.snn[time - 1], f"nj_{time}": found.snn_nj(time)}
        done |= {f"added_{time}": found.added[time - 1]}
    (run / "row.json").write_text(json.dumps(done))
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/shards/fashion-mnist"))
    parser.add_argument("--out", type=Path, default=Path("runs/spiking"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--steps", type=int, help="training steps, instead of the recipe's")
    args = parser.parse_args()
    steps = args.steps or spiking_mst_tiny().schedule.steps
    rows = [
        measured(ratio, seed, args.data, args.out, args.samples, steps)
        for seed in range(args.seeds)
        for ratio in RATIOS
    ]
    (args.out / "spiking.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("| spikes dropped | activations |" + "".join(f" {steps} steps |" for steps in STEPS))
    print("| --- | ---: |" + " ---: |" * len(STEPS))
    for ratio in RATIOS:
        own = [row for row in rows if row["ratio"] == ratio]
        cells = [f"{mean(r['ann'] for r in own):.1%}, {mean(r['multiplied'] for r in own) / 1e6:.2f} M, "]
        cells[0] += f"{mean(r['ann_nj'] for r in own):,.0f} nJ"
        for steps in STEPS:
            right, added, energy = (mean(r[f"{name}_{steps}"] for r in own) for name in ("snn", "added", "nj"))
            cells.append(f"{right:.1%}, {added / 1e6:.2f} M, {energy:,.0f} nJ")
        print(f"| {ratio:.0%} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
