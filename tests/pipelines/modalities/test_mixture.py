"""Mixtures as settings: what a command line and a file mean, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskstream.pipelines import BySize, masks
from maskstream.pipelines.modalities.mixture import DataMixture, MixtureSource, mixture_of


def test_a_command_line_and_a_file_mean_the_same(tmp_path: Path) -> None:
    assert mixture_of(["a/train"]) == "a/train"
    by_words = mixture_of(["raw/a/train", "s3://b/train/"], "0.7, 3")
    assert isinstance(by_words, DataMixture)
    assert by_words.names == ("a/train", "b/train")
    assert [source.weight for source in by_words.sources] == [0.7, 3]
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(by_words.to_dict()))
    assert mixture_of([str(path)]) == by_words
    sources = [
        {"data": "a/train", "weight": {"kind": "Linear", "start": 0.9, "end": 0.1}},
        {"data": "b/train", "weight": {"kind": "BySize", "temperature": 3}, "epochs": 2, "name": "b"},
    ]
    path.write_text(json.dumps({"sources": sources}))
    made = mixture_of([str(path)])
    assert made == DataMixture(
        sources=(
            MixtureSource(data="a/train", weight=masks.Linear(start=0.9, end=0.1)),
            MixtureSource(data="b/train", weight=BySize(temperature=3), epochs=2, name="b"),
        )
    )
    assert made.names == ("a/train", "b")
    assert made.at(["x/c", "y/d"]).names == made.names


TWO: list[dict[str, Any]] = [{"data": "a/train"}, {"data": "b/train"}]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (TWO[:1], "two sources or more, got 1"),
        ([TWO[0], TWO[0]], "two sources are called 'a/train'.*give each a name"),
        ([TWO[0], TWO[1] | {"weight": "3"}], "sources.1.weight: int or float or Schedule or BySize is wanted"),
        ([TWO[0], TWO[1] | {"weights": 3}], "no field 'weights', did you mean 'weight'"),
        ([TWO[0], TWO[1] | {"weight": {"kind": "Linar"}}], "did you mean 'Linear'"),
    ],
)
def test_files_of_mixtures_say_what_is_wrong(sources: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"sources": sources}))
    with pytest.raises(ValueError, match=f"(?s)mixture in .*mixture.json: .*{said}"):
        mixture_of([str(path)])


@pytest.mark.parametrize(
    ("data", "weights", "said"),
    [
        (["a/train"], "0.7,0.3", "is of several splits, got one --data"),
        (["a/train", "b/train"], "1", "1 weights for 2 splits"),
        (["a/train", "b/train"], "1,x", "'x' is no number above 0"),
        (["a/train", "b/train"], "1,0", "'0' is no number above 0"),
        (["a/train", "b/train"], "1,inf", "'inf' is no number above 0"),
        (["a/train", "m.json"], None, "m.json is a file of a mixture, and others stand beside it"),
        (["no.json"], None, "no.json is no file of a mixture"),
    ],
)
def test_command_lines_say_what_is_wrong(data: list[str], weights: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mixture_of(data, weights)
