"""Video by DALI: the same clips, masks and times as on the CPU path, and the same pixels up to conversion and rounding.

DALI's CPU decoder supports VP9 but not H.264, so VP9 tests the whole path. For H.264 and HEVC, the packets for DALI are
decoded with PyAV and must give exactly the CPU path's frames. NVDEC runs in the test marked `gpu`.
"""

import io
import json
import logging
import shutil
from dataclasses import dataclass, replace

import av
import cv2
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, video_loader
from maskstream.pipelines.augment import CenterCrop, RandomResizedCrop
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import decode_frames
from maskstream.pipelines.flow import BatchFlow, dis_flow
from maskstream.pipelines.masks import Cues, MotionGuided, TokenGrid, Tube
from maskstream.pipelines.masks.core.draw import Draw
from maskstream.pipelines.modalities.video.dali import DaliFinish, PackingSampler, clip_pipeline, encoded_clip, region
from maskstream.pipelines.modalities.video.sample import ClipBytes, VideoSampler
from maskstream.pipelines.stream.place import Place
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import BadRowsError, Composed, Unchanged, Wanted
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.errors import ResumeError, SampleError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.media.mp4 import read_fragments, read_header
from maskstream.shards.members.video import video_member

from ....web_server import serving

CPU = torch.device("cpu")
CLIP = VideoClip(frames=8, stride=3, size=64)
FRAMES = (50, 40, 20, 13)
"""The frame counts of a split's videos. A clip spans 22 frames, so the last two videos repeat their last frame."""

