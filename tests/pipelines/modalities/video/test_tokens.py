"""output="tokens": the pixels of the chosen tokens, bit by bit those of whole clips, whatever chooses them."""

import shutil
from dataclasses import replace

import pytest
import torch

from maskstream.pipelines import VideoClip, augment, masks, mix
from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import TokenBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream import kept
from maskstream.pipelines.stream.loader import Loader

from ...every_modality import Littered, write_split
from .test_dali import DisOfBatch

DATA = VideoData(
    clip=VideoClip(frames=4, stride=4, size=32),
    augment=augment.RandomResizedCrop(flip=0.5),
    patch=8,
    views=2,
    mask=masks.Random(ratio=0.75),
)
RAGGED = masks.Padded(mask=masks.Random(ratio=masks.Uniform(low=0.5, high=1.0)), bucket=4)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("video", tmp_path_factory.mktemp("video"))


@pytest.fixture(autouse=True)
def littered(monkeypatch):
    monkeypatch.setattr(kept, "LARGE", 1)
    monkeypatch.setattr(kept, "_kept", Littered())


def opened(data, folder, **options):
    return data.loader(folder, **({"batch_size": 2, "device": "cpu", "threads": 1, "seed": 3} | options))


def cut(video, patch, tubelet=2):
    """The tokens of clips uint8 (B, T, H, W, 3): (B, N, tubelet * p * p * 3)."""
    b, t, h, w, _ = video.shape
    cubes = video.view(b, t // tubelet, tubelet, h // patch, patch, w // patch, patch, 3).permute(
        0, 1, 3, 5, 2, 4, 6, 7
    )
    return cubes.reshape(b, -1, tubelet * patch * patch * 3)


def assert_tokens(batch, whole, data):
    """The batch has the pixels of the tokens of a batch of whole clips that the masks choose, and all else of it."""
    assert batch.key == whole.key
    assert torch.equal(batch.pts_s, whole.pts_s)
    assert torch.equal(batch.mask.masked, whole.mask.masked)
    assert batch.video.numel() == 0
    assert batch.room is None
    tokens, all_tokens = batch.tokens, cut(whole.video, data.patch)
    for row, masked in enumerate(whole.mask.masked):
        chosen = ~masked
        if data.output == "tokens+targets":
            real = whole.mask.target_valid[row]
            chosen[whole.mask.target[row][real]] = True
        wanted = torch.nonzero(chosen)[:, 0]
        assert torch.equal(tokens.index[row][tokens.real[row]], wanted)
        assert torch.equal(tokens.pixels[row][tokens.real[row]], all_tokens[row][wanted])
        assert not tokens.pixels[row][~tokens.real[row]].any()
    shown = tokens.whole(batch.mask.grid.size)
    assert torch.equal(shown != 0, (all_tokens != 0) & (shown != 0))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output": "tokens+targets"},
        {"mask": RAGGED},
        {"mask": masks.RunningCell()},
        {"mask": masks.RunningCell(), "output": "tokens+targets"},
        {"mask": masks.MotionGuided(ratio=0.75)},
        {"mask": masks.ByEnergy(ratio=0.75)},
        {"colour": ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)},
        {"clip": VideoClip(frames=4, stride=4, size=35), "patch": 7},
    ],
    ids=["random", "all", "ragged", "two masks", "all of two masks", "along the motion", "by energy", "jitter", "odd"],
)
def test_tokens_are_those_of_whole_clips(split, changes):
    data = replace(DATA, **{"output": "tokens", **changes})
    for batch, whole in zip(opened(data, split), opened(replace(data, output="rgb"), split), strict=True):
        assert_tokens(batch, whole, data)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_workers_resumes_and_replaced_samples_give_the_same_tokens(split, tmp_path, workers):
    data = replace(DATA, output="tokens", views=1)
    plain = replace(data, output="rgb")
    broken = shutil.copytree(split, tmp_path / "split")
    for shard in sorted(broken.glob("*.tar"))[:1]:
        octets = bytearray(shard.read_bytes())
        at = octets.index(b"mdat") + 64
        octets[at : at + 64] = bytes(64)
        shard.write_bytes(octets)
    for folder in (split, broken):
        loader = opened(data, folder, workers=workers)
        batches = list(loader)
        loader.close()
        assert (loader.stats()["bad"] > 0) == (folder == broken)
        expected = list(opened(plain, folder))
        for batch, whole in zip(batches, expected, strict=True):
            assert_tokens(batch, whole, data)
    first = opened(data, split)
    next(iter(first))
    later = opened(plain, split)
    later.load_state_dict(first.state_dict())
    resumed = opened(data, split)
    resumed.load_state_dict(later.state_dict())
    for batch, whole in zip(resumed, later, strict=True):
        assert_tokens(batch, whole, data)


def test_mixtures_and_joined_batches_of_other_counts(split):
    data = replace(DATA, output="tokens", mask=RAGGED)
    source = data.source(Split.open(split, "video", device="cpu", threads=1, seed=0))
    batches = list(Loader(mix([(source, 1), (source, 1)]), batch_size=2, device="cpu", threads=1, steps=3))[:3]
    tokens = [batch.tokens for batch in batches]
    joined = TokenBatch.concatenated(tokens)
    own = [tokens.pixels[row][real] for tokens in tokens for row, real in enumerate(tokens.real)]
    assert len({len(one) for one in own}) > 1
    for pixels, real, one in zip(joined.pixels, joined.real, own, strict=True):
        assert torch.equal(pixels[real], one)
    rgb = replace(data, output="rgb").source(Split.open(split, "video", device="cpu", threads=1, seed=0))
    with pytest.raises(ValueError, match="output: rgb and tokens"):
        mix([(rgb, 1), (source, 1)])


def test_tokens_as_floats_are_the_values_of_whole_clips(split):
    data = replace(DATA, output="tokens")
    batch, whole = (next(iter(opened(one, split))) for one in (data, replace(data, output="rgb")))
    values = cut(whole.pixel_values().movedim(2, -1).contiguous(), data.patch)
    for row, index in enumerate(batch.tokens.index):
        assert torch.equal(batch.tokens.pixel_values()[row], values[row][index])


def test_settings_that_make_no_tokens_are_refused(split):
    with pytest.raises(ValueError, match=r"output='tokens' creates only the tokens that a mask selects.*pass a mask"):
        replace(DATA, output="tokens", mask=None)
    with pytest.raises(ValueError, match="on the CPU; pass a mask, and leave backend out"):
        replace(DATA, output="tokens", backend="dali")
    with pytest.raises(ValueError, match=r"output='tokens' with flow=.*needs whole clips on the device"):
        opened(replace(DATA, output="tokens", mask=masks.MotionGuided(), flow=DisOfBatch()), split)


def test_pages_and_scores_show_whole_clips():
    assert replace(DATA, output="tokens+targets").whole() == replace(DATA, output="auto")
    assert replace(DATA, output="rgb").whole().output == "rgb"
