"""A report's pictures of video with sound: both with their masks and completed, and which clip finds which sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ....pipelines.modalities.audio.batch import AudioBatch
from ....pipelines.modalities.audiovisual.data import AudioVisualData
from ....pipelines.modalities.video.batch import VideoBatch
from ....shards.format.dataset import DATASET_JSON
from ....shards.format.manifest import Manifest
from ....train.models.pair_model import PairModel
from ...figures.video import picture_side
from .audio import SoundView, sound_views
from .audiovisual_errors import clips_and_sounds, errors, masked_parts, open_split
from .audiovisual_match import retrieval
from .pictures import Pictures
from .video_reconstruction import ReconstructionView, reconstruction_views


@dataclass(frozen=True, kw_only=True, slots=True)
class PairView:
    """A clip and its sound."""

    clip: ReconstructionView
    sound: SoundView


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixView:
    """A retrieval: the name of its split, in words, and as a picture."""

    name: str
    words: str
    picture: str
    pairs: int


def report_pictures(config: AudioVisualData, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The errors on the split beside those of guessing, the retrieval of its pairs and of those of the split `train`
    beside it, and `shown` of its clips, the same each time.
    """
    if not isinstance(model, PairModel):
        raise ValueError(f"video and sound are completed by models of both, got {type(model).__name__}")
    train = _train_beside(Path(data))
    found = errors(config, model, data, train)
    matched = [
        (f"split {one.name}", retrieval(model, open_split(config, one, 16, shuffle=False, whole=True)))
        for one in (Path(data), train)
        if one is not None
    ]
    facts = {
        "clip": f"frames: {config.clip.frames}, stride {config.clip.stride}, {config.clip.size} px; sound: "
        f"{config.seconds:g} s",
        f"error of video on {found.samples} of these clips": found.video.words(),
        "error of sound on them": found.audio.words(),
        **{f"matching, {name}": one.words() for name, one in matched},
        "masks": f"{config.video_mask!r}; {config.audio_mask!r}",
    }
    batch = next(iter(open_split(config, data, shown, shuffle=True)))
    context = {
        "pairs": pair_views(model, *clips_and_sounds(model.shown(batch)), _names(data), config.seconds),
        "matrices": [
            MatrixView(name=name, words=one.words(), picture=one.picture(), pairs=one.pairs) for name, one in matched
        ],
    }
    return Pictures(
        template="audiovisual.html.j2",
        context=context,
        facts=facts,
        loss="The mean squared error of the target tokens of both, each normalised, and the cross entropy of matching "
        "in units of that of guessing, in the shares of the recipe",
        guess="predicting every patch's mean and matching by chance",
    )


def pair_views(
    model: PairModel, clips: VideoBatch, sounds: AudioBatch, label_names: tuple[str, ...], seconds: float
) -> list[PairView]:
    """Each clip and its sound: the original, what the encoder saw, and the model's predictions in its place."""
    spectrogram, video_mask, audio_mask = masked_parts(clips, sounds)
    with torch.inference_mode():
        video, audio = model.predict(clips.video, spectrogram, video_mask, audio_mask)
        frames = model.video.paint(clips.video, video_mask.target, video).numpy()
        heard = model.audio.paint(spectrogram, audio_mask.target, audio)
    grid = _Grid(shape=model.video.grid, patch=model.video.patch)
    side = picture_side(len(clips) * clips.video.shape[1])
    shown = reconstruction_views(clips, frames, grid, side)
    sounded = sound_views(model.audio, sounds, heard, label_names, seconds)
    return [PairView(clip=clip, sound=sound) for clip, sound in zip(shown, sounded, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    shape: tuple[int, ...]
    patch: tuple[int, ...]


def _train_beside(data: Path) -> Path | None:
    """The training split of the same dataset, where there is one beside this one."""
    train = data.parent / "train"
    return train if train.resolve() != data.resolve() and (train / DATASET_JSON).exists() else None


def _names(data: str | Path) -> tuple[str, ...]:
    return tuple(map(str, Manifest.load(data).info.get("label_names", ())))
