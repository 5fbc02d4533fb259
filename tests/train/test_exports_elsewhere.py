"""Exports, used as their model cards say in a process that has no maskstream: the same features of real samples."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from maskstream.pipelines.modalities.text.batch import TextBatch
from maskstream.shards.format.manifest import Manifest
from maskstream.train import load_model, train
from maskstream.train.core.run_folder import run_recipe
from maskstream.train.exports import _sample_batch, export_run

from ..pipelines.every_modality import write_split
from .test_every_recipe import CUTS

LIBRARIES = ("transformers", "timm", "onnxscript", "onnxruntime")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(find_spec, LIBRARIES)), reason="pip install 'maskstream[export]'"),
]

CASES = {
    "videomae-base": ("video", ("hf",)),
    "mae-base": ("image", ("hf", "timm")),
    "mae-tiny": ("image", ("timm", "torch", "onnx")),
    "ijepa-base": ("image", ("hf", "timm")),
    "vjepa2-large": ("video", ("hf",)),
    "audiomae-tiny": ("audio", ("timm", "onnx")),
    "ajepa-tiny": ("audio", ("timm",)),
    "bert-base": ("text", ("hf",)),
    "modernbert-base": ("text", ("hf", "torch", "onnx")),
    "mosaicbert-tiny": ("text", ("torch",)),
    "cropmae-tiny": ("image", ("torch", "onnx")),
    "mpm-tiny": ("pose", ("torch", "onnx")),
    "pointmae-tiny": ("points", ("torch", "onnx")),
    "avsiam-tiny": ("audiovisual", ("torch", "onnx")),
    "maskvit-tiny": ("video", ("torch", "onnx")),
}
PAIRS = [(name, to) for name, (_, targets) in CASES.items() for to in targets]
SCRIPT = """
import importlib.abc, json, os, re, sys

class Without(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "maskstream":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
import numpy as np, torch
for folder in sys.argv[1:]:
    os.chdir(folder)
    code = re.search("```python\\n(.*?)```", open("README.md").read(), re.DOTALL)[1]
    names = {}
    exec(code, names)
    given = dict(np.load("../given.npz"))
    if "input_ids" in given:
        given = {name: torch.from_numpy(value) for name, value in given.items()}
    np.save("../found.npy", np.asarray(names["features"](**given)))
assert not any(name.partition(".")[0] == "maskstream" for name in sys.modules)
"""


def inputs_of(batch, to, card):
    """What a sample is to those who have no loader of ours: pixels, spectrograms, or ids as a tokenizer gives them;
    for a graph the tensors that the card names.
    """
    if to in ("torch", "onnx") and not isinstance(batch, TextBatch):
        return {name: getattr(batch, name) for name in re.search(r"def features\((.*)\):", card)[1].split(", ")}
    if hasattr(batch, "video"):
        return {"clips": batch.video}
    if hasattr(batch, "image"):
        return {"images": batch.image}
    if hasattr(batch, "spectrogram"):
        return {"spectrograms": batch.spectrogram}
    return {"input_ids": batch.inputs, "attention_mask": batch.valid.long()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By recipe and target: the features of the process, and those of the run."""
    folders, ours, splits = {}, {}, {}
    for name, (modality, targets) in CASES.items():
        root = tmp_path_factory.mktemp(name)
        if modality not in splits:
            splits[modality] = write_split(modality, root / "data")
        cuts = CUTS[name.partition("-")[0]]
        train(name, splits[modality], root / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
        batch = _sample_batch(run_recipe(root / "run"), Manifest.load(splits[modality]))
        with torch.no_grad():
            features = load_model(root / "run" / "model.safetensors").features(batch)
        for to in targets:
            done = export_run(root / "run", root / to / "out", to=to)
            assert done.samples == len(features) > 1
            np.savez(
                root / to / "given.npz",
                **{
                    n: t.numpy() for n, t in inputs_of(batch, to, (root / to / "out" / "README.md").read_text()).items()
                },
            )
            folders[name, to], ours[name, to] = root / to, features.numpy()
    words = [sys.executable, "-I", "-c", SCRIPT, *(str(folder / "out") for folder in folders.values())]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return {pair: (np.load(folder / "found.npy"), ours[pair], folder / "out") for pair, folder in folders.items()}


@pytest.mark.parametrize(("name", "to"), PAIRS)
def test_the_code_of_the_card_gives_the_features_of_the_run(found, name, to):
    theirs, ours, folder = found[name, to]
    assert np.linalg.norm(ours - ours[:1], axis=1).max() > 1e-3, "samples differ"
    assert (np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)).max() <= 1e-5
    if to in ("hf", "timm"):
        assert (folder / "model.safetensors").is_file()
        assert json.loads((folder / "config.json").read_text())
