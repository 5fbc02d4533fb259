"""Fine-tuning: trains the encoder of a run on labels, in the same training loop as all recipes.

The classifier is the encoder of a masked autoencoder, the mean of its tokens, and a linear layer, as in MAE (He et al.,
2022, appendix A.1) and VideoMAE (Tong et al., 2022, appendix): no token is hidden, and labels are mixed (mixup) and
smoothed. For video, the mean over tokens is normalised, as in the authors' code; for other data, tokens are normalised
before the mean. Other models with features get a norm and a linear layer on top (`EncoderClassifier`). Papers with
other fine-tuning have a finetune.py.

Differences from the authors' code: CutMix only with `--set model.cutmix=1.0`; no RandAugment, no random erasing, and
drop path only with `--set model.dropout.path=0.1`; for images and spectrograms the norm is before the mean over tokens,
not after it, except with `--set model.norm=mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.audio.data import AudioData
from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.limits import NaturalFloat
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig, MaskedAutoencoder, MediaEncoder
from maskstream.train.nn.transformer import Norms, Stack

from .evaluation import (
    Confusion,
    Evaluation,
    Score,
    ShownSamples,
    TrainingLoss,
    count_confusions,
    majority,
    read_first,
    score,
    trained_on,
)
from .features import GivesFeatures, drop_augmentation, has_label_lists, list_mask_fields, yield_labelled_batches
from .labels import LabelsConfig, label_loss, mix_batch, need_labels

HEAD_STD = 2e-5
"""The deviation of the head's initial weights, MAE's."""
READING = "Held-out samples, with the model's class under each."
CONFUSED = (
    "Rows are true classes and columns are predicted classes, in order; brighter cells have a larger fraction of the "
    "class's samples."
)
COUNTED = 1000
"""Maximum number of samples whose lists of classes are counted for the baseline."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(LabelsConfig[BatchT]):
    """The sizes of a classifier on the encoder of a masked autoencoder.

    Attributes:
        of: Autoencoder whose encoder and tokens are used.
        mixup: Parameter of the Beta distribution; 0 for no mixup.
        norm: "tokens" normalises each token by the encoder's last norm; "mean" normalises the mean by a new norm, as
            VideoMAE's authors and transformers do.
    """

    of: AutoencoderConfig[BatchT]
    mixup: NaturalFloat = 0.8
    norm: Literal["tokens", "mean"] = "tokens"


