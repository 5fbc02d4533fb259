"""What the profiles `train` and `fast` cost and give, beside the profile `train` of before (x264's defaults, crf 21).

    python benchmarks/profiles.py [--media data/raw/sample] [--rounds 5] [--scenes 5] [--out profiles.json]

Real clips are windows of 96 frames of the sample dataset's videos. Profiles take turns, clip by clip. Of each clip are
measured: encoding (scaling included), SSIM of luma against the scaled frames, the bytes of all and of those that 16
frames at stride 4 read, decoding these (`decode_frames`, CPU ms), and how far motion vectors lie from DIS medium on the
scaled frames, px of a 224 px clip, in cells that have vectors. Clips start at any anchor, or ("gop") on a GOP. "cut"
stops reading after the last packet needed. `--scenes` textures of flow_scenes.py are encoded too: the error of `codec`
against known motion, px.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.filter import Graph
from av.video.frame import VideoFrame
from flow_quality import errors, view
from flow_scenes import KINDS, TEXTURES, encoded, scenes
from machine import facts
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.decode.cpu import decode_frames, to_rgb
from maskstream.pipelines.flow import Codec, Dis, codec_flow
from maskstream.pipelines.flow.codec import trail
from maskstream.pipelines.flow.source import DecodedClip
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.pipelines.modalities.video.clip_plan import ClipBytes, clip_ranges
from maskstream.preprocess.encode.video.convert import Converter
from maskstream.preprocess.encode.video.fragments import parsed_output, video_index
from maskstream.preprocess.encode.video.profile import PROFILES, VideoProfile
from maskstream.preprocess.encode.video.source import decode, probe
from maskstream.preprocess.encode.video.video import encode_x264
from maskstream.samples.video.sample import sample
from maskstream.shards.media.video_index import VideoIndex
from maskstream.shards.stores.base import Range

WINDOW, STEP, STARTS = 96, 24, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Before(VideoProfile):
    """The profile `train` of VideoProfile's version 2."""

    crf: float = 21

    @property
    def x264_params(self) -> str:
        """The options without those that version 3 added."""
        return super(Before, self).x264_params.removesuffix(":psy=0:trellis=0")


CANDIDATES: dict[str, VideoProfile] = {"before": Before(), "train": PROFILES["train"], "fast": PROFILES["fast"]}


@dataclass(frozen=True, slots=True)
class Stored:
    """A window in one profile."""

    data: bytes
    index: VideoIndex

    def read(self, numbers: np.ndarray, *, cut: bool) -> ClipBytes:
        """The bytes of a clip."""
        index = self.index if cut else replace(self.index, anchor_reach=None)
        (span,) = clip_ranges(index, numbers, Range("", 0, len(self.data)))
        first, stop = index.gops_of(numbers)
        return ClipBytes(
            header=index.header or b"",
            fragments=self.data[span.offset : span.offset + span.size],
            first_frame=int(index.first_frame[first]),
            whole=int(index.size[first:stop].sum()),
            header_known=True,
        )


def windows(media: Path) -> Iterator[tuple[str, list[VideoFrame], Fraction]]:
    """The frames of every window, scaled as the encoder scales them, and their rate."""
    paths = {source.path.stem: source.path for split in sample(media).splits.values() for source in split}
    for name, path in sorted(paths.items()):
        probed, convert = probe(path), Converter(256, None)
        frames = [convert(frame) for frame in decode(path)]
        for first in range(0, len(frames) - WINDOW + 1, STEP):
            yield f"{name} {first}", frames[first : first + WINDOW], probed.rate


def stored(frames: Sequence[VideoFrame], rate: Fraction, profile: VideoProfile) -> tuple[Stored, float]:
    """The window in a profile, and the CPU seconds of encoding it."""
    start = time.process_time()
    data = encode_x264(frames, Converter(256, None), rate, profile)
    spent = time.process_time() - start
    parsed = parsed_output(data)
    entries, size = list(range(len(parsed.key_rank))), (frames[0].width, frames[0].height)
    index = video_index(parsed, entries, codec="h264", fps=float(rate), width=size[0], height=size[1], anchored=True)
    return Stored(parsed.data, index), spent


def ssim(frames: Sequence[VideoFrame], one: Stored) -> float:
    """The mean structural similarity of luma, by FFmpeg's filter."""
    numbers = np.arange(len(frames))
    data = one.read(numbers, cut=False)
    found = decoded(one, data, numbers)
    form = f"video_size={frames[0].width}x{frames[0].height}:pix_fmt=yuv420p:time_base=1/30:pixel_aspect=1/1"
    graph = Graph()
    ours, theirs = graph.add("buffer", form), graph.add("buffer", form)
    compare, sink = graph.add("ssim"), graph.add("buffersink")
    ours.link_to(compare, 0, 0)
    theirs.link_to(compare, 0, 1)
    compare.link_to(sink)
    graph.configure()
    values = []
    for n, (mine, original) in enumerate(zip(found.frames, frames, strict=True)):
        for buffer, frame in ((ours, mine), (theirs, original)):
            frame.pts, frame.time_base = n, Fraction(1, 30)
            buffer.push(frame)
        if n:  # a pair is compared when the next one is there
            values.append(float(sink.pull().metadata["lavfi.ssim.Y"]))  # type: ignore[union-attr]
    return mean(values)


