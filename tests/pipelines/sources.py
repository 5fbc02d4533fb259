"""Sources of video for the tests of loaders and mixtures, with the settings that `video_loader` takes."""

from pathlib import Path
from typing import Any

from maskstream.pipelines.modalities.split import Split, split_of
from maskstream.pipelines.modalities.video.loader import VideoSource, video_sampler, video_source
from maskstream.pipelines.modalities.video.sample import VideoSampler

SETTINGS = ("clip", "mask", "augment", "flow", "views", "tubelet", "patch")


def opened(folder: Path, **options: Any) -> tuple[Split, VideoSampler]:
    split, _ = split_of(folder, "video", {"device": "cpu", **{n: v for n, v in options.items() if n not in SETTINGS}})
    return split, video_sampler(split, **{n: v for n, v in options.items() if n in SETTINGS})


def source_of(folder: Path, **options: Any) -> VideoSource:
    return video_source(*opened(folder, **options))
