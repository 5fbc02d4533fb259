"""A report's pictures of video with sound: both with their masks and completed, and which clip finds which sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ...pipelines.audiovisual import AudioVisualLoader, audiovisual_loader
from ...pipelines.batch import AudioBatch, MaskBatch, VideoBatch
from ...pipelines.preview.page import picture_side
from ...shards.dataset import DATASET_JSON
from ...shards.manifest import Manifest
from ..models.masked_autoencoder import Tokens
from ..models.spectrogram_tokens import SpectrogramTokens
from ..models.video_tokens import VideoTokens
from ..recipes.recipe import Pictures
from .audio import SoundView, sound_views
from .audiovisual_match import Retrieval, retrieval
from .video_reconstruction import ReconstructionView, reconstruction_views

if TYPE_CHECKING:
    from ..recipes.audiovisual import AudioVisualRecipe

MEASURED = 256
"""As many samples at most go into the losses."""


@runtime_checkable
class AudioVisualModel(Protocol):
    """What is asked of a model: predictions of hidden tokens of both, and vectors that match."""

    video: VideoTokens
    audio: SpectrogramTokens

    def predict(
        self, video: Tensor, spectrogram: Tensor, video_mask: MaskBatch, audio_mask: MaskBatch
    ) -> tuple[Tensor, Tensor]: ...

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Mean squared errors over the targets of a split's video and sound, beside those of guessing each token's mean."""

    video: float
    video_guessed: float
    audio: float
    audio_guessed: float
    samples: int


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


def report_pictures(recipe: AudioVisualRecipe, model: nn.Module, data: str | Path, shown: int) -> Pictures:
    """The errors on the split beside those of guessing, the retrieval of its pairs and of those of the split `train`
    beside it, and `shown` of its clips, the same each time.
    """
    if not isinstance(model, AudioVisualModel):
        raise ValueError(f"video and sound are completed by models of both, got {type(model).__name__}")
    found = errors(recipe, model, data)
    matched = list(_retrievals(recipe, model, Path(data)))
    facts = {
        "clip": f"frames: {recipe.clip.frames}, stride {recipe.clip.stride}, {recipe.clip.size} px; sound: "
        f"{recipe.seconds:g} s",
        f"error of video on {found.samples} of these clips": _beside(found.video, found.video_guessed),
        "error of sound on them": _beside(found.audio, found.audio_guessed),
        **{f"matching, {name}": one.words() for name, one in matched},
        "masks": f"{recipe.video_mask!r}; {recipe.audio_mask!r}",
    }
    batch = next(iter(_open(recipe, data, shown, shuffle=True)))
    context = {
        "pairs": pair_views(model, *recipe.shown(batch), _names(data), recipe.seconds),
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


def errors(recipe: AudioVisualRecipe, model: AudioVisualModel, data: str | Path) -> Errors:
    """Of up to 256 samples, by the recipe's masks for reconstruction at the end of a run."""
    sums = torch.zeros(2, 3, dtype=torch.float64)
    samples = 0
    loader = _open(recipe, data, 16, shuffle=False)
    with torch.inference_mode():
        for batch in islice(loader, -(-MEASURED // loader.order.global_batch)):
            clips, sounds = recipe.shown(batch)
            for part, (made, true, weight) in enumerate(_predictions(model, clips, sounds)):
                error, guess = ((one - true).square().mean(dim=2) for one in (made, torch.zeros_like(true)))
                sums[part] += torch.stack([(error * weight).sum(), (guess * weight).sum(), weight.sum()]).double()
            samples += len(clips) if clips.weight is None else int(clips.weight.sum())
    (video, video_guessed), (audio, audio_guessed) = (sums[:, :2] / sums[:, 2:]).tolist()
    return Errors(video=video, video_guessed=video_guessed, audio=audio, audio_guessed=audio_guessed, samples=samples)


def pair_views(
    model: AudioVisualModel, clips: VideoBatch, sounds: AudioBatch, label_names: tuple[str, ...], seconds: float
) -> list[PairView]:
    """Each clip and its sound: the original, what the encoder saw, and the model's predictions in its place."""
    spectrogram, video_mask, audio_mask = _parts(clips, sounds)
    with torch.inference_mode():
        video, audio = model.predict(clips.video, spectrogram, video_mask, audio_mask)
        frames = model.video.paint(clips.video, video_mask.target, video).numpy()
        heard = model.audio.paint(spectrogram, audio_mask.target, audio)
    c = model.video.config
    grid = _Grid(shape=model.video.grid, patch=(c.tubelet, c.patch, c.patch))
    side = picture_side(len(clips) * clips.video.shape[1])
    shown = reconstruction_views(clips, frames, grid, side)
    sounded = sound_views(model.audio, sounds, heard, label_names, seconds)
    return [PairView(clip=clip, sound=sound) for clip, sound in zip(shown, sounded, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Grid:
    shape: tuple[int, ...]
    patch: tuple[int, ...]


def _predictions(
    model: AudioVisualModel, clips: VideoBatch, sounds: AudioBatch
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Predictions, targets and weights of the video's target tokens, then of the sound's."""
    spectrogram, video_mask, audio_mask = _parts(clips, sounds)
    made = model.predict(clips.video, spectrogram, video_mask, audio_mask)
    kinds: tuple[Tokens, Tokens] = (model.video, model.audio)
    for kind, data, mask, one in zip(kinds, (clips.video, spectrogram), (video_mask, audio_mask), made, strict=True):
        tokens = kind.split(data)
        row = torch.arange(len(tokens))[:, None]
        yield one.float(), kind.targets(tokens[row, mask.target]), mask.weight


def _retrievals(recipe: AudioVisualRecipe, model: AudioVisualModel, data: Path) -> Iterator[tuple[str, Retrieval]]:
    """Of this split, and of the training split beside it."""
    yield f"split {data.name}", retrieval(model, _open(recipe, data, 16, shuffle=False, whole=True))
    train = data.parent / "train"
    if train != data and (train / DATASET_JSON).exists():
        yield "split train", retrieval(model, _open(recipe, train, 16, shuffle=False, whole=True))


def _open(
    recipe: AudioVisualRecipe, data: str | Path, batch_size: int, *, shuffle: bool, whole: bool = False
) -> AudioVisualLoader:
    """The recipe's loader on the CPU; whole: one view without masks and noise."""
    return audiovisual_loader(
        data,
        clip=recipe.clip,
        seconds=recipe.seconds,
        video_mask=None if whole else recipe.video_mask,
        audio_mask=None if whole else recipe.audio_mask,
        features=recipe.features,
        augment=recipe.augment,
        views=1 if whole else recipe.views,
        tubelet=recipe.tubelet,
        patch=recipe.patch,
        audio_patch=recipe.audio_patch,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=0,
        device="cpu",
        rank=0,
        world_size=1,
        steps=1,
    )


def _parts(clips: VideoBatch, sounds: AudioBatch) -> tuple[Tensor, MaskBatch, MaskBatch]:
    if sounds.spectrogram is None or clips.mask is None or sounds.mask is None:
        raise ValueError("a reconstruction is of masked clips and spectrograms; give the loader both masks")
    return sounds.spectrogram, clips.mask, sounds.mask


def _beside(error: float, guessed: float) -> str:
    if error < guessed:
        return f"{error:.3f}, {1 - error / guessed:.0%} below that of guessing each token's mean ({guessed:.3f})"
    return f"{error:.3f}, guessing each token's mean {guessed:.3f}: what was learned does not carry over to them"


def _names(data: str | Path) -> tuple[str, ...]:
    return tuple(map(str, Manifest.load(data).info.get("label_names", ())))
