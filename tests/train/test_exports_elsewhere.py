"""Exports of raw samples, used as their model cards say in a process that has no maskstream: the same features."""

from importlib.util import find_spec

import numpy as np
import pytest
import soundfile

from maskstream.train import train
from maskstream.train.export.run import export_run

from ..pipelines.every_modality import write_split
from .raw_exports import FAMILIES, measure, run
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
        assert found.own is None or found.own > 1e-5, "no processor does what the lines do"


def test_sounds_whose_level_is_in_the_manifest_alone_are_not_compared(tmp_path):
    (tmp_path / "raw").mkdir()
    draws = np.random.default_rng(0)
    for n, peak in enumerate((0.3, 3.0, 0.5, 7.0)):
        sound = (peak * draws.uniform(-1, 1, 16000)).astype(np.float32)
        soundfile.write(tmp_path / "raw" / f"{n}.wav", sound, 16000, subtype="FLOAT")
    run(["shards", "audio-folder", "--as-is", "--root", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])
    split, cuts = tmp_path / "out" / "train", FAMILIES["Audio-MAE"].cuts
    train("audiomae-tiny", split, tmp_path / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
    assert export_run(tmp_path / "run", tmp_path / "timm", to="timm").samples == 2 + 8


@pytest.mark.parametrize("name", GRAPHS)
def test_models_without_a_counterpart_are_graphs(name, tmp_path):
    split = write_split(GRAPHS[name], tmp_path / "data")
    train(
        name,
        split,
        tmp_path / "run",
        steps=1,
        set=CUTS[name.partition("-")[0]],
        device="cpu",
        threads=1,
        progress=False,
    )
    for to in ("torch", "onnx"):
        done = export_run(tmp_path / "run", tmp_path / to, to=to)
        assert done.difference <= 1e-5
        assert done.raw == (GRAPHS[name] in ("image", "video", "text", "audio"))