class Classifier(MediaEncoder[BatchT], config=ClassifierConfig):
    """Classifies samples; the encoder's names match the autoencoder's, so that its weights can be loaded."""

    def __init__(self, config: ClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        whole = cast(MaskedAutoencoder[BatchT], config.of.make(grids))
        self.tokens, self.encoder = whole.tokens, whole.encoder
        self.norm = nn.LayerNorm(config.of.width) if config.norm == "mean" else None
        if self.norm is not None:
            for stack in self.encoder.stacks:
                cast(Stack, stack).norm = Norms(config.of.width, None, 1)
        self.head = nn.Linear(config.of.width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def scores(self, batch: BatchT) -> Tensor:
        """Return the logits of the classes, float32 (B, classes); the batch's masks hide nothing."""
        return cast(Tensor, self.head(self.features(batch))).float()

    def loss(self, batch: BatchT) -> Losses:
        """See `compute_mixed_loss`."""
        return compute_mixed_loss(self, self.config, batch)

    def token_features(self, batch: BatchT) -> Tensor:
        """Return the encoder's output (B, N, D) for all tokens of a batch."""
        inputs = self.token_inputs(batch)
        index = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[0], -1)
        encoded = cast(Tensor, self.encoder(inputs, index))
        return encoded[:, 1:] if self.config.of.class_token else encoded

    def features(self, batch: BatchT) -> Tensor:
        """Return the mean of the encoder's output over all tokens, float32 (B, D)."""
        mean = self.token_features(batch).float().mean(dim=1)
        return mean if self.norm is None else cast(Tensor, self.norm(mean))


def compute_mixed_loss(model: AnyClassifier, config: LabelsConfig[BatchT], batch: BatchT) -> Losses:
    """Return the loss of a classifier (`label_loss`); in training, samples and labels are mixed as configured.

    Args:
        model: The classifier.
        config: Its config.
        batch: Batch with labels.
    """
    mixup, cutmix = (config.mixup, config.cutmix) if model.training else (0.0, 0.0)
    mixed, mixture = mix_batch(batch, mixup, cutmix)
    return label_loss(config, model.scores(mixed), need_labels(batch, config.several), mixture)


def extract_encoder(config: ModelConfig[Any], grids: Grids) -> Model[Any]:
    """Build the model of a config and remove all parts that its features do not need.

    Args:
        config: Config of the model.
        grids: Token grids of the data.

    Raises:
        ValueError: The model has no features.
    """
    model = config.make(grids)
    if not model.encoder_parts:
        raise ValueError(f"{type(model).__name__} has no features, so its encoder cannot be fine-tuned")
    for name in dict.fromkeys(
        [*(one for one, _ in model.named_children()), *(w.partition(".")[0] for w in model.state_dict())]
    ):
        if name not in model.encoder_parts:
            delattr(model, name)
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderClassifierConfig(LabelsConfig[BatchT]):
    """The sizes of a classifier on the features of a model.

    Attributes:
        of: Model whose encoder is used.
    """

    of: ModelConfig[BatchT]


class EncoderClassifier(Model[BatchT], config=EncoderClassifierConfig):
    """Scores classes by a norm and a linear layer on the features of `body`, the encoder of a model."""

    def __init__(self, config: EncoderClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.body = extract_encoder(config.of, grids)
        self.norm = nn.LayerNorm(self.body.feature_width)
        self.head = nn.Linear(self.body.feature_width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def features(self, batch: BatchT) -> Tensor:
        """Return the features of the encoder, float32 (B, D)."""
        assert isinstance(self.body, GivesFeatures)
        return self.body.features(batch)

    def scores(self, batch: BatchT) -> Tensor:
        """Return the logits of the classes, float32 (B, classes)."""
        return cast(Tensor, self.head(self.norm(self.features(batch)))).float()

    def loss(self, batch: BatchT) -> Losses:
        """See `compute_mixed_loss`."""
        return compute_mixed_loss(self, self.config, batch)


AnyClassifier = Classifier[Any] | EncoderClassifier[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """The test results of a fine-tuned model.

    Attributes:
        scores: Scores, with those of untrained predictors as baselines.
        confusion: Number of samples of each class (row) by predicted class (column); None if samples have several
            labels or none.
    """

    scores: tuple[Score, ...]
    confusion: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """The fine-tuning of a run.

    Attributes:
        recipe: Recipe of the fine-tuning.
        initial: Returns the initial weights, from the run's model, under the names of the recipe's model.
        measure: Tests the trained model; called with the model, the recipe, the splits `train` and `test`, and the
            device.
    """

    recipe: Recipe[Any]
    initial: Callable[[Model[Any]], Mapping[str, Tensor]]
    measure: Callable[[Model[Any], Recipe[Any], Manifest, Manifest, torch.device], Tested]


class Tune(Protocol):
    """Returns the tuning of a run's recipe on a split, or None if its encoder is tuned on labels of samples as usual.

    `points` is the column with the label of each point, or "".
    """

    def __call__(self, base: Recipe[Any], train: Manifest, points: str) -> Tuning | None: ...


def tune_classifier(base: Recipe[Any], train: Manifest) -> Tuning:
    """Return the fine-tuning of an encoder on labels of samples.

    It runs 50 epochs of AdamW with a learning rate of 1e-3 per 256 samples, betas (0.9, 0.999) and a weight decay of
    0.05, like VideoMAE's fine-tuning. For images, clips and spectrograms the learning rate decays by 0.75 from block to
    block, and samples with one label are mixed.

    Args:
        base: Recipe of the run.
        train: Labelled split.

    Raises:
        ValueError: The run's model has no features, or the split has fewer than two classes.
    """
    several, classes = has_label_lists(train), len(train.info["label_names"])
    mixed = isinstance(base.data, ImageData | VideoData | AudioData)
    of: dict[str, Any] = {"of": base.model, "classes": classes, "several": several}
    of["mixup"] = 0.8 if mixed and not several else 0.0
    changed: Any = {"fields": (LABELS,)} if several else {}
    changed |= {"views": 1} if "views" in {f.name for f in fields(base.data)} else {}
    changed |= {"packing": "row"} if isinstance(base.data, TextData) else {}
    changed |= list_mask_fields(base.data)
    optimiser = OptimiserConfig(
        betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=1.0, layer_decay=0.75 if mixed else 1.0
    )
    if isinstance(base.model, AutoencoderConfig):
        norm: Literal["tokens", "mean"] = "mean" if type(base.data) is VideoData else "tokens"
        model: ModelConfig[Any] = ClassifierConfig(**of, norm=norm)
        initial = _stack_weights
    else:
        if not base.build().encoder_parts:
            raise ValueError(
                f"the model of {base.name} is a {type(base.model).__name__}, whose encoder cannot be fine-tuned; pass "
                "a run of a recipe whose model has features, such as mae, siammae, bert or mpm"
            )
        model, initial = EncoderClassifierConfig(**of), select_body_weights
    recipe: Recipe[Any] = Recipe(
        name=f"{base.name}-classifier",
        batch_size=base.batch_size,
        data=replace(base.data, **changed),
        model=model,
        optimiser=optimiser,
        schedule=ScheduleConfig(base_lr=1e-3, min_lr=1e-6, warmup=0.1, epochs=50),
    )
    return Tuning(recipe=recipe, initial=initial, measure=_measured)


def _stack_weights(model: Model[Any]) -> Mapping[str, Tensor]:
    """Return the weights of the encoder's blocks and of the tokens, such as LMD's autoencoder."""
    return {name: own for name, own in model.state_dict().items() if name.partition(".")[0] in ("encoder", "tokens")}


def select_body_weights(model: Model[Any]) -> Mapping[str, Tensor]:
    """Return the weights of a model's encoder under their names in a model with it as `body`."""
    parts = model.encoder_parts
    return {f"body.{name}": own for name, own in model.state_dict().items() if name.partition(".")[0] in parts}


def _measured(model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device) -> Tested:
    if not isinstance(model, Classifier | EncoderClassifier):
        raise ValueError(f"the folder contains a {type(model).__name__}, not a classifier; pass a different folder")
    views = recipe.model.test_views if isinstance(recipe.model, LabelsConfig) else 1
    found, true = score_views(model, recipe.data, train, test, device, views)
    several, known = model.config.several, list_known_labels(recipe.data, train, model.config.several)
    frequent = {"the most frequent class": majority(known, true, model.config.classes)}
    metric = "mAP" if several else "accuracy"
    one = Score.share(metric, score(found, true), "samples", len(true), frequent)
    return Tested(scores=(one,), confusion=None if several else count_confusions(found, true))


@torch.no_grad()
def score_views(
    model: AnyClassifier,
    config: DataConfig[Any],
    train: Manifest,
    test: Manifest,
    device: torch.device,
    views: int,
) -> tuple[Tensor, Tensor]:
    """Compute the classifier's scores of all labelled samples of a split.

    With several views, they are means of the class probabilities over the views. The first view is the usual test view:
    the whole sample, or its centre. The others are cropped as in training, and clips and audio start at random times if
    the config allows it.

    Args:
        model: The classifier.
        config: Data config of the training.
        train: Split that it was trained on, for statistics of spectrograms.
        test: Split to score.
        device: Device of the model.
        views: Number of views per sample.

    Returns:
        Scores float32 (n, classes) and labels.

    Raises:
        ValueError: All views would be the same, or no sample has a label.
    """
    data, several = drop_augmentation(config, train), model.config.several
    others = replace(data, **{name: getattr(config, name) for name in ("augment",) if hasattr(config, name)})
    if views > 1 and not hasattr(config, "augment") and getattr(getattr(config, "clip", None), "start", "") != "random":
        raise ValueError(f"{type(config).__name__} makes all views of a sample equal; leave model.test_views at 1")
    total: Tensor | None = None
    for view in range(views):
        scores, labels = [], []
        own = data if view == 0 else others
        for batch, rows, some in yield_labelled_batches(
            own, test, size=_AT_ONCE, samples=1 << 62, several=several, seed=view
        ):
            scores.append(model.scores(batch.to(device)).cpu()[rows])
            labels.append(some)
        if not sum(map(len, labels)):
            raise ValueError(f"{test} has no labelled samples, but a classifier needs labels")
        found = torch.cat(scores)
        if views > 1:
            found = found.sigmoid() if several else found.softmax(dim=1)
        total = found if total is None else total + found
    assert total is not None
    return total / views, torch.cat(labels)


def list_known_labels(config: DataConfig[Any], train: Manifest, several: bool) -> Tensor:
    """Return the labels of the training split for baselines: of all samples, or the class lists of some.

    Args:
        config: Data config.
        train: Training split.
        several: Whether samples have lists of classes.
    """
    if not several:
        labels = torch.tensor(train.label)
        return labels[labels >= 0]
    data = drop_augmentation(config, train)
    found = yield_labelled_batches(data, train, size=_AT_ONCE, samples=COUNTED, several=True)
    return torch.cat([own for _, _, own in found])


def evaluate(model: AnyClassifier, config: DataConfig[Any], data: Manifest, shown: int) -> Evaluation:
    """Evaluate a classifier on a held-out split; class frequencies for the baseline come from its training split.

    Args:
        model: The classifier, in eval mode.
        config: Data config of the run.
        data: Held-out split.
        shown: Number of examples.
    """
    train, several = trained_on(data), model.config.several
    found, true = score_views(model, config, train, data, torch.device("cpu"), model.config.test_views)
    known = list_known_labels(config, train, several)
    frequent = {"the most frequent class": majority(known, true, model.config.classes)}
    value = score(found, true)
    batch = read_first(drop_augmentation(config, train), data, shown)
    with torch.no_grad():
        answers = () if several else model.scores(batch).argmax(dim=1).tolist()
    confused = () if several else (Confusion(title="Confusions", reading=CONFUSED, of=count_confusions(found, true)),)
    share = known.double().mean(dim=0) if several else F.one_hot(known, model.config.classes).double().mean(dim=0)
    entropy = torch.special.entr(share) + (torch.special.entr(1 - share) if several else 0)
    return Evaluation(
        scores=(Score.share("mAP" if several else "right classes", value, "samples", len(true), frequent),),
        examples=(
            *confused,
            ShownSamples(title="Classes", reading=READING, batch=batch, rows=range(len(batch)), answers=answers),
        ),
        loss=TrainingLoss(
            name="The mean cross-entropy of the classes in nats, with mixed and smoothed labels",
            baseline="the frequencies of classes",
            value=float(entropy.mean() if several else entropy.sum()),
        ),
        learns="The encoder of a pre-trained model learns the classes of whole samples.",
    )
