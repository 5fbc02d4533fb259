"""Clips of video: maskstream and other readers, which show the same frames and crops of the same files.

A clip is 16 frames, 4 apart at 30 a second, from a random start, and a multi-scale crop of them at 224 x 224 pixels,
out of 10 s of 340 x 256 pixels (clips.py). Each reader has its fastest form with one thread. `floor` is PyAV decoding
the packets that a clip needs, found and cut out beforehand, without any conversion.
"""

import importlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch
from av.codec.context import ThreadType
from clips import Variant, build
from contest import Contest, Items, Make, batched, lance_of, mds_of, ours, streamed, webdataset_of
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskstream.pipelines import ClipDecoder, VideoBatch, VideoClip, masks, video_loader
from maskstream.pipelines.augment import Crop, MultiScaleCrop
from maskstream.pipelines.decode.cpu import select_packets_for, select_pts
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD
from maskstream.pipelines.modalities.video.clip_plan import read_clip
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mp4 import read_header

BATCH, SIZE, SEED = 16, 224, 0
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
EPOCHS, AHEAD = 24, 4
"""How many epochs, of a batch each, a turn on all cores has, and how many of them at either end do not count."""
OURS, LIKE = "maskstream", 6.0
"""A mean difference of up to 6 levels of 255 is other resampling; other frames, or another part of them, make more."""
UInt8s = npt.NDArray[np.uint8]
HALF = Fraction(1, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Frames `numbers`, int64 (T,), of the video `file`, which is `data` and the sample `index` of the shards; the crop
    of them. coded: the codec, its extradata and the packets to decode.
    """

    key: str
    index: int
    epoch: int
    file: Path
    numbers: npt.NDArray[np.int64]
    fps: float
    crop: Crop
    coded: tuple[str, bytes, list[bytes]] = field(repr=False)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop."""
        return self.crop.x, self.crop.y, self.crop.x + self.crop.width, self.crop.y + self.crop.height


def contests(data: Path, media: Path) -> Iterator[Contest]:
    """The files one by one, in tars with an index, the profile `train`, and all cores."""
    variants = build(data / "clips", media, ("copy", "train"))
    yield _files(variants["found"])
    for name, column in (("found", "after `maskstream index`"), ("train", "profile `train`")):
        yield _contest(variants[name], column)
    yield _all_cores(variants)


def loader_of(variant: Variant, batch: int = BATCH, **settings: Any) -> Any:
    """The loader of a variant, with one thread, of which no batch is made ahead of its turn."""
    return video_loader(
        variant.manifest.folder,
        clip=VideoClip(),
        augment=MultiScaleCrop(),
        batch_size=batch,
        seed=SEED,
        device="cpu",
        **{"threads": 1, "prefetch": 1, **settings},
    )


def sampler_of(manifest: Manifest, output: Any = "rgb") -> Any:
    """The sampler of the loaders."""
    data = VideoData(clip=VideoClip(), augment=MultiScaleCrop(), output=output)
    device = "cuda:0" if output == "yuv" else "cpu"  # planes are for a GPU, but creating them does not need one
    return data.sampler(Split.open(manifest.folder, "video", device=device, threads=1, seed=SEED))


def clips_of(variant: Variant) -> Callable[[int], list[Clip]]:
    """The clips of an epoch."""
    sampler = sampler_of(variant.manifest)

    @cache
    def clips(epoch: int) -> list[Clip]:
        return [_drawn(sampler, index, epoch, file) for index, file in enumerate(variant.files)]

    return clips


def _drawn(sampler: Any, index: int, epoch: int, file: Path) -> Clip:
    request = sampler.request(Wanted.of([index], epoch))
    (plan,), (key,) = request.plans, request.keys
    data = read_clip(sampler.manifest.store, plan.video, plan.numbers, plan.ranges)
    track, fragments = read_header(data.header), memoryview(data.fragments)
    needed = select_packets_for(
        fragments, track, data.packets, select_pts(data.packets, data.first_frame, plan.numbers)
    )
    spans = ((int(data.packets.start[i]), int(data.packets.size[i])) for i in needed)
    coded = (track.codec, track.extradata, [bytes(fragments[start : start + size]) for start, size in spans])
    about = {"key": key, "index": index, "epoch": epoch, "file": file, "coded": coded}
    return Clip(numbers=plan.numbers, fps=plan.video.fps, crop=plan.crops[0], **about)


def contest_of(name: str, column: str, items: Callable[[int], list[Clip]], **about: Any) -> Contest:
    """A contest of readers of clips."""
    title = f"A clip of 16 frames at 224 x 224, batches of {BATCH}"

    def rows_of(batch: VideoBatch) -> UInt8s:
        return batch.video.numpy()

    return Contest(
        name=name,
        title=title,
        column=column,
        unit="ms",
        items=items,
        rows_of=rows_of,
        difference=apart,
        most=LIKE,
        **about,
    )


def _contest(variant: Variant, column: str) -> Contest:
    """maskstream in its forms, and the peers, on the files of a variant."""
    contest = contest_of(variant.name, column, clips_of(variant))

    def own(name: str, make: Make) -> None:
        contest.add(name, "", lambda: make, same=False)

    contest.add(OURS, "", lambda: ours(loader_of(variant)))
    own("floor", batched(floor, BATCH, stack=list))
    own(f"{OURS}, float", ours(loader_of(variant), lambda batch: batch.pixel_values()))
    if variant.name == "train":
        own(f"{OURS}, tube masks", ours(loader_of(variant, mask=masks.Tube())))
        quarter = loader_of(variant, mask=masks.Tube(ratio=0.75), output="tokens")
        own(f"{OURS}, a quarter of the tokens", ours(quarter))
        own(f"{OURS}, motion-guided masks", ours(loader_of(variant, mask=masks.MotionGuided())))
        own(f"{OURS}, by energy", ours(loader_of(variant, mask=masks.ByEnergy())))
        own(f"{OURS}, a quarter by energy", ours(loader_of(variant, mask=masks.ByEnergy(), output="tokens")))
        own(f"{OURS}, planes for a card", _planes(variant.manifest))
        own(f"{OURS}, batches of 1 (cold requests)", ours(loader_of(variant, batch=1)))
    contest.add("torchcodec", "torchcodec.decoders torchvision", lambda: batched(with_torchcodec, BATCH))
    contest.add("SPDL", "spdl.io", lambda: batched(partial(with_spdl, {}), BATCH))
    if variant.name == "train":
        skip = {"skip_frame": "noref"}
        contest.add(
            "SPDL without frames that none refers to", "spdl.io", lambda: batched(partial(with_spdl, skip), BATCH)
        )
    contest.add("OpenCV", "cv2", lambda: batched(with_opencv, BATCH))
    contest.add("decord2", "decord torchvision", lambda: batched(with_decord, BATCH))
    if variant.name == "found":
        contest.add("VideoMAE's own: decord, PIL, float", "decord PIL", lambda: batched(official, BATCH, torch.stack))
    tars = [str((variant.manifest.folder / name).resolve()) for name in variant.manifest.shard_names]
    contest.add("webdataset, torchcodec", "webdataset torchcodec.decoders torchvision", lambda: _webdataset(tars))
    contest.add("HF datasets, torchcodec", "datasets torchcodec.decoders torchvision", lambda: _hf_datasets(tars))
    contest.add("lance blobs, torchcodec", "lance torchcodec.decoders torchvision", lambda: _lance(variant))
    contest.add("MDS, torchcodec", "streaming torchcodec.decoders torchvision", lambda: _mds(variant))
    contest.notes.append(f"maskstream reads {_bytes_read(variant):.2f} times the bytes of the GOPs that a clip needs.")
    return contest


def _files(variant: Variant) -> Contest:
    """Files that are opened one by one: `ClipDecoder`, the loader with its index, and readers of files."""
    contest = contest_of("files", "files as found", clips_of(variant))
    tars = [str((variant.manifest.folder / name).resolve()) for name in variant.manifest.shard_names]
    clips, joined = ClipDecoder(VideoClip(), augment=MultiScaleCrop()), VideoBatch.concatenated

    def decoded(clip: Clip, data: bytes | None = None) -> VideoBatch:
        return clips(data or clip.file, key=clip.key, seed=SEED, epoch=clip.epoch)

    contest.add(f"{OURS} `ClipDecoder`", "", lambda: batched(decoded, BATCH, joined))
    contest.add("floor", "", lambda: batched(floor, BATCH, stack=list), same=False)
    contest.add("torchcodec", "torchcodec.decoders torchvision", lambda: batched(with_torchcodec, BATCH))
    contest.add("decord2", "decord torchvision", lambda: batched(with_decord, BATCH))
    contest.add("PyAV", "torchvision", lambda: batched(with_pyav, BATCH))
    contest.add("OpenCV", "cv2", lambda: batched(with_opencv, BATCH))
    own = f"webdataset, {OURS} `ClipDecoder`"
    contest.add(own, "webdataset", lambda: _webdataset(tars, decoded, joined), same=False)
    contest.add("webdataset, torchcodec", "webdataset torchcodec.decoders torchvision", lambda: _webdataset(tars))
    contest.add("webdataset, PyAV", "webdataset torchvision", lambda: _webdataset(tars, with_pyav))
    return contest


def _bytes_read(variant: Variant) -> float:
    """Bytes that are read for the clips of an epoch, by those of the GOPs that they lie in."""
    sampler, read, needed = sampler_of(variant.manifest), 0, 0
    for index in range(len(variant.files)):
        plan = sampler.request(Wanted.of([index])).plans[0]
        first, stop = plan.video.gops_of(plan.numbers)
        read += sum(one.size for one in plan.ranges)
        needed += int(plan.video.size[first:stop].sum())
    return read / needed


def _all_cores(variants: dict[str, Variant]) -> Contest:
    """Wall time on all cores, with the default settings: threads here, processes of a DataLoader there."""
    found = clips_of(variants["found"])

    def items(epoch: int) -> list[Clip]:
        return [clip for n in range(EPOCHS) for clip in found(EPOCHS * epoch + n)]

    contest = contest_of("cores", f"all {CORES} cores", items, wall=True, ahead=AHEAD)
    for name, words in (("train", "profile `train`"), ("found", "files as found")):
        for output in ("uint8", "float"):
            take = (lambda batch: batch.pixel_values()) if output == "float" else (lambda batch: batch)
            make = _on_all_cores(loader_of(variants[name], threads=None, prefetch=3), take)
            contest.add(f"{OURS}, {words}, {output}", "", lambda make=make: make, same=False)
    contest.add("VideoMAE's own: decord, PIL, float", "decord PIL", lambda: _in_processes(official), same=False)
    contest.add(
        "torchcodec, uint8", "torchcodec.decoders torchvision", lambda: _in_processes(with_torchcodec), same=False
    )
    return contest


def _on_all_cores(loader: Any, take: Callable[[Any], Any]) -> Make:
    """EPOCHS epochs of a loader that begins anew, so that it makes no batch in another one's turn."""

    def make(items: Items) -> Iterator[Any]:
        stream = loader.repeat()
        for _ in range(EPOCHS * len(loader)):
            yield take(next(stream))
        stream.close()

    return make


class _Clips(Dataset[Any]):
    """Clips as a reader reads them."""

    def __init__(self, read: Callable[[Clip], Any], clips: Sequence[Clip]) -> None:
        self.read, self.clips = read, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> Any:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        return self.read(self.clips[i])


def _in_processes(read: Callable[[Clip], Any]) -> Make:
    """A DataLoader with a process for each core, which starts before its first turn and stays."""
    loaders: list[DataLoader[Any]] = []

    def make(items: Items) -> Iterator[Any]:
        if not loaders:
            clips = _Clips(read, list(items))
            loaders.append(
                DataLoader(
                    clips,
                    batch_size=BATCH,
                    num_workers=CORES,
                    persistent_workers=True,
                    multiprocessing_context="spawn",
                    generator=torch.Generator(),
                )
            )
        yield from loaders[0]

    return make


def apart(ours: UInt8s, theirs: Any) -> float:
    """How far two clips lie apart, in levels of 255 on average; `theirs` may be normalised and channels first."""
    if isinstance(theirs, Tensor):
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        theirs = (theirs * std + mean).mul(255).permute(0, 2, 3, 1).numpy()
    return float(np.abs(theirs.astype(np.float32) - ours).mean())


def _planes(manifest: Manifest) -> Make:
    """What a device gets with output="yuv"."""
    sampler = sampler_of(manifest, "yuv")
    return lambda clips: iter(
        [batch_of(sampler, Wanted.of([clip.index for clip in clips], [clip.epoch for clip in clips]))]
    )


_contexts: dict[bytes, Any] = {}


def floor(clip: Clip) -> None:
    codec, extradata, packets = clip.coded
    context = _contexts.get(extradata)
    if context is None:
        context = _contexts[extradata] = av.CodecContext.create(codec, "r")
        context.extradata, context.thread_count, context.thread_type = extradata, 1, ThreadType.NONE
    for packet in packets:
        context.decode(av.Packet(packet))
    context.decode(None)
    context.flush_buffers()


def _resized(frames: Tensor, clip: Clip) -> UInt8s:
    """torchvision's crop and resize of uint8 (T, 3, H, W), as (T, 224, 224, 3)."""
    functional = importlib.import_module("torchvision.transforms.v2.functional")
    crop = clip.crop
    small = functional.resized_crop(frames, crop.y, crop.x, crop.height, crop.width, [SIZE, SIZE], antialias=True)
    video: UInt8s = small.permute(0, 2, 3, 1).contiguous().numpy()
    return video


def with_torchcodec(clip: Clip, data: bytes | None = None) -> UInt8s:
    """torchcodec (one FFmpeg thread, no scan of the file), then torchvision v2."""
    decoders = importlib.import_module("torchcodec.decoders")
    decoder = decoders.VideoDecoder(data or str(clip.file), num_ffmpeg_threads=1, seek_mode="approximate")
    return _resized(decoder.get_frames_at(clip.numbers.tolist()).data, clip)


def with_pyav(clip: Clip, data: bytes | None = None) -> UInt8s:
    """PyAV (one thread): seek, decode up to the last frame, convert what is wanted; then torchvision v2."""
    frames: dict[int, npt.NDArray[Any]] = {}
    wanted = set(clip.numbers.tolist())
    with av.open(io.BytesIO(data) if data else str(clip.file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.thread_type = 1, ThreadType.NONE
        base, first = stream.time_base or HALF, stream.start_time or 0
        container.seek(first + int(clip.numbers[0] / clip.fps / base), stream=stream)
        for frame in container.decode(stream):
            number = round(float(((frame.pts or 0) - first) * base) * clip.fps)
            if number in wanted:
                frames[number] = frame.to_ndarray(format="rgb24")
            if number >= clip.numbers[-1]:
                break
    video = np.stack([frames[number] for number in clip.numbers.tolist()])
    return _resized(torch.from_numpy(video).permute(0, 3, 1, 2), clip)


def with_decord(clip: Clip) -> UInt8s:
    """decord2, then torchvision v2."""
    decord = importlib.import_module("decord")
    video = decord.VideoReader(str(clip.file), num_threads=1, ctx=decord.cpu(0))
    return _resized(torch.from_numpy(video.get_batch(clip.numbers.tolist()).asnumpy()).permute(0, 3, 1, 2), clip)


def official(clip: Clip) -> Tensor:
    """decord and PIL, step by step as the loaders of VideoMAE and MGMAE do it: float32 (T, 3, H, W)."""
    decord, image = importlib.import_module("decord"), importlib.import_module("PIL.Image")
    video = decord.VideoReader(str(clip.file), num_threads=1, ctx=decord.cpu(0))
    images = [image.fromarray(frame).convert("RGB") for frame in video.get_batch(clip.numbers.tolist()).asnumpy()]
    images = [one.crop(clip.box).resize((SIZE, SIZE), image.Resampling.BILINEAR) for one in images]
    stacked = np.concatenate([np.asarray(one) for one in images], axis=2)
    x = torch.from_numpy(stacked).permute(2, 0, 1).contiguous().float().div(255.0)
    for plane, mean, std in zip(x, IMAGENET_MEAN * len(images), IMAGENET_STD * len(images), strict=True):
        plane.sub_(mean).div_(std)
    return x.view(len(images), 3, SIZE, SIZE)


def with_opencv(clip: Clip) -> UInt8s:
    """cv2.VideoCapture with one thread: seek, grab what lies between, convert and resize what is wanted."""
    capture = cv2.VideoCapture(str(clip.file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, int(clip.numbers[0]))
    out = np.empty((len(clip.numbers), SIZE, SIZE, 3), dtype=np.uint8)
    left, top, right, bottom = clip.box
    for t, skipped in enumerate(np.diff(clip.numbers, prepend=clip.numbers[0] - 1).tolist()):
        for _ in range(skipped):
            capture.grab()
        _, bgr = capture.retrieve()
        small = cv2.resize(bgr[top:bottom, left:right], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        cv2.cvtColor(small, cv2.COLOR_BGR2RGB, dst=out[t])
    capture.release()
    return out


def with_spdl(options: dict[str, str], clip: Clip) -> UInt8s:
    """SPDL: the packets of a window of time, one decoder thread, a filter graph that drops, crops and scales frames.

    With skip_frame=noref the decoder skips frames that nothing refers to; right only for clips of anchor frames.
    """
    spdl = importlib.import_module("spdl.io")
    rate = Fraction(clip.fps).limit_denominator(1001)
    window = ((int(clip.numbers[0]) - HALF) / rate, (int(clip.numbers[-1]) + HALF) / rate)
    crop, stride = clip.crop, int(clip.numbers[1] - clip.numbers[0])
    wanted = f"not(mod(round(t*{rate.numerator}/{rate.denominator})-{clip.numbers[0]}\\,{stride}))"
    frames = spdl.decode_packets(
        spdl.demux_video(str(clip.file), timestamp=window),
        filter_desc=f"select='{wanted}',crop={crop.width}:{crop.height}:{crop.x}:{crop.y}:exact=1,"
        f"scale={SIZE}:{SIZE}:flags=bilinear:threads=1,format=rgb24",
        decode_config=spdl.decode_config(decoder_options={"threads": "1", **options}),
    )
    video: UInt8s = spdl.to_numpy(spdl.convert_frames(frames))
    return video


def _webdataset(tars: list[str], read: Callable[[Clip, bytes], Any] = with_torchcodec, stack: Any = np.stack) -> Make:
    return webdataset_of(tars, lambda sample, clip: read(clip, sample["mp4"]), BATCH, stack)


def _hf_datasets(tars: list[str]) -> Make:
    """The samples of load_dataset("webdataset", streaming=True), whose videos it leaves to torchcodec."""
    datasets = importlib.import_module("datasets")
    stream = datasets.load_dataset("webdataset", data_files={"train": tars}, split="train", streaming=True)
    if stream.features is None or not isinstance(stream.features.get("mp4"), datasets.Video):
        raise RuntimeError(f"it takes the members of these tars for {stream.features}, not for videos")
    stream = stream.cast_column("mp4", datasets.Video(decode=False))
    return streamed(lambda: iter(stream), lambda sample, clip: with_torchcodec(clip, sample["mp4"]["bytes"]), BATCH)


def _lance(variant: Variant) -> Make:
    pa = importlib.import_module("pyarrow")
    blob = pa.field("video", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    videos = pa.array([file.read_bytes() for file in variant.files], pa.large_binary())
    table = lance_of(variant.files[0].parent / "lance", pa.table([videos], schema=pa.schema([blob])))

    def read(clip: Clip) -> UInt8s:
        (blob,) = table.take_blobs("video", indices=[clip.index])
        return with_torchcodec(clip, blob.readall())

    return batched(read, BATCH)


def _mds(variant: Variant) -> Make:
    rows = mds_of(variant.files[0].parent / "mds", {"mp4": "bytes"}, ({"mp4": f.read_bytes()} for f in variant.files))
    return batched(lambda clip: with_torchcodec(clip, rows[clip.index]["mp4"]), BATCH)
