"""Video by DALI: the same clips, masks and times as on the CPU path, and the same pixels up to conversion and rounding.

DALI's CPU decoder supports VP9 but not H.264, so VP9 tests the whole path. For H.264 and HEVC, the packets for DALI are
decoded with PyAV and must give exactly the CPU path's frames. NVDEC runs in the test marked `gpu`.
"""

import json
import logging
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from maskstream.pipelines import video_loader
from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.flow import BatchFlow, dis_flow
from maskstream.pipelines.masks import Cues, Draw, MotionGuided, Tube
from maskstream.pipelines.stream.rng import Place
from maskstream.pipelines.stream.sampler import BadRowsError, Wanted
from maskstream.shards.errors import ResumeError, SampleError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mp4 import read_fragments, read_header

from ....web_server import serving
from .packed_videos import (
    CLIP,
    CPU,
    VP9,
    Fast,
    assert_pixels_agree,
    assert_same_but_pixels,
    made,
    sampler_of,
    write_split,
)


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("vp9"), "libvpx-vp9", VP9, "copy")


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("h264"), "libx264", {"preset": "veryfast"}, "train")


def test_batch_equals_the_cpu_path(vp9):
    sampler = sampler_of(vp9)
    fast = Fast(sampler, 2)
    assert fast.packing.seed == sampler.seed
    flips, repeats, late = 0, 0, 0
    for epoch in range(7):
        plans = sampler.request(Wanted.of(range(4), epoch)).plans
        flips += sum(crop.flip for plan in plans for crop in plan.crops)
        repeats += sum(len(set(plan.numbers.tolist())) < CLIP.frames for plan in plans)
        late += sum(int(plan.numbers[0]) >= 16 for plan in plans)
        batch, expected = made(fast, range(4), epoch), made(sampler, range(4), epoch)
        assert len(batch) == 8
        assert_same_but_pixels(batch, expected)
        assert_pixels_agree(batch.video, expected.video)
    assert 0 < flips < 56
    assert repeats == 14, "two of the videos are too short for the clip"
    assert late > 0, "some clips start behind the first GOP"


def test_batches_may_shrink_and_grow(vp9):
    sampler = sampler_of(vp9, views=1)
    fast = Fast(sampler)
    for indexes in ([0, 1], [2], [3, 1, 0, 2]):
        batch, expected = made(fast, indexes), made(sampler, indexes)
        assert_same_but_pixels(batch, expected)
        assert_pixels_agree(batch.video, expected.video)


def test_odd_sizes(tmp_path):
    sampler = sampler_of(write_split(tmp_path, "libvpx-vp9", VP9, "copy", size=(111, 77)), clip=replace(CLIP, size=80))
    assert sampler.manifest.video(0).width == 111
    assert sampler.manifest.video(0).height == 77
    batch, expected = made(Fast(sampler), range(4)), made(sampler, range(4))
    assert_pixels_agree(batch.video, expected.video)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loader_gives_the_same_batches(vp9, workers):
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu", "augment": CenterCrop(), "seed": 5}
    slow = video_loader(vp9, backend="cpu", **settings)
    fast = video_loader(vp9, backend="dali", workers=workers, threads=1, **settings)
    for _ in range(2):
        batches, expected = list(fast), list(slow)
        assert len(batches) == len(expected) == 2
        for batch, reference in zip(batches, expected, strict=True):
            assert_same_but_pixels(batch, reference)
            assert_pixels_agree(batch.video, reference.video)
    assert fast.state_dict() == {**slow.state_dict(), "backend": "dali"}
    fast.close()
    assert fast.stats()["samples"] == 8
    assert fast.stats()["seconds"]["finish"] > fast.stats()["seconds"]["collate"], "decoding is booked where it is"
    assert fast.stats()["read_bytes"] == slow.stats()["read_bytes"] > 0


def test_dali_decodes_what_was_read_at_a_url(vp9):
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu", "augment": CenterCrop(), "seed": 5}
    with serving(vp9) as server:
        there = list(video_loader(server.url, backend="dali", **settings))
    here = list(video_loader(vp9, backend="dali", **settings))
    assert [batch.key for batch in there] == [batch.key for batch in here]
    assert all(torch.equal(one.video, other.video) for one, other in zip(there, here, strict=True))


# Damaged and unsupported videos.


def test_a_video_that_dali_refuses_sends_the_batch_to_the_cpu(vp9, caplog):
    sampler = sampler_of(vp9)
    fast = Fast(sampler)
    packed = fast.packed(range(3))
    packed.clips[1] = replace(packed.clips[1], mp4=np.zeros_like(packed.clips[1].mp4))
    expected = made(sampler, range(3))
    with caplog.at_level(logging.WARNING):
        batch = fast.finish(packed, CPU)
    assert "decoded on the CPU" in caplog.text
    assert_same_but_pixels(batch, expected)
    assert torch.equal(batch.video, expected.video)
    caplog.clear()
    batch = made(fast, range(3))
    assert not caplog.records, "the next batch is DALI's again"
    assert not torch.equal(batch.video, expected.video)
    assert_pixels_agree(batch.video, expected.video)


def damaged(vp9, tmp_path, damage):
    """A copy of the split in which `damage(member, index)` was applied to the bytes of sample 0."""
    shutil.copytree(vp9, tmp_path, ignore=shutil.ignore_patterns("*.mkv", "*.sums"), dirs_exist_ok=True)
    manifest = Manifest.load(tmp_path)
    offset, size = (int(a[0]) for a in (manifest.component("mp4").offset, manifest.component("mp4").size))
    tar = bytearray(manifest.shard_path(0).read_bytes())
    member = memoryview(tar)[offset : offset + size]
    damage(member, manifest.video(0))
    member.release()
    manifest.shard_path(0).write_bytes(tar)
    return tmp_path


