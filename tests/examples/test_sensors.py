"""A modality in a package of its own keeps every promise of the loaders, and the commands take it by name."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.sensors.data import NAME, SensorData
from examples.sensors.draw import draw
from examples.sensors.encode import sensors
from examples.sensors.model import sensors_tiny
from examples.sensors.page import SENSORS
from maskstream.pages.preview import preview
from maskstream.pipelines.masks import Random
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard

from ..pipelines import test_modalities as contract
from ..pipelines.every_modality import Modality
from ..pipelines.small_media import SAMPLES, SHARD_SIZES, sample_rows

ROOT = Path(__file__).parents[2]
DATA = SensorData(mask=Random(ratio=0.75))

for _name, _test in vars(contract).items():  # the contract of all modalities, on the fixture `kind` below
    if _name.startswith("test_"):
        globals()[_name] = _test
uninterrupted = contract.uninterrupted


@pytest.fixture(scope="module")
def kind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Modality, Path]:
    folder = tmp_path_factory.mktemp("sensors")
    draw(folder / "raw", SAMPLES)
    dataset = sensors(folder / "raw")
    sources = [one for split in dataset.splits.values() for one in split]
    made = [(one, dataset.encoder.encode(one)) for one in sources]
    samples = iter([Sample(key=one.id, label=one.label, source=one.id, members=new.members) for one, new in made])
    (folder / "split").mkdir()
    shards = [[next(samples) for _ in range(size)] for size in SHARD_SIZES]
    records = [write_shard(folder / f"split/t-{i:06d}.tar", shard) for i, shard in enumerate(shards)]
    info = DatasetInfo(dataset="t", split="train", modality="sensors", profile="sensors", label_names=("run", "walk"))
    finish_split(folder / "split", info, records, [])

    def loader(location: str | Path, **options: Any) -> Any:
        return DATA.loader(location, **options)

    modality = Modality(samples=lambda raw: [], loader=loader, component=NAME, source=DATA.source, rows=sample_rows)
    return modality, folder / "split"


@pytest.mark.slow
def test_the_commands_of_its_head_make_shards_pages_and_a_run(tmp_path: Path) -> None:
    lines = (ROOT / "examples/sensors/__init__.py").read_text().splitlines()
    commands = [line.split() for line in lines if line.startswith("    ")]
    assert len(commands) == 5
    short = {"bench": ["--seconds", "0.1"], "train": ["--steps", "3", "--device", "cpu"], "shards": ["--workers", "1"]}
    for words in commands:
        run = subprocess.run(
            [sys.executable, *(words[1:] if words[0] == "python" else ["-m", *words]), *short.get(words[1], [])],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
    assert (tmp_path / "preview.html").read_text().count("<article") == 8
    assert (tmp_path / "runs/sensors/model.safetensors").exists()


def test_its_model_and_its_pages_take_its_batches(kind: tuple[Modality, Path], tmp_path: Path) -> None:
    recipe = sensors_tiny()
    batch = next(iter(recipe.loader(kind[1], device="cpu", threads=1, batch_size=4)))
    model = recipe.build()
    assert model.loss(batch).loss().isfinite()
    assert model.reconstructed(batch).values.shape == batch.values.shape
    page = preview(SENSORS, Manifest.load(kind[1]), out=tmp_path / "page.html", samples=2)
    assert page.read_text().count("<article") == 2


def test_it_is_small() -> None:
    texts = [path.read_text().splitlines() for path in (ROOT / "examples/sensors").glob("*.py") if path.stem != "draw"]
    assert len(texts) <= 6
    assert sum(len([line for line in text if line.strip()]) for text in texts) <= 200
