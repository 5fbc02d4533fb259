"""The trainers of examples/trainers, as they stand there, over a loader on each rank: which samples each trains on.

    torchrun ... other_trainers.py EXAMPLES DATA OUT TRAINER...

OUT/TRAINER.RANK gets a line a step with its keys. TRAINER is lightning, huggingface or fsdp2. The first two stop within
an epoch and go on from the checkpoint that they wrote.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

STEPS, STOP = 5, 3


def lightning(data, out, log):
    import lightning_trainer

    class Logged(lightning_trainer.Module):
        def training_step(self, batch, index):
            log(batch.key)
            return super().training_step(batch, index)

    lightning_trainer.fit(Logged(), data, out, steps=STOP, every=STOP)
    dist.barrier()
    lightning_trainer.fit(Logged(), data, out, steps=STEPS, every=STOP)


def huggingface(data, out, log):
    import hf_trainer

    own = hf_trainer.inputs

    def inputs(batch):
        log(batch.key)
        return own(batch)

    hf_trainer.inputs = inputs
    hf_trainer.fit(data, out, steps=STOP, save_steps=STOP)
    dist.barrier()
    hf_trainer.fit(data, out, steps=STEPS, save_steps=STOP, resume=f"checkpoint-{STOP}")


def fsdp2(data, out, log):
    import fsdp2 as example
    from torch.distributed.tensor import DTensor

    if not all(isinstance(parameter, DTensor) for parameter in example.sharded().parameters()):
        raise TypeError("these parameters are not sharded")
    for keys in example.fit(data, out, steps=STEPS):
        log(keys)


TRAINERS = {"fsdp2": fsdp2, "huggingface": huggingface, "lightning": lightning}


def main():
    examples, data, out, *names = sys.argv[1:]
    sys.path.insert(0, examples)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in names:
        with open(Path(out) / f"{name}.{dist.get_rank()}", "a", buffering=1) as file:
            TRAINERS[name](data, Path(out) / name, lambda keys, file=file: print(*keys, file=file))
        dist.barrier()
        print(f"{name} done", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