def test_damaged_boxes_are_found_before_the_batch(vp9, tmp_path):
    def damage(member, index):
        for start in index.offset:
            member[start + 4 : start + 8] = b"free"

    sampler = sampler_of(damaged(vp9, tmp_path, damage))
    errors = []
    for maker in (Fast(sampler), sampler):
        with pytest.raises(SampleError, match="v/0") as caught:
            made(maker, [0])
        errors.append(caught.value)
    assert errors[0].shard == errors[1].shard == "v-000000.tar"
    assert errors[0].reason == errors[1].reason


def test_damaged_frames_name_their_sample(vp9, tmp_path, caplog):
    def damage(member, index):
        packets = read_fragments(member[index.header_size :], read_header(bytes(member[: index.header_size])))
        for start, size in list(zip(packets.start, packets.size, strict=True))[1:]:  # the first frame tells the format
            at = index.header_size + start
            member[at : at + size] = bytes(size)

    fast = Fast(sampler_of(damaged(vp9, tmp_path, damage)))
    packed = fast.packed(range(2))
    with caplog.at_level(logging.WARNING), pytest.raises(BadRowsError, match="v/0") as caught:
        fast.finish(packed, CPU)
    assert "decoded on the CPU" in caplog.text
    assert list(caught.value.rows) == [0]


def test_a_bad_clip_gets_the_same_replacement_as_on_the_cpu(vp9, tmp_path, caplog):
    def damage(member, index):
        packets = read_fragments(member[index.header_size :], read_header(bytes(member[: index.header_size])))
        for start, size in zip(packets.start, packets.size, strict=True):
            at = index.header_size + start
            member[at : at + size] = bytes(size)

    folder = damaged(vp9, tmp_path, damage)
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu", "shuffle": False, "max_bad_fraction": 1}
    slow, fast = (video_loader(folder, backend=backend, **settings) for backend in ("cpu", "dali"))
    for batch, reference in zip(fast, slow, strict=True):
        assert_same_but_pixels(batch, reference)
        assert_pixels_agree(batch.video, reference.video)
    assert fast.stats()["bad"] == slow.stats()["bad"] > 0
    assert fast.stats()["samples"] == slow.stats()["samples"] == 4


# Flow of whole batches.


@dataclass(frozen=True, kw_only=True, slots=True)
class DisOfBatch(BatchFlow):
    def of_clips(self, clips):
        return torch.from_numpy(np.stack([dis_flow(clip).vectors for clip in clips.cpu().numpy()])).movedim(4, 2)


def test_a_batch_flow_is_of_dalis_pixels_and_masks_follow_it(vp9):
    settings = {"clip": CLIP, "flow": DisOfBatch(), "views": 2, "batch_size": 2, "device": "cpu", "shuffle": False}
    fast, slow = (
        video_loader(vp9, backend=backend, mask=MotionGuided(ratio=0.75), seed=3, **settings)
        for backend in ("dali", "cpu")
    )
    state = json.loads(json.dumps(fast.state_dict()))
    for step, (batch, reference) in enumerate(zip(fast, slow, strict=True)):
        assert batch.key == reference.key
        assert not torch.equal(batch.video, reference.video)
        flows = [dis_flow(clip).vectors for clip in batch.video.numpy()]
        assert torch.equal(batch.flow.vectors, torch.from_numpy(np.stack(flows)))
        places = [Place(step=step, row=i // 2, rows=2) for i in range(4)]
        draws = [Draw.of(3, 0, batch.key[i], i % 2, places[i], Cues(flow=flows[i])) for i in range(4)]
        assert torch.equal(batch.mask.masked, MotionGuided(ratio=0.75).draw(batch.mask.grid, draws).masked)
    with pytest.raises(ResumeError, match=r"backend: saved dali, here nothing.*Pass backend='dali', which needs"):
        slow.load_state_dict(state)


def test_the_decoder_belongs_to_the_identity(vp9):
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu"}
    fast, slow = (video_loader(vp9, backend=backend, **settings) for backend in ("dali", "cpu"))
    with pytest.raises(ResumeError, match="backend: saved nothing, here dali"):
        fast.load_state_dict(json.loads(json.dumps(slow.state_dict())))
    again = video_loader(vp9, backend="dali", **settings)
    again.load_state_dict(json.loads(json.dumps(fast.state_dict())))
    assert torch.equal(next(iter(fast)).video, next(iter(again)).video)
    again.close()


# Refused settings.


def test_h264_on_the_cpu_is_refused(h264):
    with pytest.raises(ValueError, match=r"vp9 on the device 'cpu'.*contains h264; use backend='cpu'"):
        video_loader(h264, clip=CLIP, batch_size=2, backend="dali", device="cpu")


def test_a_sample_flow_is_refused(vp9):
    with pytest.raises(ValueError, match=r"flow=Dis.*needs single clips.*use backend='cpu'"):
        video_loader(vp9, clip=CLIP, batch_size=2, backend="dali", device="cpu", flow="dis")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NVDEC needs a CUDA device")
def test_nvdec_equals_the_cpu_path(h264, caplog):
    sampler = sampler_of(h264)
    fast = Fast(sampler, 2, torch.device("cuda", 0))
    for epoch in range(4):
        batch, expected = made(fast, range(4), epoch), made(sampler, range(4), epoch)
        assert batch.video.is_cuda
        assert_same_but_pixels(batch, expected)
        assert_pixels_agree(batch.video, expected.video)
    assert not caplog.records, "no batch was decoded on the CPU"
