"""A rank that trains as `ranks_of_any_kind` does, and finds NCCL and a CUDA device: gloo under its name, and a CPU.

    python ranks_under_nccl.py OUT RECIPE_JSON LOADER_JSON OPTIONS_JSON      with the environment that torchrun sets

It writes into OUT.RANK what it did, in order.
"""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from ranks_of_any_kind import run

from maskstream.train.core.distributed import process_group

events, second = [], []
begin, new_group, reduce_all, destroy = (
    dist.init_process_group,
    dist.new_group,
    dist.all_reduce,
    dist.destroy_process_group,
)
on_second = 0


@contextmanager
def current(device):
    events.append(f"enter {device}")
    yield
    events.append(f"leave {device}")


def begin_gloo(backend, **options):
    events.append(f"group {backend}")
    begin("gloo", **options)
    dist.get_backend = lambda group=None: "nccl"


def make_group(*ranks, backend):
    events.append(f"second group {backend}")
    second.append(new_group(*ranks, backend=backend))
    return second[-1]


def reduced(values, op=dist.ReduceOp.SUM, group=None, **options):
    global on_second
    on_second += group is not None and group in second
    return reduce_all(values, op, group=group, **options)


def destroyed():
    events.append("destroy")
    second.clear()
    destroy()


def main():
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = os.environ["RANK"]
    torch.cuda.is_available, torch.cuda.device = lambda: True, current
    dist.init_process_group, dist.new_group, dist.all_reduce = begin_gloo, make_group, reduced
    dist.destroy_process_group = destroyed
    with process_group() as device:
        torch.cuda.is_available = lambda: False
        run(sys.argv[1], *map(json.loads, sys.argv[2:]), "cpu")
        rank = dist.get_rank()
    told = {"device": str(device), "events": events, "on the second group": on_second}
    Path(f"{sys.argv[1]}.{rank}").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
