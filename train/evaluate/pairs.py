"""Evaluates models of video with audio: errors of masked tokens compared with baselines that see no sample, and
retrieval.
"""

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
"""Maximum number of samples for the errors, for the average tokens and for retrieval."""
PARTS = ("video patches", "patches of sound")
MATCHING = (
    "Rows are clips and columns are their audio, in the same order; bright cells are similar. Pairs are on the "
    "diagonal, from the top left to the bottom right. Neighbours overlap in time and are cut from the same videos, so "
    "bright squares around the diagonal are clips with similar content. Nothing is hidden here."
)
READING = (
    "The encoder saw only the bright tokens of the middle rows, of frames and spectrogram. In the bottom rows, the "
    "other tokens are the model's predictions. In spectrograms, time runs to the right and frequency upwards, and "
    "bright is loud. "
) + NORMALISED


def evaluate(
    model: PairModel, config: AudioVisualData, data: Manifest, shown: int, denoised: Sequence[Score] = ()
) -> Evaluation:
    """Measure the errors on a split, and the retrieval on it and on its dataset's `train` split.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of reconstructions to show.
        denoised: Scores of a denoising model, the first of which also gets the baselines of video.
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
                title="Similarity of clips and audio",
                reading=MATCHING,
                of={f"split {name}": one.similarity for name, one in matched.items()},
            ),
            Compared(
                title="Reconstructions", reading=READING, batch=rows, made=made, rows=range(min(shown, len(rows)))
            ),
        ),
        loss=TrainingLoss(
            name="The mean squared error of the normalised target tokens of video and audio, plus the cross-entropy of "
            "matching relative to chance, weighted as in the recipe",
            baseline="predicting every patch's mean and matching by chance",
        ),
    )


def measure_errors(
    config: AudioVisualData, model: PairModel, data: Manifest, train: Manifest | None
) -> tuple[Score, Score]:
    """Measure the mean squared errors of video and audio target tokens on up to 256 samples.

    Masks are the recipe's at the end of a run. The baselines are each token's mean and the average training token at
    its position.

    Args:
        config: Data config of the run.
        model: The model.
        data: The split.
        train: Training split of the same dataset; None leaves out the second baseline.

    Returns:
        The scores of video and audio.
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
    """Yield the recipe's batches on the CPU, with centre crops.

    Args:
        config: Data config of the run.
        data: The split.
        size: Samples per batch.
        samples: Largest number of samples.
        shuffle: Whether to shuffle.
        whole: Whether to read one view without masks.
        noise: Noise of video; None for none.
    """
    shown = replace(config, augment=CenterCrop(), noise=noise, spectrogram_noise=None, spec_augment=None)
    if whole:
        shown = replace(shown, video_mask=None, audio_mask=None, views=1)
    return read_batches(shown, data, size=size, samples=samples, shuffle=shuffle)


def _predict_pairs(model: PairModel, batch: AudioVisualBatch) -> Iterator[tuple[Tensor, Tensor, MaskBatch]]:
    """Yield predictions, targets and mask of the video's target tokens, then of the audio's."""
    _, video_mask, audio_mask = need_masks(batch)
    true = model.targets(model.split(batch), batch)
    for one, wanted, mask in zip(model.predict(batch), true, (video_mask, audio_mask), strict=True):
        yield one.float(), wanted, mask


def _average_tokens(config: AudioVisualData, model: PairModel, train: Manifest) -> tuple[Tensor, Tensor]:
    """Return the average token of each position over a split, float32 (N, values), for video and audio."""
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
    """A model that embeds clips and audio in one space."""

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRetrieval:
    """The retrieval results.

    Attributes:
        similarity: Similarity of clip i (row) and audio j, float32 (n, n).
        keys: Keys of the samples, sorted with numbers in numeric order.
    """

    similarity: Tensor
    keys: list[str]

    @property
    def pairs(self) -> int:
        return len(self.keys)

    def recall(self, k: int) -> tuple[float, float]:
        """Return recall at k: the fraction of clips whose audio is among the k nearest, and the reverse."""
        own = self.similarity.diagonal()[:, None]
        ranks = [(scores > own).sum(dim=1) for scores in (self.similarity, self.similarity.T)]
        return float((ranks[0] < k).double().mean()), float((ranks[1] < k).double().mean())

    def scores(self, split: str) -> Iterator[Score]:
        """Yield recall at 1 and at 5 in both directions, with chance as the baseline; `split` is the name for the
        scores.
        """
        for k in (1, min(5, self.pairs)):
            for way, share in zip(("clip to sound", "sound to clip"), self.recall(k), strict=True):
                name, chance = f"recall at {k}, {way}, split {split}", {"chance": k / self.pairs}
                yield Score.share(name, share, "pairs", self.pairs, chance)


def measure_retrieval(model: Matching, pairs: Iterable[AudioVisualBatch]) -> PairRetrieval:
    """Compute the similarities of all clips and audio.

    Args:
        model: The model.
        pairs: Batches with one view of each sample, without masks.

    Raises:
        ValueError: A batch has no spectrogram.
    """
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
    """Return a sort key that puts `clip_9` before `clip_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
