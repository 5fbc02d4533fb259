"""maskstream's readers, and the floor: decoding alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.codeccontext import VideoCodecContext
from clips import Variant
from readers import Clip, Reader, each

from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.decode.cpu import wanted_packets, wanted_pts
from maskstream.pipelines.masks import Mask, MotionGuided, Tube
from maskstream.pipelines.modalities.rows import RowSampler
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.data import VideoData, video_loader
from maskstream.pipelines.modalities.video.rows import ClipPlan, read_clip
from maskstream.pipelines.modalities.video.yuv import Output
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mp4 import read_header

SEED = 0
BATCH = 4
Clips = RowSampler[ClipPlan, VideoBatch]
"""A sampler of clips."""


def clip_of(profile: str) -> VideoClip:
    """16 frames, 4 apart at 30 a second (1 apart where they are stored so), at 224 x 224 pixels."""
    if profile == "fps":
        return VideoClip(stride=1, align=1)
    return VideoClip(align=4 if profile == "train" else 1)


def sampler_of(manifest: Manifest, mask: Mask | None = None, output: Output = "rgb") -> Clips:
    """The sampler that `video_loader` builds for these shards."""
    data = VideoData(clip=clip_of(manifest.info["profile"]), mask=mask, augment=MultiScaleCrop(), output=output)
    device = "cuda:0" if output == "yuv" else "cpu"  # planes are for a card; making them needs none
    return data.sampler(Split.open(manifest.folder, "video", device=device, threads=1, seed=SEED))


def readers_of(manifest: Manifest) -> list[Reader]:
    """maskstream on the shards of one profile, and the floor; with masks, and as a whole loader, where the profile is
    `train`.
    """
    readers = [
        _floor(sampler_of(manifest)),
        _maskstream("maskstream", sampler_of(manifest), "uint8"),
        _maskstream("maskstream", sampler_of(manifest), "float"),
    ]
    if manifest.info["profile"] == "train":
        readers += [
            _maskstream("maskstream+tube", sampler_of(manifest, Tube()), "uint8"),
            _maskstream("maskstream+motion-guided", sampler_of(manifest, MotionGuided()), "uint8"),
            _planes(sampler_of(manifest, output="yuv")),
            _loader(manifest),
        ]
    return readers


def clips_of(variant: Variant, epochs: int) -> list[Clip]:
    """The clips that the sampler draws in its first epochs, one of each sample in each."""
    sampler = sampler_of(variant.manifest)
    clips = []
    for epoch in range(epochs):
        for index, file in enumerate(variant.files):
            request = sampler.request(Wanted(index=index, epoch=epoch))
            plan = request.plan
            clips.append(
                Clip(
                    file=file,
                    numbers=plan.numbers,
                    fps=plan.video.fps,
                    crop=plan.crops[0],
                    size=clip_of(variant.manifest.info["profile"]).size,
                    key=request.key,
                    index=index,
                    epoch=epoch,
                )
            )
    return clips


def _maskstream(name: str, sampler: Clips, output: str) -> Reader:
    mask = sampler.rows.masks[0]

    def run(clips: Sequence[Clip]) -> Any:
        pixels, maps = None, []
        for clip in clips:
            request = sampler.request(Wanted(index=clip.index, epoch=clip.epoch))
            draft = sampler.allocate([request])
            sampler.mask(request, draft, 0)
            sampler.fill([request], draft, [0], Stats())
            maps += [one for own in draft.maps.values() for one in own if one is not None]
            pixels = draft.batch.video[0] if output == "uint8" else draft.batch.pixel_values()[0]
        if mask.mask is not None:
            mask.mask.batched(mask.grid, maps)
        return pixels

    return Reader(name=name, output=output, run=run)


def _planes(sampler: Clips) -> Reader:
    """maskstream with output="yuv": cropped planes in one batch of the clips of a turn, as a device gets them."""

    def run(clips: Sequence[Clip]) -> None:
        requests = [sampler.request(Wanted(index=clip.index, epoch=clip.epoch)) for clip in clips]
        draft = sampler.allocate(requests)
        for row, request in enumerate(requests):
            sampler.mask(request, draft, row)
        for row, request in enumerate(requests):
            sampler.fill([request], draft, [row], Stats())
        sampler.join(draft)

    return Reader(name="maskstream", output="yuv", run=run, comparable=False)


def _loader(manifest: Manifest) -> Reader:
    """All of `video_loader` with one thread: order, batches, collation; the same clips in another order."""
    loader = video_loader(
        manifest.folder,
        clip=clip_of(manifest.info["profile"]),
        batch_size=BATCH,
        seed=SEED,
        device="cpu",
        threads=1,
    )

    def run(clips: Sequence[Clip]) -> None:
        for epoch in sorted({clip.epoch for clip in clips}):
            loader.seek(epoch)
            for _ in loader:
                pass

    return Reader(name="maskstream-loader", output="uint8", run=run, divisible=False, comparable=False)


def gop_bytes(manifest: Manifest, clips: Sequence[Clip]) -> float:
    """Bytes of the GOPs that hold a clip, mean over the clips."""
    sizes = []
    for clip in clips:
        video = manifest.video(clip.index)
        first, stop = video.gops_of(clip.numbers)
        sizes.append(int(video.size[first:stop].sum()))
    return float(np.mean(sizes))


def _floor(sampler: Clips) -> Reader:
    """PyAV decoding the packets that the clip needs, found and cut out beforehand, and nothing else."""
    contexts: dict[bytes, VideoCodecContext] = {}

    @cache
    def prepared(index: int, epoch: int) -> tuple[str, bytes, list[bytes]]:
        request = sampler.request(Wanted(index=index, epoch=epoch))
        plan = request.plan
        data = read_clip(sampler.manifest.store, plan.video, plan.numbers, plan.ranges)
        track = read_header(data.header)
        fragments = memoryview(data.fragments)
        packets = data.packets
        pts = wanted_pts(packets, data.first_frame, plan.numbers)
        needed = wanted_packets(fragments, track, packets, pts)
        spans = ((int(packets.start[i]), int(packets.size[i])) for i in needed)
        return track.codec, track.extradata, [bytes(fragments[start : start + size]) for start, size in spans]

    def read(clip: Clip) -> None:
        codec, extradata, packets = prepared(clip.index, clip.epoch)
        context = contexts.get(extradata)
        if context is None:
            created = av.CodecContext.create(codec, "r")
            if not isinstance(created, VideoCodecContext):
                raise TypeError(f"{codec} is no video codec")
            context = contexts[extradata] = created
            context.extradata, context.thread_count, context.thread_type = extradata, 1, ThreadType.NONE
        for packet in packets:
            context.decode(av.Packet(packet))
        context.decode(None)
        context.flush_buffers()

    return Reader(name="floor", output="yuv", run=each(read), comparable=False)
