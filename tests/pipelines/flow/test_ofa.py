"""The optical-flow engine without a card: its graph serialises, a build is refused, cells are means of its vectors."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.flow import FLOWS, Ofa, ofa
from maskstream.pipelines.flow.choice import AUTOMATIC

without_card = pytest.mark.skipif(torch.cuda.is_available(), reason="a card is here, so nothing is refused")


@pytest.mark.parametrize("preset", ["slow", "medium", "fast"])
def test_the_graph_serialises(preset) -> None:
    pytest.importorskip("nvidia.dali")
    text = ofa.build_flow_graph(8, preset, 4, None).serialize()
    assert b"OpticalFlow" in text
    assert b"output_grid" in text


@without_card
def test_a_loader_is_refused_where_no_card_is(split) -> None:
    settings = {"clip": VideoClip(frames=4, size=32), "patch": 8, "device": "cpu", "batch_size": 2}
    for flow in ("ofa", Ofa(preset="fast")):
        with pytest.raises(ValueError, match=r"flow=Ofa\(.*the engine|engine is part of NVIDIA GPUs.*use flow='lk'"):
            video_loader(split, flow=flow, mask=masks.MotionGuided(ratio=0.75), **settings)
    with pytest.raises(ValueError, match="part of NVIDIA GPUs, but the device is 'cpu'"):
        Ofa().of_clips(torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8))
    pytest.importorskip("nvidia.dali")
    assert (Ofa().missing(torch.device("cuda")) or "").startswith("libnvidia-opticalflow.so.1 cannot be loaded")
    with pytest.raises(RuntimeError):
        ofa.flow_pipeline(1, "slow", 4, 0)


def test_it_is_named_and_never_automatic() -> None:
    assert FLOWS["ofa"]() == Ofa()
    assert not any(isinstance(source, Ofa) for source in AUTOMATIC)
    for settings, says in (
        ({"preset": "best"}, "preset must be"),
        ({"grid": 3}, "grid must be 1, 2 or 4, got 3"),
        ({"cell": 0}, "cell"),
    ):
        with pytest.raises(ValueError, match=says):
            Ofa(**settings)


def test_cells_are_the_means_of_the_engines_vectors(monkeypatch) -> None:
    dense = np.random.default_rng(0).normal(size=(2, 3, 8, 12, 2)).astype(np.float32)
    asked = []
    pipeline = SimpleNamespace(
        run=lambda clips: asked.append(len(clips)) or (SimpleNamespace(as_tensor=lambda: dense),)
    )
    monkeypatch.setattr(Ofa, "missing", lambda self, device: None)
    monkeypatch.setattr(ofa, "flow_pipeline", lambda *about: asked.append(about) or pipeline)
    monkeypatch.setattr(ofa, "_to_torch", lambda source, device: torch.from_numpy(source))
    found = Ofa(cell=8, grid=4).of_clips(torch.zeros(2, 4, 32, 48, 3, dtype=torch.uint8)).numpy()
    assert asked == [(2, "slow", 4, 0), 2]
    expected = dense.reshape(2, 3, 4, 2, 6, 2, 2).mean((3, 5)).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)