VP9 = {"g": "16", "deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12", "b": "400k"}
OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"}
HEVC = {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0:log-level=none"}


def pattern(number, width, height):
    """A smooth moving pattern; its brightness identifies the frame number."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin((x + 2 * number) / 9), np.sin((y - number) / 7), np.cos((x + y) / 11 + number / 5)]
    return (60 + 2.5 * number + 40 * np.stack(waves, axis=-1)).clip(0, 255).astype(np.uint8)


def write_video(path, codec, frames, options, width=110, height=90):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pattern(number, width, height), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_split(folder, codec, options, profile, size=(110, 90)):
    samples = []
    for number, frames in enumerate(FRAMES):
        path = write_video(folder / f"{number}.mkv", codec, frames, options, *size)
        video = encode_video(path, PROFILES[profile])
        samples.append(
            Sample(
                key=f"v/{number}",
                members={"mp4": video_member(video.data, video.index)},
                source=path.name,
                label=number,
            )
        )
    shards = [write_shard(folder / f"v-{i:06d}.tar", samples[2 * i : 2 * i + 2]) for i in range(2)]
    finish_split(folder, DatasetInfo(dataset="v", split="train", modality="video", profile=profile), shards, [])
    return folder


@pytest.fixture(scope="module")
def vp9(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("vp9"), "libvpx-vp9", VP9, "copy")


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("h264"), "libx264", {"preset": "veryfast"}, "train")


def sampler_of(folder, **changes):
    settings = {
        "manifest": Manifest.load(folder),
        "clip": CLIP,
        "grid": TokenGrid.video(CLIP.frames, CLIP.size, CLIP.size),
        "augment": RandomResizedCrop(flip=0.5),
        "pattern": Tube(ratio=0.75),
        "flow": None,
        "seed": 3,
        "component": "mp4",
        "views": 2,
    }
    return VideoSampler(**{**settings, **changes})


class Fast:
    """Packs clips as the loader's threads do, and decodes on the CPU as its finish does."""

    def __init__(self, sampler, threads=1, device=CPU):
        self.packing, self.finish, self.device = PackingSampler(inner=sampler), DaliFinish(sampler, threads), device

    def packed(self, indexes, epoch=0):
        return made(self.packing, indexes, epoch)

    def made(self, indexes, epoch=0):
        return self.finish(self.packed(indexes, epoch), self.device)


def made(sampler, indexes, epoch=0):
    if isinstance(sampler, Fast):
        return sampler.made(indexes, epoch)
    return batch_of(sampler, [Wanted(index=i, epoch=epoch) for i in indexes])


def assert_same_but_pixels(batch, expected):
    assert batch.key == expected.key
    assert torch.equal(batch.label, expected.label)
    assert torch.equal(batch.pts_s, expected.pts_s)
    for name in ("masked", "visible", "target", "weight"):
        assert torch.equal(getattr(batch.mask, name), getattr(expected.mask, name))
    assert batch.video.shape == expected.video.shape
    assert batch.video.dtype == torch.uint8


def assert_pixels_agree(video, expected):
    """The pixels differ only by colour conversion and chroma siting, and every frame is the right one.

    DALI's conversion is 1.1 to 1.6 levels brighter on average and differs by up to 12 in a pixel, and interpolating
    RGB instead of Y, U and V moves chroma by up to a quarter of a pixel (1.15 levels on average): so less than 3 on
    average and 20 at most.
    """
    video, expected = video.cpu().float(), expected.float()
    difference = (video - expected).abs()
    assert difference.mean() < 3
    assert difference.max() <= 20
    for clip, reference in zip(video, expected, strict=True):
        distance = (clip[:, None] - reference[None]).abs().mean(dim=(2, 3, 4))
        own = torch.diagonal(distance)
        other = (reference[:, None] != reference[None]).flatten(2).any(dim=2)
        assert (own[:, None] + 2 < distance)[other].all(), "a frame is nearer to another one of the clip"


def test_batch_equals_the_cpu_path(vp9):
    sampler = sampler_of(vp9)
    fast = Fast(sampler, 2)
    assert fast.packing.seed == sampler.seed
    flips, repeats, late = 0, 0, 0
    for epoch in range(7):
        requests = [sampler.request(Wanted(index=i, epoch=epoch)) for i in range(4)]
        flips += sum(crop.flip for request in requests for crop in request.crops)
        repeats += sum(len(set(request.numbers.tolist())) < CLIP.frames for request in requests)
        late += sum(int(request.numbers[0]) >= 16 for request in requests)
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


def test_loader_gives_the_same_batches(vp9):
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu", "augment": CenterCrop(), "seed": 5}
    slow = video_loader(vp9, backend="cpu", **settings)
    fast = video_loader(vp9, backend="dali", **settings)
    for _ in range(2):
        batches, expected = list(fast), list(slow)
        assert len(batches) == len(expected) == 2
        for batch, reference in zip(batches, expected, strict=True):
            assert_same_but_pixels(batch, reference)
            assert_pixels_agree(batch.video, reference.video)
    assert fast.state_dict() == slow.state_dict()
    assert fast.stats()["samples"] == 8
    assert fast.stats()["read_bytes"] == slow.stats()["read_bytes"] > 0


def test_dali_decodes_what_was_read_at_a_url(vp9):
    settings = {"clip": CLIP, "mask": Tube(), "batch_size": 2, "device": "cpu", "augment": CenterCrop(), "seed": 5}
    with serving(vp9) as server:
        there = list(video_loader(server.url, backend="dali", **settings))
    here = list(video_loader(vp9, backend="dali", **settings))
    assert [batch.key for batch in there] == [batch.key for batch in here]
    assert all(torch.equal(one.video, other.video) for one, other in zip(there, here, strict=True))


# The packets that DALI gets, decoded with PyAV.


@pytest.mark.parametrize(
    ("codec", "options", "profile"),
    [("libx264", {}, "train"), ("libx264", OPEN, "copy"), ("libx265", HEVC, "copy"), ("libvpx-vp9", VP9, "copy")],
    ids=["train", "open", "hevc", "vp9"],
)
def test_a_packed_clip_decodes_to_the_same_frames(tmp_path, codec, options, profile):
    video = encode_video(write_video(tmp_path / "v.mkv", codec, 48, options), PROFILES[profile])
    index, dropped, led = video.index, 0, 0
    for stride in (1, 3, 4):
        for start in range(0, 44, 4):
            numbers = np.minimum(start + stride * np.arange(6), start + (47 - start) // stride * stride)
            first, stop = index.gops_of(numbers)
            data = ClipBytes(
                header=video.data[: index.header_size],
                fragments=video.data[index.offset[first] : index.offset[stop - 1] + index.size[stop - 1]],
                first_frame=int(index.first_frame[first]),
            )
            clip = encoded_clip(data, numbers)
            with av.open(io.BytesIO(clip.mp4.tobytes())) as container:
                decoded = list(container.decode(video=0))
            frames = [frame.to_ndarray() for frame in decoded]
            assert (np.diff([frame.pts for frame in decoded]) == 1).all(), "NVDEC's frames are put in order by time"
            expected = decode_frames(
                data.header, memoryview(data.fragments), data.first_frame, numbers, size=(index.width, index.height)
            )
            assert np.array_equal(clip.pts_s, expected.pts_s)
            assert (np.diff(clip.frames) > 0).all()
            for place, frame in zip(clip.frames[clip.order], expected.frames, strict=True):
                assert np.array_equal(frames[place], frame.to_ndarray())
            packets = read_fragments(memoryview(data.fragments), read_header(data.header))
            dropped += len(packets.pts) - len(frames)
            led += int(index.lead[first]) > 0
    assert dropped > 0
    assert (led > 0) == (options in (OPEN, HEVC)), "clips that start in an open GOP were packed"


# The resize graph, given decoded frames.


def graph(frames, order, crops, size):
    pipeline = clip_pipeline(1, len(crops), size, 1, CPU, encoded=False)
    regions = np.stack([region(crop, size) for crop in crops])
    (output,) = pipeline.run(video=[frames], order=[np.array(order, dtype=np.int32)], regions=[regions])
    return np.array(output.as_tensor())[0]


def resized(frame, crop, size, interpolation=cv2.INTER_LINEAR):
    part = cv2.resize(frame[crop.y :, crop.x :][: crop.height, : crop.width], (size, size), interpolation=interpolation)
    return cv2.flip(part, 1) if crop.flip else part


@pytest.mark.parametrize("flip", [False, True])
def test_resize_is_within_two_levels_of_opencv(flip):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 145, 177, 3), dtype=np.uint8)
    crops = [
        Crop(x=0, y=0, width=177, height=145, flip=flip),
        Crop(x=13, y=7, width=121, height=99, flip=flip),
        Crop(x=30, y=20, width=96, height=96, flip=flip),
        Crop(x=30, y=20, width=47, height=61, flip=flip),
        Crop(x=9, y=1, width=60, height=144, flip=flip),
    ]
    order = [0, 1, 2, 2]
    clips = graph(frames, order, crops, 96)
    assert clips.shape == (5, 4, 96, 96, 3)
    for clip, crop in zip(clips, crops, strict=True):
        expected = np.stack([resized(frames[i], crop, 96) for i in order])
        assert np.abs(clip.astype(int) - expected).max() <= 2
    assert np.array_equal(clips[2][0], resized(frames[0], crops[2], 96)), "what needs no resizing is exact"


