"""A recipe: all settings of a training run except the split that it trains on.

A model's per-class losses reach the masks that follow them (masks.ByClass) through channels, which the masks receive
here.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

from maskstream.pipelines.masks import ByClass, Feedback
from maskstream.pipelines.modalities.data import DataConfig, SplitConfig
from maskstream.pipelines.modalities.mixture import OpenMixture, list_manifests
from maskstream.pipelines.modalities.split import Options, SharedOptions, Split
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.mix import mix
from maskstream.pipelines.stream.run_length import Counted, run_steps
from maskstream.pipelines.stream.sampler import BatchT
from maskstream.shards.config import NOT_IDENTITY, Config
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.format.tokenizer import read_tokenizer_facts
from maskstream.shards.keywords import narrow, takes_fields
from maskstream.shards.limits import PositiveInt

from .model import Model, ModelConfig
from .optimiser import OptimiserConfig, ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(SharedOptions):
    """The options of the loader of a recipe.

    Attributes:
        batch_size: Samples per rank; defaults to the recipe's.
        token_budget: Largest number of visible tokens in a batch over all ranks; defaults to the recipe's.
    """

    batch_size: PositiveInt | None = None
    token_budget: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(Config, Generic[BatchT]):
    """The settings of a run, for any modality.

    Attributes:
        name: Name of the recipe.
        batch_size: Samples per rank and step.
        data: Settings of the loader.
        model: Settings of the model.
        schedule: Learning-rate schedule and length of the run.
        optimiser: Settings of AdamW.
        token_budget: Number of visible tokens in the batches of all ranks together. The batch size then follows the
            mask ratio (see `BudgetOrder`), and `batch_size` is its minimum per rank.
        accumulate: Batches per rank and step. Their gradients equal those from one batch of all their samples.
    """

    name: str = field(metadata=NOT_IDENTITY)
    batch_size: PositiveInt = field(metadata=NOT_IDENTITY)
    data: DataConfig[BatchT]
    model: ModelConfig[BatchT]
    schedule: ScheduleConfig
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    token_budget: PositiveInt | None = None
    accumulate: PositiveInt = field(default=1, metadata=NOT_IDENTITY)

    def validate(self) -> None:
        several = getattr(self.data, "component", None)
        if isinstance(several, tuple) and not self.model.reads_cameras:
            raise ValueError(
                f"{type(self.model).__name__} reads one video per sample, but component={several} specifies "
                f"{len(several)}; choose one, such as --component {several[0]}, or set reads_cameras = True in a "
                "custom model that reads batch.cameras"
            )
        if isinstance(self.data, SplitConfig):
            self._check_split(self.data)
        self.model.check(self.data)

    def _check_split(self, data: SplitConfig[Any, BatchT]) -> None:
        """Raise ValueError if the model cannot read the given targets or the sample sizes that occur over the run."""
        if data.targets is not None and not self.model.reads_targets:
            raise ValueError(
                f"{type(self.model).__name__} does not read targets, got data.targets={data.targets!r}; leave it out, "
                "or set reads_targets = True in a custom model that reads batch.fields['targets']"
            )
        if not data.over_run:
            return
        changed = ", ".join(data.over_run)
        if not self.model.takes_sizes:
            raise ValueError(
                f"{type(self.model).__name__} needs samples of one size, but data.over_run changes {changed}; leave "
                "it out, use a V-JEPA 2 recipe such as vjepa2-tiny, or set takes_sizes = True in a custom model"
            )
        for start, phase in data.phases:
            for name, grid in phase.grids.items():
                if any(n > most for n, most in zip(grid.shape, data.grids[name].shape, strict=True)):
                    raise ValueError(
                        f"data.over_run changes {changed}, so from progress {start:g} on, a sample has {grid.shape} "
                        f"tokens, but the model is built for {data.grids[name].shape}, the number at the end of the "
                        "run; start with fewer tokens"
                    )

    def build(self, *, seed: int = 0) -> Model[BatchT]:
        """Build the model on the CPU; `seed` alone determines its initial weights."""
        model = self.model.build(self.data.grids, seed=seed)
        for parameter in model.unused(self.data):
            parameter.requires_grad_(False)
        return model

    @takes_fields(RecipeOptions).in_method
    def loader(self, location: SplitLocation | OpenMixture, options: RecipeOptions) -> Loader[BatchT]:
        """Build the loader of the recipe's batches.

        A token budget, or a mask that changes over the run, requires `steps` (see `run_length`).

        Args:
            location: Location of a split, or an open split or mixture.
            options: Options of the loader.

        Raises:
            ValueError: The split has more labels or token ids than the model, or lacks the labels that the model needs.
        """
        if self.model.most_labels is not None or self.model.most_ids is not None:
            if isinstance(location, OpenMixture):
                splits = list_manifests(location)
            else:
                splits = (Manifest.load(location, version=options.version),)
            for split in splits:
                self._check_fit(split)
        batch_size = self.batch_size if options.batch_size is None else options.batch_size
        token_budget = self.token_budget if options.token_budget is None else options.token_budget
        filled = narrow(Options, options, batch_size=batch_size, token_budget=token_budget)
        if not isinstance(location, OpenMixture):
            return self.data.loader(location, **vars(filled))
        filled = replace(filled, unit=location.mixture.unit, epochs=location.epochs)
        return self.data.loader(location.parts, **vars(filled))

    def _check_fit(self, split: Manifest) -> None:
        """Raise ValueError if a split has labels or token ids beyond the model's, or lacks labels that it needs."""
        found, most = int(np.max(split.label, initial=-1)) + 1, self.model.most_labels
        if most is not None and found > most:
            raise ValueError(
                f"{split} has labels of {found} categories, but the model has {most}; set model.categories={found}"
            )
        if self.model.needs_labels and found == 0:
            raise ValueError(
                f"no sample of {split} has a label, but {self.name} learns labels; build shards from a labelled "
                "dataset, or pass labels to `maskstream index` with --labels"
            )
        most = self.model.most_ids
        if most is not None and (ids := read_tokenizer_facts(split.location, split.info).vocabulary) > most:
            raise ValueError(
                f"the tokenizer of {split} has {ids:,} ids, but the model has {most:,}; set "
                f"model.vocabulary={-(-ids // 64) * 64}"
            )

    def run_length(
        self, location: SplitLocation | OpenMixture, *, world_size: int = 1, version: int | None = None
    ) -> int:
        """Return the number of steps of a run.

        It is the schedule's `steps`, or enough steps to show all samples `epochs` times. With a token budget, where the
        batch size changes over the run, it is the smallest number that covers enough samples.

        Args:
            location: Location of a split, or an open mixture.
            world_size: Number of ranks.
            version: Version of the split; None for the current one.
        """
        if self.schedule.steps is not None:
            return self.schedule.steps
        kinds = self.data.modalities or self.data.modality
        source: Counted
        if isinstance(location, OpenMixture):
            parts = [(self.data.source(Split.open(one, kinds, device="cpu")), weight) for one, weight in location.parts]
            source = mix(parts, unit=location.mixture.unit, epochs=location.epochs)
        else:
            source = self.data.source(Split.open(location, kinds, device="cpu", version=version))
        batches = run_steps(
            source,
            epochs=self.schedule.epochs,
            global_batch=self.batch_size * world_size,
            token_budget=self.token_budget,
        )
        return -(-batches // self.accumulate)


def check_modality(recipe: Recipe[Any], data: Manifest) -> None:
    """Raise ValueError if the modality of a split differs from the recipe's.

    Args:
        recipe: The recipe.
        data: The split.
    """
    found, taken = data.info["modality"], recipe.data.modalities or (recipe.data.modality,)
    if found not in taken:
        raise ValueError(
            f"the recipe {recipe.name!r} is for {' or '.join(taken)}, but {data} contains {found}; `maskstream "
            f"recipes` lists those for {found}"
        )


Part = TypeVar("Part")


@runtime_checkable
class ScoresClasses(Protocol):
    """A model that averages the losses of token classes over the run and saves these scores with its weights.

    The protocol has methods only: from Python 3.12 on, `isinstance` does not find the buffers of a module.
    """

    def find_last_scores(self) -> Tensor:
        """Return the scores float64 (classes,) after the previous step."""
        ...

    def update_scores(self) -> Tensor:
        """Return the scores float64 (classes,) after the last step, over all ranks; each rank calls it every step."""
        ...


def with_channel(recipe: Recipe[Any]) -> Recipe[Any]:
    """Return the recipe with a new feedback channel in each of its class-dependent masks that has none."""
    return replace(recipe, data=_with_channel(recipe.data))


def find_channels(part: object) -> list[Feedback]:
    """Return the feedback channels in the masks of a config, such as a recipe."""
    if isinstance(part, Feedback):
        return [part]
    if not is_dataclass(part):
        return []
    return [channel for f in fields(part) for channel in find_channels(getattr(part, f.name))]


def publish_scores(channels: list[Feedback], model: object, *, trained: bool = True) -> None:
    """Send the class scores of a model to the masks.

    Args:
        channels: Channels to masks that follow the scores; without them nothing happens.
        model: The model.
        trained: Whether a step was just trained, so that the scores are updated first.

    Raises:
        ValueError: The model has no class scores.
    """
    if not channels:
        return
    if not isinstance(model, ScoresClasses):
        raise ValueError(
            f"masks.ByClass needs per-class losses, but a {type(model).__name__} has none; use a text model with "
            "model.classes, or a mask without feedback"
        )
    scores = model.update_scores() if trained else model.find_last_scores()
    for channel in channels:
        channel.publish(scores)


def _with_channel(part: Part) -> Part:
    if isinstance(part, ByClass) and part.feedback is None:
        made: Any = replace(part, feedback=Feedback(len(part.scores), part.scores))
        return made  # type: ignore[no-any-return]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {f.name: _with_channel(getattr(part, f.name)) for f in fields(part) if f.init}
    changed = {name: new for name, new in changed.items() if new is not getattr(part, name)}
    return replace(part, **changed) if changed else part