def decoded(one: Stored, data: ClipBytes, numbers: np.ndarray, *, vectors: bool = False) -> Any:
    """The frames of a clip, as the loader decodes them."""
    size = (one.index.width, one.index.height)
    return decode_frames(
        data.header,
        memoryview(data.fragments),
        data.first_frame,
        numbers,
        size=size,
        packets=data.packets,
        vectors_of=Codec().vectors_of(numbers) if vectors else None,
    )


def clips(index: VideoIndex, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Clips that start at any anchor, and as many that start on a GOP."""
    rng = np.random.default_rng(seed)
    for kind, align in (("any", 4), ("gop", "gop")):
        clip = VideoClip(align=align)  # type: ignore[arg-type]
        for _ in range(STARTS):
            yield kind, clip.numbers(index.n_frames, rng, index.first_frame, fps=index.fps)


def flow_difference(frames: Sequence[VideoFrame], one: Stored) -> tuple[float, float]:
    """The median distance of vectors from DIS medium on the frames before encoding, and the share of valid cells."""
    numbers, width, height = np.arange(0, 64, 4), one.index.width, one.index.height
    side = min(width, height)
    crop = Crop(x=(width - side) // 2 & ~1, y=(height - side) // 2 & ~1, width=side, height=side)
    pixels = np.empty((len(numbers), 224, 224, 3), dtype=np.uint8)
    to_rgb([frames[n] for n in numbers], crop, (224, 224), pixels)
    clip = DecodedClip(pixels=pixels, crop=crop, source=(width, height), frames=numbers, vectors={})
    dense = Dis(preset="medium", scale=0.5).of_clip(clip).vectors
    vectors = decoded(one, one.read(numbers, cut=False), numbers, vectors=True).vectors
    found = codec_flow(trail(numbers, vectors, 1), crop, source=(width, height), size=224, frames=numbers)
    has = np.arange(4, 64, 4) % 32 != 0  # pairs at I-frames have no vectors
    distance = np.linalg.norm(found.vectors - dense, axis=-1)[has]
    return float(np.median(distance[found.valid[has]])), float(found.valid[has].mean())


def measured(media: Path, rounds: int, most: int | None) -> tuple[dict[str, dict[str, float]], int]:
    """Every figure of the real clips by profile, and the number of windows."""
    rows: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in CANDIDATES}
    count = 0
    every = list(windows(media))
    for count, (_, frames, rate) in enumerate(every[:: -(-len(every) // (most or len(every)))], start=1):
        turn = [*CANDIDATES][:: 1 if count % 2 else -1]
        made: dict[str, Stored] = {}
        for name in turn:
            made[name], spent = stored(frames, rate, CANDIDATES[name])
            rows[name]["encode ms a frame"].append(spent / WINDOW * 1e3)
            rows[name]["kB"].append(len(made[name].data) / 1e3)
            rows[name]["SSIM"].append(ssim(frames, made[name]))
            difference, valid = flow_difference(frames, made[name])
            rows[name]["vectors - DIS px"].append(difference)
            rows[name]["valid"].append(valid)
        spent_of: dict[tuple[str, str, int], list[float]] = defaultdict(list)
        for n in range(rounds):
            for name in turn[:: 1 if n % 2 else -1]:
                for place, (kind, numbers) in enumerate(clips(made[name].index, count)):
                    data = made[name].read(numbers, cut=True)
                    start = time.thread_time()
                    decoded(made[name], data, numbers)
                    spent_of[name, kind, place].append((time.thread_time() - start) * 1e3)
                    if n == 0:
                        whole = made[name].read(numbers, cut=False).size_bytes
                        rows[name][f"kB a clip, {kind}"].append(whole / 1e3)
                        rows[name][f"kB a clip, {kind}, cut"].append(data.size_bytes / 1e3)
        for (name, kind, _), values in spent_of.items():
            rows[name][f"decode ms, {kind}"].append(median(values))
    return {name: {what: mean(values) for what, values in row.items()} for name, row in rows.items()}, count


def on_known_motion(media: Path, textures: int) -> dict[str, dict[str, float]]:
    """The error of `codec` by profile, over all kinds of motion and on pairs with and without an I-frame."""
    rows: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in CANDIDATES}
    for scene in scenes(media, TEXTURES[:textures]):
        for name, profile in CANDIDATES.items():
            one = view(scene, encoded(scene.frames, profile), 224)
            for what, value in errors(Codec().of_clip(one.clip).vectors, one).items():
                rows[name][what].append(value)
    found = {name: {what: mean(values) for what, values in row.items()} for name, row in rows.items()}
    return {
        name: {"codec error px": mean(row[kind] for kind in KINDS), "at I": row["at I"], "others": row["others"]}
        for name, row in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=Path("data/raw/sample"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, help="at most so many, spread over all [default: all]")
    parser.add_argument("--scenes", type=int, default=len(TEXTURES), help="as many textures are moved; 0 for none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    av.logging.set_level(av.logging.ERROR)
    rows, count = measured(options.media, options.rounds, options.windows)
    if options.scenes:
        for name, row in on_known_motion(options.media, options.scenes).items():
            rows[name] |= row
    table = Table("", *rows, "train / before", "fast / before", title=f"{count} windows of {WINDOW} frames")
    for what, before in rows["before"].items():
        values = [row[what] for row in rows.values()]
        table.add_row(what, *(f"{v:.4g}" for v in values), *(f"{v / before:.3f}" for v in values[1:]))
    Console(width=140).print(table)
    if options.out:
        depends_on = facts(("av", "numpy", "opencv-python-headless"))
        options.out.write_text(json.dumps({"facts": depends_on, "windows": count, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
