"""A tiny training run with worker processes that goes on until a signal ends it.

    python until_told.py DATA OUT WORKERS     (or with torchrun)

It prints "workers" when it begins to load, just before there are worker processes.
"""

import sys

import torch

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train import Trainer
from maskstream.train.core.distributed import process_group, rank
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.models import VideoAutoencoderConfig

RECIPE = Recipe(
    name="test",
    data=VideoData(clip=VideoClip(frames=4, stride=4, size=32), mask=masks.Tube(ratio=0.75), patch=8),
    batch_size=2,
    model=VideoAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2),
    optimiser=OptimiserConfig(),
    schedule=ScheduleConfig(base_lr=0.01, min_lr=0.001, warmup=0.2, epochs=2),
)


class Announced:
    """A loader that says when it begins."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        return self.repeat()

    def repeat(self):
        if rank() == 0:
            print("workers", flush=True)
        return self.loader.repeat()


def main():
    data, out, workers = sys.argv[1:]
    torch.set_num_threads(1)
    with process_group("cpu") as device:
        loader = RECIPE.loader(data, workers=int(workers), threads=1, device=device)
        Trainer(RECIPE, Announced(loader), out, steps=1_000_000, save_every=1_000_000, progress=False).run()


if __name__ == "__main__":
    main()
