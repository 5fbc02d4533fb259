"""Packed clips whose tokens are chosen by energy, stored or online."""

import shutil
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines import AudioClip, PackedData, VideoClip, masks
from maskstream.pipelines.augment import Native
from maskstream.pipelines.masks.patterns.token_energy import token_energy
from maskstream.pipelines.modalities.packed.clips import ClipTokensPlan
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.energy import read_stored_energy
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.gop_notes import gop_notes

from ....with_new_checksum import renew_checksum
from .small_kinds import picture_sample, sound_sample, video_sample, written

N = 22
MASK = masks.ByEnergy(ratio=0.75, energy="stored")
DATA = PackedData(
    native=Native(patch=8, tubelet=2, least=8, most=200),
    mask=MASK,
    row_tokens=60,
    clip=VideoClip(seconds=(0.8, 3.2), fps=2.5),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("raw")
    return written(tmp_path_factory.mktemp("clips"), "video", [video_sample(raw, i) for i in range(N)])


def split_of(folder: Path) -> Split:
    return Split.open(folder, PackedData.modalities, device="cpu", threads=1, seed=3)


def energy_of(folder: Path, plan: ClipTokensPlan, key: str) -> np.ndarray:
    """The stored energy of a clip's tokens, from the bytes of its whole video: (t * h * w,)."""
    manifest = Manifest.load(folder)
    name, offset, size = manifest.member(manifest.keys(range(len(manifest))).index(key), "mp4")
    data, video = (manifest.folder / name).read_bytes()[offset : offset + size], plan.clip.video
    notes = gop_notes(memoryview(data)[video.header_size :], video.width, video.height)
    (t, h, w), source = plan.shape, (video.width, video.height)
    return (
        read_stored_energy(notes, plan.clip.numbers, plan.clip.crops[0], source, (h, w))
        .reshape(t, -1, h * w)
        .sum(axis=1)
    )


def filled(data: PackedData, folder: Path) -> Any:
    """Each sample of an epoch: its key, slot, hidden tokens (t, h * w), pixels (T, H, W, 3), and visible tokens."""
    sampler = data.source(split_of(folder)).sampler
    rows = [row for batch in sampler.samples.order(1).batches(1) for row in batch.packed or ()]
    wanted = replace(Wanted.of([0] * len(rows), 1), packed=tuple(rows))
    batch, p = batch_of(sampler, wanted), data.native.patch
    assert batch.mask is not None
    slots = chain.from_iterable(sampler.request(row).slots for row in wanted.each())
    for s, (key, slot) in enumerate(zip(batch.key, slots, strict=True)):
        own, (t, h, w) = slice(*batch.cu_seqlens[s : s + 2].tolist()), batch.grid_thw[s].tolist()
        cubes = batch.tokens[own].numpy().reshape(t, h, w, 2, p, p, 3)
        pixels = cubes.transpose(0, 3, 1, 4, 2, 5, 6).reshape(2 * t, h * p, w * p, 3)
        yield key, slot, batch.mask.masked[own].numpy().reshape(t, h * w), pixels, slot.visible


@pytest.mark.parametrize("scaling", [0.0, 0.2])
def test_the_tokens_of_most_stored_energy_are_visible_also_where_a_row_scales_them(clips: Path, scaling: float) -> None:
    seen = changed = 0
    for key, slot, hidden, _, visible in filled(replace(DATA, scaling=scaling), clips):
        energy = energy_of(clips, slot.plan, key)
        assert energy[~hidden].min() >= energy[hidden].max()
        assert int((~hidden).sum()) == visible
        changed += visible != int(0.25 * hidden.size)
        seen += len(np.unique(energy)) > 1
    assert seen >= 6
    assert bool(changed) is bool(scaling)


def test_rows_are_planned_before_energy_is_read(clips: Path, tmp_path: Path) -> None:
    """Without the shards' bytes rows are the same; only a batch needs them."""
    shutil.copytree(clips, tmp_path / "split")
    for tar in (tmp_path / "split").glob("*.tar"):
        tar.write_bytes(b"")
    rows = [
        [(row.indexes.tolist(), row.visible.tolist()) for row in next(source.samples.order(3).batches(2)).packed or ()]
        for source in (DATA.source(split_of(folder)) for folder in (clips, tmp_path / "split"))
    ]
    assert rows[0] == rows[1]
    assert rows[0]


@pytest.mark.parametrize("clip", [DATA.clip, VideoClip(frames=4, stride=4)])
def test_online_energy_is_that_of_the_clip_as_it_is_shown(clips: Path, clip: VideoClip) -> None:
    data = replace(DATA, mask=replace(MASK, energy="online"), clip=clip)
    source = data.source(split_of(clips))
    assert source.identity["flow"] == ("DIS" if clip.is_timed else "the codec's motion vectors")
    seen = 0
    for _, slot, hidden, pixels, visible in filled(data, clips):
        cues = slot.plan.fill(slot.item, np.empty((slot.size, slot.native.token_size), np.uint8), Stats())
        assert (cues.frames == pixels).all()
        energy = token_energy(pixels, cues.flow, cues.cuts, tubelet=2, patch=8).reshape(hidden.shape)
        assert energy[~hidden].min() >= energy[hidden].max()
        assert int((~hidden).sum()) == visible
        seen += len(np.unique(energy)) > 1
    assert seen >= 4


@pytest.mark.parametrize(
    "mask",
    [
        replace(MASK, per="slice"),
        replace(MASK, per="tube", keep="least"),
        replace(MASK, first=masks.Tube(ratio=0.5)),
        replace(MASK, ratio=masks.Uniform(low=0.6, high=0.9), sharpness=0.5),
    ],
)
def test_counts_are_those_of_the_plan(clips: Path, mask: masks.ByEnergy) -> None:
    data = replace(DATA, mask=mask, row_tokens=200)  # a drawn ratio may show all tokens but one
    counts = {int((~hidden).sum()) - visible for _, _, hidden, _, visible in filled(data, clips)}
    assert counts == {0}


def test_what_cannot_follow_energy_is_refused(clips: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(clips, tmp_path / "plain")
    renew_checksum(plain, settings={})
    for folder, data, words in (
        (plain, DATA, r"has none .*maskstream shards DATASET --set video\.energy=true"),
        (clips, replace(DATA, clip=VideoClip(seconds=(1, 2), fps=8)), "of videos of 10, align 4; pass at most 2.5 fra"),
        (clips, replace(DATA, clip=VideoClip(frames=4, stride=2)), "stride 2, .* a multiple of 4, or use energy='onl"),
        (clips, replace(DATA, clip=replace(DATA.clip, short="loop")), "goes back in time"),
    ):
        with pytest.raises(ValueError, match=words):
            data.source(split_of(folder))
    online = replace(DATA, mask=replace(MASK, energy="online"))
    assert online.source(split_of(plain)).samples.n_samples == N
    with pytest.raises(ValueError, match="goes back in time"):
        replace(online, clip=replace(DATA.clip, short="loop")).source(split_of(plain))
    for made, kind, sample in (("image", "images", picture_sample(tmp_path, 0)), ("audio", "sounds", sound_sample(9))):
        folder = tmp_path / made
        folder.mkdir()
        with pytest.raises(ValueError, match=f"needs energy, but packed rows of {kind} have no cues"):
            replace(DATA, sound=AudioClip(), statistics=(0.0, 1.0)).source(split_of(written(folder, made, [sample])))
    for mask in (masks.MotionGuided(), masks.Padded(mask=MASK), replace(MASK, first=masks.MotionGuided())):
        with pytest.raises(ValueError, match=r"packed rows, except with masks.ByEnergy, have no cues"):
            replace(DATA, mask=mask)
