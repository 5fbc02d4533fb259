"""output="yuv": the pixels that RGB output has, bit by bit, from planes that the device resizes and converts."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from maskstream.pipelines import VideoClip, masks, mix
from maskstream.pipelines.augment import MultiScaleCrop, RandomResizedCrop
from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.decode.cpu import crop_planes, to_rgb
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import PlaneBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.modalities.video.yuv import convert_planes
from maskstream.pipelines.stream import kept
from maskstream.pipelines.stream.loader import Loader
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import ResumeError

from ...every_modality import Littered, write_split
from .test_dali import DisOfBatch

DATA = VideoData(
    clip=VideoClip(frames=4, stride=1, size=32),
    augment=RandomResizedCrop(flip=0.5),
    patch=8,
    views=2,
    mask=masks.Tube(),
    output="rgb",
)
YUV = replace(DATA, output="auto")


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("video", tmp_path_factory.mktemp("video"))


def source_of(data, split, seed=0):
    """The source of a CUDA device's loader, or of a CPU's with RGB; batches of both can be finished on a CPU."""
    device = "cpu" if data.output == "rgb" else "cuda:0"
    return data.source(Split.open(split, "video", device=device, threads=1, seed=seed))


def loader(data, split, **options):
    return Loader(source_of(data, split, 3), **({"batch_size": 2, "device": "cpu", "threads": 1} | options))


def frames_of(width, height, matrix="ITU601", level="MPEG", pixels="yuv420p"):
    """Two frames of real gradients, edges and noise."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    frames = []
    for n in range(2):
        waves = np.stack([np.sin((x + 9 * n) / 13), np.cos(y / 11), np.sin((x + y) / 17)], axis=-1)
        picture = 128 + 90 * waves + draw.normal(0, 12, (height, width, 3))
        picture[height // 3 : height // 2, width // 4 : width // 2] = (230, 40, 30)
        frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
        made = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=level)
        made.colorspace, made.color_range = (1 if matrix == "ITU709" else 5), (2 if level == "JPEG" else 1)
        frames.append(made)
    return [frames[0], frames[1], frames[1]]


CROPS = [
    Crop(x=0, y=0, width=176, height=144),
    Crop(x=12, y=6, width=120, height=98, flip=True),
    Crop(x=30, y=20, width=96, height=96),
    Crop(x=30, y=20, width=46, height=60, flip=True),
    Crop(x=60, y=40, width=64, height=64),
]


def both(frames, crops, size):
    planes = convert_planes(PlaneBatch.of([crop_planes(frames, crop) for crop in crops]), size).numpy()
    expected = np.empty((len(crops), len(frames), size, size, 3), dtype=np.uint8)
    for crop, out in zip(crops, expected, strict=True):
        to_rgb(frames, crop, (size, size), out)
    return planes, expected


@pytest.mark.parametrize("size", [96, 64, 33, 224])
def test_pixels_equal_those_of_rgb_output(size):
    for name in ("yuv420p", "yuv444p"):
        found, expected = both(frames_of(176, 144, pixels=name), CROPS, size)
        assert np.array_equal(found, expected)
    assert expected.std() > 40


@pytest.mark.parametrize(("matrix", "level"), [("ITU709", "MPEG"), ("ITU601", "JPEG"), ("ITU709", "JPEG")])
def test_other_colours_are_converted_as_they_say(matrix, level):
    found, expected = both(frames_of(176, 144, matrix, level), CROPS, 64)
    assert np.array_equal(found, expected)
    plain, _ = both(frames_of(176, 144), CROPS, 64)
    assert np.abs(plain.astype(int) - expected).mean() < 6, (
        "the picture is the same, whatever its colours are written as"
    )


@pytest.mark.parametrize("size", [32, 30])
def test_strong_shrinking_averages_areas(size):
    crops = [
        Crop(x=0, y=0, width=176, height=144),
        Crop(x=2, y=4, width=64, height=64, flip=True),
        Crop(x=2, y=4, width=64, height=48),
        Crop(x=2, y=4, width=100, height=20),
        Crop(x=2, y=4, width=24, height=82),
        Crop(x=172, y=142, width=2, height=2),
    ]
    found, expected = both(frames_of(176, 144), crops, size)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("late", [False, True])
