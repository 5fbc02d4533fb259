"""Damaged videos: a reject, or the frames before the damage, or all that the decoder makes of them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess import PROFILES
from maskstream.preprocess.encode.video.encoder import VideoEncoder
from maskstream.preprocess.encode.video.source import decode
from maskstream.preprocess.encode.video.video import encode_video
from maskstream.preprocess.source import DamageError, RejectError
from maskstream.shards.format.manifest import Manifest

from .test_lerobot import levels

N = 60


@pytest.fixture
def whole(make_video):
    return make_video("whole.mp4", N, options={"g": "10", "bf": "2"}, muxer={"movflags": "faststart"})


def cut(path, share):
    data = path.read_bytes()
    damaged = path.with_name("cut" + path.suffix)
    damaged.write_bytes(data[: int(len(data) * share)])
    return damaged


def struck(path, at):
    """A hole in the middle of the file."""
    data = bytearray(path.read_bytes())
    begin = int(len(data) * at)
    data[begin : begin + 200] = bytes(200)
    damaged = path.with_name("struck" + path.suffix)
    damaged.write_bytes(data)
    return damaged


def encoded(path, damage, least_whole=0.5):
    return encode_video(path, PROFILES["train"], damage=damage, least_whole=least_whole)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_video_that_is_cut_off_ends_before_its_first_damaged_frame(make_video, tmp_path, suffix):
    muxer = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = make_video(f"whole{suffix}", N, options={"g": "10", "bf": "0"}, muxer=muxer)
    damaged = cut(path, 0.8)
    with pytest.raises(RejectError, match="truncated or damaged"):
        encoded(damaged, "reject")
    video = encoded(damaged, "trim")
    n = video.index.n_frames
    assert N / 2 < n < N
    assert video.meta["damage"] == {"n_frames": n, "of": N}
    before = levels(encoded(path, "trim").data, tmp_path)
    assert len(before) == N
    np.testing.assert_allclose(levels(video.data, tmp_path), before[:n], atol=1.5)
    assert "damage" not in encoded(path, "trim").meta
    with pytest.raises(RejectError, match="truncated or damaged"):
        encoded(damaged, "trim", least_whole=0.95)


def test_a_hole_ends_a_video_or_is_concealed(whole):
    damaged = struck(whole, 0.85)
    with pytest.raises(DamageError):
        list(decode(damaged))
    trimmed, kept = encoded(damaged, "trim").index.n_frames, encoded(damaged, "keep").index.n_frames
    assert N / 2 < trimmed < kept <= N
    assert N - kept <= 10


def test_what_is_not_damage_stays_a_reject(tmp_path):
    (tmp_path / "no.mp4").write_bytes(bytes(1000))
    for damage in ("trim", "keep"):
        with pytest.raises(RejectError, match="open"):
            encoded(tmp_path / "no.mp4", damage)


def test_settings(whole):
    with pytest.raises(ValueError, match="damage must be 'reject', 'trim' or 'keep', got 'mend'"):
        VideoEncoder(damage="mend")
    with pytest.raises(ValueError, match="profile 'copy' keeps packets"):
        VideoEncoder(damage="trim").in_profile(PROFILES["copy"])
    with pytest.raises(ValueError, match="least_whole must be a number above 0 and of at most 1, got 0"):
        VideoEncoder(least_whole=0)


def test_the_command_trims(whole, tmp_path):
    raw = tmp_path / "raw"
    for label, path in (("a", whole), ("b", cut(whole, 0.8))):
        (raw / label).mkdir(parents=True)
        path.rename(raw / label / path.name)
    words = ["shards", "folder", "--root", str(raw), "--out", str(tmp_path / "out"), "--workers", "1", "--json"]
    done = CliRunner().invoke(app, [*words, "--damage", "trim"])
    assert done.exit_code == 0, done.output
    manifest = Manifest.load(tmp_path / "out" / "train")
    facts = [json.loads(manifest.store.read(*manifest.member(n, "json"))) for n in range(2)]
    assert sorted("damage" in one for one in facts) == [False, True]
