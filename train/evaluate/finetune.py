"""Fine-tuning: the encoder of a run is trained further, with labels, by the same loop as a recipe.

The classifier is the encoder of a masked autoencoder, the mean of its tokens, and a linear layer, as in MAE (He et al.,
2022, appendix A.1) and VideoMAE (Tong et al., 2022, appendix): no token is hidden, and labels are mixed (mixup) and
smoothed. Other models that give features have a norm and a linear layer on these (`EncoderClassifier`), and what a
paper tunes in a way of its own is in its finetune.py.

Mixup (Zhang et al., 2018) mixes two samples and their labels by a weight from a Beta distribution. Here one weight
serves a whole batch, whose samples are mixed with those of the batch in reverse order; it is drawn from the keys of the
batch, so it needs no global random state.

Differs from the authors' code in: no CutMix, no RandAugment, no random erasing, and drop path only with `--set
model.dropout.path=0.1`; the norm stands before the mean over tokens, not after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import with_set
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run_folder import run_recipe
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig

from .evaluation import Evaluation, Score, ShownSamples, TrainingLoss, majority, read_first, score, trained_on
from .features import GivesFeatures, has_label_lists, labelled_batches, no_masks, without_augmentation

HEAD_STD = 2e-5
"""The deviation of the head's initial weights, MAE's."""
READING = "Held-out samples, with the model's class under each."
COUNTED = 1000
"""The most samples whose labels are counted for the baseline."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig(ModelConfig[BatchT], Generic[BatchT]):
    """A classifier of samples. classes: their number. several: samples have lists of classes (the field `labels`), not
    one label. smoothing: the share of a label that is spread over all classes.
    """

    classes: int
    several: bool = False
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got classes={self.classes}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must lie in [0, 1), got {self.smoothing}")

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.classes


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(LabelsConfig[BatchT]):
    """of: the autoencoder whose encoder and tokens are used. mixup: the parameter of the Beta distribution, 0 for no
    mixing; only for one label each.
    """

    of: AutoencoderConfig[BatchT]
    mixup: float = 0.8

    def __post_init__(self) -> None:
        LabelsConfig.__post_init__(self)
        if self.mixup < 0:
            raise ValueError(f"mixup must be >= 0, got {self.mixup}")

    def make(self, grids: Grids) -> Classifier[BatchT]:
        """See ModelConfig."""
        return Classifier(self, grids)


