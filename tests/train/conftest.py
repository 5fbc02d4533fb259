"""Fixtures of the synthetic loader, a small recipe, and a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from maskstream.pipelines import VideoBatch
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.video import video_member
from maskstream.train.core.recipe import Recipe

from ..conftest import write_moving_texture
from ..pipelines.every_modality import write_split
from ..splits import write_samples
from .synthetic import FRAMES, SIZE, SyntheticLoader, small_recipe


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def synthetic_loader() -> type[SyntheticLoader]:
    return SyntheticLoader


@pytest.fixture
def recipe() -> Recipe[VideoBatch]:
    return small_recipe()


@pytest.fixture
def batch() -> VideoBatch:
    return SyntheticLoader().make(0, 0)


@pytest.fixture
def noise() -> VideoBatch:
    """A batch of which no pixel can be told from others."""
    clips = torch.randint(0, 256, (4, FRAMES, SIZE, SIZE, 3), generator=torch.Generator().manual_seed(0))
    return replace(SyntheticLoader().make(0, 0), video=clips.to(torch.uint8))


@pytest.fixture(scope="session")
def eleven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a split of 11 clips in shards of 5, 2 and 4."""
    raw, samples = tmp_path_factory.mktemp("raw"), []
    for number in range(11):
        path = write_moving_texture(raw / f"{number}.mp4", seed=number, frames=20)
        video = encode_video(path, PROFILES["train"])
        members = {"mp4": video_member(video.data, video.index)}
        samples.append(Sample(key=f"clip{number}", members=members, source=str(number)))
    return write_samples(tmp_path_factory.mktemp("eleven"), samples, "video", sizes=(5, 2, 4))


@pytest.fixture(scope="session")
def split_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the small split of a modality, which is written once; nothing may change it."""
    root = tmp_path_factory.mktemp("splits")
    return cache(lambda modality: write_split(modality, root / modality))
