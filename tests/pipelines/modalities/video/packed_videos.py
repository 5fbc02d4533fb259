"""Small videos of every kind, and the two ways to their batches: the CPU path, and packing with DALI."""

import av
import numpy as np
import torch

from maskstream.pipelines import VideoClip
from maskstream.pipelines.augment import RandomResizedCrop
from maskstream.pipelines.masks import TokenGrid, Tube
from maskstream.pipelines.modalities.fields import FieldReader
from maskstream.pipelines.modalities.row_sampler import RowSampler
from maskstream.pipelines.modalities.video.clip_plan import ClipBytes
from maskstream.pipelines.modalities.video.dali import DaliDecoder
from maskstream.pipelines.modalities.video.hardware import HardwareFinish
from maskstream.pipelines.modalities.video.packing import PackedRowMaker
from maskstream.pipelines.modalities.video.rows import ClipRowMaker
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.preprocess.encode.video.video import PROFILES, encode_video
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import Sample
from maskstream.shards.members.video import video_member

from ....splits import write_samples

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


def write_video(path, codec, frames, options, width=110, height=90, pixels="yuv420p", matrix=None):
    """A video of `pattern`; matrix: 1 for BT.709, which the stream then says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(pattern(number, width, height), format="rgb24")
            if matrix is not None:
                frame = frame.reformat(format=pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
                frame.colorspace = matrix
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clip_bytes(video, numbers):
    """The bytes that hold the frames `numbers` of an encoded video."""
    index = video.index
    first, stop = index.gops_of(numbers)
    return ClipBytes(
        header=video.data[: index.header_size],
        fragments=video.data[index.offset[first] : index.offset[stop - 1] + index.size[stop - 1]],
        first_frame=int(index.first_frame[first]),
        whole=int(index.size[first:stop].sum()),
    )


def write_split(folder, codec, options, profile, size=(110, 90), *, others=()):
    """A split of four videos; others: per video, what differs from the rest."""
    samples = []
    for number, frames in enumerate(FRAMES):
        own = dict(others).get(number, {})
        own = {"width": size[0], "height": size[1], **own}
        path = write_video(folder / f"{number}.mkv", codec, frames, options, **own)
        video = encode_video(path, PROFILES[profile])
        samples.append(
            Sample(
                key=f"v/{number}",
                members={"mp4": video_member(video.data, video.index)},
                source=path.name,
                label=number,
            )
        )
    return write_samples(folder, samples, "video", sizes=(2, 2), dataset="v", profile=profile)


def sampler_of(folder, **changes):
    settings = {
        "clip": CLIP,
        "grid": TokenGrid.video(CLIP.frames, CLIP.size, CLIP.size),
        "augment": RandomResizedCrop(flip=0.5),
        "mask": Tube(ratio=0.75),
        "flow": None,
        "component": "mp4",
    }
    views = changes.pop("views", 2)
    return rows_sampler(ClipRowMaker(**{**settings, **changes}), Manifest.load(folder), views)


def rows_sampler(rows, manifest, views):
    fields = FieldReader(manifest=manifest, fields=())
    return RowSampler(rows=rows, manifest=manifest, fields=fields, seed=3, views=views)


class Fast:
    """Packs clips as the loader's threads do, and decodes as its finish does; packed_for: for which type of device."""

    def __init__(self, sampler, threads=1, device=CPU, packed_for=None, decoder=None):
        packing = PackedRowMaker(clips=sampler.rows, device=packed_for or device.type)
        self.packing = rows_sampler(packing, sampler.manifest, sampler.views)
        size = sampler.rows.clip.size
        self.finish = HardwareFinish(sampler, size, decoder or DaliDecoder(sampler.views, size, threads))
        self.device = device

    def packed(self, indexes, epoch=0):
        return made(self.packing, indexes, epoch)

    def made(self, indexes, epoch=0):
        return self.finish(self.packed(indexes, epoch), self.device)


def made(sampler, indexes, epoch=0):
    if isinstance(sampler, Fast):
        return sampler.made(indexes, epoch)
    return batch_of(sampler, Wanted.of(indexes, epoch))


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
