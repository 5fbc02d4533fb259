"""Labels keep their names: a number in the batches of a mixture is the same class, whichever part a row comes from."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskstream.pipelines import Loader, image_loader, masks, mix, packed_loader
from maskstream.pipelines.augment import Native
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.mixture import DataMixture, OpenMixture
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.batch import Batch
from maskstream.shards.format.manifest import Manifest, join_label_names

from ..train.labelled_pictures import write_split

DATA = ImageData(size=16, patch=4, mask=masks.Random(ratio=0.5))
TABLES = (("cat", "dog", "cow"), ("bird", "cat", "dog"), ("cow", "owl", "bird"))
"""The names of each split by the numbers that it stores."""
JOINED = ("cat", "dog", "cow", "bird", "owl")
COUNT = 12


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A split for each table; sample i has the label i % 3, and lists of the classes i % 3 and 2."""
    folder = tmp_path_factory.mktemp("named")
    return [write_split(folder / f"{n}", COUNT, n, several=True, names=names) for n, names in enumerate(TABLES)]


def source(split: Path, data: ImageData = DATA) -> Any:
    return data.source(Split.open(split, "image", device="cpu", seed=0))


def shown(batches: Iterator[Batch], names: tuple[str, ...]) -> set[tuple[int, str, str]]:
    """The part, the key and the class of each row."""
    return {
        (part, key, names[label] if label >= 0 else "")
        for batch in batches
        for part, key, label in zip(batch.source.tolist(), batch.key, batch.label.tolist(), strict=True)
    }


