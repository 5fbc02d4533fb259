"""A tiny training run that saves after every step.

python until_killed.py DATA OUT STEPS [ASSIGNMENT...]     such as mask.ratio=0.5
"""

import sys

from maskstream.shards.config import with_set
from maskstream.train import train
from maskstream.train.recipes import named_recipe

SMALL = [
    *("clip.frames=4", "clip.size=32", "patch=8", "batch_size=2"),
    *("model.width=16", "model.depth=1", "model.heads=2"),
    *("model.decoder_width=16", "model.decoder_depth=1", "model.decoder_heads=2"),
]


def main():
    data, out, steps, *assignments = sys.argv[1:]
    recipe = with_set(named_recipe("videomae-tiny"), [*SMALL, *assignments])
    result = train(
        recipe, data, out, steps=int(steps), save_every=1, device="cpu", threads=1, compile="no", progress=False
    )
    print(f"ended at step {result.step}", flush=True)


if __name__ == "__main__":
    main()
