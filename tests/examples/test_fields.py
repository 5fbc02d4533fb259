"""The examples of docs/fields.md, as they stand there, on small splits at the places that they name."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from arm import episode
from lerobot_layout import write_lerobot

from maskstream.preprocess import make_shards
from maskstream.shards import Sample, json_member

from ..pipelines.every_modality import MODALITIES
from ..splits import write_samples

TEXT = (Path(__file__).parents[2] / "docs/fields.md").read_text()
EXAMPLES = dict(re.findall(r"## ([^\n]+)\n(?:(?!\n## ).)*?```python\n(.*?)```", TEXT, re.DOTALL))
CLASSES = ("dog", "horn", "rain")


def write(folder: Path, modality: str, samples: list[Sample]) -> None:
    write_samples(folder, samples, modality, label_names=CLASSES)


def told(modality: str, raw: Path, about: list[dict[str, Any]]) -> list[Sample]:
    """The first samples of a modality, with these as their json."""
    raw.mkdir()
    made = MODALITIES[modality].samples(raw)
    return [
        replace(one, members={**one.members, "json": json_member(said)}) for one, said in zip(made, about, strict=False)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/shards/audioset, captions and aloha in it."""
    folder = tmp_path_factory.mktemp("place")
    heard = [{"labels": ["dog", "rain"]}, {"labels": ["horn"]}, {"labels": [0, 1, 2]}, {"labels": []}]
    write(folder / "data/shards/audioset/train", "audio", told("audio", folder / "a", heard))
    said = [{"caption": "a dog in the rain"}, {}, {"caption": "a horn"}, {"caption": "a dog"}]
    write(folder / "data/shards/captions/train", "video", told("video", folder / "v", said))
    tasks = ("reach the cube", "push the cube away")
    write_lerobot(folder / "raw", [episode(n, tasks[n], 20) for n in range(2)], {"train": "0:2"})
    make_shards("lerobot", folder / "raw", folder / "data/shards/aloha", workers=0)
    make_shards("lerobot", folder / "raw", folder / "data/shards/aloha-both", settings=["cameras=together"], workers=0)
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(title: str) -> dict[str, Any]:
        monkeypatch.chdir(place)
        names: dict[str, Any] = {}
        exec(compile(EXAMPLES[title], title, "exec"), names)
        return names

    return of


def test_there_are_six_examples() -> None:
    titles = ["Several labels", "Captions", "Actions over time", "Action horizons", "Two cameras", "Sample weights"]
    assert list(EXAMPLES) == titles


def test_several_labels(run: Any) -> None:
    found = run("Several labels")
    assert sorted(found["classes"].tolist()) == [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]]
    assert torch.isfinite(found["loss"])


def test_captions(run: Any) -> None:
    found = run("Captions")
    assert sorted(found["captions"]) == ["", "a dog", "a dog in the rain", "a horn"]
    assert [len(one) for one in found["ids"]] == [len(text.split()) for text in found["captions"]]


def test_actions_over_time(run: Any) -> None:
    found = run("Actions over time")
    assert found["actions"].shape == found["states"].shape == (4, 4, 2)
    turned = found["states"].diff(dim=1).sign()
    assert torch.equal(turned, found["actions"][:, :-1].sign()), "a joint turns the way that its action says"
    assert Counter(found["tasks"]) == {"reach the cube": 2, "push the cube away": 2}


def test_action_horizons(run: Any) -> None:
    found = run("Action horizons")
    last = (found["batch"].pts_s[:, -1] * 30).round().long()
    assert found["actions"].shape == (4, 8, 2)
    assert torch.equal(found["missing"], last[:, None] + torch.arange(8) >= 20), "episodes of 20 frames"
    turned = found["actions"][:, 0] / (found["states"][:, 1] - found["states"][:, 0])
    assert (turned > 0).all(), "a joint goes on in its direction"


def test_two_cameras(run: Any) -> None:
    found = run("Two cameras")
    top, wrist = found["top"], found["wrist"]
    assert top.key == wrist.key
    assert torch.equal(top.pts_s, wrist.pts_s)
    assert torch.equal(found["actions"], wrist.fields["action"])
    assert not torch.equal(top.mask.masked, wrist.mask.masked)
    assert (top.video.float() - wrist.video.float()).abs().mean() > 5


def test_sample_weights(run: Any) -> None:
    found = run("Sample weights")
    counts = Counter(found["keys"])
    assert sum(counts.values()) == 4
    for number in range(4):
        wanted = 4 * (3 if number % 2 else 1) / 8
        assert abs(counts[f"s{number}"] - wanted) < 1
    assert max(counts.values()) == 2
