"""Scene cuts: clips joined at a known frame, found with every source, and masks that start anew behind them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.flow import Codec, dis_flow
from maskstream.pipelines.flow.cuts import (
    correlate_pictures,
    measure_histogram_distance,
    pictures,
    read_stored_cuts,
    scene_cuts,
    shared,
)
from maskstream.pipelines.flow.source import confidence
from maskstream.pipelines.masks import Cues, Draw, MotionGuided, TokenGrid
from maskstream.preprocess.encode.video.notes import SceneCuts
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.sample import Sample
from maskstream.shards.media.gop_notes import GopNotes, gop_notes, note_box, pack_starts
from maskstream.shards.media.mp4 import Mp4Error
from maskstream.shards.members.video import video_member

from ...splits import write_samples
from ...videos import write_frames

SIDE, STRIDE = 96, 4
CUTS = {"none": None, "early": 10, "at an I-frame": 32, "late": 50}
"""The clips of the split, and the number of their first frame of another scene."""


def scene(seed: int, brightness: float) -> np.ndarray:
    """A picture with things of many sizes, uint8 (160, 320, 3)."""
    rng = np.random.default_rng(seed)
    noise = sum(cv2.GaussianBlur(rng.normal(size=(160, 320, 3)), (0, 0), s) * s for s in (2, 5, 12))
    return np.clip(brightness + 45 * noise / noise.std(), 0, 255).astype(np.uint8)


def picture(scenes: list[np.ndarray], cut: int | None, t: int) -> np.ndarray:
    """Frame t of a clip that pans by 1.5 pixels a frame through one scene, or through two with a cut between."""
    number = int(cut is not None and t >= cut)
    x, y = (round(1.5 * t), 10) if number == 0 else (150 - t, 30 + t // 2)
    return scenes[number][y : y + SIDE, x : x + SIDE]


def write_video(path: Path, scenes: list[np.ndarray], cut: int | None) -> Path:
    return write_frames(path, (picture(scenes, cut, t) for t in range(64)), "ffv1")


@pytest.fixture(scope="module")
def joined(tmp_path_factory) -> Path:
    """A split of four clips, three of them joined of two scenes."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("joined")
    samples = []
    for number, (name, cut) in enumerate(CUTS.items()):
        path = write_video(raw / f"{number}.mkv", [scene(2 * number, 90), scene(2 * number + 1, 140)], cut)
        video = encode_video(path, PROFILES["train"])
        members = {"mp4": video_member(video.data, video.index)}
        samples.append(Sample(key=name.replace(" ", "-"), members=members, source=path.name))
    return write_samples(out, samples, "video", dataset="j")


def batch_of(joined: Path, **settings):
    loader = video_loader(
        joined,
        clip=VideoClip(frames=16, stride=STRIDE, size=SIDE, start="center"),
        augment=CenterCrop(),
        shuffle=False,
        device="cpu",
        threads=1,
        batch_size=4,
        **{"mask": MotionGuided(ratio=0.75)} | settings,
    )
    batch = next(iter(loader))
    return batch, loader.stats()


def wanted(key: str) -> list[bool]:
    cut = {name.replace(" ", "-"): cut for name, cut in CUTS.items()}[key]
    return [cut is not None and STRIDE * pair < cut <= STRIDE * (pair + 1) for pair in range(15)]


def without_starts(data: memoryview, *rest) -> GopNotes:
    """What is stored in shards of before scenes were."""
    return GopNotes(flows=gop_notes(data, *rest).flows)


@pytest.mark.parametrize(
    ("source", "stored"),
    [("codec", True), ("codec", False), ("dis", True), pytest.param("lk", True, marks=pytest.mark.slow)],
)
def test_every_source_finds_every_cut_and_no_other(joined: Path, source: str, stored: bool, monkeypatch) -> None:
    if not stored:
        monkeypatch.setattr("maskstream.pipelines.modalities.video.clip_plan.gop_notes", without_starts)
    elif source == "codec":
        monkeypatch.setattr("maskstream.pipelines.flow.source.clip_cuts", None)  # nothing is looked for
    batch, stats = batch_of(joined, flow=source)
    assert batch.flow.cuts.tolist() == [wanted(key) for key in batch.key]
    assert stats["cuts"] == batch.scene_cuts() == 3
    assert not batch.flow.valid[batch.flow.cuts].any()


