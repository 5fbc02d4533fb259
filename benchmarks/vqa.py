"""Whether pre-training by M3AE helps to answer questions about images: the same steps with and without it.

    maskstream shards easy-vqa --root data/raw/easy-vqa --out data/shards/easy-vqa
    maskstream shards easy-vqa-captions --root data/raw/easy-vqa --out data/shards/easy-vqa-captions \\
        --set tokenizer=data/shards/easy-vqa/train/tokenizer.json
    python benchmarks/vqa.py --questions data/shards/easy-vqa --captions data/shards/easy-vqa-captions

`m3ae-tiny` is trained on the captioned pictures once. Then `vqa-tiny` is trained on the questions from its weights
and from scratch, with equal steps and each of the seeds, and measured on the held-out questions by their kind. What is
done is kept in --out, and the same command continues. It prints a table and writes vqa.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.export import load_model
from maskstream.train.core.run_folder import run_recipe, run_weights
from maskstream.train.papers.m3ae.evaluate import measure_held_out

SAME = ("data.length=12", "model.vocabulary=512")
"""What both recipes must share: the tokens of a row, and the ids of the tokenizer."""


def trained(recipe: str, data: Path, out: Path, *words: str) -> Path:
    """The folder of a finished run, trained unless it is there."""
    if not (out / "model.safetensors").exists():
        sets = [word for one in SAME for word in ("--set", one)]
        command = [sys.executable, "-m", "maskstream", "train", recipe, "--data", str(data), "--out", str(out)]
        print(*command[2:], *sets, *words, flush=True)
        subprocess.run([*command, *sets, *words], check=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, default=Path("data/shards/easy-vqa"))
    parser.add_argument("--captions", type=Path, default=Path("data/shards/easy-vqa-captions"))
    parser.add_argument("--out", type=Path, default=Path("runs/vqa"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="of the training on questions")
    parser.add_argument("--before", type=int, default=600, help="steps of the pre-training")
    args = parser.parse_args()
    steps = ("--steps", str(args.before))
    first = trained("m3ae-tiny", args.captions / "train", args.out / "pretrained", *steps)
    rows = []
    for seed in range(args.seeds):
        for start in ("pretrained", "scratch"):
            words = ["--steps", str(args.steps), "--seed", str(seed)]
            words += ["--initial", str(first / "model.safetensors")] if start == "pretrained" else []
            run = trained("vqa-tiny", args.questions / "train", args.out / f"{start}-{seed}", *words)
            config, model = run_recipe(run).data, load_model(run_weights(run))
            found = measure_held_out(config, model, Manifest.load(args.questions / "val"))  # type: ignore[arg-type]
            rows.append(
                {
                    "start": start,
                    "seed": seed,
                    "right": found.model,
                    "unseen": found.unseen,
                    "frequent": found.frequent,
                    "questions": dict(found.questions),
                }
            )
            (args.out / "vqa.json").write_text(json.dumps(rows, indent=1) + "\n")
            print(start, seed, {kind: f"{share:.1%}" for kind, share in found.model.items()}, flush=True)
    print("| questions | without the image | from scratch | pre-trained |\n| --- | ---: | ---: | ---: |")
    for kind in rows[0]["right"]:
        cells = [f"{rows[0]['unseen'][kind]:.1%}"]
        for start in ("scratch", "pretrained"):
            shares = [row["right"][kind] for row in rows if row["start"] == start]
            cells.append(f"{median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})")
        print(f"| {kind} ({rows[0]['questions'][kind]:,}) | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
