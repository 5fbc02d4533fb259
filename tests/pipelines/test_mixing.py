"""One mixer: loaders, folders and sources of every modality are mixed alike, and packed rows are joined by it, too."""

from __future__ import annotations

import json
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from maskstream.pipelines import Loader, Split, image_loader, masks, mix, mix_rows, packed_loader, video_loader
from maskstream.preprocess.versions import append
from maskstream.shards.errors import ResumeError
from maskstream.shards.format.manifest import Manifest

from ..preprocess.versions.other_keys import with_other_keys
from .every_modality import IMAGE, LOADERS, PACKED, write_split

OPTIONS: dict[str, Any] = {"batch_size": 3, "device": "cpu", "threads": 1, "rank": 0, "world_size": 1}


def rows_of(name: str, loader: Loader[Any], batches: int = 4) -> list[Any]:
    return [LOADERS[name].rows(batch) for batch in islice(loader.repeat(), batches)]


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_folders_and_sources_are_mixed_alike(name: str, tmp_path: Path) -> None:
    modality = LOADERS[name]
    folders = [write_split(name, tmp_path / part) for part in "ab"]
    weighted = list(zip(folders, (3, 1), strict=True))
    kind = modality.shards or name
    splits = [(Split.open(one, kind, device="cpu", threads=1), weight) for one, weight in weighted]
    by_sources = Loader(mix([(modality.source(one), weight) for one, weight in splits]), **OPTIONS)
    by_loaders = mix([(modality.loader(one, **OPTIONS), weight) for one, weight in weighted])
    by_folders = modality.loader(weighted, **OPTIONS)
    assert by_sources.state_dict() == by_loaders.state_dict() == by_folders.state_dict()
    assert by_loaders.source_sizes == by_folders.source_sizes == tuple(len(one.manifest) for one, _ in splits)
    expected = rows_of(name, by_sources)
    assert rows_of(name, by_loaders) == rows_of(name, by_folders) == expected
    resumed = modality.loader(weighted, **OPTIONS)
    state = by_loaders.state_dict()
    resumed.load_state_dict(state)
    assert rows_of(name, resumed, 2) == rows_of(name, by_sources, 2)
    with pytest.raises(ResumeError, match="weight: saved 3"):
        modality.loader([(folders[0], 2), (folders[1], 1)], **OPTIONS).load_state_dict(state)


def test_a_position_of_a_mixture_opens_the_versions_of_its_splits(tmp_path: Path) -> None:
    """Also of a mixture in a mixture; a split that was named as a version, or opened, stays as it is."""
    one, two, other = (write_split("image", tmp_path / part) for part in ("a", "b", "more"))
    with_other_keys(other)

    def opened(version: int | None = None) -> list[Loader[Any]]:
        by_folders = image_loader([(one, 3), (two, 1)], **IMAGE, **OPTIONS, version=version)
        parts = [image_loader(folder, **IMAGE, **OPTIONS, version=version) for folder in (one, two)]
        return [by_folders, mix([(parts[0], 3), (parts[1], 1)]), mix([(mix([(parts[0], 1)]), 3), (parts[1], 1)])]

    states, expected = [], []
    for loader in opened():
        next(iter(loader))
        states.append(json.loads(json.dumps(loader.state_dict())))
        expected.append(rows_of("image", loader))
    append(one, other)
    for loader, state, rows in zip(opened(), states, expected, strict=True):
        loader.load_state_dict(state)
        assert loader.source_sizes == (len(Manifest.load(one, version=1)), len(Manifest.load(two)))
        assert rows_of("image", loader) == rows
        damaged = {**state, "sources": [0, *state["sources"][1:]]}
        with pytest.raises(ResumeError):
            loader.load_state_dict(damaged)
    named = mix([(image_loader(one, **IMAGE, **OPTIONS, version=2), 3), (image_loader(two, **IMAGE, **OPTIONS), 1)])
    with pytest.raises(ResumeError, match=r"sources\.0\.dataset"):
        named.load_state_dict(states[1])


def test_a_mixture_of_loaders_has_their_options_and_can_be_a_part(tmp_path: Path) -> None:
    folders = [write_split("image", tmp_path / part) for part in "abc"]
    one, two, three = (image_loader(folder, **IMAGE, **OPTIONS | {"workers": 1}) for folder in folders)
    inner = mix([(one, 1), (two, masks.Linear(start=1.0, end=2.0))], seed=4)
    assert inner.options == one.options
    with pytest.raises(ValueError, match="pass steps="):
        next(iter(inner))
    with_steps = [image_loader(folder, **IMAGE, **OPTIONS, steps=9) for folder in folders]
    inner = mix([(with_steps[0], 1), (with_steps[1], masks.Linear(start=1.0, end=2.0))], seed=4)
    outer = mix([(inner, 2), (with_steps[2], 1)], batches=5)
    sent = pickle.loads(pickle.dumps(outer))
    batch = next(iter(outer))
    assert (len(outer), len(batch.key)) == (5, 3)
    assert next(iter(sent)).key == batch.key
    three.close()


def test_what_cannot_be_mixed_is_said(tmp_path: Path) -> None:
    picture, clip = write_split("image", tmp_path / "image"), write_split("video", tmp_path / "video")
    loader = image_loader(picture, **IMAGE, **OPTIONS)
    source = loader.source
    wrong = (
        ([(loader, 1), (source, 1)], "needs either loaders or sources, got both"),
        (
            [(loader, 1), (image_loader(picture, **IMAGE, **OPTIONS | {"batch_size": 2}), 1)],
            "loader 1 has batch_size=2",
        ),
        ([(loader, 1), (video_loader(clip, **OPTIONS), 1)], "part 1 differs from part 0"),
        ([(loader, 1), (packed_loader(picture, **PACKED, device="cpu", rows=3, threads=1), 1)], "have|loader 1"),
        ([(picture, 1)], "takes loaders or BatchSources, got "),
        ([(loader, 0)], "weights must be numbers above 0"),
        ([loader], r"\(loader, weight\) pairs"),
        ([], "a mixture cannot be empty"),
    )
    for parts, said in wrong:
        with pytest.raises(ValueError, match=said):
            mix(parts)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="unit='tokens' works only with packed rows"):
        mix([(loader, 1)], unit="tokens")
    with pytest.raises(ValueError, match="epochs: allowed only with several splits"):
        image_loader(picture, epochs=(1, None))
    with pytest.raises(ValueError, match=r"\(folder, weight\) pairs"):
        image_loader([picture])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="works with a single split, not with a mixture"):
        video_loader([(clip, 1), (clip, 1)], backend="dali")


def test_the_former_name_of_the_mixer_of_rows_still_works(tmp_path: Path) -> None:
    folder = write_split("image", tmp_path)
    parts = [(packed_loader(folder, **PACKED, rows=2, device="cpu", threads=1), weight) for weight in (2, 1)]
    with pytest.warns(DeprecationWarning, match="use mix"):
        former = mix_rows(parts, unit="tokens")
    assert former.state_dict() == mix(parts, unit="tokens").state_dict()
