"""Evaluates models of video with sound: errors of masked tokens beside baselines that see no sample, and retrieval."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Protocol

import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.augment.diffusion import LinearNoise
from maskstream.pipelines.masks import MaskBatch
from maskstream.pipelines.modalities.audiovisual.batch import AudioVisualBatch
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.shards.format.dataset import store_beside
from maskstream.shards.format.manifest import Manifest
from maskstream.train.nn.media_tokens import SpectrogramTokens, VideoTokens
from maskstream.train.nn.pair_model import PairModel, need_masks

from .evaluation import NORMALISED, Compared, Evaluation, Score, Similarities, TrainingLoss, read_batches

MEASURED = 256
"""The largest number of samples for the errors, for the average tokens and for retrieval."""
PARTS = ("video patches", "patches of sound")
MATCHING = (
    "A row is a clip, a column is a sound, in one order; bright is near. Pairs lie on the diagonal, from the top "
    "left to the bottom right. Neighbours overlap in time and are cut from the same videos, so bright squares around "
    "the diagonal are clips that look and sound alike. Clips and sounds are whole here, nothing is hidden."
)
READING = (
    "The encoder saw only the bright tokens of the middle rows, of the pictures and of the sound. In the bottom rows "
    "the others are the model's predictions. In spectrograms time runs to the right, frequency rises upwards, bright "
    "is loud. "
) + NORMALISED


def evaluate(
    model: PairModel, config: AudioVisualData, data: Manifest, shown: int, denoised: Sequence[Score] = ()
) -> Evaluation:
    """The errors on the split, the retrieval on it and on its dataset's `train` split, and reconstructions of some.

    denoised: the scores of a model that is judged by what it denoises; the first gets the baselines of its video too.
    """
    beside = None if PurePosixPath(data.location).name == "train" else store_beside(data.store, "train")
    train = None if beside is None else Manifest.open(beside)
    video, audio = measure_errors(config, model, data, train)
    matched = {
        PurePosixPath(one.location).name: measure_retrieval(model, read_pairs(config, one, 16, whole=True))
        for one in (data, train)
        if one is not None
    }
    if denoised:
        first, *rest = denoised
        denoised = (replace(first, baselines={**first.baselines, **video.baselines}), *rest)
    batch = next(iter(read_pairs(config, data, shown, samples=shown, shuffle=True)))
    with torch.inference_mode():
        rows, made = model.select_reconstruction_rows(batch), model.reconstructed(batch)
    return Evaluation(
        scores=(
            *denoised,
            video,
            audio,
            *(score for name, one in matched.items() for score in one.scores(name)),
        ),
        examples=(
            Similarities(
                title="Which clip finds which sound",
                reading=MATCHING,
                of={f"split {name}": one.similarity for name, one in matched.items()},
            ),
            Compared(
                title="Reconstructions", reading=READING, batch=rows, made=made, rows=range(min(shown, len(rows)))
            ),
        ),
        loss=TrainingLoss(
            name="The mean squared error of the normalised target tokens of video and sound, plus the cross entropy of "
            "matching divided by that of chance, in the recipe's shares",
            baseline="predicting every patch's mean and matching by chance",
        ),
    )


def measure_errors(
    config: AudioVisualData, model: PairModel, data: Manifest, train: Manifest | None
) -> tuple[Score, Score]:
    """The mean squared errors over target tokens of video and of sound, on up to 256 samples of the split at `data`,
    with the recipe's masks at the end of a run; beside those of predicting each token's mean, and the average token at
    its position in the training set.

    train: the training split of the same dataset, for the average tokens.
    """
    averages = None if train is None else _average_tokens(config, model, train)
    sums = torch.zeros(2, 4, dtype=torch.float64)
    samples = 0
    with torch.inference_mode():
        for batch in read_pairs(config, data, 16):
            rows = model.select_reconstruction_rows(batch)
            for part, (made, true, mask) in enumerate(_predict_pairs(model, rows)):
                zero = torch.zeros_like(true)
                guesses = (made, zero, zero if averages is None else averages[part][mask.target])
                found = [((guess - true).square().mean(dim=2) * mask.weight).sum() for guess in guesses]
                sums[part] += torch.stack([*found, mask.weight.sum()]).double()
            samples += len(rows) if rows.weight is None else int(rows.weight.sum())
    names = ("each patch's mean", "the average patch of its position")[: 1 if averages is None else 2]
    video, audio = (
        Score(
            name=f"squared error of normalised {what}",
            value=own,
            of="clips",
            count=samples,
            baselines=dict(zip(names, guesses, strict=False)),
        )
        for what, (own, *guesses) in zip(PARTS, (sums[:, :3] / sums[:, 3:]).tolist(), strict=True)
    )
    return video, audio


def read_pairs(
    config: AudioVisualData,
    data: Manifest,
    size: int,
    *,
    samples: int = MEASURED,
    shuffle: bool = False,
    whole: bool = False,
    noise: LinearNoise | None = None,
) -> Iterator[AudioVisualBatch]:
    """The recipe's batches on the CPU, with centre crops. whole: one view without masks or noise."""
    shown = replace(config, augment=CenterCrop(), noise=noise, spectrogram_noise=None, spec_augment=None)
    if whole:
        shown = replace(shown, video_mask=None, audio_mask=None, views=1)
    return read_batches(shown, data, size=size, samples=samples, shuffle=shuffle)


