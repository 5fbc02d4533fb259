"""Fine-tuning: the encoder of a run is trained further, with labels, by the same loop as a recipe.

The classifier is the encoder of a masked autoencoder, the mean of its tokens, and a linear layer, as in MAE (He et al.,
2022, appendix A.1) and VideoMAE (Tong et al., 2022, appendix): no token is hidden, and labels are mixed (mixup) and
smoothed. The mean over the tokens of video is normalised, as the authors do; other tokens are before it. Other models
that give features have a norm and a linear layer on these (`EncoderClassifier`), and what a paper tunes in a way of its
own is in its finetune.py.

Differs from the authors' code in: CutMix only with `--set model.cutmix=1.0`; no RandAugment, no random erasing, and
drop path only with `--set model.dropout.path=0.1`; the norm stands before the mean over tokens of pictures and
spectrograms, not after it, but with `--set model.norm=mean`.
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
    "A row is a class, from the first down, and a column what the model says, from the left; the brighter, the more of "
    "the class's samples."
)
COUNTED = 1000
"""The most samples whose lists of classes are counted for the baseline."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(LabelsConfig[BatchT]):
    """of: the autoencoder whose encoder and tokens are used. norm: whether each of the "tokens" is normalised, by the
    encoder's last norm, or their "mean", by a new one, as VideoMAE's authors and transformers do.
    """

    of: AutoencoderConfig[BatchT]
    mixup: float = 0.8
    norm: Literal["tokens", "mean"] = "tokens"

    def __post_init__(self) -> None:
        super(ClassifierConfig, self).__post_init__()
        if self.norm not in ("tokens", "mean"):
            raise ValueError(f"norm={self.norm!r} is not known; legal are 'tokens' and 'mean'")


class Classifier(MediaEncoder[BatchT], config=ClassifierConfig):
    """Scores classes; its encoder has the names of the autoencoder's, so that its weights can be loaded."""

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
        """The score of each class, float32 (B, classes); the batch's masks hide nothing."""
        return cast(Tensor, self.head(self.features(batch))).float()

    def loss(self, batch: BatchT) -> Losses:
        """See `compute_mixed_loss`."""
        return compute_mixed_loss(self, self.config, batch)

    def token_features(self, batch: BatchT) -> Tensor:
        """The encoder's output for all tokens of a batch: (B, N, D)."""
        inputs = self.token_inputs(batch)
        index = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[0], -1)
        encoded = cast(Tensor, self.encoder(inputs, index))
        return encoded[:, 1:] if self.config.of.class_token else encoded

    def features(self, batch: BatchT) -> Tensor:
        """The mean of the encoder's output over all tokens, float32 (B, D)."""
        mean = self.token_features(batch).float().mean(dim=1)
        return mean if self.norm is None else cast(Tensor, self.norm(mean))


def compute_mixed_loss(model: AnyClassifier, config: LabelsConfig[BatchT], batch: BatchT) -> Losses:
    """The loss of a classifier (`label_loss`); while it trains, samples and labels are mixed as its config says."""
    mixup, cutmix = (config.mixup, config.cutmix) if model.training else (0.0, 0.0)
    mixed, mixture = mix_batch(batch, mixup, cutmix)
    return label_loss(config, model.scores(mixed), need_labels(batch, config.several), mixture)


def extract_encoder(config: ModelConfig[Any], grids: Grids) -> Model[Any]:
    """The model of a config without what its features do not need. ValueError if it cannot be taken apart."""
    model = config.make(grids)
    if not model.encoder_parts:
        raise ValueError(f"a {type(model).__name__} gives no features, so there is no encoder to fine-tune")
    for name in dict.fromkeys(
        [*(one for one, _ in model.named_children()), *(w.partition(".")[0] for w in model.state_dict())]
    ):
        if name not in model.encoder_parts:
            delattr(model, name)
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderClassifierConfig(LabelsConfig[BatchT]):
    """A classifier of what a model gives as features. of: the model, of which the encoder is kept."""

    of: ModelConfig[BatchT]


