"""Lightning takes the loader itself, and its checkpoints hold the loader's position, so a killed run resumes mid-epoch.

torchrun --nproc-per-node 2 lightning_trainer.py DATA OUT     # pip install lightning transformers; or one process
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from video_mae import loader_of, loss_of, video_mae

from maskstream.pipelines import VideoBatch


class Module(LightningModule):
    """A batch of the loader comes as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.model = video_mae()

    def training_step(self, batch: VideoBatch, index: int) -> torch.Tensor:
        return loss_of(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-4)


def fit(module: Module, data: str, out: Path, *, steps: int, every: int) -> None:
    """Train until `steps`, or resume from OUT/last.ckpt, which is written after every `every` steps.

    Each rank's loader gives its own samples, so Lightning must not add a sampler.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = Trainer(
        default_root_dir=out,
        max_steps=steps,
        accelerator="auto",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        logger=False,
        callbacks=ModelCheckpoint(out, "last", every_n_train_steps=every, enable_version_counter=False),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    saved = out / "last.ckpt"
    trainer.fit(module, train_dataloaders=loader_of(data), ckpt_path=saved if saved.exists() else None)


if __name__ == "__main__":
    data, out = sys.argv[1:]
    if "WORLD_SIZE" in os.environ:  # torchrun's; the loader asks for its rank before Lightning would set it up
        dist.init_process_group()
    fit(Module(), data, Path(out), steps=5, every=1)