def stored(parts: list[int], tables: tuple[tuple[str, ...], ...] = TABLES) -> set[tuple[int, str, str]]:
    """The same by what was written."""
    return {
        (n, f"s{i:03d}", "" if i == COUNT - 1 else tables[part][i % 3])
        for n, part in enumerate(parts)
        for i in range(COUNT)
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mixture_numbers_all_labels_by_the_names_of_all_parts(splits: list[Path], workers: int) -> None:
    made = Loader(mix([(source(split), 1) for split in splits]), batch_size=9, device="cpu", workers=workers, threads=1)
    assert made.label_names == JOINED
    assert shown(iter(made), made.label_names) == stored([0, 1, 2])
    made.close()


def test_parts_of_a_mixture_in_a_mixture_have_its_table(splits: list[Path]) -> None:
    inner = mix([(source(splits[1]), 1), (source(splits[2]), 1)])
    made = Loader(mix([(inner, 2), (source(splits[0]), 1)]), batch_size=9, device="cpu", threads=1)
    assert made.label_names == ("bird", "cat", "dog", "cow", "owl")
    names = {(key, name) for _, key, name in shown(iter(made), made.label_names)}
    assert names == {(key, name) for _, key, name in stored([1, 2, 0])}


def test_rows_that_several_splits_share_have_one_table(splits: list[Path]) -> None:
    options: Any = {"row_tokens": 64, "mask": masks.Random(ratio=0.5), "native": Native(patch=4, least=4, most=16)}
    made = packed_loader([(split, 1) for split in splits], rows=2, device="cpu", threads=1, **options)
    assert made.label_names == JOINED
    assert shown(iter(made), made.label_names) <= stored([0, 1, 2])
    data = PackedData(fields=("labels",), **options)
    parts = [(data.source(Split.open(split, "image", device="cpu")), 1) for split in splits]
    for batch in Loader(mix(parts), batch_size=2, device="cpu", threads=1):
        check_lists(batch)


def check_lists(batch: Batch) -> None:
    hot = batch.fields["labels"]
    assert isinstance(hot, torch.Tensor)
    for part, key, row in zip(batch.source.tolist(), batch.key, hot, strict=True):
        own = TABLES[part]
        assert {JOINED[n] for n in row.nonzero()[:, 0].tolist()} == {own[int(key[1:]) % 3], own[2]}


def test_numbers_of_classes_in_a_samples_json_follow_the_table(splits: list[Path]) -> None:
    data = ImageData(size=16, patch=4, mask=masks.Random(ratio=0.5), fields=("labels",))
    for batch in Loader(mix([(source(one, data), 1) for one in splits]), batch_size=9, device="cpu", threads=1):
        check_lists(batch)


def test_a_mixture_whose_sizes_change_over_the_run_has_one_table(splits: list[Path]) -> None:
    sizes = masks.Piecewise(points=((0, 32), (0.5, 32), (0.5, 16)))
    data = ImageData(size=16, patch=4, mask=masks.Random(ratio=0.5), over_run={"size": sizes})
    made = Loader(mix([(source(one, data), 1) for one in splits]), batch_size=9, device="cpu", threads=1, steps=8)
    batches = made.repeat()
    assert shown((next(batches) for _ in range(8)), made.label_names) == stored([0, 1, 2])


def test_equal_tables_stay_as_they_are_stored(splits: list[Path], tmp_path: Path) -> None:
    other = write_split(tmp_path / "other", COUNT, 9, names=TABLES[0])
    made = mix([(source(splits[0]), 1), (source(other), 1)])
    assert all(split.stored_names is None for split in made.sampler.splits)
    assert Loader(made, batch_size=4, device="cpu", threads=1).label_names == TABLES[0]
    assert image_loader(splits[0], device="cpu", size=16).label_names == TABLES[0]


def test_a_position_that_was_saved_continues(splits: list[Path]) -> None:
    first, second = (
        Loader(mix([(source(one), 1) for one in splits]), batch_size=4, device="cpu", threads=1) for _ in range(2)
    )
    batches = first.repeat()
    for _ in range(3):
        next(batches)
    second.load_state_dict(first.state_dict())
    one, other = next(batches), next(second.repeat())
    assert one.key == other.key
    assert torch.equal(one.label, other.label)


def test_numbers_without_names_are_called_by_themselves_only_beside_names(splits: list[Path], tmp_path: Path) -> None:
    bare = [write_split(tmp_path / f"{n}", COUNT, n, names=()) for n in range(2)]
    alone = mix([(source(one), 1) for one in bare])
    assert join_label_names(alone.sampler.splits) == ()
    beside = Loader(mix([(source(splits[0]), 1), (source(bare[0]), 1)]), batch_size=8, device="cpu", threads=1)
    assert beside.label_names == (*TABLES[0], "0", "1", "2")
    tables = (TABLES[0], ("0", "1", "2"))
    assert shown(iter(beside), beside.label_names) == stored([0, 1], tables)


def test_a_mixture_of_a_run_is_one_table_too(splits: list[Path]) -> None:
    mixture = DataMixture.of([str(split) for split in splits[:2]])
    opened = OpenMixture(mixture=mixture.at(splits[:2]), manifests=tuple(map(Manifest.load, splits[:2])))
    assert [one.label_names for one in opened.manifests] == [("cat", "dog", "cow", "bird")] * 2
    assert opened.manifests[1].label.tolist()[:3] == [3, 0, 1]


def test_a_split_in_another_table_is_the_same_in_another_process(splits: list[Path]) -> None:
    split = Manifest.load(splits[1]).with_labels(JOINED)
    again = pickle.loads(pickle.dumps(split))
    assert again.label_names == JOINED
    assert np.array_equal(again.label, split.label)
    back = again.with_labels(TABLES[1])
    assert np.array_equal(back.label, Manifest.load(splits[1]).label)


def test_labels_that_keep_their_numbers_take_no_memory(splits: list[Path]) -> None:
    stored = Manifest.load(splits[0])
    assert np.shares_memory(stored.with_labels(JOINED).label, stored.label)


def test_a_class_that_a_table_lacks_is_refused_by_name(splits: list[Path]) -> None:
    with pytest.raises(
        ValueError, match=r"has 4 samples with the classes 'bird', which are not among the 3 classes 'cat'"
    ):
        Manifest.load(splits[1]).with_labels(TABLES[0])