class EncoderClassifier(Model[BatchT], config=EncoderClassifierConfig):
    """Scores classes by a linear layer on the features of `body`, a model without what they do not need."""

    def __init__(self, config: EncoderClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.body = extract_encoder(config.of, grids)
        self.norm = nn.LayerNorm(self.body.feature_width)
        self.head = nn.Linear(self.body.feature_width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def features(self, batch: BatchT) -> Tensor:
        """The features of the encoder, float32 (B, D)."""
        assert isinstance(self.body, GivesFeatures)
        return self.body.features(batch)

    def scores(self, batch: BatchT) -> Tensor:
        """The score of each class, float32 (B, classes)."""
        return cast(Tensor, self.head(self.norm(self.features(batch)))).float()

    def loss(self, batch: BatchT) -> Losses:
        """See `compute_mixed_loss`."""
        return compute_mixed_loss(self, self.config, batch)


AnyClassifier = Classifier[Any] | EncoderClassifier[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """What a tuned model reaches on a test, beside predictors that did not train. confusion: of how many samples of a
    class (row) the model says each (column); None where samples have no label or several.
    """

    scores: tuple[Score, ...]
    confusion: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How a run is fine-tuned. recipe: what trains. initial: the weights to begin with, of the run's model by the names
    of the recipe's. measure: tests the trained model; its arguments are the model, the recipe, the splits `train` and
    `test`, and the device.
    """

    recipe: Recipe[Any]
    initial: Callable[[Model[Any]], Mapping[str, Tensor]]
    measure: Callable[[Model[Any], Recipe[Any], Manifest, Manifest, torch.device], Tested]


class Tune(Protocol):
    """Makes the tuning of a run's recipe for a split. points: the column with the label of each point, or ""; None for
    what is tuned as every encoder is, by the labels of samples.
    """

    def __call__(self, base: Recipe[Any], train: Manifest, points: str) -> Tuning | None: ...


def tune_classifier(base: Recipe[Any], train: Manifest) -> Tuning:
    """The tuning of an encoder by the labels of samples.

    50 epochs of AdamW with a learning rate of 1e-3 per 256 samples, betas (0.9, 0.999) and a weight decay of 0.05, as
    VideoMAE's fine-tuning; for pictures, clips and spectrograms it decays by 0.75 from block to block, and samples with
    one label are mixed.
    ValueError if the run's model gives no features, or the split has fewer than two classes.
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
                f"the model of {base.name} is a {type(base.model).__name__}, whose encoder cannot be taken out to be "
                "fine-tuned; give a run of a recipe whose model gives features, such as mae, siammae, bert or mpm"
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
    """The weights of the blocks, and those that tokens are made with, such as LMD's autoencoder."""
    return {name: own for name, own in model.state_dict().items() if name.partition(".")[0] in ("encoder", "tokens")}


def select_body_weights(model: Model[Any]) -> Mapping[str, Tensor]:
    """The weights of a model's encoder, by their names in a model that has it as its `body`."""
    parts = model.encoder_parts
    return {f"body.{name}": own for name, own in model.state_dict().items() if name.partition(".")[0] in parts}


def _measured(model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device) -> Tested:
    if not isinstance(model, Classifier | EncoderClassifier):
        raise ValueError(f"the folder holds a {type(model).__name__}, no classifier; give another folder")
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
    """The scores float32 (n, classes) of all labelled samples of `test`, and their labels.

    With more than one of `views` they are the mean over these of the probabilities of classes. The first view is that
    of a test with one: whole, or from the middle of the picture. The others are cropped as in training, and begin
    elsewhere where clips and sounds begin at random. ValueError for data of which all views would be the same.
    """
    data, several = drop_augmentation(config, train), model.config.several
    others = replace(data, **{name: getattr(config, name) for name in ("augment",) if hasattr(config, name)})
    if views > 1 and not hasattr(config, "augment") and getattr(getattr(config, "clip", None), "start", "") != "random":
        raise ValueError(f"all views of a sample are the same by {type(config).__name__}; leave model.test_views at 1")
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
            raise ValueError(f"{test} has no labelled sample; a classifier is measured on samples with labels")
        found = torch.cat(scores)
        if views > 1:
            found = found.sigmoid() if several else found.softmax(dim=1)
        total = found if total is None else total + found
    assert total is not None
    return total / views, torch.cat(labels)


def list_known_labels(config: DataConfig[Any], train: Manifest, several: bool) -> Tensor:
    """The labels of the split `train` that baselines know: of all samples, or the lists of classes of some."""
    if not several:
        labels = torch.tensor(train.label)
        return labels[labels >= 0]
    data = drop_augmentation(config, train)
    found = yield_labelled_batches(data, train, size=_AT_ONCE, samples=COUNTED, several=True)
    return torch.cat([own for _, _, own in found])


def evaluate(model: AnyClassifier, config: DataConfig[Any], data: Manifest, shown: int) -> Evaluation:
    """The classes of a held-out split; how frequent each is, is counted in the split that it trained on."""
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
            name="The mean cross-entropy of the classes in nats, of mixed and smoothed labels",
            baseline="the frequencies of classes",
            value=float(entropy.mean() if several else entropy.sum()),
        ),
        learns="The encoder of a pre-trained model learns the classes of samples, of which nothing is hidden.",
    )