class Classifier(Model[BatchT]):
    """Scores classes; its encoder has the names of the autoencoder's, so that its weights can be loaded."""

    def __init__(self, config: ClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        whole = config.of.make(grids)
        self.tokens, self.encoder = whole.tokens, whole.encoder
        self.head = nn.Linear(config.of.width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def scores(self, batch: BatchT) -> Tensor:
        """The score of each class, float32 (B, classes); the batch's masks hide nothing."""
        return self._scores(self.token_inputs(batch))

    def loss(self, batch: BatchT) -> Losses:
        """The cross-entropy of the label, or the mean over classes if samples have several; samples without a label
        do not count.
        """
        inputs, labels = self.token_inputs(batch), need_labels(batch, self.config.several)
        if self.config.several:
            return error_of_lists(self._scores(inputs), labels)
        target = F.one_hot(labels.clamp_min(0), self.config.classes).float()
        target = target * (1 - self.config.smoothing) + self.config.smoothing / self.config.classes
        known = (labels >= 0).float()
        if self.training and self.config.mixup:
            share = mixup_share(batch, self.config.mixup)
            inputs, target = (share * x + (1 - share) * x.flip(0) for x in (inputs, target))
            known = known * known.flip(0)
        error = -(target * F.log_softmax(self._scores(inputs), dim=1)).sum(dim=1)
        return Losses(parts={"classification": weighted(error, known)})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """The batch as it is: nothing is hidden from a classifier."""
        return batch

    def token_inputs(self, batch: BatchT) -> Tensor:
        """All tokens of a batch as the encoder reads them, float32 (B, N, n_inputs)."""
        return self.tokens.inputs(self.tokens.split(self.tokens.media(batch)))

    def token_features(self, batch: BatchT) -> Tensor:
        """The encoder's output for all tokens of a batch: (B, N, D)."""
        return self._encoded(self.token_inputs(batch))

    def features(self, batch: BatchT) -> Tensor:
        """The mean of the encoder's output over all tokens, float32 (B, D)."""
        return self.token_features(batch).float().mean(dim=1)

    def _encoded(self, inputs: Tensor) -> Tensor:
        index = torch.arange(inputs.shape[1], device=inputs.device).expand(len(inputs), -1)
        encoded = cast(Tensor, self.encoder(inputs, index))
        return encoded[:, 1:] if self.config.of.class_token else encoded

    def _scores(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.head(self._encoded(inputs).float().mean(dim=1))
        return found.float()


@runtime_checkable
class Encodes(GivesFeatures, Protocol):
    """A model whose encoder can be taken out of it. feature_width: the D of its features. encoder_parts: the names of
    the modules and parameters that make them.
    """

    @property
    def feature_width(self) -> int: ...

    @property
    def encoder_parts(self) -> tuple[str, ...]: ...


def encoder_of(config: ModelConfig[Any], grids: Grids) -> Model[Any]:
    """The model of a config without what its features do not need. ValueError if it cannot be taken apart."""
    model = config.make(grids)
    if not isinstance(model, Encodes):
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

    def make(self, grids: Grids) -> EncoderClassifier[BatchT]:
        """See ModelConfig."""
        return EncoderClassifier(self, grids)


class EncoderClassifier(Model[BatchT]):
    """Scores classes by a linear layer on the features of `body`, a model without what they do not need."""

    def __init__(self, config: EncoderClassifierConfig[BatchT], grids: Grids) -> None:
        super().__init__(config, grids)
        self.config = config
        self.body = encoder_of(config.of, grids)
        assert isinstance(self.body, Encodes)
        self.norm = nn.LayerNorm(self.body.feature_width)
        self.head = nn.Linear(self.body.feature_width, config.classes)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def features(self, batch: BatchT) -> Tensor:
        """The features of the encoder, float32 (B, D)."""
        assert isinstance(self.body, Encodes)
        return self.body.features(batch)

    def scores(self, batch: BatchT) -> Tensor:
        """The score of each class, float32 (B, classes)."""
        return cast(Tensor, self.head(self.norm(self.features(batch)))).float()

    def loss(self, batch: BatchT) -> Losses:
        """See `Classifier`; labels are not mixed."""
        labels, found = need_labels(batch, self.config.several), self.scores(batch)
        if self.config.several:
            return error_of_lists(found, labels)
        smoothed = self.config.smoothing if self.training else 0.0
        error = F.cross_entropy(found, labels.clamp_min(0), reduction="none", label_smoothing=smoothed)
        return Losses(parts={"classification": weighted(error, (labels >= 0).float())})

    def reconstructed(self, batch: BatchT) -> BatchT:
        """The batch as it is: nothing is hidden from a classifier."""
        return batch


AnyClassifier = Classifier[Any] | EncoderClassifier[Any]


def error_of_lists(scores: Tensor, labels: Tensor) -> Losses:
    """The cross-entropy of each class by itself, the mean over classes; samples without a label do not count.

    scores, labels: float32 (B, classes).
    """
    error = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(dim=1)
    return Losses(parts={"classification": weighted(error, (labels.sum(dim=1) > 0).float())})


def need_labels(batch: object, several: bool) -> Tensor:
    """The labels of a batch: int64 (B,), or float32 (B, classes) if samples have lists of classes.

    ValueError if the batch has none.
    """
    if not isinstance(batch, Batch):
        raise ValueError(f"a {type(batch).__name__} has no labels; a classifier needs a batch of a loader")
    if not several:
        return batch.label
    found = batch.fields.get(LABELS)
    if not isinstance(found, Tensor):
        raise ValueError(f"the batch has no field {LABELS!r}; give the data config fields=({LABELS!r},)")
    return found


def mixup_share(batch: object, alpha: float) -> float:
    """The share of a sample in its mixture, from Beta(alpha, alpha): a function of the keys of the batch."""
    keys = "\0".join(batch.key) if isinstance(batch, Batch) else ""
    return float(sample_rng(0, 0, keys, 0, "mixup of labels").beta(alpha, alpha))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """How a run is fine-tuned. recipe: what trains. initial: the weights to begin with, of the run's model by the names
    of the recipe's. measure: the scores of the trained model on a test, beside predictors that did not train; its
    arguments are the model, the recipe, the splits `train` and `test`, and the device.
    """

    recipe: Recipe[Any]
    initial: Callable[[Model[Any]], Mapping[str, Tensor]]
    measure: Callable[[Model[Any], Recipe[Any], Manifest, Manifest, torch.device], tuple[Score, ...]]


class Tune(Protocol):
    """Makes the tuning of a run's recipe for a split. points: the column with the label of each point, or ""; None for
    what is tuned as every encoder is, by the labels of samples.
    """

    def __call__(self, base: Recipe[Any], train: Manifest, points: str) -> Tuning | None: ...


def classifier_recipe(run: str | Path, train: SplitLocation, set: Sequence[str] = ()) -> Recipe[Any]:
    """The recipe that fine-tunes the encoder of a run on the labels of a split; set: fields of it to change.

    ValueError as of `tune_classifier`.
    """
    base = run_recipe(Path(run))
    check_modality(base, train)
    return with_set(tune_classifier(base, Manifest.load(train)).recipe, list(set))


def tune_classifier(base: Recipe[Any], train: Manifest) -> Tuning:
    """The tuning of an encoder by the labels of samples.

    50 epochs of AdamW with a learning rate of 1e-3 per 256 samples, betas (0.9, 0.999) and a weight decay of 0.05, as
    VideoMAE's fine-tuning; of masked autoencoders of pixels and spectrograms it decays by 0.75 from block to block.
    ValueError if the run's model gives no features, or the split has fewer than two classes.
    """
    several, classes = has_label_lists(train), len(train.info["label_names"])
    of: dict[str, Any] = {"of": base.model, "classes": classes, "several": several}
    changed: Any = {"fields": (LABELS,)} if several else {}
    changed |= {"views": 1} if "views" in {f.name for f in fields(base.data)} else {}
    changed |= {"packing": "row"} if isinstance(base.data, TextData) else {}
    changed |= no_masks(base.data)
    optimiser = OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=1.0, layer_decay=0.75)
    if isinstance(base.model, AutoencoderConfig):
        model: ModelConfig[Any] = ClassifierConfig(**of)
        initial = _stack_weights
    else:
        if not isinstance(base.build(), Encodes):
            raise ValueError(
                f"the model of {base.name} is a {type(base.model).__name__}, whose encoder cannot be taken out to be "
                "fine-tuned; give a run of a recipe whose model gives features, such as mae, siammae, bert or mpm"
            )
        model, initial = EncoderClassifierConfig(**of), body_weights
        optimiser = replace(optimiser, layer_decay=1.0)
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


def body_weights(model: Model[Any]) -> Mapping[str, Tensor]:
    """The weights of a model's encoder, by their names in a model that has it as its `body`."""
    assert isinstance(model, Encodes)
    parts = model.encoder_parts
    return {f"body.{name}": own for name, own in model.state_dict().items() if name.partition(".")[0] in parts}


def _measured(
    model: Model[Any], recipe: Recipe[Any], train: Manifest, test: Manifest, device: torch.device
) -> tuple[Score, ...]:
    if not isinstance(model, Classifier | EncoderClassifier):
        raise ValueError(f"the folder holds a {type(model).__name__}, no classifier; give another folder")
    found, true, known = _tested(model, recipe.data, train, test, device)
    frequent = {"the most frequent class": majority(known, true, model.config.classes)}
    metric = "mAP" if model.config.several else "accuracy"
    return (Score.share(metric, score(found, true), "samples", len(true), frequent),)


@torch.no_grad()
def _tested(
    model: AnyClassifier, config: DataConfig[Any], train: SplitLocation, test: SplitLocation, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores float32 (n, classes) of all labelled samples of `test`, their labels, and labels of `train`."""
    data, several = without_augmentation(config, train), model.config.several
    scores, labels = [], []
    for batch, rows, own in labelled_batches(data, test, size=_AT_ONCE, samples=1 << 62, several=several):
        scores.append(model.scores(batch.to(device)).cpu()[rows])
        labels.append(own)
    if not sum(map(len, labels)):
        raise ValueError(f"{test} has no labelled sample; a classifier is measured on samples with labels")
    known = [own for _, _, own in labelled_batches(data, train, size=_AT_ONCE, samples=COUNTED, several=several)]
    return torch.cat(scores), torch.cat(labels), torch.cat(known)


def evaluate(model: AnyClassifier, config: DataConfig[Any], data: SplitLocation, shown: int) -> Evaluation:
    """The classes of a held-out split; how frequent each is, is counted in the split that it trained on."""
    train = trained_on(data)
    found, true, known = _tested(model, config, train, data, torch.device("cpu"))
    frequent = {"the most frequent class": majority(known, true, model.config.classes)}
    value, several = score(found, true), model.config.several
    batch = read_first(without_augmentation(config, train), data, shown)
    with torch.no_grad():
        answers = () if several else model.scores(batch).argmax(dim=1).tolist()
    share = known.double().mean(dim=0) if several else F.one_hot(known, model.config.classes).double().mean(dim=0)
    entropy = torch.special.entr(share) + (torch.special.entr(1 - share) if several else 0)
    return Evaluation(
        scores=(Score.share("mAP" if several else "right classes", value, "samples", len(true), frequent),),
        examples=(
            ShownSamples(title="Classes", reading=READING, batch=batch, rows=range(len(batch)), answers=answers),
        ),
        loss=TrainingLoss(
            name="The mean cross-entropy of the classes in nats, of mixed and smoothed labels",
            baseline="the frequencies of classes",
            value=float(entropy.mean() if several else entropy.sum()),
        ),
        learns="The encoder of a pre-trained model learns the classes of samples, of which nothing is hidden.",
    )
