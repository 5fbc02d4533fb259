"""Recursive ROAR: measures the faithfulness of importance measures by hiding important tokens and retraining.

At each level a fraction of the tokens, ranked highest by a measure, is hidden in all texts, a new model is trained on
the rest, and its macro F1 is measured on test texts hidden in the same way. A measure is faithful if F1 falls faster
than when random tokens are hidden. In the recursive form, each level ranks tokens with the previous level's model, and
hidden tokens remain hidden, so that redundant words are found one after another.

Source: Madsen et al. (2022), "Evaluating the faithfulness of importance measures in NLP by recursively masking
allegedly important tokens and retraining", after ROAR (Hooker et al., 2019). Masks are drawn by the loader:
`masks.TopScores` over a file of scores by key (`TokenScores`); no data are copied.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from maskstream.pipelines.masks import Padded, Replace, TopScores
from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.pipelines.modalities.text.token_scores import TokenScores
from maskstream.shards.arrays import Float32s
from maskstream.shards.config import Json, rebuild
from maskstream.shards.format.manifest import Manifest, SplitLocation
from maskstream.shards.stores.local_files import publish
from maskstream.train.core.options import TrainingSettings
from maskstream.train.core.process import compute_threads
from maskstream.train.core.recipe import Recipe, check_modality
from maskstream.train.core.run import train_recipe
from maskstream.train.core.run_folder import MODEL
from maskstream.train.core.weights import load_model
from maskstream.train.evaluate.evaluation import compute_macro_f1, read_batches
from maskstream.train.evaluate.features import match_labels

from .model import CONTROL, MEASURES, RANDOM, TextClassifier, TextClassifierConfig, measure_importance
from .options import RoarSettings

ROAR = "roar.json"
"""The file of a result."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class RoarCurve:
    """The macro F1 at each level, of a measure and a seed."""

    measure: str
    seed: int
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RoarResult:
    """The result of a comparison.

    Attributes:
        recipe: Name of the recipe.
        recursive: Whether each level ranks tokens with the previous level's model.
        levels: Percentages of hidden tokens, from 0 to 100.
        test: Number of test texts.
        majority: Macro F1 of always predicting the most frequent class.
        curves: Curves of all measures and seeds, including `random` and `random again`.
    """

    recipe: str
    recursive: bool
    levels: tuple[int, ...]
    test: int
    majority: float
    curves: list[RoarCurve]

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures, in the order in which they were computed."""
        return tuple(dict.fromkeys(curve.measure for curve in self.curves))

    def of(self, measure: str) -> list[RoarCurve]:
        """Return the curves of a measure, one per seed."""
        return [curve for curve in self.curves if curve.measure == measure]

    def racu(self, measure: str) -> list[float]:
        """Return the relative area between the random curve and the measure's, for each seed (see `racu`)."""
        random = {curve.seed: curve.values for curve in self.of(RANDOM)}
        return [racu(self.levels, random[curve.seed], curve.values) for curve in self.of(measure)]

    def to_dict(self) -> Json:
        """Return the result as JSON, with the RACU of each measure: by seed, mean, smallest and largest."""
        names = [name for name in self.measures if name != RANDOM]
        areas = {name: self.racu(name) for name in names}
        return {
            **asdict(self),
            "racu": {
                name: {"values": own, "mean": sum(own) / len(own), "least": min(own), "most": max(own)}
                for name, own in areas.items()
            },
        }

    @classmethod
    def from_dict(cls, data: Json) -> Self:
        """Rebuild a result from the output of `to_dict`; raise ValueError for anything else."""
        try:
            return rebuild(cls, data)
        except ValueError as error:
            raise ValueError(f"the object is not a ROAR result ({error}); run `maskstream paper roar` again") from error


def racu(levels: Sequence[float], random: Sequence[float], measure: Sequence[float]) -> float:
    """Return the relative area between curves (RACU), clipped to [-1, 1].

    It is the area between the random curve and the measure's, divided by the area between the random curve and its last
    value, where all tokens are hidden; by trapezoids. 1 is a measure that removes all information at the first level, 0
    is random, below 0 is worse than random. Source: Madsen et al. (2022), sec. 4.3, as computed by their code.

    Args:
        levels: Percentages of hidden tokens.
        random: Values of the random curve.
        measure: Values of the measure's curve.

    Raises:
        ValueError: The random curve has no area.
    """
    x, base, own = (np.asarray(values, np.float64) for values in (levels, random, measure))
    largest = np.trapezoid(base - base[-1], x)
    if largest <= 0:
        raise ValueError(
            f"hiding all tokens costs the model nothing (from {base[0]:.3f} to {base[-1]:.3f}), so the "
            "curves cannot be compared; train longer, or on texts whose labels can be learned"
        )
    return float(np.clip(np.trapezoid(base - own, x) / largest, -1, 1))


