"""Readers that use one thread or process per core, for measurements of wall time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from clips import Variant
from libraries import why_missing
from ours import BATCH, SEED, clip_of
from readers import Clip, Reader, decord_official, torchcodec
from torch.utils.data import DataLoader, Dataset

from maskstream.pipelines.modalities.video.data import video_loader

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
EPOCHS = 4


def ours_on_all_cores(variant: Variant, output: str) -> Reader:
    """`video_loader` with its default settings: one thread per core."""
    clip = clip_of(variant.manifest.info["profile"])
    loader = video_loader(variant.manifest.folder, clip=clip, batch_size=BATCH, seed=SEED, device="cpu")

    def run(clips: Sequence[Clip]) -> None:
        loader.seek(0)
        for batch in islice(loader.repeat(), len(clips) // BATCH):
            if output == "float":
                batch.pixel_values()

    return Reader(
        name="maskstream-all-cores", output=output, run=run, divisible=False, comparable=False, all_cores=True
    )


def others_on_all_cores(clips: Sequence[Clip]) -> tuple[list[Reader], list[str]]:
    """The official loader of VideoMAE, and torchcodec, each in a DataLoader with one worker process per core."""
    readers, missing = [], []
    for name, make in (("decord-official", decord_official), ("torchcodec", torchcodec)):
        try:
            make("float")
        except (ImportError, RuntimeError, OSError) as error:
            missing.append(why_missing(f"{name}-all-cores", error))
            continue
        readers.append(_in_a_dataloader(f"{name}-all-cores", make, clips))
    return readers, missing


def _in_a_dataloader(name: str, make: Callable[[str], Reader], clips: Sequence[Clip]) -> Reader:
    loader = DataLoader(
        _Clips(make, clips),
        batch_size=BATCH,
        num_workers=CORES,
        persistent_workers=True,
        multiprocessing_context="spawn",
        generator=torch.Generator(),
    )

    def run(clips: Sequence[Clip]) -> None:
        for _ in loader:
            pass

    return Reader(name=name, output="float", run=run, divisible=False, comparable=False, all_cores=True)


class _Clips(Dataset[Any]):
    """Clips as one of the readers reads them."""

    def __init__(self, make: Callable[[str], Reader], clips: Sequence[Clip]) -> None:
        self._make, self._clips = make, clips
        self._reader: Reader | None = None

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, i: int) -> Any:
        self._reader = self._reader or self._make("float")
        return self._reader.run([self._clips[i]])
