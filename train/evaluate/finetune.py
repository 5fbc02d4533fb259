"""Fine-tuning: the encoder of a run is trained further, with labels, by the same loop as a recipe.

The classifier is the encoder of a masked autoencoder, the mean of its tokens, and a linear layer, as in MAE (He et al.,
2022, appendix A.1) and VideoMAE (Tong et al., 2022, appendix): no token is hidden, and labels are mixed (mixup) and
smoothed. Mixup (Zhang et al., 2018) mixes two samples and their labels by a weight from a Beta distribution. Here one
weight serves a whole batch, whose samples are mixed with those of the batch in reverse order; it is drawn from the keys
of the batch, so it needs no global random state.

Differs from the authors' code in: no CutMix, no RandAugment, no random erasing, and drop path only with `--set
model.dropout.path=0.1`; the norm stands before the mean over tokens, not after it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Unpack, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from maskstream.pipelines.modalities.data import DataConfig
from maskstream.pipelines.modalities.fields import LABELS
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.rng import sample_rng
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import Json, with_set
from maskstream.shards.format.manifest import Manifest, SplitLocation, read_info
from maskstream.shards.stores.local_files import publish
from maskstream.train.core.export import load_model
from maskstream.train.core.model import Grids, Losses, Model, ModelConfig, weighted
from maskstream.train.core.optimiser import OptimiserConfig, ScheduleConfig
from maskstream.train.core.process import LoopOptions, compute_threads
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run import train_recipe
from maskstream.train.core.run_folder import MODEL, run_recipe, run_weights
from maskstream.train.core.step import TrainResult
from maskstream.train.nn.masked_autoencoder import AutoencoderConfig

from .evaluation import Evaluation, Score, ShownSamples, TrainingLoss, majority, read_first, score, trained_on
from .features import has_label_lists, labelled_batches, without_augmentation
from .unseen import TRAINED_ON, check_unseen, splits_trained_on

HEAD_STD = 2e-5
"""The deviation of the head's initial weights, MAE's."""
ENCODER = "encoder.safetensors"
READING = "Held-out samples, with the model's class under each."
COUNTED = 1000
"""The most samples whose labels are counted for the baseline."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig(ModelConfig[BatchT], Generic[BatchT]):
    """of: the autoencoder whose encoder and tokens are used. classes: their number. several: samples have lists of
    classes (the field `labels`), not one label. mixup: the parameter of the Beta distribution, 0 for no mixing; only
    for one label each. smoothing: the share of a label that is spread over all classes.
    """

    of: AutoencoderConfig[BatchT]
    classes: int
    several: bool = False
    mixup: float = 0.8
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got classes={self.classes}")
        if self.mixup < 0 or not 0 <= self.smoothing < 1:
            raise ValueError(
                f"mixup must be >= 0 and smoothing lie in [0, 1), got mixup={self.mixup}, smoothing={self.smoothing}"
            )

    @property
    def most_labels(self) -> int | None:
        """The number of classes."""
        return self.classes

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
            error = F.binary_cross_entropy_with_logits(self._scores(inputs), labels, reduction="none").mean(dim=1)
            return Losses(parts={"classification": weighted(error, (labels.sum(dim=1) > 0).float())})
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
        data, _ = self.tokens.of(batch)
        return self.tokens.inputs(self.tokens.split(data))

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
class FineTuned:
    """A finished fine-tuning. metric: accuracy or mAP, of `value` on `test` samples; majority: that of a guess that
    knows only the frequencies of the classes. trained: what the loop says of its run.
    """

    metric: str
    value: float
    majority: float
    classes: int
    test: int
    trained: TrainResult

    def to_dict(self) -> Json:
        """The result as JSON."""
        own = {name: getattr(self, name) for name in ("metric", "value", "majority", "classes", "test")}
        return {**own, "steps": self.trained.step, "loss": self.trained.loss}


