"""The splits and the loaders of the acceptance's steps, and what is measured of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_videos import Kind, write_kind

from maskstream.pipelines import VideoClip, masks
from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.modalities.video.data import VideoData

Figures = dict[str, Any]
DATA = VideoData(clip=VideoClip(frames=16, stride=2, size=224), mask=masks.Tube(), augment=RandomResizedCrop(flip=0.5))


class KindSplit(tempfile.TemporaryDirectory[str]):
    """A folder with a split, removed at the end."""

    def __init__(self, kind: Kind, videos: int) -> None:
        super().__init__()
        self._kind, self._videos = kind, videos

    def __enter__(self) -> Path:  # type: ignore[override]
        rehearsal = self._kind.codec == "libvpx-vp9"
        videos, frames = (min(self._videos, 8), 36) if rehearsal else (self._videos, 64)
        return write_kind(Path(super().__enter__()) / "split", self._kind, videos=videos, frames=frames)


def split_of(kind: Kind, *, videos: int) -> KindSplit:
    """A folder with a split of videos of a kind, while a `with` lasts."""
    return KindSplit(kind, videos)


def loader_of(folder: Path, device: torch.device | str, backend: str, *, output: str = "rgb", **options: Any) -> Any:
    """A loader of DATA on a split."""
    data = replace(DATA, backend=backend, output=output)  # type: ignore[arg-type]
    return data.loader(folder, device=device, **{"batch_size": 8, "seed": 1, **options})


def rate_of(loader: Any, clips: int) -> float:
    """Clips a second behind the first four batches."""
    batches: Iterator[Any] = loader.repeat()
    for _ in range(4):
        next(batches)
    start, seen = time.perf_counter(), 0
    while seen < clips:
        seen += len(next(batches))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)


def own_frame_nearest(found: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether each frame is nearest to its own."""
    small = [video[..., ::8, ::8, :].flatten(2) for video in (found, right)]
    distance = torch.cdist(*small, p=1)
    return bool((distance.diagonal(dim1=1, dim2=2) <= distance.amin(2) + 1e-3).all())


def said(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
