"""Evaluates feature-predicting models: k-NN classification, predictions compared with baselines, and the spread of
features.

The loss of such a model is a poor measure of its features, since both the predictions and the targets are trained. So
it is judged by classifying held-out samples by their nearest neighbours in the training split, if samples have labels,
compared with an untrained encoder and the raw inputs.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.shards.format.manifest import Manifest
from maskstream.train.core.collapse import measure_spread
from maskstream.train.core.model import widen
from maskstream.train.evaluate.evaluation import (
    Compared,
    Evaluation,
    Pictures,
    Score,
    TrainingLoss,
    accuracy,
    majority,
    read_shuffled,
    trained_on,
)
from maskstream.train.evaluate.features import (
    AUGMENTATIONS,
    GivesFeatures,
    drop_augmentation,
    extract_features,
    has_label_lists,
    knn_scores,
    yield_labelled_batches,
)
from maskstream.train.evaluate.patches import find_nearest_visible
from maskstream.train.nn.grid import gather_tokens

from .ajepa import SpectrogramJepaConfig
from .ijepa import ImageJepaConfig
from .lejepa import ClipLeJepaConfig, LeJepa, LeJepaConfig
from .model import Jepa, list_block_tokens
from .salt import Salt
from .vjepa import VideoJepaConfig

MEASURED, AT_ONCE = 256, 32
"""Maximum number of samples whose predictions are measured, and number in a batch."""
GALLERY, QUERIES = 4000, 1000
"""Maximum numbers of labelled samples of the training split and of the validation split."""
NEIGHBOURS, SHOWN = 20, 5
NEAREST_READING = (
    "The first image is a held-out sample; next to it are the held-out samples with the nearest features, nearest "
    "first."
)
DRAWN_READING = (
    "The encoder saw only the bright tokens of the second row. In the row below, each predicted token is replaced by "
    "the token of another sample whose teacher features are nearest to the prediction: judge its content, not its "
    "edges. "
)


def evaluate(model: Jepa[Any], config: DataConfig[Any], data: Manifest, shown: int) -> Evaluation:
    """Measure k-NN accuracy and the distance of predictions on held-out samples, and show nearest neighbours.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    own = {f.name for f in fields(config)}
    teacher = "a frozen teacher" if isinstance(model, Salt) else "its own moving average"
    changed: Any = {name: value for name, value in AUGMENTATIONS.items() if name in own and name != "views"}
    measured = list(read_shuffled(replace(config, **changed), data, most=MEASURED, size=AT_ONCE))
    with torch.inference_mode():
        predicted = _measure_distance(model, measured)
        one_each = slice(None, None, model.config.masks)
        features = torch.cat([model.features(batch)[one_each] for batch in measured])
        made = model.reconstructed(measured[0])
    drawn = Compared(
        title="Predicted features, drawn as tokens of other samples",
        reading=DRAWN_READING,
        batch=measured[0],
        made=made,
        rows=range(min(shown, len(measured[0]))),
    )
    sets = _draw_neighbours(features, torch.cat([_draw_pictures(batch)[one_each] for batch in measured]), shown)
    return Evaluation(
        scores=(*_score_by_class(model, config, data), predicted),
        notes=measure_spread(features),
        examples=(Pictures(title="Nearest neighbours", reading=NEAREST_READING, sets=sets), drawn),
        loss=TrainingLoss(
            name="The mean distance of predicted features from the teacher's",
            baseline="the mean feature of each place, by the last teacher",
            value=predicted.baselines[MEAN],
        ),
        learns=(
            f"The encoder learns by predicting the features that {teacher} computes for hidden parts of a sample. A "
            "low loss does not prove good features: also check the curves of the guard and the probe."
        ),
    )


MEAN, COPY = "the mean feature of each place", "the feature of the nearest visible token"


def _measure_distance(model: Jepa[Any], batches: Sequence[Any]) -> Score:
    """Return the distance of predictions, compared with baselines that use the teacher's features."""
    totals: dict[str, float] = {"": 0.0, MEAN: 0.0, COPY: 0.0}
    known = [model.targets(model.tokens.media(batch)) for batch in batches]
    mean = torch.cat(known).mean(dim=0)
    whole = 0.0
    for batch, target in zip(batches, known, strict=True):
        data, mask = model.tokens.of(batch)
        index, valid, weight = list_block_tokens(mask)
        wanted = gather_tokens(target, index.flatten(1))
        near = find_nearest_visible(mask)
        copied = target.new_zeros(*target.shape[:2], dtype=torch.int64).scatter(1, mask.target, near)
        guesses = {
            "": model.predict(data, mask),
            MEAN: mean[index.flatten(1)],
            COPY: gather_tokens(target, copied.gather(1, index.flatten(1))),
        }
        counts = (weight * valid).flatten(1)
        whole += float(counts.sum())
        for name, guess in guesses.items():
            totals[name] += float((model.distance(widen(guess), wanted) * counts).sum())
    means = {name: total / max(whole, 1e-12) for name, total in totals.items()}
    return Score(
        name=f"{model.config.distance} distance of predicted features",
        value=means.pop(""),
        of="samples",
        count=sum(map(len, batches)),
        baselines=means,
    )


