"""Evaluates models of video with sound: reconstruction errors and retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...pipelines.modalities.audiovisual.data import AudioVisualData
from ...shards.format.dataset import is_split
from ...shards.stores.location import beside
from ..nn.pair_model import PairModel
from .held_out import HeldOut, Score
from .pair_errors import errors, pairs_of
from .pair_match import MOST, Retrieval, retrieval


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsHeldOut:
    """The results, and the retrieval on each split by name."""

    found: HeldOut
    matched: dict[str, Retrieval]


def held_out(
    config: AudioVisualData, model: PairModel, data: str | Path, denoised: tuple[dict[str, str], Score] | None = None
) -> PairsHeldOut:
    """The errors on the split compared with baselines, and the retrieval on it and on its dataset's `train` split.

    denoised: facts and the score of a model that denoises patches, which is then judged by them.
    """
    train = _train_beside(data)
    found = errors(config, model, data, train)
    matched = {
        f"split {PurePosixPath(one).name}": retrieval(model, pairs_of(config, one, 16, samples=MOST, whole=True))
        for one in (data, train)
        if one is not None
    }
    facts = {
        "clip": f"frames: {config.clip.frames}, {config.clip.spacing}, {config.clip.size} px; sound: "
        f"{config.seconds:g} s",
        f"error of video on {found.samples} of these clips": found.video.words(),
        "error of sound on them": found.audio.words(),
        **{f"matching, {name}": one.words() for name, one in matched.items()},
        "masks": f"{config.video_mask!r}; {config.audio_mask!r}",
    }
    guesses = {"each patch's mean": found.video.mean}
    if found.video.average is not None:
        guesses["the average patch of its position"] = found.video.average
    score = Score(name="squared error of normalised video patches", value=found.video.model, baselines=guesses)
    if denoised is not None:
        facts, score = facts | denoised[0], denoised[1].beside(guesses)
    told = HeldOut(
        facts=facts,
        loss="The mean squared error of the normalised target tokens of video and sound, plus the cross entropy of "
        "matching divided by that of chance, in the recipe's shares",
        baseline="predicting every patch's mean and matching by chance",
        score=score,
    )
    return PairsHeldOut(found=told, matched=matched)


def _train_beside(data: str | Path) -> str | None:
    """The training split of the same dataset; None if there is none or `data` is that split."""
    train = beside(str(data), "train")
    return train if train != beside(str(data), PurePosixPath(data).name) and is_split(train) else None