def classifier_recipe(run: str | Path, train: SplitLocation, set: Sequence[str] = ()) -> Recipe[Any]:
    """The recipe that fine-tunes the encoder of a run on the labels of a split; set: fields of it to change.

    50 epochs of AdamW with a learning rate of 1e-3 per 256 samples that decays by 0.75 from block to block, betas (0.9,
    0.999) and a weight decay of 0.05, as VideoMAE's fine-tuning. ValueError if the run's model is no masked
    autoencoder, or the split has fewer than two classes.
    """
    base = run_recipe(Path(run))
    check_modality(base, train)
    if not isinstance(base.model, AutoencoderConfig):
        raise ValueError(
            f"the model of {base.name} is a {type(base.model).__name__}, which cannot be fine-tuned; give a run of a "
            "masked autoencoder, such as mae, videomae and audiomae recipes train"
        )
    several = has_label_lists(train)
    classes = len(read_info(train)["label_names"])
    model: ClassifierConfig[Any] = ClassifierConfig(of=base.model, classes=classes, several=several)
    changed: Any = {"fields": (LABELS,)} if several else {}
    changed |= {"views": 1} if "views" in {f.name for f in fields(base.data)} else {}
    recipe: Recipe[Any] = Recipe(
        name=f"{base.name}-classifier",
        batch_size=base.batch_size,
        data=replace(base.data, **changed),
        model=model,
        optimiser=OptimiserConfig(betas=(0.9, 0.999), weight_decay=0.05, max_grad_norm=1.0, layer_decay=0.75),
        schedule=ScheduleConfig(base_lr=1e-3, min_lr=1e-6, warmup=0.1, epochs=50),
    )
    return with_set(recipe, list(set))


def finetune(
    run: str | Path,
    train: SplitLocation,
    test: SplitLocation,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    steps: int | None = None,
    scratch: bool = False,
    seed: int = 0,
    device: torch.device,
    same_split: bool = False,
    **options: Unpack[LoopOptions],
) -> FineTuned | None:
    """Fine-tunes the encoder of `run` on `train`, in the folder `out`, and measures it on `test`.

    set: fields of `classifier_recipe` to change. scratch: the encoder begins with initial weights instead, for
    comparison. same_split: test on what was trained on too; else a test with samples that `train` or the run has is a
    ValueError. options: of the loop; nothing is compiled by default. Returns None if it was stopped by a signal; the
    same call continues. For other arguments and for errors see `maskstream.train.train`.
    """
    train, test = Manifest.load(train), Manifest.load(test)
    recipe = classifier_recipe(run, train, set)
    check_modality(recipe, test)
    if (names := test.info["label_names"]) != train.info["label_names"]:
        raise ValueError(f"{test} has {len(names)} classes, not those of {train}; give two splits with the same names")
    check_unseen(test, runs=[Path(run)], train=train, same_split=same_split)
    initial = None if scratch else _write_encoder(Path(run), Path(out))
    options.setdefault("compile", "no")
    trained = train_recipe(recipe, train, out, steps=steps, initial=initial, seed=seed, device=device, **options)
    if not trained.finished:
        return None
    return _measured(recipe, trained, train, test, device)


def _write_encoder(run: Path, out: Path) -> Path:
    """A file in `out` with the weights of the run's encoder, which says what they were trained on."""
    encoder = load_model(run_weights(run)).get_submodule("encoder")
    weights = {f"encoder.{name}": tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    told = json.dumps([*splits_trained_on(run)])
    out.mkdir(parents=True, exist_ok=True)
    publish(out / ENCODER, save(weights, metadata={"format": "pt", TRAINED_ON: told}))
    return out / ENCODER


def _measured(
    recipe: Recipe[Any], trained: TrainResult, train: Manifest, test: Manifest, device: torch.device
) -> FineTuned:
    model, config = load_model(trained.out / MODEL).to(device), recipe.model
    if not isinstance(model, Classifier) or not isinstance(config, ClassifierConfig):
        raise ValueError(f"{trained.out} holds no classifier; give another folder for the fine-tuning")
    with compute_threads(device):
        found, true, known = _tested(model, recipe.data, train, test, device)
    return FineTuned(
        metric="mAP" if config.several else "accuracy",
        value=score(found, true),
        majority=majority(known, true, config.classes),
        classes=config.classes,
        test=len(true),
        trained=trained,
    )


@torch.no_grad()
def _tested(
    model: Classifier[Any], config: DataConfig[Any], train: SplitLocation, test: SplitLocation, device: torch.device
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


def evaluate(model: Classifier[Any], config: DataConfig[Any], data: SplitLocation, shown: int) -> Evaluation:
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
        learns="The encoder of a masked autoencoder learns the classes of samples, of which nothing is hidden.",
    )
