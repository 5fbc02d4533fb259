"""Mixtures as settings: what a command line and a file mean, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskstream.pipelines import BySize, masks
from maskstream.pipelines.modalities.mixture import DataMixture, MixtureSource, parse_mixture
from maskstream.pipelines.stream.mix_order import MixSamples
from maskstream.pipelines.stream.samples import SplitSamples


def test_a_command_line_and_a_file_mean_the_same(tmp_path: Path) -> None:
    assert parse_mixture(["a/train"]) == "a/train"
    by_words = parse_mixture(["raw/a/train", "s3://b/train/"], "0.7, 3")
    assert isinstance(by_words, DataMixture)
    assert by_words.names == ("a/train", "b/train")
    assert [source.weight for source in by_words.sources] == [0.7, 3]
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps(by_words.to_dict()))
    assert parse_mixture([str(path)]) == by_words
    sources = [
        {"data": "a/train", "weight": {"kind": "Linear", "start": 0.9, "end": 0.1}},
        {"data": "b/train", "weight": {"kind": "BySize", "temperature": 3}, "epochs": 2, "name": "b"},
    ]
    path.write_text(json.dumps({"sources": sources}))
    made = parse_mixture([str(path)])
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
        (TWO[:1], "at least two sources, got 1"),
        ([TWO[0], TWO[0]], "two sources are called 'a/train'.*choose a unique name for each"),
        ([TWO[0], TWO[1] | {"weight": "3"}], "sources.1.weight: expected int or float or Schedule or BySize"),
        ([TWO[0], TWO[1] | {"weights": 3}], "no field 'weights', did you mean 'weight'"),
        ([TWO[0], TWO[1] | {"weight": {"kind": "Linar"}}], "did you mean 'Linear'"),
        (
            [TWO[0], TWO[1] | {"weight": {"kind": "this:x"}}],
            "data refers to the class 'this:x'; only commands and configs that you write yourself",
        ),
        ([TWO[0], TWO[1] | {"epochs": 10**400}], "sources.1.epochs: expected float or null"),
        (
            [TWO[0], TWO[1] | {"weight": {"kind": "Linear", "start": 10**400, "end": 1}}],
            "weight.start: expected a value of type float",
        ),
    ],
)
def test_files_of_mixtures_say_what_is_wrong(sources: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"sources": sources}))
    with pytest.raises(ValueError, match=f"(?s)mixture in .*mixture.json: .*{said}"):
        parse_mixture([str(path)])


@pytest.mark.parametrize(
    ("data", "weights", "said"),
    [
        (["a/train"], "0.7,0.3", "needs several splits, got one --data"),
        (["a/train", "b/train"], "1", "1 weights for 2 splits"),
        (["a/train", "b/train"], "1,x", "'x' is not a number above 0"),
        (["a/train", "b/train"], "1,0", "'0' is not a number above 0"),
        (["a/train", "b/train"], "1,inf", "'inf' is not a number above 0"),
        (["a/train", "m.json"], None, "m.json is a mixture file, so it must be the only --data"),
        (["no.json"], None, "no.json is not a mixture file"),
    ],
)
def test_command_lines_say_what_is_wrong(data: list[str], weights: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_mixture(data, weights)


def test_a_process_that_has_imported_nothing_else_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"sources": [TWO[0], TWO[1] | {"weight": {"kind": "Linear", "start": 1, "end": 0}}]}))
    code = "from maskstream.pipelines.modalities.mixture import DataMixture as D; print(D.read(sys.argv[1]).sources)"
    done = subprocess.run([sys.executable, "-c", f"import sys; {code}", str(path)], capture_output=True, text=True)
    assert "weight=Linear(start=1.0, end=0.0" in done.stdout, done.stderr


def test_a_file_imports_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mixture.json"
    path.write_text(json.dumps({"sources": [TWO[0], TWO[1] | {"weight": {"kind": "this:x"}}]}))
    sys.modules.pop("this", None)
    with pytest.raises(ValueError, match="data refers to the class 'this:x'"):
        DataMixture.read(path)
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("weights", "epochs", "said"),
    [
        ((1, 10**400), None, "weights must be numbers above 0, .*got 1000.*; leave out"),
        ((1, 1 << 31), None, "integer weights must sum to at most 1,073,741,824"),
        ((1, BySize(temperature=1e-6)), None, r"20 \*\* \(1 / 1e-06\) is too large"),
        ((1, 1), (None, 1e308), "epochs=1e.308: each must be None, or a number above 0"),
    ],
)
def test_numbers_that_are_too_large_are_refused(weights: Any, epochs: Any, said: str) -> None:
    parts = tuple(SplitSamples(shard_sizes=(10, 10)) for _ in weights)
    with pytest.raises(ValueError, match=said):
        MixSamples(parts=parts, weights=weights, epochs=epochs).order(4)
