"""Hugging Face's Trainer lets a class bring its own loader; the position lies beside each of its checkpoints.

torchrun --nproc-per-node 2 hf_trainer.py DATA OUT     # or python, for one process; pip install transformers accelerate
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from video_mae import loader_of, video_mae

from maskstream.pipelines import VideoBatch
from maskstream.pipelines.stream.loader import Loader


def inputs(batch: VideoBatch) -> dict[str, torch.Tensor]:
    """What the model takes."""
    return {"pixel_values": batch.pixel_values(), "bool_masked_pos": batch.mask.masked}


class VideoTrainer(Trainer):
    """Each rank's loader gives its own samples, so the Trainer must not distribute them again: batch_size=None."""

    def __init__(self, loader: Loader[VideoBatch], **options: Any) -> None:
        super().__init__(**options)
        self.loader = loader

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.loader.as_dataset(inputs), batch_size=None)


class SavePosition(TrainerCallback):
    """Writes where the loader is into each checkpoint."""

    def __init__(self, loader: Loader[VideoBatch]) -> None:
        self.loader = loader

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        path = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}" / "loader.json"
        path.write_text(json.dumps(self.loader.state_dict()))


def fit(data: str, out: Path, *, steps: int, save_steps: int, resume: str | None = None) -> None:
    """Train until `steps`, from the start or from OUT/`resume`. The loader goes on by itself: nothing is skipped."""
    loader = loader_of(data)
    if resume is not None:
        loader.load_state_dict(json.loads((out / resume / "loader.json").read_text()))
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        save_steps=save_steps,
        ignore_data_skip=True,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = VideoTrainer(loader, model=video_mae(), args=arguments, callbacks=[SavePosition(loader)])
    trainer.train(resume_from_checkpoint=None if resume is None else str(out / resume))


if __name__ == "__main__":
    data, out = sys.argv[1:]
    if "WORLD_SIZE" in os.environ:  # torchrun's; the loader asks for its rank before the Trainer would set it up
        dist.init_process_group()
    fit(data, Path(out), steps=3, save_steps=3)
    fit(data, Path(out), steps=5, save_steps=3, resume="checkpoint-3")
