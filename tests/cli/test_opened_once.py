"""A command opens its split once: over HTTP, the description and each file of the index are asked for once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import image_loader
from maskstream.pipelines.modalities.image.data import ImageData
from maskstream.pipelines.modalities.split import Split, open_manifest
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.train import train

from ..pipelines.every_modality import MODALITIES, write_split
from ..train.core.test_data_version import CUTS
from ..web_server import serving

CUT = [word for cut in CUTS for word in ("--set", cut)]
LABELLED = ("data.size=32", "data.patch=8", "batch_size=2", "model.width=32", "model.depths=[1,1]", "model.heads=[2,2]")
SPIKING = [word for cut in LABELLED for word in ("--set", cut)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split("image", tmp_path_factory.mktemp("image"))


@contextmanager
def asked(folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """The URL of a folder, and after the block how often each file but the tars and their sums was asked for."""
    counts: Counter[str] = Counter()
    with serving(folder) as server:
        yield server.url, counts
        counts.update(one.name for one in server.requests if Path(one.name).suffix not in (".tar", ".sums"))


COMMANDS = {
    "train": ["train", "mae-tiny", "--steps", "1", "--device", "cpu", *CUT, "--data"],
    "a length in epochs": ["train", "mae-tiny", "--set", "schedule.epochs=1", "--device", "cpu", *CUT, "--data"],
    "labels": ["train", "spiking-mst-tiny", "--steps", "1", "--device", "cpu", *SPIKING, "--data"],
    "preview": ["preview", "--samples", "1", "--size", "32"],
    "bench": ["bench", "--device", "cpu", "--samples", "4", "--batch-size", "2", "--threads", "1", "--size", "32"],
    "inspect": ["inspect"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_asks_once(name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with asked(folder) as (url, counts):
        done = CliRunner().invoke(app, [*COMMANDS[name], url])
        assert done.exit_code == 0, (done.output, done.exception)
    index = {"dataset.json", *(part["name"] for part in Manifest.load(folder).info["parts"])}
    assert index <= set(counts)
    assert set(counts.values()) == {1}, counts


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train("mae-tiny", folder, out, steps=1, set=CUTS, device="cpu", threads=1, progress=False)
    return out


OF_A_RUN = {
    "evaluate": ["evaluate", "{run}", "{run}", "--again", "--data", "{data}"],
    "report": ["report", "{run}", "--out", "report.html", "--data", "{data}", "--unseen", "{other}"],
    "probe": ["probe", "{run}", "--seeds", "1", "--out", "probe.json", "--data", "{data}", "--test", "{other}"],
    "finetune": ["finetune", "{run}", "--steps", "1", "--out", "finer", "--data", "{data}", "--test", "{other}"],
}


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_command_of_a_run_asks_once_for_each_split(
    name: str, folder: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with asked(folder) as (data, counts), asked(folder) as (other, others):
        words = [word.format(run=run, data=data, other=other) for word in (*OF_A_RUN[name], "--same-split")]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (done.output, done.exception)
    assert counts["dataset.json"] == 1
    assert others["dataset.json"] == (0 if name == "evaluate" else 1)
    assert max(*counts.values(), *others.values()) == 1, (counts, others)


def test_a_continued_run_asks_once(folder: Path, tmp_path: Path) -> None:
    settings = {"set": CUTS, "device": "cpu", "threads": 1, "progress": False}
    for steps in (1, 2):
        with asked(folder) as (url, counts):
            result = train("mae-tiny", url, tmp_path / "run", steps=steps, **settings)  # type: ignore[arg-type]
        assert result.step == steps
        assert set(counts.values()) == {1}, counts


def test_a_cache_is_filled_by_a_run_that_opens_once(folder: Path, tmp_path: Path) -> None:
    settings = {"set": CUTS, "device": "cpu", "threads": 1, "progress": False, "cache": tmp_path / "cache"}
    with asked(folder) as (url, counts):
        train("mae-tiny", url, tmp_path / "run", steps=1, **settings)  # type: ignore[arg-type]
    assert max(counts.values()) == 1, counts
    assert any((tmp_path / "cache").rglob("*"))


def test_an_open_split_gives_the_batches_and_states_of_its_location(folder: Path) -> None:
    rows = MODALITIES["image"].rows
    options = {"batch_size": 2, "device": "cpu", "threads": 1, "seed": 3, "shuffle": True}
    manifest = open_manifest(folder)
    with (
        closing(image_loader(folder, size=32, **options)) as by_location,  # type: ignore[arg-type]
        closing(ImageData(size=32).loader(manifest, **options)) as opened,  # type: ignore[arg-type]
    ):
        assert [rows(batch) for batch in opened] == [rows(batch) for batch in by_location]
        assert json.dumps(opened.state_dict()) == json.dumps(by_location.state_dict())
    assert Split.open(manifest, "image").manifest is manifest


def test_what_an_open_split_refuses(folder: Path, tmp_path: Path) -> None:
    manifest = open_manifest(folder)
    with pytest.raises(ValueError, match="is already open; open it with the cache"):
        ImageData(size=32).loader(manifest, cache=tmp_path)
    with pytest.raises(ShardError, match=f"{folder} contains image shards, but this loader reads text shards"):
        Split.open(manifest, "text")
    assert open_manifest(manifest, version=manifest.version) is manifest
    with pytest.raises(ShardError, match=r"there is no versions/7.json in .*; its versions are 1"):
        open_manifest(manifest, version=7)
