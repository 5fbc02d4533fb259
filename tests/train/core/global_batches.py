"""A tiny training run for torchrun that writes down, step by step, which samples each rank trained on.

    torchrun ... global_batches.py DATA OUT LOG STEPS BATCH_SIZE DIES_AT MAX_BAD SLOW_S

LOG.RANK gets a line a step: epoch, batch, keys. With DIES_AT >= 0 rank 1 kills itself when it has that many batches.
Each read of rank 1 takes SLOW_S seconds longer.
"""

import os
import signal
import sys
import time

import torch

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.stores.local import LocalStore
from maskstream.train import Trainer
from maskstream.train.core.distributed import process_group, rank
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.models import VideoAutoencoderConfig


def read_slowly(seconds):
    """Makes local files those that a busy network gives."""
    read = LocalStore.read

    def slow(self, name, offset, size):
        time.sleep(seconds)
        return read(self, name, offset, size)

    LocalStore.read = slow


class Logged:
    """A loader that writes down what it hands out."""

    def __init__(self, loader, log, dies_at):
        self.loader, self.log, self.dies_at = loader, log, dies_at
        self.seen = 0

    @property
    def epoch(self):
        return self.loader.epoch

    def __len__(self):
        return len(self.loader)

    def state_dict(self):
        return self.loader.state_dict()

    def stats(self):
        return self.loader.stats()

    def load_state_dict(self, state):
        self.loader.load_state_dict(state)

    def __iter__(self):
        state = self.loader.state_dict()
        for n, batch in enumerate(self.loader):
            self.seen += 1
            self.log.write(f"{state['epoch']} {state['batch'] + n} {' '.join(batch.key)}\n")
            self.log.flush()
            if rank() == 1 and self.seen == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def main():
    data, out, log = sys.argv[1:4]
    steps, batch_size, dies_at = map(int, sys.argv[4:7])
    torch.set_num_threads(1)
    recipe = Recipe(
        name="test",
        data=VideoData(clip=VideoClip(frames=4, stride=4, size=32), mask=masks.Tube(ratio=0.75), patch=8),
        batch_size=batch_size,
        model=VideoAutoencoderConfig(width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2),
        optimiser=OptimiserConfig(),
        schedule=ScheduleConfig(base_lr=0.01, min_lr=0.001, warmup=0.2, epochs=2),
    )
    with process_group("cpu") as device, open(f"{log}.{rank()}", "a") as file:
        bad = float(sys.argv[7])
        loader = recipe.loader(data, seed=3, threads=1, device=device, max_bad_fraction=bad)
        if rank() == 1:
            read_slowly(float(sys.argv[8]))
        Trainer(recipe, Logged(loader, file, dies_at), out, steps=steps, save_every=2, progress=False).run()


if __name__ == "__main__":
    main()
