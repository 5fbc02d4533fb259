"""Trainers that others wrote, unchanged, over a loader on each rank: which samples each trains on.

    torchrun ... other_trainers.py DATA OUT TRAINER...

OUT/TRAINER.RANK gets a line a step with its keys. TRAINER is lightning, huggingface or fsdp2. The first two stop within
an epoch and go on from the checkpoint that they wrote.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from maskstream.pipelines import VideoClip, masks, video_loader

STEPS, STOP, BATCH, SEED = 5, 3, 2, 3
SIZE = {"num_frames": 4, "image_size": 32, "patch_size": 8, "tubelet_size": 2}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
DECODER = {f"decoder_{name}": value for name, value in WIDTH.items()}


def loader_of(data):
    settings = {"clip": VideoClip(frames=4, stride=4, size=32), "mask": masks.Tube(ratio=0.75), "patch": 8}
    return video_loader(data, batch_size=BATCH, seed=SEED, threads=1, device="cpu", **settings)


def video_mae():
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VideoMAEForPreTraining(VideoMAEConfig(**SIZE, **WIDTH, **DECODER))


def lightning(data, out, log):
    """`fit` gets the loader itself, and Lightning's checkpoint holds the loader's position."""
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = video_mae()

        def training_step(self, batch, index):
            log(batch.key)
            return self.model(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-4)

    settings = {"accelerator": "cpu", "devices": dist.get_world_size(), "strategy": "ddp", "logger": False}
    settings |= {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    saved = out / "lightning.ckpt"
    trainer = Trainer(max_steps=STOP, **settings)
    trainer.fit(Module(), train_dataloaders=loader_of(data))
    trainer.save_checkpoint(saved)
    Trainer(max_steps=STEPS, **settings).fit(Module(), train_dataloaders=loader_of(data), ckpt_path=saved)


def huggingface(data, out, log):
    """`get_train_dataloader` is where the Trainer lets a class bring its own; a callback keeps the position."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    def inputs(batch):
        log(batch.key)
        return {"pixel_values": batch.pixel_values(), "bool_masked_pos": batch.mask.masked}

    class VideoTrainer(Trainer):
        def get_train_dataloader(self):
            return DataLoader(loader.as_dataset(inputs), batch_size=None)

    class SavePosition(TrainerCallback):
        def on_save(self, args, state, control, **_):
            position(state.global_step).write_text(json.dumps(loader.state_dict()))

    def position(step):
        return out / "huggingface" / f"checkpoint-{step}" / "loader.json"

    for steps in (STOP, STEPS):
        loader = loader_of(data)
        if steps == STEPS:
            loader.load_state_dict(json.loads(position(STOP).read_text()))
        arguments = TrainingArguments(
            output_dir=out / "huggingface",
            max_steps=steps,
            save_steps=STOP,
            ignore_data_skip=True,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = VideoTrainer(model=video_mae(), args=arguments, callbacks=[SavePosition()])
        trainer.train(resume_from_checkpoint=steps == STEPS)
        dist.barrier()


def fsdp2(data, out, log):
    """Parameters in parts on the ranks; the loader has nothing to do with that."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    model = video_mae()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (*model.videomae.encoder.layer, *model.decoder.decoder_layers, model):
        fully_shard(layer, mesh=mesh)
    if not all(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise TypeError("these parameters are not sharded")
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)
    for _, batch in zip(range(STEPS), loader_of(data).repeat(), strict=False):
        log(batch.key)
        model(batch.pixel_values(), bool_masked_pos=batch.mask.masked).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


TRAINERS = {"fsdp2": fsdp2, "huggingface": huggingface, "lightning": lightning}


def main():
    data, out, *names = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in names:
        with open(Path(out) / f"{name}.{dist.get_rank()}", "a", buffering=1) as file:
            TRAINERS[name](data, Path(out), lambda keys, file=file: print(*keys, file=file))
        dist.barrier()
        print(f"{name} done", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