def _predict_pairs(model: PairModel, batch: AudioVisualBatch) -> Iterator[tuple[Tensor, Tensor, MaskBatch]]:
    """Predictions, targets and mask of the video's target tokens, then of the sound's."""
    spectrogram, video_mask, audio_mask = need_masks(batch)
    made = model.predict(batch.video, spectrogram, video_mask, audio_mask)
    kinds: tuple[VideoTokens | SpectrogramTokens, ...] = (model.video, model.audio)
    for kind, data, mask, one in zip(kinds, (batch.video, spectrogram), (video_mask, audio_mask), made, strict=True):
        tokens = kind.split(data)
        row = torch.arange(len(tokens))[:, None]
        yield one.float(), kind.targets(tokens[row, mask.target]), mask


def _average_tokens(config: AudioVisualData, model: PairModel, train: Manifest) -> tuple[Tensor, Tensor]:
    """The average token of each position over a split, float32 (N, values), for the video and for the sound."""
    kinds: tuple[VideoTokens | SpectrogramTokens, ...] = (model.video, model.audio)
    sums: list[Tensor] = []
    samples = 0
    for batch in read_pairs(config, train, 16, whole=True):
        if batch.spectrogram is None:
            raise ValueError("the batch has no spectrogram; take it from an audiovisual_loader")
        real = torch.ones(len(batch)) if batch.weight is None else batch.weight
        found = [
            (kind.targets(kind.split(data)) * real[:, None, None]).sum(dim=0)
            for kind, data in zip(kinds, (batch.video, batch.spectrogram), strict=True)
        ]
        sums = found if not sums else [a + b for a, b in zip(sums, found, strict=True)]
        samples += int(real.sum())
    return sums[0] / samples, sums[1] / samples


class Matching(Protocol):
    """A model that embeds clips and sounds in one space."""

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRetrieval:
    """similarity: float32 (n, n), of clip i (row) and sound j. Samples are sorted by key, numbers in it by value."""

    similarity: Tensor
    keys: list[str]

    @property
    def pairs(self) -> int:
        return len(self.keys)

    def recall(self, k: int) -> tuple[float, float]:
        """Recall at k: the share of clips whose sound is among the k nearest, and of sounds whose clip is."""
        own = self.similarity.diagonal()[:, None]
        ranks = [(scores > own).sum(dim=1) for scores in (self.similarity, self.similarity.T)]
        return float((ranks[0] < k).double().mean()), float((ranks[1] < k).double().mean())

    def scores(self, split: str) -> Iterator[Score]:
        """The recall at 1 and at 5 in both directions, beside chance. split: its name."""
        for k in (1, min(5, self.pairs)):
            for way, share in zip(("clip to sound", "sound to clip"), self.recall(k), strict=True):
                name, chance = f"recall at {k}, {way}, split {split}", {"chance": k / self.pairs}
                yield Score.share(name, share, "pairs", self.pairs, chance)


def measure_retrieval(model: Matching, pairs: Iterable[AudioVisualBatch]) -> PairRetrieval:
    """The retrieval of pairs. Each batch has one view of each sample, without masks."""
    clips, sounds, keys = [], [], []
    with torch.inference_mode():
        for batch in pairs:
            real = torch.ones(len(batch), dtype=torch.bool) if batch.weight is None else batch.weight > 0
            if batch.spectrogram is None:
                raise ValueError("the batch has no spectrogram; take it from an audiovisual_loader")
            clip, sound = model.match(batch.video[real], batch.spectrogram[real])
            clips.append(clip)
            sounds.append(sound)
            keys += [key for key, kept in zip(batch.key, real.tolist(), strict=True) if kept]
    order = sorted(range(len(keys)), key=lambda i: _sort_by_number(keys[i]))
    similarity = torch.cat(clips)[order] @ torch.cat(sounds)[order].T
    return PairRetrieval(similarity=similarity.float(), keys=[keys[i] for i in order])


def _sort_by_number(key: str) -> list[tuple[int, str]]:
    """The sort key that puts `clip_9` before `clip_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
