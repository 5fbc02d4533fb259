"""DistributedDataParallel over two ranks whose bad samples are replaced, and then over two ranks that skip them.

    torchrun ... skipping_ranks.py INTACT BROKEN LOG STEPS BAD_KEYS

LOG.RANK gets the word "replaced" or "skipped" a step, and "finished" where a rank came through both.
"""

import sys
from datetime import timedelta
from itertools import islice

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from maskstream.pipelines import VideoClip, masks, video_loader

TIMEOUT = timedelta(seconds=3)


def batches_of(data, steps):
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.75), "patch": 8, "seed": 3}
    loader = video_loader(data, batch_size=2, threads=1, device="cpu", max_bad_fraction=1.0, **settings)
    return list(islice(loader.repeat(), steps))


def without(bad, batches):
    """The same samples in batches of two without those that are bad, as a loader that leaves them out gives them."""
    good = [clip for batch in batches for key, clip in zip(batch.key, batch.video, strict=True) if key not in bad]
    return [torch.stack(good[i : i + 2]) for i in range(0, len(good), 2)]


def main():
    intact, broken, log, steps, bad = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=TIMEOUT)
    runs = {
        "replaced": [batch.video for batch in batches_of(broken, int(steps))],
        "skipped": without(bad.split(","), batches_of(intact, int(steps))),
    }
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    with open(f"{log}.{dist.get_rank()}", "a", buffering=1) as file:
        for name, batches in runs.items():
            for video in batches:
                model(video.float()).mean().backward()
                print(name, file=file)
            dist.barrier()
        print("finished", file=file)


if __name__ == "__main__":
    main()
