"""Clips and sounds in packed rows: their lengths, their tokens against plain decoders, and bad settings."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from maskstream.pipelines import (
    AudioClip,
    PackedBatch,
    PackedData,
    TrajectoryData,
    VideoClip,
    VideoData,
    masks,
    mix,
    packed_loader,
)
from maskstream.pipelines.augment import Native
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.decode.cpu import build_rgb_matrix
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.audiovisual.data import AudioVisualData
from maskstream.pipelines.modalities.packed.batch import KINDS, SOUND, VIDEO
from maskstream.pipelines.modalities.packed.clips import ClipTokensPlan
from maskstream.pipelines.modalities.packed.sounds import SoundTokensPlan
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.order import GlobalBatch
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.fbank import Fbank

from .small_kinds import picture_sample, sound_sample, video_sample, written

CLIP = VideoClip(seconds=(0.5, 2), fps=8)
CLIPS: dict[str, Any] = {
    "native": Native(patch=8, tubelet=2, least=4, most=400),
    "mask": masks.Tube(ratio=0.75),
    "row_tokens": 200,
    "clip": CLIP,
}
SOUNDS: dict[str, Any] = {
    "native": Native(patch=16, least=16, most=72),
    "mask": masks.Random(ratio=0.75),
    "row_tokens": 60,
}
N_CLIPS, N_SOUNDS = 33, 34


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    return written(tmp_path_factory.mktemp("clips"), "video", [video_sample(raw, i) for i in range(N_CLIPS)])


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("sounds"), "audio", [sound_sample(i) for i in range(N_SOUNDS)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    return written(tmp_path_factory.mktemp("pictures"), "image", [picture_sample(raw, i) for i in range(N_CLIPS)])


def opened(split: Path, settings: dict[str, Any], **options: Any) -> Loader[PackedBatch]:
    return packed_loader(split, **({"rows": 2, "device": "cpu", "threads": 1} | settings | options))


def planner(split: Path, settings: dict[str, Any], **of: Any) -> Callable[[str], Any]:
    """Plans the sample of a key in epoch 0."""
    opened_split = Split.open(split, ("video", "audio"), device="cpu", **of)
    sampler = PackedData(**settings).source(opened_split).sampler
    keys = opened_split.manifest.keys(range(len(opened_split.manifest)))

    def plan(key: str) -> Any:
        row = sampler.request(Wanted.of([keys.index(key)]))
        return row.slots[0].plan

    return plan


def cubes(batch: PackedBatch, s: int) -> np.ndarray:
    """The tokens of a clip put together at their places, the slow way: uint8 (frames, height, width, 3)."""
    (t, h, w), p, d = batch.grid_thw[s].tolist(), batch.patch, batch.tubelet
    whole = np.zeros((t * d, h * p, w * p, 3), np.uint8)
    own = slice(*batch.cu_seqlens[s : s + 2].tolist())
    assert own.stop - own.start == t * h * w
    for token, (k, y, x) in zip(batch.tokens[own].numpy(), batch.place[own].tolist(), strict=True):
        whole[k * d : k * d + d, y * p : y * p + p, x * p : x * p + p] = token.reshape(d, p, p, 3)
    return whole


def planes_of(split: Path, key: str) -> list[list[np.ndarray]]:
    """Y, U and V of all frames of a video, by PyAV from the member as a file."""
    manifest = Manifest.load(split)
    name, offset, size = manifest.member(manifest.keys(range(len(manifest))).index(key), "mp4")
    data = (manifest.folder / name).read_bytes()[offset : offset + size]
    (manifest.folder / "one.mp4").write_bytes(data)
    with av.open(str(manifest.folder / "one.mp4")) as container:
        frames = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
        width, height = container.streams.video[0].width, container.streams.video[0].height
    found = []
    for frame in frames:
        flat = frame.reshape(-1)
        luma, (u, v) = flat[: width * height], np.split(flat[width * height :], 2)
        found.append([luma.reshape(height, width), *(c.reshape(height // 2, width // 2) for c in (u, v))])
    return found


def test_tokens_of_clips_are_the_pixels_of_a_plain_decoder(clips: Path) -> None:
    """At native scale nothing is resampled, so only the rounding of colours may differ."""
    seen, plan_of = 0, planner(clips, CLIPS)
    for batch in opened(clips, CLIPS):
        assert set(batch.kind.tolist()) == {VIDEO}
        assert not bool(batch.is_sound.any())
        assert batch.sounds is None
        for s, key in enumerate(batch.key):
            plan: ClipTokensPlan = plan_of(key)
            crop, made = plan.clip.crops[0], cubes(batch, s)
            assert len(plan.numbers) == len(made)
            if (crop.width, crop.height) != (made.shape[2], made.shape[1]):
                continue  # a small crop has fewer than `least` patches, and a large one more than `most`
            seen += 1
            planes = planes_of(clips, key)
            for number, picture in zip(plan.numbers.tolist(), made, strict=True):
                y, u, v = planes[number]
                rows, columns = (slice(at, at + n) for at, n in ((crop.y, crop.height), (crop.x, crop.width)))
                chroma = (c.repeat(2, 0).repeat(2, 1)[rows, columns] for c in (u, v))
                yuv = np.stack([np.maximum(y[rows, columns], 16), *chroma, np.ones((crop.height, crop.width))], axis=-1)
                wanted = (yuv @ build_rgb_matrix("bt601", False).T).clip(0, 255)
                wanted = wanted[:, ::-1] if crop.flip else wanted
                assert np.abs(picture - wanted).max() <= 1.5
    assert seen > 10


def test_a_validation_shows_whole_frames_of_the_longest_clips_once(clips: Path) -> None:
    keys, plan_of = [], planner(clips, CLIPS, shuffle=False)
    for batch in opened(clips, CLIPS, shuffle=False):
        for s, key in enumerate(batch.key):
            keys.append(key)
            plan: ClipTokensPlan = plan_of(key)
            n_frames, fps = plan.n_frames, plan.fps
            most = max(k for k in range(1, 17) if round((k - 1) * fps / 8) < n_frames or k <= 4)
            assert len(plan.numbers) == most // 2 * 2
            made = cubes(batch, s)
            first = planes_of(clips, key)[int(plan.numbers[0])]
            resized = [
                interpolate(torch.from_numpy(plane[None, None]).double(), size=size, mode="bilinear")
                for plane, size in zip(
                    first, [made.shape[1:3], *[(made.shape[1] // 2, made.shape[2] // 2)] * 2], strict=True
                )
            ]
            y, u, v = (plane[0, 0].numpy() for plane in resized)
            chroma = (c.repeat(2, 0).repeat(2, 1) for c in (u, v))
            yuv = np.stack([np.maximum(y, 16), *chroma, np.ones_like(y)], axis=-1)
            wanted = (yuv @ build_rgb_matrix("bt601", False).T).clip(0, 255)
            assert np.abs(made[0] - wanted).max() <= 3
    assert sorted(keys) == sorted(f"v{i}" for i in range(N_CLIPS))


def test_lengths_are_drawn_of_seed_epoch_and_key_and_kept_to_what_videos_hold(clips: Path) -> None:
    split = Split.open(clips, "video", device="cpu", seed=3)
    native, numbers = PackedData(**CLIPS).native_samples(split), np.arange(N_CLIPS)
    steps = []
    for epoch in range(30):
        samples = GlobalBatch(indexes=numbers, epochs=np.full(N_CLIPS, epoch))
        drawn = native.draw(samples)
        steps.append(drawn.shape[:, 0])
        order = np.random.default_rng(epoch).permutation(N_CLIPS)
        again = native.draw(GlobalBatch(indexes=numbers[order], epochs=samples.epochs))
        assert (again.shape == drawn.shape[order]).all()
        tokens = drawn.shape.prod(axis=1)
        assert (tokens >= 4).all()
        assert (tokens <= 400).all()
    drawn_steps = np.stack(steps)
    facts = split.manifest.components["mp4"].facts
    for i in range(N_CLIPS):
        n_frames, fps = int(facts["n_frames"][i]), float(facts["fps"][i])
        fitting = [t for t in range(2, 9) if CLIP.of_frames(2 * t).span(fps) <= n_frames] or [2]
        assert set(drawn_steps[:, i].tolist()) <= set(fitting)
        assert len(set(drawn_steps[:, i].tolist())) > 0.5 * len(fitting)
    other = PackedData(**CLIPS).native_samples(replace(split, seed=4))
    assert (other.draw(samples).shape[:, 0] != steps[-1]).any()


@given(
    n_frames=st.integers(1, 400),
    rate=st.sampled_from([1.0, 12.5, 23.976, 24.0, 25.0, 29.97, 30.0, 60.0]),
    fps=st.sampled_from([1.0, 2.0, 5.0, 8.0, 12.5, 30.0]),
    align=st.sampled_from([1, 4]),
)
@settings(max_examples=100, deadline=None)
def test_the_most_frames_of_a_clip_are_those_that_lie_in_the_video(
    n_frames: int, rate: float, fps: float, align: int
) -> None:
    for clip in (VideoClip(seconds=(1, 2), fps=fps, align=align), VideoClip(stride=3)):
        many = clip.most_frames(np.array([n_frames]), np.array([rate]))[0]
        whole = replace(clip, frames=2000, seconds=None).offsets(rate)
        assert many == min(int((whole < n_frames).sum()), 2000) or many > 2000


def test_short_videos_are_left_out_repeated_or_refused(clips: Path) -> None:
    facts = Manifest.load(clips).components["mp4"].facts
    long = {**CLIPS, "clip": replace(CLIP, seconds=(1.0, 2.0))}
    short = {
        f"v{i}" for i in range(N_CLIPS) if long["clip"].of_frames(8).span(float(facts["fps"][i])) > facts["n_frames"][i]
    }
    assert 3 < len(short) < 20
    with pytest.raises(ValueError, match=rf"{len(short)} of 33 videos .* shorter than the clip \(8 frames, 8 frames"):
        opened(clips, {**long, "clip": replace(long["clip"], short="error")})
    shown: dict[str, Counter[str]] = {}
    for name in ("skip", "repeat"):
        loader = opened(clips, {**long, "clip": replace(long["clip"], short=name)}, shuffle=False)
        shown[name] = Counter(key for batch in loader for key in batch.key)
        assert loader.stats()["short"] == (len(short) if name == "repeat" else 0)
    assert set(shown["repeat"]) == {f"v{i}" for i in range(N_CLIPS)}
    assert set(shown["skip"]) == set(shown["repeat"]) - short
    left_out = opened(clips, {**long, "clip": replace(long["clip"], short="skip")}, shuffle=True)
    assert not short & {key for batch in left_out for key in batch.key}


def test_masks_of_clips_are_drawn_on_their_own_grid(clips: Path) -> None:
    batch = next(iter(opened(clips, CLIPS, scaling=0.0)))
    assert batch.mask is not None
    for s, (start, stop) in enumerate(pairwise(batch.cu_seqlens.tolist())):
        t, h, w = batch.grid_thw[s].tolist()
        hidden = batch.mask.masked[start:stop].view(t, h * w)
        assert (hidden == hidden[:1]).all()  # a tube
        assert hidden.any()
        assert not hidden.all()
        places = batch.place[start:stop]
        assert places.tolist() == [[k, y, x] for k in range(t) for y in range(h) for x in range(w)]


def test_colour_is_that_of_all_frames(clips: Path) -> None:
    plain = next(iter(opened(clips, CLIPS)))
    jittered = next(iter(opened(clips, {**CLIPS, "colour": ColourJitter()})))
    assert torch.equal(plain.grid_thw, jittered.grid_thw)
    assert not torch.equal(plain.tokens, jittered.tokens)


def test_clips_of_a_fixed_length_can_be_packed(clips: Path) -> None:
    batch = next(iter(opened(clips, {**CLIPS, "clip": VideoClip(frames=4, stride=2)})))
    assert batch.grid_thw[:, 0].tolist() == [2] * len(batch)


def test_tokens_of_sounds_are_those_of_a_spectrogram_of_the_segment(sounds: Path) -> None:
    statistics = (-4.0, 3.5)
    keys, padded, cut, plan_of = [], 0, 0, planner(sounds, SOUNDS, shuffle=False)
    for batch in opened(sounds, {**SOUNDS, "statistics": statistics}, shuffle=False):
        assert set(batch.kind.tolist()) == {SOUND}
        assert bool(batch.is_sound.all())
        assert batch.tokens.shape == (0, 0)
        assert batch.sounds is not None
        assert batch.sounds.shape == (len(batch.place), 256)
        assert batch.mask is not None
        for s, key in enumerate(batch.key):
            keys.append(key)
            (t, f, w), own = batch.grid_thw[s].tolist(), slice(*batch.cu_seqlens[s : s + 2].tolist())
            assert (f, w) == (8, 1)
            made = np.zeros((16 * t, 128), np.float32)
            for token, (k, y, _) in zip(batch.sounds[own].numpy(), batch.place[own].tolist(), strict=True):
                made[16 * k : 16 * k + 16, 16 * y : 16 * y + 16] = token.reshape(16, 16)
            plan: SoundTokensPlan = plan_of(key)
            n = 1600 + 1777 * (int(key[1:]) % 17)
            rng = np.random.default_rng(int(key[1:]))
            wave = np.sin(np.arange(n) * rng.uniform(0.05, 0.9)) * 9000 + rng.normal(0, 900, n)
            samples = torch.from_numpy(wave.astype(np.int32).astype(np.float32) / 32768)[None]
            bank = Fbank()(samples[:, plan.sound.first : plan.sound.stop])[0].numpy()
            # Whole patches of frames that are there; only what is shorter than `least` is filled up.
            there = Fbank().n_frames(n)
            assert t == min(max(there // 16, 2), 9)
            cut += plan.sound.stop - plan.sound.first < n
            heard = min(len(bank), 16 * t)
            np.testing.assert_allclose(made[:heard], (bank[:heard] + 4) / 7, atol=2e-3)
            assert (made[heard:] == np.float32(4 / 7)).all()
            padded += heard < 16 * t
            target = slice(*batch.mask.cu_target[s : s + 2].tolist())
            late = (batch.place[batch.mask.target[target], 0] * 16 >= max(heard, 1)).float()
            assert torch.equal(batch.mask.weight[target], 1 - late)
    assert sorted(keys) == sorted(f"a{i}" for i in range(N_SOUNDS))
    assert padded == 6
    assert cut > 10


def test_sounds_that_are_filled_up_by_repeating_count_whole(sounds: Path) -> None:
    settings = {**SOUNDS, "statistics": (-4.0, 3.5), "sound": AudioClip(short="repeat")}
    for batch in opened(sounds, settings, shuffle=False):
        assert batch.mask is not None
        assert (batch.mask.weight == 1).all()


def test_sounds_have_the_statistics_of_their_split_and_other_features(sounds: Path) -> None:
    loader = opened(sounds, SOUNDS)
    values = torch.cat([batch.sounds for batch in loader if batch.sounds is not None])
    assert abs(float(values.mean())) < 0.2
    assert 0.3 < float(values.std()) < 0.7
    assert loader.state_dict()["statistics"]
    mel = LogMel(n_bins=64)
    batch = next(iter(opened(sounds, {**SOUNDS, "features": mel, "statistics": (-60.0, 20.0)})))
    assert set(batch.grid_thw[:, 1].tolist()) == {4}


def test_kinds_are_named() -> None:
    assert [KINDS[kind] for kind in (VIDEO, SOUND)] == ["video", "sound"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clip": VideoClip(seconds=(0.1, 0.12), fps=8)}, "no clip length in this range is a multiple of tubelet"),
        ({"clip": VideoClip(frames=5)}, "clip.frames=5 is not a multiple of tubelet=2 in Native"),
        ({"clip": VideoClip(seconds=(60, 90), fps=8)}, "most=200 in Native is less than the shortest clip needs.* 240"),
        ({"clip": VideoClip(seconds=(3, 4), fps=8, short="error")}, "videos .* are shorter than the clip"),
        ({"clip": VideoClip(seconds=(9, 12), fps=8, short="skip")}, "short='skip' leaves none"),
        ({"row_tokens": 20}, r"row_tokens=20 is less than one sample needs: of 8 x 5 x 5 tokens 56 are visible"),
        ({"row_targets": 20}, "row_targets=20 is less than one sample needs"),
        ({"row_tokens": 100_000}, "row_tokens=100000: 33 samples do not fill one row"),
        ({"mask": masks.Tube(ratio=masks.Uniform(scope="batch"))}, "per batch; use a fixed ratio"),
        ({"mask": masks.Tube(ratio=1.0)}, "hides all tokens of a video with 2 x 1 x 2 tokens; raise `least` in Native"),
        ({"component": "webm"}, "webm"),
    ],
)
def test_impossible_clips_are_refused_before_training_starts(clips: Path, given: dict[str, Any], message: str) -> None:
    native = replace(CLIPS["native"], most=200)
    with pytest.raises(ValueError, match=message):
        opened(clips, {**CLIPS, "native": native, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"native": Native(patch=24)}, "patch=24 in Native does not divide 128 bins evenly"),
        ({"native": Native(patch=16, least=1, most=7)}, "the shortest sound has 8 tokens of 16 frames each; most=7"),
        ({"sound": AudioClip(seconds=0.1)}, r"sound.seconds=0.1 \(10 frames\) must leave room for it"),
        ({"sound": AudioClip(sample_rate=8000)}, "use the same rate for both"),
        ({"features": LogMel()}, "pass statistics="),
        ({"row_tokens": 10}, "row_tokens=10 is less than one sample needs: of 9 x 8 x 1 tokens"),
        ({"mask": masks.Random(ratio=1.0)}, "hides all tokens of a sound with 2 x 8 tokens; raise `least` in Native"),
    ],
)
def test_impossible_sounds_are_refused_before_training_starts(
    sounds: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(sounds, {**SOUNDS, **given})


@pytest.mark.parametrize("of", [VideoData, AudioVisualData, TrajectoryData])
def test_a_drawn_length_is_for_packed_rows_alone(of: Any) -> None:
    with pytest.raises(ValueError, match=r"draws the length of each clip.* open the split with packed_loader"):
        of(clip=CLIP)


@pytest.mark.parametrize("seconds", [(2, 1), (0, 1)])
def test_a_drawn_length_has_two_ends(seconds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="seconds must be"):
        VideoClip(seconds=seconds, fps=8)


def test_a_drawn_length_has_a_rate() -> None:
    with pytest.raises(ValueError, match="a drawn length needs fps"):
        VideoClip(seconds=(1, 2))


def test_other_splits_are_refused(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    other = written(tmp_path / "split", "text", [video_sample(tmp_path, 0)])
    with pytest.raises(
        ShardError, match="contains text shards, but this loader reads image or image-text or video or audio shards"
    ):
        opened(other, CLIPS)


def test_the_config_of_all_kinds_survives_json() -> None:
    data = PackedData(clip=CLIP, sound=AudioClip(seconds=3), features=LogMel(), statistics=(1.0, 2.0))
    assert PackedData.from_dict(data.to_dict()) == data


def test_a_row_of_three_kinds_has_what_each_kind_has_alone(clips: Path, sounds: Path, pictures: Path) -> None:
    """Tokens of sounds are in a tensor of their own, both in the order of all tokens."""
    splits = {"image": pictures, "video": clips, "sound": sounds}
    native, sources = Native(patch=16, tubelet=2, least=8, most=72), []
    data = PackedData(native=native, mask=masks.Random(ratio=0.75), row_tokens=60, clip=CLIP)
    for split in splits.values():
        sources.append(data.source(Split.open(split, PackedData.modalities, device="cpu", threads=1)))
    mixed = mix([(source, 1) for source in sources], batches=2)
    loader = Loader(mixed, batch_size=4, device="cpu", threads=1)
    seen = Counter[str]()
    for batch in loader:
        assert batch.sounds is not None
        assert batch.tokens.shape[1] == 2 * 16 * 16 * 3
        assert len(batch.tokens) + len(batch.sounds) == len(batch.place) == int(batch.cu_seqlens[-1])
        assert len(batch.sounds) == int(batch.is_sound.sum())
        assert (batch.cu_seqlens.diff() == batch.grid_thw.prod(dim=1)).all()
        room = torch.zeros(len(batch.place), batch.tokens.shape[1])
        room[~batch.is_sound] = batch.tokens.float()
        room[batch.is_sound, : batch.sounds.shape[1]] = batch.sounds
        for s, (key, kind) in enumerate(zip(batch.key, batch.kind.tolist(), strict=True)):
            name, sampler = KINDS[kind], sources[kind].sampler
            seen[name] += 1
            if seen[name] > 2:
                continue
            (native,) = sampler.natives
            number = native.manifest.keys(range(len(native.manifest))).index(key)
            own = room[slice(*batch.cu_seqlens[s : s + 2].tolist())]
            for epoch in range(12):  # a block of rows has several epochs of so few samples
                alone = batch_of(sampler, Wanted.of([number], epoch))
                values = alone.sounds if name == "sound" else alone.tokens
                if len(values) == len(own) and torch.equal(own[:, : values.shape[1]], values.float()):
                    break
            else:
                pytest.fail(f"{key} is as in no epoch")
    assert min(seen[name] for name in splits) >= 2
