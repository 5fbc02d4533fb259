"""The measured choice of decoders: per format, for this machine, fixed for a run."""

import json
import logging

import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import VideoData, video_loader
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.video import decoders
from maskstream.shards.errors import ResumeError

from .packed_videos import CLIP, CPU, VP9, Fast, assert_pixels_agree, made, sampler_of, write_split

VP9_420, VP9_444 = "vp9 yuv420p", "vp9 yuv444p"
FASTER = {VP9_420: {"cpu": 1.0, "dali": 2.0}, "h264 yuv420p": {"cpu": 1.0, "dali": 9.0}, VP9_444: {"cpu": 3.0}}
SLOWER = {VP9_420: {"cpu": 2.0, "dali": 1.0}}
SETTINGS = {"clip": CLIP, "batch_size": 2, "device": "cpu", "augment": CenterCrop(), "seed": 5, "threads": 1}


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    others = {1: {"pixels": "yuv444p"}}
    return write_split(tmp_path_factory.mktemp("vp9"), "libvpx-vp9", VP9, "copy", others=others)


def written(path, speeds):
    decoders.write_speeds(path, CPU, speeds)
    return str(path)


def test_auto_gives_dali_the_formats_that_it_decodes_faster(vp9, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO)
    loader = video_loader(vp9, decoders=written(tmp_path / "d.json", FASTER), **SETTINGS)
    assert "uses DALI on cpu for vp9 yuv420p, which it decodes faster here" in caplog.text
    state = loader.state_dict()
    assert (state["backend"], state["decoded_by_dali"]) == ("dali", [VP9_420])
    for batch, reference in zip(loader, video_loader(vp9, backend="cpu", **SETTINGS), strict=True):
        assert_pixels_agree(batch.video, reference.video)
    assert loader.stats()["seconds"]["finish"] > 0
    other = video_loader(vp9, decoders=written(tmp_path / "d.json", SLOWER), **SETTINGS)
    assert "uses the CPU on cpu: `maskstream bench --decode` found it to be the fastest" in caplog.text
    assert "backend" not in other.state_dict()
    with pytest.raises(ResumeError, match="backend"):
        other.load_state_dict(state)


def test_the_decoder_of_a_clip_is_that_of_its_format(vp9) -> None:
    sampler = sampler_of(vp9)
    fast = Fast(sampler, formats=frozenset({"h264 yuv420p"}))
    assert torch.equal(made(fast, range(4)).video, made(sampler, range(4)).video)
    assert fast.finish.on_cpu == {
        f"{VP9_420}, which was not measured to be decoded faster by DALI here": 3,
        "yuv444p; 8 bits and 4:2:0 are decoded": 1,
    }


def test_only_this_machine_and_the_documented_file_count(vp9, tmp_path, monkeypatch) -> None:
    path = tmp_path / "state" / "decoders.json"
    monkeypatch.setenv("MASKSTREAM_DECODERS", str(path))
    assert decoders.faster_with_dali(None, CPU, {"vp9"}) is None
    written(path, FASTER)
    assert decoders.faster_with_dali(None, CPU, {"vp9"}) == {VP9_420}
    assert "decoded_by_dali" in video_loader(vp9, **SETTINGS).state_dict()
    monkeypatch.setattr(decoders, "version", lambda name: "0.0")
    assert decoders.faster_with_dali(None, CPU, {"vp9"}) is None
    with pytest.raises(ValueError, match="has no speeds of this machine and these versions; measure it with"):
        video_loader(vp9, decoders=str(path), **SETTINGS)
    written(path, SLOWER)
    assert len(json.loads(path.read_text())) == 2, "the entry of another machine stays"
    path.write_text("{")
    with pytest.raises(ValueError, match="is no file of decoders' speeds"):
        video_loader(vp9, **SETTINGS)
    with pytest.raises(ValueError, match="leave it out with backend='cpu'"):
        VideoData(decoders="d.json", backend="cpu")


def test_bench_measures_what_is_there_and_says_what_is_not(vp9, split, tmp_path) -> None:
    out = tmp_path / "decoders.json"
    result = CliRunner().invoke(app, ["bench", str(vp9), "--decode", "--seconds", "0.1", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found["clips_per_s"]) == {VP9_420, VP9_444}
    assert set(found["clips_per_s"][VP9_420]) == {"cpu", "dali"}
    assert set(found["clips_per_s"][VP9_444]) == {"cpu"}
    assert found["not_measured"][f"{VP9_444} by DALI"] == "yuv444p; 8 bits and 4:2:0 are decoded"
    assert torch.cuda.is_available() or "no CUDA device" in found["not_measured"]["DALI with NVDEC"]
    assert json.loads(out.read_text())[0]["clips_per_s"] == found["clips_per_s"]
    result = CliRunner().invoke(app, ["bench", str(split), "--decode", "--seconds", "0.1", "--out", str(out)])
    assert "h264, which DALI on a CPU does not decode here" in result.stdout
    assert len(json.loads(out.read_text())) == 1
