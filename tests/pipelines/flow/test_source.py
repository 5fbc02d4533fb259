"""Sources of flow by word, as configs and of one's own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskstream.pipelines import AudioVisualData, VideoClip, VideoData
from maskstream.pipelines.augment import CenterCrop, Crop
from maskstream.pipelines.flow import FLOWS, Codec, DecodedClip, Dis, Lk, Ofa, Raft, SampleFlow, dis_flow
from maskstream.pipelines.flow.choice import AUTO, NONE, find_flow, resolve_flow
from maskstream.pipelines.masks import MotionGuided
from maskstream.shards.config import with_set
from maskstream.shards.errors import ResumeError

OWN = """
from dataclasses import dataclass

import numpy as np

from maskstream.pipelines.flow.base import ClipFlow
from maskstream.pipelines.flow import SampleFlow

@dataclass(frozen=True, kw_only=True, slots=True)
class Drift(SampleFlow):
    x: float = 3.0

    def vectors_of(self, frames):
        return frames[1:]

    def of_clip(self, clip):
        assert clip.vectors.keys() <= set(clip.frames[1:].tolist())
        assert len(clip.frames) == len(clip.pixels)
        assert clip.vectors, "vectors were asked for"
        assert clip.crop.width <= clip.source[0]
        flow = np.zeros((len(clip.pixels) - 1, 4, 4, 2), np.float32)
        flow[..., 0] = self.x
        return ClipFlow(flow, np.ones(flow.shape[:-1], bool))

FASTER = Drift(x=5.0)

class Picky(Drift):
    def unfit(self, profile, *, stride, align):
        return "it wants stride 1" if stride > 1 else None
"""
DATA = VideoData(clip=VideoClip(frames=4, size=32), mask=MotionGuided(ratio=0.75), augment=CenterCrop(), patch=8)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_flow_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_flow_of_a_test"


def test_words_and_their_sources() -> None:
    assert [find_flow(word) for word in (*FLOWS, AUTO, NONE)] == [Codec(), Dis(), Lk(), Ofa(), Raft(), None, None]
    assert find_flow(Dis(preset="medium")) == Dis(preset="medium")


@pytest.mark.parametrize("data", [VideoData, AudioVisualData])
def test_other_words_are_refused_when_the_data_config_is_made(data: type[VideoData]) -> None:
    with pytest.raises(ValueError, match=r"flow='codex', did you mean 'codec'\?; expected 'auto', 'codec', 'dis'"):
        data(flow="codex")
    with pytest.raises(ValueError, match="no_such_module_of_a_test"):
        data(flow="no_such_module_of_a_test:Flow")
    with pytest.raises(ValueError, match="is not a SampleFlow or BatchFlow; pass a subclass"):
        data(flow="maskstream.pipelines.flow:dis_flow")
    with pytest.raises(ValueError, match="flow must be"):
        data(flow=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("needed", "profile", "stride", "align", "source"),
    [
        (True, "train", 4, 4, Codec()),
        (True, "train", 4, 8, Codec()),
        (True, "train", 8, 4, Codec()),
        (True, "train", 12, 4, Codec()),
        (True, "train", 16, 4, Dis()),
        (True, "train", 2, 2, Dis()),
        (True, "train", 4, 1, Dis()),
        (True, "copy", 4, 4, Dis()),
        (False, "train", 4, 4, None),
    ],
)
def test_what_auto_comes_to(needed: bool, profile: str, stride: int, align: int, source: SampleFlow | None) -> None:
    assert resolve_flow(AUTO, needed=needed, profile=profile, stride=stride, align=align) == source


def test_a_source_that_cannot_serve_says_why(own: str) -> None:
    with pytest.raises(ValueError, match="flow='codec' with shards of profile 'copy', stride 4, align 4: motion vec"):
        resolve_flow("codec", needed=False, profile="copy", stride=4, align=4)
    with pytest.raises(ValueError, match="it wants stride 1; use flow='dis'"):
        resolve_flow(f"{own}:Picky", needed=False, profile="copy", stride=4, align=4)


@pytest.mark.parametrize(
    ("settings", "says"), [({"preset": "slow"}, "preset"), ({"scale": 0}, "scale"), ({"cell": 0}, "cell")]
)
def test_impossible_settings_of_dis(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Dis(**settings)  # type: ignore[arg-type]


def test_settings_reach_the_search_and_frames_that_do_not_fit_the_codec_get_dis() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    clip = DecodedClip(
        pixels=pixels,
        crop=Crop(x=0, y=0, width=64, height=64),
        source=(64, 64),
        frames=np.array([1, 5, 9]),
        vectors={},
    )
    wanted = dis_flow(pixels, cell=16, preset="medium", scale=1.0)
    assert np.array_equal(Dis(cell=16, preset="medium", scale=1.0).of_clip(clip).vectors, wanted.vectors)
    assert np.array_equal(Codec(cell=16).of_clip(clip).vectors, dis_flow(pixels, cell=16).vectors)


def test_a_source_is_set_and_comes_back_from_json(own: str) -> None:
    assert with_set(DATA, ["flow=dis"]).flow == "dis"
    assert with_set(replace(DATA, flow=Dis(preset="fast")), ["flow.preset=medium"]).flow == Dis(preset="medium")
    assert with_set(replace(DATA, flow=Dis(preset="fast")), ["flow=codec"]).flow == "codec"
    for flow in (Dis(preset="fast"), find_flow(f"{own}:FASTER"), f"{own}:Drift"):
        data = replace(DATA, flow=flow)
        assert VideoData.from_dict(json.loads(json.dumps(data.to_dict()))) == data


def test_ones_own_source_is_used_and_a_resume_with_another_is_refused_by_name(split: Path, own: str) -> None:
    def opened(flow: object):
        return replace(DATA, flow=flow).loader(split, batch_size=2, device="cpu", threads=1)

    for name, x in (("Drift", 3.0), ("FASTER", 5.0)):
        batch = next(iter(opened(f"{own}:{name}")))
        assert batch.flow.vectors.shape == (2, 3, 4, 4, 2)
        assert torch.equal(batch.flow.vectors[..., 0].unique(), torch.tensor([x]))
    state = json.loads(json.dumps(opened(f"{own}:Drift").state_dict()))
    opened(find_flow(f"{own}:Drift")).load_state_dict(state)
    with pytest.raises(ResumeError, match=r"data\.flow: saved own_flow_of_a_test:Drift\(\), here Dis\(\)"):
        opened("dis").load_state_dict(state)
    with pytest.raises(ResumeError, match=r"data\.flow\.x: saved 3\.0, here 5\.0"):
        opened(f"{own}:FASTER").load_state_dict(state)
