"""Retrieval between clips and sounds: the similarities of all pairs of a split, and the recall."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...pipelines.modalities.audiovisual.batch import AudioVisualBatch

MOST = 256
"""The largest number of pairs that are compared."""


class Matching(Protocol):
    """A model that embeds clips and sounds in one space."""

    def match(self, video: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
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

    def words(self) -> str:
        """The recall at 1 and at 5 compared with chance, in words."""
        there, back = (f"{share:.0%}" for share in self.recall(1))
        five = min(5, self.pairs)
        near = [f"{share:.0%}" for share in self.recall(five)]
        return (
            f"recall at 1 over {self.pairs} pairs: {there} clip to sound, {back} sound to clip "
            f"(chance: {1 / self.pairs:.1%}); recall at {five}: {near[0]} and {near[1]} "
            f"(chance: {five / self.pairs:.1%})"
        )


def retrieval(model: Matching, pairs: Iterable[AudioVisualBatch]) -> Retrieval:
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
    order = sorted(range(len(keys)), key=lambda i: _by_number(keys[i]))
    similarity = torch.cat(clips)[order] @ torch.cat(sounds)[order].T
    return Retrieval(similarity=similarity.float(), keys=[keys[i] for i in order])


def _by_number(key: str) -> list[tuple[int, str]]:
    """The sort key that puts `clip_9` before `clip_10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]
