"""Changes splits at random while a run trains on them, and replays every step: each is what the model had, and where
samples were erased since, these rows and no others are said to show another sample.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from maskstream.pipelines import DataMixture
from maskstream.pipelines.stream.batch import Batch, _mapped
from maskstream.preprocess.curate import curate
from maskstream.preprocess.versions import append, erase, remove
from maskstream.shards.errors import MaskstreamError, ResumeError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import replay, train
from maskstream.train.core.step import Stepper

from ..pipelines.every_modality import write_split
from ..preprocess.versions.other_keys import with_other_keys
from .train_kills import SMALL

ROUNDS, STEPS = 4, 3
"""How often a run goes on after a change, and its steps each time."""


def digest_rows(batch: Batch) -> list[str]:
    """The sha256 of all values of each row."""

    def digest(row: int) -> str:
        own = _mapped(batch, lambda tensor: tensor[row].numpy().tobytes() if len(tensor) == len(batch) else b"")
        return hashlib.sha256(pickle.dumps(replace(own, key=[batch.key[row]]))).hexdigest()

    return [digest(row) for row in range(len(batch))]


@dataclass(slots=True)
class Story:
    """A run on splits that change. seen: by step, the key and the digest of each row that the model had."""

    run: Path
    splits: list[Path]
    seen: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)

    def train(self, steps: int, version: int | None) -> None:
        """Goes on to step `steps`, in a version of the one split if it can."""
        step = Stepper.step

        def noted(stepper: Stepper, batches: Any, **given: Any) -> Any:
            rows = [row for one in batches for row in zip(one.key, digest_rows(one), strict=True)]
            self.seen[given["number"] + 1] = rows
            return step(stepper, batches, **given)

        options: Mapping[str, Any] = {"save_every": 1, "device": "cpu", "threads": 1, "progress": False}
        data = self.splits[0] if len(self.splits) == 1 else DataMixture.of(self.splits)
        with patch.object(Stepper, "step", noted):
            try:
                train("mae-tiny", data, self.run, set=SMALL, steps=steps, data_version=version, **options)
            except ResumeError:  # the version has other samples than the run
                train("mae-tiny", data, self.run, set=SMALL, steps=steps, **options)

    def change(self, rng: np.random.Generator, number: int) -> None:
        """Removes, erases or curates samples of a split, or appends some to it."""
        split = self.splits[rng.integers(len(self.splits))]
        manifest = Manifest.load(split)
        there = sorted({*manifest.keys(range(len(manifest)))} - {*manifest.keys(manifest.removed)})
        what = str(rng.choice(["remove", "erase", "append", "curate"]))
        if what == "append" or len(there) < 6:
            other = write_split("image", split.parent / f"more-{number}")
            with_other_keys(other, f"{number}-")
            append(split, other)
        elif what == "curate":
            curate(split, keep=f"brightness>p{rng.integers(10, 40)}")
        else:
            keys = rng.choice(there, rng.integers(1, 3), replace=False).tolist()
            (remove if what == "remove" else erase)(split, keys)
            self.erased |= {*keys} if what == "erase" else set()

    def judge(self, step: int) -> str:
        """How the replay of a step ends."""
        made, seen = replay(self.run, step, threads=1), self.seen[step]
        rows = [row for one in made.batches for row in zip(one.key, digest_rows(one), strict=True)]
        gone = {row for row, (key, _) in enumerate(seen) if key in self.erased}
        right = made.recorded and {*made.replaced} == gone and len(rows) == len(seen)
        right &= all(made.replaced[row].why == "erased" for row in gone)
        right &= all(row in gone or rows[row] == one for row, one in enumerate(seen))
        return "wrong" if not right else "named" if gone else "exact"


def attack(count: int, seed: int, folder: Path) -> Counter[str]:
    """Replays the steps of `count` runs; a run counts by its worst step."""
    torch.set_num_threads(1)
    ends = Counter[str]()
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        story = Story(run=folder / f"{number}" / "run", splits=[])
        for name in ("one", "two")[: 1 + number % 2]:
            story.splits.append(write_split("image", folder / f"{number}" / name))
        if len(story.splits) > 1:
            with_other_keys(story.splits[1])
        try:
            for part in range(ROUNDS):
                if part:
                    for more in range(rng.integers(1, 3)):
                        story.change(rng, 10 * part + more)
                one = Manifest.load(story.splits[0]).version
                story.train((part + 1) * STEPS, one if len(story.splits) == 1 and rng.random() < 0.3 else None)
            story.change(rng, 10 * ROUNDS)
            found = [story.judge(step) for step in story.seen]
            end = next(end for end in ("wrong", "named", "exact") if end in found)
        except (MaskstreamError, ValueError) as error:
            end = f"refused: {error}"[:60]
        except Exception as error:
            print(f"seed {seed}, attack {number}: {error!r}", file=sys.stderr)
            end = "foreign"
        if end == "wrong":
            print(f"seed {seed}, attack {number}: {found}", file=sys.stderr)
        ends[end] += 1
    return ends