class _Teacher:
    """The features of a student's teacher."""

    def __init__(self, model: Salt) -> None:
        self._model = model

    def features(self, batch: Any) -> Tensor:
        """Return the teacher's features, float32 (B, D of the teacher)."""
        return self._model.average_teacher_features(batch)


class _Inputs:
    """The raw inputs of an encoder as features."""

    def __init__(self, model: Jepa[Any] | LeJepa[Any]) -> None:
        self._model = model

    def features(self, batch: Any) -> Tensor:
        """Return the inputs, float32 (B, N * values)."""
        return self._model.token_inputs(batch).flatten(1)


def _score_by_class(model: Jepa[Any] | LeJepa[Any], config: DataConfig[Any], data: Manifest) -> tuple[Score, ...]:
    """Return the k-NN accuracy on held-out samples; nothing if samples do not have one label each."""
    train = trained_on(data)
    if train is data or has_label_lists(data) or not (data.label >= 0).any():
        return ()
    untrained = model.config.build(model.grids).eval()
    assert isinstance(untrained, Jepa | LeJepa)
    encoders: dict[str, GivesFeatures] = {
        "": model,
        "an untrained encoder": untrained,
        "raw inputs": _Inputs(model),
    }
    if isinstance(model, Salt):
        encoders["its teacher"] = _Teacher(model)
    plain = drop_augmentation(config, train)
    seen, unseen = (
        extract_features(
            encoders,
            yield_labelled_batches(plain, of, size=AT_ONCE, samples=most, several=False),
            tokens=False,
            device=torch.device("cpu"),
        )
        for of, most in ((train, GALLERY), (data, QUERIES))
    )
    classes = int(torch.cat((seen.labels, unseen.labels)).max()) + 1
    has = F.one_hot(seen.labels, classes).float()
    found = {
        name: accuracy(knn_scores(seen.vectors[name], has, unseen.vectors[name], NEIGHBOURS), unseen.labels)
        for name in encoders
    }
    value = found.pop("")
    found["the most frequent class"] = majority(seen.labels, unseen.labels, classes)
    return (
        Score.share(f"right classes by {NEIGHBOURS} nearest neighbours", value, "samples", len(unseen.labels), found),
    )


def _draw_neighbours(features: Tensor, pictures: Tensor, shown: int) -> dict[str, Tensor]:
    """Return images uint8 (1 + SHOWN, H, W, 3) by name: a sample, and the samples with the nearest features (n, D)."""
    unit = F.normalize(features - features.mean(dim=0), dim=1)
    order = (unit @ unit.T).argsort(dim=1, descending=True, stable=True)
    return {f"Sample {i + 1}": pictures[order[i, : 1 + SHOWN]] for i in range(min(shown, len(features)))}


def _draw_pictures(batch: ImageBatch | VideoBatch | AudioBatch) -> Tensor:
    """Return an image of each sample, uint8 (B, H, W, 3).

    A clip is represented by its first frame. Audio is a grey spectrogram, with time to the right and frequency upwards,
    that covers three standard deviations of 0.5 on each side of the mean.
    """
    if isinstance(batch, AudioBatch):
        assert batch.spectrogram is not None
        grey = (batch.spectrogram / 3 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
        return grey.transpose(1, 2).flip(1)[..., None].expand(-1, -1, -1, 3)
    return batch.image if isinstance(batch, ImageBatch) else batch.video[:, 0]


def evaluate_views(model: LeJepa[Any], config: DataConfig[Any], data: Manifest, shown: int) -> Evaluation:
    """Measure k-NN accuracy and the distance of a sample's views on held-out samples, and show nearest neighbours.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    views, share = model.config.views, model.config.share
    with torch.inference_mode():
        pairs = [model.embeddings(batch) for batch in read_shuffled(config, data, most=MEASURED, size=AT_ONCE)]
        measured = list(read_shuffled(drop_augmentation(config, data), data, most=MEASURED, size=AT_ONCE))
        features = torch.cat([model.features(batch) for batch in measured])
    found = torch.cat(pairs)
    others = torch.stack([found[:, i].roll(i, dims=0) for i in range(views)], dim=1)
    near, far = (float((x - x.mean(dim=1, keepdim=True)).square().mean()) for x in (found, others))
    sets = _draw_neighbours(features, torch.cat([_draw_pictures(batch) for batch in measured]), shown)
    return Evaluation(
        scores=(
            *_score_by_class(model, config, data),
            Score(
                name="squared distance of views from their mean",
                value=near,
                count=len(found),
                baselines={"views of other samples": far},
            ),
        ),
        notes=measure_spread(features),
        examples=(Pictures(title="Nearest neighbours", reading=NEAREST_READING, sets=sets),),
        loss=TrainingLoss(
            name="The squared distance of views, and how far embeddings are from a Gaussian",
            baseline="a Gaussian independent of the sample",
            value=(1 - share) * (1 - 1 / views) + share * (2 * torch.pi) ** 0.5 * (1 - 3**-0.5),
        ),
        learns=(
            "The encoder learns to map all views of a sample to the same point, while the points of all samples "
            "follow a Gaussian."
        ),
    )


EVALUATIONS = {
    ImageJepaConfig: evaluate,
    VideoJepaConfig: evaluate,
    SpectrogramJepaConfig: evaluate,
    LeJepaConfig: evaluate_views,
    ClipLeJepaConfig: evaluate_views,
}
