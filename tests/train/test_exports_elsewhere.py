"""Exports of raw samples, used as their model cards say in a process that has no maskstream: the same features."""

from importlib.util import find_spec

import pytest

from maskstream.train import train
from maskstream.train.exports import export_run

from ..pipelines.every_modality import write_split
from .raw_exports import FAMILIES, measure
from .test_every_recipe import CUTS

LIBRARIES = ("transformers", "timm", "onnxscript", "onnxruntime", "soundfile")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(find_spec, LIBRARIES)), reason="pip install 'maskstream[export]'"),
]

GRAPHS = {
    "cropmae-tiny": "image",
    "mpm-tiny": "pose",
    "pointmae-tiny": "points",
    "avsiam-tiny": "audiovisual",
    "maskvit-tiny": "video",
    "mosaicbert-tiny": "text",
    "ajepa-tiny": "audio",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_lines_of_the_card_give_the_features_of_the_run_of_raw_samples(name, tmp_path):
    for found in measure({name: FAMILIES[name]}, tmp_path, 10, 1):
        assert found.card <= 1e-5, found
        assert found.own is None or 0 < found.own < 0.5, found


@pytest.mark.parametrize("name", GRAPHS)
def test_models_without_a_counterpart_are_graphs(name, tmp_path):
    split = write_split(GRAPHS[name], tmp_path / "data")
    run = tmp_path / "run"
    train(name, split, run, steps=1, set=CUTS[name.partition("-")[0]], device="cpu", threads=1, progress=False)
    for to in ("torch", "onnx"):
        done = export_run(run, tmp_path / to, to=to)
        assert done.difference <= 1e-5
        assert done.raw == (GRAPHS[name] in ("image", "video", "text", "audio"))