def test_strong_shrinking_averages_like_the_cpu_path():
    """The CPU path averages areas when it shrinks by 2 or more: DALI is exact at 2, close beyond, without aliasing."""
    crop = Crop(x=4, y=2, width=128, height=128)
    noise = np.random.default_rng(1).integers(0, 256, (1, 136, 140, 3), dtype=np.uint8)
    halved = graph(noise, [0], [crop], 64)[0, 0]
    assert np.abs(halved.astype(int) - resized(noise[0], crop, 64, cv2.INTER_AREA)).max() <= 2
    large = Crop(x=10, y=20, width=300, height=260)
    smooth = pattern(5, 340, 300)
    small = graph(smooth[None], [0], [large], 64)[0, 0]
    assert np.abs(small.astype(int) - resized(smooth, large, 64, cv2.INTER_AREA)).mean() < 2
    noise = np.random.default_rng(1).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    spread = graph(noise, [0], [Crop(x=0, y=0, width=512, height=512)], 64)[0, 0].std()
    assert spread < 14, "8 x 8 pixels of noise with deviation 74 average to about 9; without the filter 18 is left"


# Damaged and unsupported videos.


def test_a_video_that_dali_refuses_sends_the_batch_to_the_cpu(vp9, caplog):
    sampler = sampler_of(vp9)
    fast = Fast(sampler)
    packed = fast.packed(range(3))
    header = sampler.manifest.video(1).header_size
    mp4 = packed.clips[1].mp4.copy()
    mp4[header:] = 0
    packed.clips[1] = replace(packed.clips[1], mp4=mp4)
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
        for start, size in zip(packets.start, packets.size, strict=True):
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
    with pytest.raises(ResumeError, match="backend: saved dali, here nothing"):
        slow.load_state_dict(state)


def test_the_backend_decides_no_mask_that_follows_nothing(vp9):
    settings = {"clip": CLIP, "flow": DisOfBatch(), "mask": Tube(), "batch_size": 2, "device": "cpu"}
    fast, slow = (video_loader(vp9, backend=backend, **settings) for backend in ("dali", "cpu"))
    slow.load_state_dict(json.loads(json.dumps(fast.state_dict())))
    assert_same_but_pixels(next(iter(fast)), next(iter(slow)))


# Refused settings, and the choice of "auto".


def test_h264_on_the_cpu_is_refused(h264):
    with pytest.raises(ValueError, match=r"vp9 on the device 'cpu'.*holds h264; use backend='cpu'"):
        video_loader(h264, clip=CLIP, batch_size=2, backend="dali", device="cpu")


def opened(folder, device=CPU, **changes):
    """The finish of the loader that `video_loader` opens."""
    run = video_loader(folder, clip=CLIP, batch_size=2, device=device, threads=1, **changes)
    return type(run._production._delivery.finish)


def test_flow_and_workers_are_refused(vp9):
    with pytest.raises(ValueError, match=r"flow=Dis.*a SampleFlow needs single clips; use backend='cpu'"):
        opened(vp9, backend="dali", flow="dis")
    with pytest.raises(ValueError, match=r"workers=2.*use workers=0, or backend='cpu'"):
        opened(vp9, backend="dali", workers=2)
    with pytest.raises(ValueError, match="legal are 'auto', 'cpu' and 'dali'"):
        opened(vp9, backend="gpu")


def test_auto_chooses_dali_only_if_it_serves(vp9, h264):
    cuda = torch.device("cuda", 0)
    assert opened(vp9) is Unchanged
    assert opened(vp9, device=cuda) is Unchanged, "VP9 is not decoded on NVDEC"
    assert opened(h264, device=cuda) is DaliFinish
    assert opened(h264, device=cuda, flow="dis") is Unchanged
    assert opened(h264, device=cuda, flow=DisOfBatch()) is Composed
    assert opened(h264, device=cuda, workers=2) is Unchanged
    assert opened(vp9, backend="dali") is DaliFinish


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
