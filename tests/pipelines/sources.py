"""Sources of video for the tests of loaders and mixtures, with the settings that `video_loader` takes."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.row_sampler import RowSampler, RowSource
from maskstream.pipelines.modalities.split import Options, Split, open_split
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.clip_plan import ClipPlan
from maskstream.pipelines.modalities.video.data import VideoData

SETTINGS = tuple(f.name for f in fields(VideoData))


def split_and_data(folder: Path, **options: Any) -> tuple[Split, VideoData]:
    split = open_split(
        folder, "video", Options(device="cpu", **{n: v for n, v in options.items() if n not in SETTINGS})
    )
    return split, VideoData(**{n: v for n, v in options.items() if n in SETTINGS})


def opened(folder: Path, **options: Any) -> tuple[Split, RowSampler[ClipPlan, VideoBatch]]:
    split, data = split_and_data(folder, **options)
    return split, data.sampler(split)


def source_of(folder: Path, **options: Any) -> RowSource[ClipPlan, VideoBatch, VideoBatch]:
    split, data = split_and_data(folder, **options)
    return data.source(split)
