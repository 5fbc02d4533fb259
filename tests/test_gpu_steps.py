"""The steps of `make gpu` whose results a CPU can judge: textures that move, masks in torch, the challenger's files."""

import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch

from maskstream.pipelines.flow import Lk, Ofa

CPU = torch.device("cpu")


@pytest.fixture
def step(monkeypatch):
    """The module of a name below benchmarks/."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    return import_module


def test_textures_move_as_they_say(step) -> None:
    for x, y in step("gpu_motion").STEPS:
        clips = step("gpu_motion").moving((x, y), clips=2, frames=3, size=40)
        assert (clips.shape, clips.dtype) == ((2, 3, 40, 40, 3), torch.uint8)
        later, earlier = clips[:, 1:, 8:32, 8:32], clips[:, :-1, 8 - y : 32 - y, 8 - x : 32 - x]
        assert torch.equal(later, earlier)
        assert clips.float().std() > 20
        assert not torch.equal(clips[0], clips[1])


def test_flow_is_judged_by_sign_and_error(step) -> None:
    motion = step("gpu_motion")
    true = torch.zeros(1, 2, 2, 4, 4)
    true[:, :, 0] = -3
    assert motion.judged(true, (3, 0)) == (0, "")
    assert "forward flow, or its sign" in motion.judged(-true, (3, 0))[1]
    assert "a median error of 1.00 px" in motion.judged(true + torch.tensor([0, 1])[:, None, None], (3, 0))[1]


def test_lucas_kanade_passes_and_what_is_missing_or_fails_is_said(step, monkeypatch) -> None:
    motion = step("gpu_motion")
    assert [*motion.sources(False)] == ["lk"]
    assert len(motion.sources(True)) == 1 + 3 * 3

    def broken(clips: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such grid on this card\nand more")

    failing = SimpleNamespace(missing=lambda device: None, of_clips=broken)
    monkeypatch.setattr(motion, "sources", lambda on_card: {"lk": Lk(), "ofa": Ofa(), "other": failing})
    figures, wrong = motion.flow(CPU)
    assert [*figures] == ["lk, 112 px", "lk, 224 px"]
    assert all(0 < error < 0.3 for row in figures.values() for error in row["median_error_px"])
    assert all(row["pairs_per_s"] > 0 for row in figures.values())
    assert wrong == [
        "ofa: the optical-flow engine is part of a card, and the device is 'cpu'",
        "other at 112 px: RuntimeError: no such grid on this card",
        "other at 224 px: RuntimeError: no such grid on this card",
    ]


def test_masks_of_every_setting_are_compared_and_their_cost_is_a_share(step, monkeypatch) -> None:
    motion = step("gpu_motion")
    monkeypatch.setattr(motion, "split_of", lambda kind, videos: nullcontext())
    monkeypatch.setattr(motion, "loader_of", lambda *about, **options: None)
    monkeypatch.setattr(motion, "rate_of", lambda loader, clips: 100.0)
    figures, wrong = motion.masks(CPU)
    assert wrong == []
    assert figures["tokens_compared"] == 3 * 3 * 2 * 2 * 2 * 1568
    assert figures["share_of_loader"] == pytest.approx(figures["us_per_clip"] * 1e-4, abs=1e-3)
    right, some = motion.on_device, [*motion.settings()][::17]
    monkeypatch.setattr(motion, "settings", lambda: some)
    monkeypatch.setattr(motion, "on_device", lambda mask, grid, field: right(mask, grid, -field))
    _, wrong = motion.masks(CPU)
    assert len(wrong) == len(some) == 3
    assert "tokens differ from numba's" in wrong[0]


class Decoder:
    """What PyNvVideoCodec's documentation says of SimpleDecoder, by PyAV on a CPU."""

    made = 0

    def __init__(self, path: str, *, max_width: int, max_height: int, output_color_type: str, **options: object):
        assert (output_color_type, options) == ("rgb", {"gpu_id": 0, "cuda_stream": 0, "use_device_memory": True})
        self.most = (max_width, max_height)
        type(self).made += 1
        self.reconfigure_decoder(path)

    def reconfigure_decoder(self, path: str) -> None:
        with av.open(path) as container:
            self.count = container.streams.video[0].frames
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def get_batch_frames_by_index(self, numbers: list[int]) -> list[object]:
        return [self.frames[number] for number in numbers]


def test_the_challengers_clips_are_those_of_the_loader(step, split, tmp_path) -> None:
    challenger = step("gpu_challenger")
    packed, right, _ = challenger.packed_clips(split, 3)
    files = [challenger.Clip.written(tmp_path / f"{n}.mp4", *e) for n, e in enumerate(challenger.clips_of(packed))]
    codec = SimpleNamespace(SimpleDecoder=Decoder, OutputColorType=SimpleNamespace(RGB="rgb"))
    decoders = challenger.Decoders(codec, CPU, 224)
    found = torch.stack([decoders.decoded(clip) for clip in files])
    assert Decoder.made == 1
    assert found.shape == right.shape
    own, next_ = ((found[:, :15].float() - right[:, n : 15 + n].float()).abs().mean() for n in (0, 1))
    assert own < 0.5 * next_
    assert step("gpu_loaders").own_frame_nearest(found.float(), right.float())
    assert decoders._open.count == len(decoders._open.frames), "the file says how many frames it has"


def test_a_challenger_that_is_not_there_is_said(step, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    assert step("gpu_challenger").challenger(CPU) == (
        {},
        ["PyNvVideoCodec is not installed; pip install 'PyNvVideoCodec>=2.2'"],
    )


def test_every_step_has_a_function(step) -> None:
    for own in step("gpu").STEPS:
        assert own.name in ("proofs", "tests") or callable(getattr(step(own.file), own.name))