def test_clips_are_written_where_they_are_joined(late):
    """A crop that was not planned and is too large has memory of its own; the batch is the same."""
    frames, crops = frames_of(176, 144), CROPS[1:3]
    memory = PlaneBatch.empty(2, len(frames), crops[1:] if late else crops)
    clips = [crop_planes(frames, crop, memory.room(n, crop)) for n, crop in enumerate(crops)]
    batch, copied = memory.of_clips(clips), PlaneBatch.of([crop_planes(frames, crop) for crop in crops])
    assert np.shares_memory(batch.luma.numpy(), memory.luma.numpy()) != late
    assert np.shares_memory(batch.luma.numpy(), clips[1].luma) != late
    assert batch.clips == copied.clips
    for one, other, clip in zip(batch.luma, copied.luma, batch.clips, strict=True):
        assert torch.equal(one[:, : clip.luma[0], : clip.luma[1]], other[:, : clip.luma[0], : clip.luma[1]])
    assert torch.equal(convert_planes(batch, 64), convert_planes(copied, 64))


def assert_same_clips(batch, expected):
    assert batch.video.dtype == torch.uint8
    assert batch.planes is None
    assert torch.equal(batch.video, expected.video)
    assert batch.key == expected.key
    assert torch.equal(batch.pts_s, expected.pts_s)
    assert torch.equal(batch.mask.visible, expected.mask.visible)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_loader_gives_the_same_clips(split, workers, monkeypatch):
    monkeypatch.setattr(kept, "LARGE", 1)
    monkeypatch.setattr(kept, "_kept", Littered())
    fast, plain = loader(YUV, split, workers=workers), loader(DATA, split)
    for batch, expected in zip(fast, plain, strict=True):
        assert_same_clips(batch, expected)
    fast.close()
    assert fast.stats()["read_bytes"] == plain.stats()["read_bytes"]


def test_a_run_may_change_its_output(split):
    for was, now in ((YUV, DATA), (DATA, YUV)):
        first, second = loader(was, split), loader(now, split)
        next(iter(first))
        state = json.loads(json.dumps(first.state_dict()))
        second.load_state_dict(state)
        assert second.state_dict() == state


def test_a_position_of_a_release_with_other_pixels_is_refused(split):
    def mixed(data):
        return Loader(mix([(source_of(data, split), 1)], seed=0), batch_size=2, device="cpu", threads=1)

    for one in (loader(DATA, split), mixed(DATA)):
        state = one.state_dict()
        for part in state.get("sources", [state]):
            del part["pixels"]
        with pytest.raises(
            ResumeError, match=r"pixels: saved nothing, here 2.*use the release of maskstream that saved it, or start"
        ):
            one.load_state_dict(state)


def test_a_batch_flow_sees_the_pixels(split):
    one = loader(replace(YUV, flow=DisOfBatch(), mask=None), split)
    for batch in one:
        assert batch.flow.vectors.shape[:2] == (4, 3)
        assert batch.video.shape == (4, 4, 32, 32, 3)


def test_mixtures_share_the_output(split):
    yuv, rgb = source_of(YUV, split), source_of(DATA, split)
    mixed, plain = (Loader(mix([(s, 1), (s, 1)]), batch_size=4, device="cpu", threads=1) for s in (yuv, rgb))
    assert_same_clips(next(iter(mixed)), next(iter(plain)))
    with pytest.raises(ValueError, match="output: rgb and yuv"):
        mix([(rgb, 1), (yuv, 1)])


def test_fewer_bytes_go_to_the_device_with_videomaes_crops(split):
    data = replace(YUV, augment=MultiScaleCrop(), clip=replace(YUV.clip, size=112))
    own = data.sampler(Split.open(split, "video", device="cuda:0", threads=1))
    request = own.request(Wanted.of(range(2)))
    assert own.allocate([request]).batch.video.nbytes == 0
    crop = Crop(x=0, y=0, width=210, height=210)
    planes = crop_planes(frames_of(340, 256), crop)
    assert (planes.luma.nbytes + planes.chroma.nbytes) / 3 < 0.5 * 224 * 224 * 3


def test_what_needs_rgb_on_the_cpu_is_refused(split):
    with pytest.raises(ValueError, match=r"output='yuv' with flow=Dis"):
        loader(replace(YUV, flow="dis", output="yuv"), split)
    with pytest.raises(ValueError, match="DALI needs RGB before"):
        replace(YUV, backend="dali", output="yuv")
    with pytest.raises(
        ValueError, match=r"output='yuv' is meant for CUDA devices; .* six times as much.*Leave output out"
    ):
        replace(DATA, output="yuv").loader(split, device="cpu")
    with pytest.raises(ValueError, match="output must be"):
        replace(DATA, output="nv12")
