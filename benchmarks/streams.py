"""Readers that stream whole tars: webdataset with PyAV, and Hugging Face datasets with torchcodec.

They read the samples in the order of the tar, with all of its bytes; the clip of each sample is that of all readers.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np
import torch
from libraries import why_missing
from readers import Clip, Reader, UInt8Array, channels_last

from maskstream.shards.format.manifest import Manifest


def tar_readers(manifest: Manifest) -> tuple[list[Reader], list[str]]:
    """A reader of each kind for the tars of a split, and for each that cannot be used the reason."""
    tars = [str((manifest.folder / name).resolve()) for name in manifest.shard_names]
    readers, missing = [], []
    for name, make in (("webdataset", webdataset_pyav), ("hf-datasets", hf_datasets)):
        try:
            readers.append(make(name, tars))
        except (ImportError, RuntimeError, OSError, ValueError) as error:
            missing.append(why_missing(name, error))
    return readers, missing


def webdataset_pyav(name: str, tars: list[str]) -> Reader:
    """WebDataset's own reading of tars, PyAV with one thread from the keyframe before the clip, OpenCV."""
    import webdataset

    dataset = webdataset.WebDataset(tars, shardshuffle=False)

    def samples() -> Iterator[tuple[str, Any]]:
        for sample in dataset:
            yield sample["__key__"], sample["mp4"]

    def run(clips: Sequence[Clip]) -> UInt8Array | None:
        return _run(samples(), clips, _with_pyav)

    return Reader(name=name, output="uint8", run=run, divisible=False)


def hf_datasets(name: str, tars: list[str]) -> Reader:
    """datasets.load_dataset("webdataset", streaming=True), and torchcodec, which it decodes videos with."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets

    stream = datasets.load_dataset("webdataset", data_files={"train": tars}, split="train", streaming=True)
    if stream.features is None or not isinstance(stream.features.get("mp4"), datasets.Video):
        raise RuntimeError(f"datasets takes the members of these tars for {stream.features}, not for videos")
    stream = stream.cast_column("mp4", datasets.Video(decode=False))

    def samples() -> Iterator[tuple[str, Any]]:
        for sample in stream:
            yield sample["__key__"], sample["mp4"]["bytes"]

    def run(clips: Sequence[Clip]) -> UInt8Array | None:
        return _run(samples(), clips, _with_torchcodec)

    return Reader(name=name, output="uint8", run=run, divisible=False)


def _run(samples: Iterator[tuple[str, Any]], clips: Sequence[Clip], decode: Any) -> UInt8Array | None:
    """Decodes each of the clips as its sample comes by; the pixels of the last of `clips`."""
    by_key: dict[str, list[Clip]] = {}
    for clip in clips:
        by_key.setdefault(clip.key, []).append(clip)
    last = None
    for key, data in samples:
        for clip in by_key.pop(key, ()):
            pixels = decode(data, clip)
            last = pixels if clip is clips[-1] else last
    if by_key:
        raise SystemExit(f"samples {sorted(by_key)} are not in the tars")
    return last


def _with_pyav(data: bytes, clip: Clip) -> UInt8Array:
    out = np.empty((len(clip.numbers), clip.size, clip.size, 3), dtype=np.uint8)
    left, top, right, bottom = clip.box
    wanted = {int(number): t for t, number in enumerate(clip.numbers)}
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        base, start = stream.time_base or 1, stream.start_time or 0
        container.seek(start + int(clip.numbers[0] / clip.fps / base), stream=stream)
        for frame in container.decode(stream):
            number = round(float((frame.pts - start) * base) * clip.fps)  # type: ignore[operator]
            if (t := wanted.pop(number, None)) is not None:
                rgb = frame.to_ndarray(format="rgb24")[top:bottom, left:right]
                cv2.resize(rgb, (clip.size, clip.size), dst=out[t], interpolation=cv2.INTER_LINEAR)
            if not wanted:
                return out
    raise SystemExit(f"{clip.key}: frames {sorted(wanted)} did not come")


def _with_torchcodec(data: bytes, clip: Clip) -> UInt8Array:
    from torchcodec.decoders import VideoDecoder
    from torchvision.transforms.v2 import functional as F

    decoder = VideoDecoder(data, num_ffmpeg_threads=1, seek_mode="approximate")
    frames: torch.Tensor = decoder.get_frames_at(clip.numbers.tolist()).data
    crop, size = clip.crop, [clip.size, clip.size]
    return channels_last(F.resized_crop(frames, crop.y, crop.x, crop.height, crop.width, size, antialias=True))