def roar(
    recipe: Recipe[Any],
    train: SplitLocation,
    test: SplitLocation,
    out: str | Path,
    settings: RoarSettings,
    *,
    device: torch.device,
    said: Callable[[str], None] = lambda line: None,
) -> RoarResult:
    """Compare measures on the texts of two labelled splits, with a classifier trained at every level.

    Random hiding is always measured, twice: `random` is the baseline, and `random again` differs only in its random
    draws. Finished parts are stored in `out`, and a repeated call continues. Levels 0 and 100 are trained once per
    seed, since they are the same for all measures.

    Args:
        recipe: Recipe of the classifier.
        train: Location of the training split.
        test: Location of the test split.
        out: Folder of the results.
        settings: Settings of the comparison.
        device: Device to train on.
        said: Called with a line for each curve.

    Raises:
        ValueError: The model does not classify texts, or a split has no classes.
    """
    train, test = Manifest.load(train), Manifest.load(test)
    test = match_labels(test, train.label_names, str(train))
    compared = _Compared(
        recipe=recipe,
        train=train,
        test=test,
        out=Path(out),
        settings=settings,
        steps=recipe.run_length(train) if settings.steps is None else settings.steps,
        device=device,
    )
    names = (RANDOM, CONTROL, *compared.checked(settings.measures))
    curves: list[RoarCurve] = []
    with compute_threads(device):
        for seed in range(settings.seeds):
            for measure in names:
                curves.append(compared.curve(measure, seed))
                said(f"{measure}, seed {seed}: " + " ".join(f"{value:.3f}" for value in curves[-1].values))
        tested = torch.cat([batch.label for batch in compared.tests(recipe.data)])
    guess = torch.full_like(tested, int(tested.bincount().argmax()))
    result = RoarResult(
        recipe=recipe.name,
        recursive=settings.recursive,
        levels=settings.levels,
        test=len(tested),
        majority=compute_macro_f1(guess, tested),
        curves=sorted(curves, key=lambda curve: (names.index(curve.measure), curve.seed)),
    )
    publish(compared.out / ROAR, (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    """One comparison: its recipe, splits, settings and folder."""

    recipe: Recipe[Any]
    train: Manifest
    test: Manifest
    out: Path
    settings: RoarSettings
    steps: int
    device: torch.device

    def checked(self, measures: Sequence[str]) -> tuple[str, ...]:
        """Return the measures to compare; raise ValueError for an unsuitable recipe, split or measure."""
        config, data = self.recipe.model, self.recipe.data
        if not isinstance(config, TextClassifierConfig) or not isinstance(data, TextData):
            raise ValueError(
                f"the model of {self.recipe.name}, a {type(config).__name__}, does not classify texts; pass a recipe "
                "such as roar-lstm-tiny or roar-roberta-tiny"
            )
        if data.packing == "pack" or data.windows or data.mask is not None:
            raise ValueError("ROAR hides the tokens itself; use data.packing=row, data.windows=false and no mask")
        for split in (self.train, self.test):
            check_modality(self.recipe, split)
        if len(names := self.train.label_names) < 2:
            raise ValueError(f"{self.train} needs at least two named classes, got {len(names)}")
        if unknown := [name for name in measures if name not in MEASURES]:
            raise ValueError(f"unknown measure {unknown[0]!r}; choose from {', '.join(MEASURES)}")
        if measures:
            return tuple(measures)
        model, batch = self.recipe.build(), next(self.tests(data))
        assert isinstance(model, TextClassifier)
        with torch.no_grad():
            attends = model.read(model.vectors(batch), batch).attention is not None
        return tuple(name for name in MEASURES if attends or name != "attention")

    def curve(self, measure: str, seed: int) -> RoarCurve:
        """Return the curve of a measure and a seed, read from its file if it is finished."""
        file = self.out / f"seed-{seed}" / f"{measure.replace(' ', '-')}.json"
        asked = self._asked(measure, seed)
        done = json.loads(file.read_text()) if file.exists() else {}
        if done.get("of") != asked:
            first, model = self._once(0, seed, None)
            values, data = [first], self._shown(None, None)
            for level in self.settings.levels[1:-1]:
                scored = self._write_scores(measure, seed, level, model, data)
                hidden = self._shown(level, scored)
                value, trained = self._train_on_level(file.parent / "run", hidden, seed)
                values.append(value)
                if self.settings.recursive:
                    model, data = trained, hidden
            values.append(
                self._once(100, seed, lambda: self._write_scores(RANDOM, seed, 100, model, self._shown(None, None)))[0]
            )
            done = {"of": asked, "values": values}
            publish(file, (json.dumps(done) + "\n").encode())
        return RoarCurve(measure=measure, seed=seed, values=tuple(done["values"]))

    def tests(self, data: Any) -> Iterator[TextBatch]:
        """Yield the labelled test texts to measure."""
        n = min(len(self.test), self.settings.samples)
        size = min(n, _AT_ONCE)
        for batch in read_batches(data, self.test, size=size, samples=n // size * size, shuffle=True):
            if (batch.label < 0).any():
                raise ValueError(f"{self.test} has texts without a label; ROAR needs one for each")
            yield batch

    def _asked(self, measure: str, seed: int) -> Json:
        """Return the settings that determine a curve; a saved curve with other settings is measured again."""
        return {
            "recipe": self.recipe.to_dict(identity=True),
            "levels": list(self.settings.levels),
            "train": str(self.train),
            "test": str(self.test),
            "steps": self.steps,
            **{name: getattr(self.settings, name) for name in ("samples", "points", "recursive")},
            "measure": measure,
            "seed": seed,
        }

    def _once(
        self, level: int, seed: int, scored: Callable[[], Mapping[str, TokenScores]] | None
    ) -> tuple[float, TextClassifier]:
        """Return the score and the model at a level that all measures share, trained once."""
        folder = self.out / f"seed-{seed}" / f"level-{level}"
        asked, file = self._asked("", seed), folder / "level.json"
        done = json.loads(file.read_text()) if file.exists() else {}
        if done.get("of") == asked:
            return float(done["value"]), _make_classifier(folder / MODEL)
        data = self._shown(None if scored is None else level, None if scored is None else scored())
        value, model = self._train_on_level(folder.with_name("run"), data, seed, keep=folder)
        publish(file, (json.dumps({"of": asked, "value": value}) + "\n").encode())
        return value, model

    def _shown(self, level: int | None, scores: Mapping[str, TokenScores] | None) -> dict[str, TextData]:
        """Return the data configs of both splits at a level; without scores nothing is hidden."""
        data = self.recipe.data
        assert isinstance(data, TextData)
        if level is None or scores is None:
            return {"train": data, "test": data}
        mask = Padded(mask=Replace(mask=TopScores(ratio=level / 100), keep=0.0, random=0.0))
        return {split: replace(data, mask=mask, scores=own) for split, own in scores.items()}

    def _write_scores(
        self, measure: str, seed: int, level: int, model: TextClassifier, data: Mapping[str, TextData]
    ) -> dict[str, TokenScores]:
        """Write the scores by `model` of all texts that a run shows, and of the test texts."""
        shown = {"train": self._list_trained_texts(data["train"], seed), "test": self.tests(data["test"])}
        made = {}
        for split, some in shown.items():
            found: dict[str, Float32s] = {}
            for batch in some:
                rows = measure_importance(model, batch.to(self.device), measure, seed=seed, points=self.settings.points)
                found |= dict(zip(batch.key, rows, strict=True))
            folder = self.out / f"seed-{seed}" / "scores"
            folder.mkdir(parents=True, exist_ok=True)
            made[split] = TokenScores.written(found, folder / f"{split}-{level}.safetensors")
        return made

    def _list_trained_texts(self, data: TextData, seed: int) -> Iterator[TextBatch]:
        """Yield the texts that a run with this seed returns, in order: up to an epoch."""
        recipe = replace(self.recipe, data=data)
        with closing(recipe.loader(self.train, steps=self.steps, seed=seed, device="cpu", threads=1)) as loader:
            yield from islice(loader, self.steps)

    def _train_on_level(
        self, run: Path, data: Mapping[str, TextData], seed: int, keep: Path | None = None
    ) -> tuple[float, TextClassifier]:
        """Train a model on the texts of a level; return its macro F1 on the test texts, and the model."""
        recipe = replace(self.recipe, data=data["train"])
        train_recipe(
            recipe,
            self.train,
            run,
            TrainingSettings(
                steps=self.steps,
                seed=seed,
                device=self.device,
                threads=1,
                compile="no",
                save_every=self.steps + 1,
                resume=False,
                progress=False,
            ),
        )
        model = _make_classifier(run / MODEL).to(self.device)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / MODEL, keep / MODEL)
        shutil.rmtree(run)
        predicted, labels = [], []
        with torch.inference_mode():
            for batch in self.tests(data["test"]):
                predicted.append(model.scores(batch.to(self.device)).argmax(dim=1).cpu())
                labels.append(batch.label)
        return compute_macro_f1(torch.cat(predicted), torch.cat(labels)), model


def _make_classifier(file: Path) -> TextClassifier:
    model = load_model(file)
    if not isinstance(model, TextClassifier):
        raise ValueError(f"{file} contains no text classifier; pass a different folder to --out")
    return model
