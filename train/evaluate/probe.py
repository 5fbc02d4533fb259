"""Probes of frozen features, compared with untrained encoders and raw inputs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.topology import usable_device
from maskstream.shards.config import Json, rebuild
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.keywords import takes_fields
from maskstream.shards.named import nearest
from maskstream.train.core.options import PROBES, ProbeOptions
from maskstream.train.core.process import compute_threads
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run_folder import run_recipe, run_settings, run_weights
from maskstream.train.core.weights import load_model

from .evaluation import majority, score
from .features import (
    GivesFeatures,
    GivesTokens,
    Inputs,
    Labelled,
    drop_augmentation,
    extract_features,
    has_label_lists,
    knn_scores,
    match_labels,
    score_attentive,
    score_linear,
    whiten,
    yield_labelled_batches,
)
from .unseen import check_unseen

TRAINED, UNTRAINED, INPUTS = "pre-trained", "untrained", "inputs"
WHITENED = "whitened10"
"""The k-NN probe whose features are whitened first; it runs only if requested by name."""
PROBE = "probe.json"
"""The file of a result in the folder of a run."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Reached:
    """The results of one kind of encoder with one probe; `values` contains the accuracy or mAP of each seed."""

    encoder: str
    probe: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """The range over seeds: the largest value minus the smallest."""
        return max(self.values) - min(self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """The results of all encoders and probes.

    Attributes:
        recipe: Name of the recipe.
        metric: "accuracy" or "mAP".
        classes: Number of classes.
        train: Number of training samples.
        test: Number of test samples.
        seeds: Seeds of the runs and of the untrained encoders.
        majority: Score of a predictor that uses only class frequencies.
        reached: Results of each kind of encoder and probe.
    """

    recipe: str
    metric: str
    classes: int
    train: int
    test: int
    seeds: Mapping[str, tuple[int, ...]]
    majority: float
    reached: Sequence[Reached]

    def of(self, encoder: str, probe: str) -> Reached | None:
        """Return the results of an encoder with a probe; None if they were not measured.

        Args:
            encoder: Name of the encoder.
            probe: Name of the probe.
        """
        return next((one for one in self.reached if (one.encoder, one.probe) == (encoder, probe)), None)

    def margin(self, probe: str) -> tuple[float, float] | None:
        """Return the gain of pre-trained over untrained features, and the larger of their ranges over seeds; None if
        one is missing.
        """
        own, other = self.of(TRAINED, probe), self.of(UNTRAINED, probe)
        return None if own is None or other is None else (own.mean - other.mean, max(own.spread, other.spread))

    def facts(self) -> dict[str, str]:
        """Return one line of results for each probe, by name, for a report."""
        found = {}
        for name in dict.fromkeys(one.probe for one in self.reached):
            kinds = [one for kind in (TRAINED, UNTRAINED, INPUTS) if (one := self.of(kind, name)) is not None]
            reached = ", ".join(f"{one.encoder} {one.mean:.3f}" for one in kinds)
            found[f"{name} probe"] = f"{self.metric} on {self.test} samples: {reached}, majority {self.majority:.3f}"
        return found

    def headline(self) -> str:
        """Return a sentence on the linear probe, or on the first one if there is no linear probe; "" without both
        pre-trained and untrained encoders.
        """
        names = sorted(dict.fromkeys(one.probe for one in self.reached), key=lambda name: name != "linear")
        own, other = (self.of(kind, names[0]) if names else None for kind in (TRAINED, UNTRAINED))
        if own is None or other is None:
            return ""
        inputs = self.of(INPUTS, names[0])
        raw = f", raw inputs {inputs.mean:.1%}" if inputs else ""
        return (
            f"The {names[0]} probe of the frozen features has an {self.metric} of {own.mean:.1%} on {self.test:,} "
            f"labelled samples, untrained features {other.mean:.1%}{raw}, and the most frequent class "
            f"{self.majority:.1%}."
        )

    @classmethod
    def from_dict(cls, data: Json) -> Self:
        """Rebuild a result from the output of `to_dict`.

        Raises:
            ValueError: The object is not a probe result.
        """
        try:
            return rebuild(cls, data)
        except ValueError as error:
            raise ValueError(f"the object is not a probe result ({error}); run `maskstream probe` again") from error

    def to_dict(self) -> Json:
        """Return the result as JSON."""
        reached = [{**asdict(one), "mean": one.mean, "spread": one.spread} for one in self.reached]
        return {**asdict(self), "reached": reached}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunGroup:
    """Runs of one recipe, which differ in their seed."""

    recipe: Recipe[Any]
    runs: tuple[Path, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(int(run_settings(run).get("seed", 0)) for run in self.runs)


@takes_fields(ProbeOptions)
def probe(
    runs: Sequence[str | Path],
    train: SplitLocation,
    test: SplitLocation,
    options: ProbeOptions,
) -> ProbeResult:
    """Probe the encoders of runs of one recipe with different seeds on two labelled splits; see `compare_probes`.

    Args:
        runs: Folders of the runs.
        train: Location of the training split.
        test: Location of the test split.
        options: The fields of `ProbeOptions`.

    Raises:
        ValueError: The runs have different recipes. For other errors see `compare_probes`.
    """
    if len(groups := group_runs(runs)) > 1:
        raise ValueError(
            f"{groups[1].runs[0]} and {groups[0].runs[0]} have different recipes; pass runs of the same recipe with "
            "different seeds, or compare them with compare_probes"
        )
    return next(iter(compare_probes(runs, train, test, options).values()))


@takes_fields(ProbeOptions)
def compare_probes(
    runs: Sequence[str | Path],
    train: SplitLocation,
    test: SplitLocation,
    options: ProbeOptions,
) -> dict[tuple[Path, ...], ProbeResult]:
    """Probe the encoders of runs on two labelled splits.

    Encoders see whole samples. If recipes differ only in masks or training, they share samples, untrained encoders and
    raw inputs, which are measured once. The untrained encoders of a recipe have the seeds of the runs and those after
    them.

    Args:
        runs: Folders of the runs.
        train: Location of the training split.
        test: Location of the test split.
        options: The fields of `ProbeOptions`.

    Returns:
        Result for the runs of each recipe, by these runs.

    Raises:
        ValueError: A probe is unknown, a model has no features, the splits have different classes, or the probes or
            runs were trained on test samples (see unseen.py).
    """
    options = replace(options, device=usable_device(options.device))
    legal = (*PROBES, WHITENED)
    if unknown := [name for name in options.probes if name not in legal]:
        close = nearest(unknown[0], list(legal))
        raise ValueError(f"unknown probe {unknown[0]!r}{close}; choose from {', '.join(legal)}")
    groups = group_runs(runs)
    train, test = Manifest.load(train), Manifest.load(test)
    for group in groups:
        for split in (train, test):
            check_modality(group.recipe, split)
    labels, test = _count_classes(train), match_labels(test, train.label_names, str(train))
    check_unseen(test, runs=[run for group in groups for run in group.runs], train=train, same_split=options.same_split)
    alike: dict[str, list[RunGroup]] = {}
    for group in groups:
        whole = drop_augmentation(group.recipe.data, train)
        about = {"data": whole.to_dict(identity=True), "model": group.recipe.model.to_dict(identity=True)}
        alike.setdefault(json.dumps(about, sort_keys=True), []).append(group)
    found: dict[tuple[Path, ...], ProbeResult] = {}
    for some in alike.values():
        found |= _probe_alike(some, train, test, labels, options)
    return {group.runs: found[group.runs] for group in groups}


def _probe_alike(
    groups: Sequence[RunGroup],
    train: Manifest,
    test: Manifest,
    labels: tuple[int, bool],
    options: ProbeOptions,
) -> dict[tuple[Path, ...], ProbeResult]:
    """Return the results of runs whose encoders see the same samples and are identical before training; for `labels`
    see `_count_classes`.
    """
    recipe, (classes, several) = groups[0].recipe, labels
    probes, samples, progress = options.probes, options.samples, options.progress
    device = torch.device(options.device)
    others = _list_seeds([seed for group in groups for seed in group.seeds], options.seeds)
    trained = {
        f"{TRAINED} {number}.{n}": load_model(run_weights(run))
        for number, group in enumerate(groups)
        for n, run in enumerate(group.runs)
    }
    untrained = {f"{UNTRAINED} {seed}": recipe.build(seed=seed).eval() for seed in others}
    models = {name: model.to(device) for name, model in (trained | untrained).items()}
    encoders: dict[str, GivesFeatures] = {}
    for name, model in models.items():
        if not isinstance(model, GivesFeatures):
            raise ValueError(
                f"the model of {recipe.name}, {type(recipe.model).__name__}, has no features; probes need a model "
                "with `features(batch)`, such as those of the mae, videomae and audiomae recipes"
            )
        encoders[name] = model
    data = drop_augmentation(recipe.data, train)

    def batches(of: Manifest) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        progress.phase(f"features of {of.location}", min(len(of), samples), unit="samples")
        for batch, rows, own in yield_labelled_batches(data, of, size=_AT_ONCE, samples=samples, several=several):
            yield batch, rows, own
            progress.advance(len(rows))

    with compute_threads(device):
        first = next(iter(models.values()))
        if isinstance(first, GivesTokens):
            encoders[INPUTS] = Inputs(first, batches(train), device)
        seen, unseen = (
            extract_features(encoders, batches(of), tokens="attentive" in probes, device=device) for of in (train, test)
        )

        def reached(kind: str, of: str) -> list[Reached]:
            found = []
            for name in probes:
                if any(one.startswith(of) for one in (seen.tokens if name == "attentive" else seen.vectors)):
                    progress.note(f"{name} of {kind} features")
                    values = tuple(_select_values(name, of, seen, unseen, classes))
                    found.append(Reached(encoder=kind, probe=name, values=values))
            return found

        progress.phase("fitting probes")

        shared = [*reached(UNTRAINED, UNTRAINED), *reached(INPUTS, INPUTS)]
        return {
            group.runs: ProbeResult(
                recipe=group.recipe.name,
                metric="mAP" if several else "accuracy",
                classes=classes,
                train=len(seen.labels),
                test=len(unseen.labels),
                seeds={TRAINED: group.seeds, UNTRAINED: others},
                majority=majority(seen.labels, unseen.labels, classes),
                reached=[*reached(TRAINED, f"{TRAINED} {number}."), *shared],
            )
            for number, group in enumerate(groups)
        }


def _select_values(name: str, of: str, seen: Labelled, unseen: Labelled, classes: int) -> Iterator[float]:
    """Yield the score, with probe `name`, of each encoder whose name begins with `of`; the n-th encoder's attentive
    probe has seed n.
    """
    own = seen.tokens if name == "attentive" else seen.vectors
    for n, encoder in enumerate(one for one in own if one.startswith(of)):
        yield score(_compute_scores(name, encoder, seen, unseen, classes, n), unseen.labels)


def _compute_scores(name: str, encoder: str, seen: Labelled, unseen: Labelled, classes: int, seed: int) -> Tensor:
    if name == "attentive":
        return score_attentive(seen.tokens[encoder], seen.labels, unseen.tokens[encoder], classes, seed=seed)
    train, test = _standardise_both(seen.vectors[encoder], unseen.vectors[encoder])
    if name == "linear":
        return score_linear(train, seen.labels, test, classes)
    has = F.one_hot(seen.labels, classes).float() if seen.labels.ndim == 1 else seen.labels
    if name == WHITENED:
        train, test = whiten(train, test)
    return knn_scores(train, has, test, int(name.removeprefix("whitened").removeprefix("knn")))


def _standardise_both(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Standardise both by the mean and standard deviation of `train`; constant values become 0."""
    mean, deviation = train.mean(dim=0), train.std(dim=0, unbiased=False)
    deviation = torch.where(deviation > 1e-6 * deviation.max(), deviation, torch.inf)
    return (train - mean) / deviation, (test - mean) / deviation


def group_runs(runs: Sequence[str | Path]) -> list[RunGroup]:
    """Group runs by recipe, in the order of each recipe's first run; raise ValueError without a run."""
    if not runs:
        raise ValueError("probes need at least one run")
    groups: dict[str, RunGroup] = {}
    for run in map(Path, runs):
        recipe = run_recipe(run)
        key = json.dumps(recipe.to_dict(identity=True), sort_keys=True)
        before = groups[key].runs if key in groups else ()
        groups[key] = RunGroup(recipe=recipe, runs=(*before, run))
    return list(groups.values())


def _count_classes(train: Manifest) -> tuple[int, bool]:
    """Return the number of classes, and whether samples may have several."""
    if (classes := len(train.label_names)) < 2:
        raise ValueError(f"{train} has {classes} named classes, but a probe needs two or more")
    return classes, has_label_lists(train)


def _list_seeds(of_runs: Sequence[int], count: int) -> tuple[int, ...]:
    """Return `count` seeds: the distinct seeds of the runs, followed by larger ones."""
    found = list(dict.fromkeys(of_runs))[:count]
    while len(found) < count:
        found.append(max(found, default=-1) + 1)
    return tuple(found)