@pytest.mark.parametrize("source", ["codec", "dis", pytest.param("lk", marks=pytest.mark.slow)])
def test_tokens_do_not_repeat_across_a_cut(joined: Path, source: str) -> None:
    """The step before a cut and the step after share about as many places as chance makes them, a quarter."""
    shares = {}
    for restart in (True, False):
        mask = MotionGuided(ratio=0.75, restart=restart)
        repeated = []
        for seed in range(3):
            batch, _ = batch_of(joined, flow=source, mask=mask, seed=seed)
            shown = ~batch.mask.masked.reshape(4, 8, 36)
            for row, cuts in zip(shown, batch.flow.cuts, strict=True):
                for pair in np.flatnonzero(cuts.numpy()):
                    before, after = row[pair // 2 - (pair % 2 == 0)], row[(pair + 2) // 2]
                    repeated.append(float((before & after).sum() / before.sum()))
        shares[restart] = np.mean(repeated)
    assert shares[True] < 0.4
    assert shares[True] < shares[False] - 0.05


def test_confidence_of_each_cell_stands_in_batch_and_stats(joined: Path) -> None:
    batch, stats = batch_of(joined, flow=Codec(confidence=True))
    flow = batch.flow
    assert flow.confidence.shape == flow.valid.shape
    assert not flow.confidence[~flow.valid].any()
    for clip, own in enumerate(flow.confidence.numpy()):
        expected = confidence(batch.video[clip].numpy(), flow.vectors[clip].numpy(), flow.valid[clip].numpy())
        np.testing.assert_allclose(own, expected, atol=1e-6)
    assert flow.confidence[flow.valid].mean() > 0.7
    assert stats["flow_coverage"] == pytest.approx(float(flow.valid.float().mean()), abs=1e-5)
    assert stats["flow_confidence"] == pytest.approx(float(flow.confidence.mean()), abs=1e-5)
    plain, stats = batch_of(joined, flow="codec")
    assert plain.flow.confidence is None
    assert (stats["flow_confidence"], stats["flow_coverage"]) == (None, pytest.approx(0.9, abs=0.1))
    assert torch.equal(plain.flow.vectors, flow.vectors)


def test_flow_without_a_mask_has_cuts_too(joined: Path) -> None:
    batch, stats = batch_of(joined, flow="codec", mask=None)
    assert batch.flow.cuts.sum() == stats["cuts"] == 3
    assert batch_of(joined, flow="none", mask=masks.Tube(ratio=0.75))[1]["cuts"] == 0


def test_likeness_is_the_correlation_along_the_flow() -> None:
    picture = scene(0, 128)
    clip = torch.from_numpy(np.stack([picture[10:138, 10 + 8 * t : 138 + 8 * t] for t in range(3)]))[None]
    true = torch.tensor([8.0, 0.0]).expand(1, 2, 16, 16, 2).contiguous()
    assert correlate_pictures(clip, true).min() > 0.99
    assert correlate_pictures(clip, torch.zeros_like(true)).max() < 0.9
    assert correlate_pictures(clip, torch.full_like(true, 500.0)).max() == 0
    assert not scene_cuts(clip, true).any()
    inverse = torch.stack([clip[0, 0], 255 - clip[0, 0]])[None]
    assert correlate_pictures(inverse, true[:, :1])[0, 0] < -0.5
    assert scene_cuts(inverse, true[:, :1]).all()


@pytest.mark.parametrize("side", [96, 224])
def test_what_moves_too_fast_for_the_flow_is_no_cut(side: int) -> None:
    """Frames that share a half of their places, and frames of other scenes, without any flow."""
    shown = [cv2.resize(scene(seed, 110), (4 * side, 2 * side), interpolation=cv2.INTER_CUBIC) for seed in range(4)]
    panned = np.stack([shown[0][9 : 9 + side, n * side // 2 : n * side // 2 + side] for n in range(5)])
    others = np.stack([one[9 : 9 + side, :side] for one in shown])
    still = torch.zeros(1, 4, 8, 8, 2)
    assert correlate_pictures(torch.from_numpy(panned)[None], still).max() < 0.4
    small = pictures(torch.from_numpy(panned)[None])[0]
    assert shared(small[:-1], small[1:]).min() > 0.3
    assert not scene_cuts(torch.from_numpy(panned)[None], still).any()
    assert scene_cuts(torch.from_numpy(others)[None], still[:, :3]).all()


def test_histograms_are_those_of_numpy() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    clip[1] //= 2
    counts = [[np.histogram(frame[..., c], bins=8, range=(0, 256))[0] for c in range(3)] for frame in clip]
    expected = np.abs(np.diff(np.array(counts), axis=0)).sum(-1).mean() / 64**2 / 2
    np.testing.assert_allclose(
        measure_histogram_distance(torch.from_numpy(clip)[None]).numpy(), [[expected]], rtol=1e-5
    )


def test_black_frames_and_a_flash_are_no_cuts() -> None:
    dark = torch.zeros(1, 3, 64, 64, 3, dtype=torch.uint8)
    still = torch.zeros(1, 2, 8, 8, 2)
    assert not scene_cuts(dark, still).any()
    picture = torch.from_numpy(scene(1, 90)[:64, :64]).float()
    flash = torch.stack([picture, picture * 1.4 + 30, picture]).clamp(0, 255).to(torch.uint8)[None]
    assert measure_histogram_distance(flash).min() > 0.3
    assert not scene_cuts(flash, still).any()


def test_a_clip_has_the_same_cuts_in_any_batch() -> None:
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 64, 64, 3), dtype=np.uint8))
    flow = torch.from_numpy(np.stack([dis_flow(clip).vectors for clip in clips.numpy()]))
    alone = [scene_cuts(clips[i : i + 1], flow[i : i + 1]) for i in range(3)]
    assert torch.equal(scene_cuts(clips, flow), torch.cat(alone))


def test_each_scene_is_masked_like_a_clip_of_its_own() -> None:
    """A still clip of 8 frames with a cut before frame 3: two tubes, which differ."""
    grid, flow = TokenGrid.video(8, 224, 224, tubelet=1), np.zeros((7, 28, 28, 2), np.float32)
    cuts = np.arange(7) == 2
    same = []
    for seed in range(20):
        draw = Draw(rng=np.random.default_rng(seed), cues=Cues(flow=flow, cuts=cuts))
        shown = ~MotionGuided().hide(grid, draw).reshape(8, 196)
        assert (shown.sum(1) == 19).all()
        assert (shown[:3] == shown[0]).all()
        assert (shown[3:] == shown[3]).all()
        same.append((shown[0] & shown[3]).sum() / 19)
    assert np.mean(same) < 0.2


def test_without_cuts_or_restart_nothing_changes() -> None:
    grid = TokenGrid.video(8, 224, 224)
    flow = np.random.default_rng(1).normal(0, 5, (7, 28, 28, 2)).astype(np.float32)

    def drawn(mask: MotionGuided, cuts: np.ndarray | None) -> np.ndarray:
        return mask.hide(grid, Draw(rng=np.random.default_rng(2), cues=Cues(flow=flow, cuts=cuts)))

    cut = np.arange(7) == 3
    plain = drawn(MotionGuided(base="random"), None)
    assert (drawn(MotionGuided(base="random"), np.zeros(7, bool)) == plain).all()
    assert (drawn(MotionGuided(base="random", restart=False), cut) == plain).all()
    assert (drawn(MotionGuided(base="random"), cut) != plain).any()
    with pytest.raises(ValueError, match="needs the mask input cuts with shape"):
        drawn(MotionGuided(), np.zeros(6, bool))


def test_stored_cuts_are_of_pairs_of_any_stride() -> None:
    starts = {number: number in (12, 24) for number in range(0, 64, 4)}
    assert read_stored_cuts(np.arange(0, 32, 4), starts).nonzero()[0].tolist() == [2, 5]
    assert read_stored_cuts(np.arange(0, 48, 12), starts).tolist() == [True, True, False]
    assert read_stored_cuts(np.array([8, 12, 12, 12]), starts).tolist() == [True, False, False]
    assert read_stored_cuts(np.arange(12, 24, 4), starts).tolist() == [False, False]
    assert read_stored_cuts(np.arange(40, 72, 4), starts) is None  # 64 is not known
    assert read_stored_cuts(np.arange(1, 9, 4), starts) is None
    assert read_stored_cuts(np.arange(0, 8, 4), {}) is None


def test_scenes_come_back_and_other_forms_are_refused() -> None:
    starts = [bool(n % 3 == 0) for n in range(13)]
    box = note_box(pack_starts(96, starts))
    assert gop_notes(memoryview(box), 64, 64).starts == {96 + 4 * n: begins for n, begins in enumerate(starts)}
    for place, value in ((24, 2), (25, 8), (27, 99)):
        broken = bytearray(box)
        broken[place] = value
        with pytest.raises(Mp4Error, match="the scenes of a GOP have version"):
            gop_notes(memoryview(broken), 64, 64)
    with pytest.raises(Mp4Error, match="20 bytes, but their header alone has 24"):
        gop_notes(memoryview(note_box(pack_starts(0, [])[:20])), 64, 64)


def test_preprocessing_passes_over_a_flash_and_a_fast_pan() -> None:
    """Frame 22 is white; the scene that begins at 40 moves by 6 pixels a frame, and at 64 a black one begins."""
    wide, other = (cv2.cvtColor(scene(seed, 110), cv2.COLOR_RGB2GRAY) for seed in (0, 1))
    shown = [wide[20:116, t : t + 96] for t in range(40)]
    shown[22] = np.full_like(shown[0], 255)
    shown += [other[20:116, 6 * t : 6 * t + 96] for t in range(24)] + [np.zeros_like(shown[0])] * 16
    cuts, small = SceneCuts(), SceneCuts()
    for number, luma in enumerate(shown):
        cuts.add(number, np.ascontiguousarray(luma))
    assert cuts.seen == set(range(0, 80, 4))
    assert cuts.starts == {40, 64}
    small.add(0, np.zeros((8, 8), np.uint8))
    assert not small.seen
