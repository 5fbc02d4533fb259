"""The page of flow: every source beside the others, on the same clips."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.modalities import MODALITIES
from maskstream.pages.flow import write_flow_page
from maskstream.pages.preview import format_flow_link, preview
from maskstream.pipelines import VideoClip, VideoData
from maskstream.pipelines.flow import Codec, Dis, Raft
from maskstream.pipelines.flow.source import confidence
from maskstream.pipelines.masks import MotionGuided, Tube
from maskstream.shards.format.manifest import Manifest

from .pages import complete_in_itself

DATA = VideoData(clip=VideoClip(frames=4, stride=4, size=48), mask=MotionGuided(ratio=0.75), patch=8)


def test_the_page_has_every_source_that_can_serve(split, tmp_path):
    text = write_flow_page(split, DATA, out=tmp_path / "flow.html", samples=2).read_text()
    page = complete_in_itself(text)
    assert len(page.attributes("article", "data-key")) == 2
    rows = set(page.attributes("div", "data-row"))
    assert {f"{what}-{word}" for what in ("flow", "trust", "seen") for word in ("codec", "dis", "lk")} <= rows
    assert not any("raft" in row for row in rows)
    assert "RAFT has no weights" in page.text
    assert page.text.count("Cells with a vector") == 6
    assert page.text.count("Scene cuts") == 6
    shown = preview(MODALITIES["video"], Manifest.load(split), DATA, out=tmp_path / "preview.html", samples=1)
    assert '<a href="flow.html">flow.html</a>' in shown.read_text()
    assert format_flow_link(tmp_path / "flow.html", str(tmp_path / "other")) == {}
    assert format_flow_link(tmp_path / "none.html", str(split)) == {}


def test_sources_that_are_named_and_what_is_refused(split, tmp_path):
    text = write_flow_page(split, DATA, out=tmp_path / "flow.html", sources=[Dis()], samples=1).read_text()
    assert "flow-dis" in text
    assert "flow-codec" not in text
    torchvision = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    save_file(torchvision.raft_small(weights=None, progress=False).state_dict(), tmp_path / "raft.safetensors")
    raft = Raft(weights=str(tmp_path / "raft.safetensors"), updates=1)
    text = write_flow_page(split, DATA, out=tmp_path / "flow.html", sources=[Dis()], more=[raft], samples=1).read_text()
    assert "flow-raft" in text
    assert "without raft" not in text
    other = VideoData(clip=VideoClip(frames=4, stride=3, size=48), mask=DATA.mask, patch=8)
    with pytest.raises(ValueError, match="motion vectors can serve as flow only"):
        write_flow_page(split, other, out=tmp_path / "flow.html", sources=[Codec()])
    with pytest.raises(ValueError, match="with a mask that follows flow"):
        write_flow_page(split, VideoData(mask=Tube(ratio=0.9)), out=tmp_path / "flow.html")
    result = CliRunner().invoke(app, ["flow", str(split), "--sources", "auto"])
    assert isinstance(result.exception, ValueError)
    assert "auto is not a single source of flow" in str(result.exception)


def test_confidence_is_of_what_the_flow_explains():
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    clip = np.stack([picture[:, 8 * t : 8 * t + 64] for t in range(3)])
    true = np.zeros((2, 8, 8, 2), np.float32)
    true[..., 0] = 8
    valid = np.ones((2, 8, 8), bool)
    valid[1, 0] = False
    trust = confidence(clip, true, valid)
    assert trust[:, 1:, :7].min() > 0.99
    assert not trust[1, 0].any()
    assert confidence(clip, -true, valid)[:, :, 2:6].max() < 0.6
