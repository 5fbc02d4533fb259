"""Plain torch with FSDP2: parameters lie in parts on the ranks, and the loader has nothing to do with that.

torchrun --nproc-per-node 2 fsdp2.py DATA OUT     # pip install transformers
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import VideoMAEForPreTraining
from video_mae import loader_of, loss_of, video_mae


def sharded() -> VideoMAEForPreTraining:
    """The model with its layers divided among all ranks."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    model = video_mae().to(kind)
    for part in (*model.videomae.encoder.layer, *model.decoder.decoder_layers, model):
        fully_shard(part, mesh=mesh)
    return model


def fit(data: str, out: Path, *, steps: int) -> Iterator[list[str]]:
    """Train until `steps`; yields the keys of each batch. The same state serves every rank, and any number of ranks."""
    loader, model = loader_of(data), sharded()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    for batch in islice(loader.repeat(), steps):
        loss_of(model, batch).backward()
        optimiser.step()
        optimiser.zero_grad()
        yield batch.key
    if dist.get_rank() == 0:
        out.mkdir(parents=True, exist_ok=True)
        (out / "loader.json").write_text(json.dumps(loader.state_dict()))


if __name__ == "__main__":
    data, out = sys.argv[1:]
    dist.init_process_group()
    for keys in fit(data, Path(out), steps=5):
        print(dist.get_rank(), *keys, flush=True)
    dist.destroy_process_group()
