"""How good each source of flow is: end-point error on known motion, what masks make of it, cuts, and CPU time.

    python benchmarks/flow_quality.py [--media data/raw/sample] [--sizes 224 112] [--only codec dis] [--out flow.json]

Scenes are those of flow_scenes.py. "error" is the mean distance in pixels of the clip between a cell's flow and the
true flow's mean over that cell, where its origin lies in the picture. "kept" is the share of the places under visible
tokens of MotionGuided(ratio=0.9) whose content lies under a visible token of the base frame's time step too. "tube" has
the same of a tube mask, "true" of the true flow. Times are of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from flow_scenes import (
    FRAMES,
    HEIGHT,
    KINDS,
    TEXTURES,
    WIDTH,
    Floats,
    Scene,
    encoded,
    joined,
    scenes,
    source_points,
    true_flow,
)
from machine import facts
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.augment import Crop
from maskstream.pipelines.decode.cpu import decode_frames, to_rgb
from maskstream.pipelines.flow import BatchFlow, Codec, DecodedClip, Dis, FlowSource, Lk, SampleFlow
from maskstream.pipelines.flow.cuts import clip_cuts
from maskstream.pipelines.masks import Cues, Draw, MotionGuided, TokenGrid, Tube
from maskstream.preprocess.encode.video.video import EncodedVideo
from maskstream.shards.media.gop_notes import gop_notes

STRIDE, CELL, GOP = 4, 8, 32
CROP = Crop(x=42, y=0, width=256, height=256)
SOURCES: Mapping[str, FlowSource] = {
    "codec": Codec(),
    "dis": Dis(),
    "lk": Lk(),
    "dis medium 0.5": Dis(preset="medium", scale=0.5),
}
DRAWS = 4
"""Masks that are drawn of each clip."""


@dataclass(frozen=True, slots=True)
class View:
    """A clip of a scene at one size, and its true flow on the grid of cells: vectors, known and objects."""

    scene: Scene
    clip: DecodedClip
    vectors: Floats
    known: Floats
    objects: Floats

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.clip.pixels.shape[1])


def view(scene: Scene, video: EncodedVideo, size: int, *, stride: int = STRIDE, crop: Crop = CROP) -> View:
    """The clip of a scene that starts at its first frame."""
    clip = clip_of(video, size, stride=stride, crop=crop)
    vectors, known, objects = (on_cells(each, size // CELL) for each in true_flow(scene, clip.frames, crop, size))
    return View(scene=scene, clip=clip, vectors=vectors, known=known, objects=objects)


def clip_of(video: EncodedVideo, size: int, *, stride: int = STRIDE, crop: Crop = CROP) -> DecodedClip:
    """The clip of a video that starts at its first frame."""
    numbers = np.arange(0, FRAMES, stride)
    head = video.index.header_size
    notes = gop_notes(memoryview(video.data)[head:], WIDTH, HEIGHT)
    decoded = decode_frames(
        video.data[:head],
        memoryview(video.data)[head:],
        0,
        numbers,
        size=(WIDTH, HEIGHT),
        vectors_of=Codec().vectors_of(numbers),
        stored=notes.flows,
    )
    pixels = np.empty((len(numbers), size, size, 3), dtype=np.uint8)
    to_rgb(decoded.frames, crop, (size, size), pixels)
    return DecodedClip(
        pixels=pixels,
        crop=crop,
        source=(WIDTH, HEIGHT),
        frames=numbers,
        vectors=decoded.vectors,
        starts=notes.starts,
    )


def on_cells(planes: Floats, cells: int) -> Floats:
    """The means of planes (T, H, W, ...) over `cells` x `cells` cells."""
    return np.stack([cv2.resize(plane, (cells, cells), interpolation=cv2.INTER_AREA) for plane in planes])


def flow_of(source: FlowSource, clip: DecodedClip) -> Floats:
    """The flow (T-1, h, w, 2) of a clip by any source."""
    if isinstance(source, SampleFlow):
        return source.of_clip(clip).vectors
    assert isinstance(source, BatchFlow)
    with torch.no_grad():
        return source.of_clips(torch.from_numpy(clip.pixels)[None])[0].movedim(1, 3).float().numpy()


def errors(found: Floats, one: View) -> dict[str, float]:
    """The errors of one view: of its kind, of objects, and of the pairs at I-frames and the others."""
    distance = np.linalg.norm(on_cells(found, one.size // CELL) - one.vectors, axis=-1)
    good = one.known > 0.99
    at_i = np.isin(one.clip.frames[1:], np.arange(0, FRAMES, GOP))
    made = {one.scene.kind: float(distance[good].mean())}
    if one.scene.kind == "objects":
        made["pieces"] = float(distance[good & (one.objects > 0.5)].mean())
    if at_i.any():
        made["at I"] = float(distance[at_i][good[at_i]].mean())
        made["others"] = float(distance[~at_i][good[~at_i]].mean())
    return made


def kept(vectors: Floats | None, one: View) -> float:
    """The share of visible places that show what a visible place of the base step shows; None for a tube."""
    frames, size = one.clip.pixels.shape[:2]
    grid = TokenGrid.video(frames, size, size)
    places = source_points(one.clip.crop, size)
    base, shares = frames // 2, []
    for number in range(DRAWS):
        draw = Draw(rng=np.random.default_rng(number), cues=Cues(flow=vectors))
        mask = Tube(ratio=0.9) if vectors is None else MotionGuided(ratio=0.9)
        shown = ~mask.hide(grid, draw).reshape(grid.shape)
        pixels = shown.repeat(16, axis=1).repeat(16, axis=2)
        for t in range(1, frames, 2):
            if t // 2 == base // 2:
                continue
            points = places[pixels[t // 2]]
            seen = one.scene.layer_at(int(one.clip.frames[t]), points)
            origin = one.scene.moved(int(one.clip.frames[t]), int(one.clip.frames[base]), points, seen)
            there = one.scene.layer_at(int(one.clip.frames[base]), origin) == seen
            crop = one.clip.crop
            cells = np.floor((origin + 0.5 - (crop.x, crop.y)) * size / (crop.width, crop.height)).astype(int)
            there &= ((cells >= 0) & (cells < size)).all(-1)
            shares.append(float(pixels[base // 2][cells[there, 1], cells[there, 0]].mean()) if there.any() else 1.0)
    return mean(shares)


def measured(source: FlowSource | None, views: Sequence[View]) -> dict[str, float]:
    """Every figure of a source over the views of one size; None for no motion."""
    rows: dict[str, list[float]] = defaultdict(list)
    spent = pairs = 0.0
    for one in views:
        found = np.zeros_like(one.vectors)
        if source is not None:
            flow_of(source, one.clip)  # warm
            start = time.thread_time()
            found = flow_of(source, one.clip)
            spent += time.thread_time() - start
        pairs += len(one.vectors)
        for name, value in errors(found, one).items():
            rows[name].append(value)
        if source is not None and one.size == 224 and one.clip.frames[1] - one.clip.frames[0] == STRIDE:
            rows[f"kept {one.scene.kind}"].append(kept(found, one))
    made = {name: mean(values) for name, values in rows.items()}
    return {"all": mean(made[kind] for kind in KINDS), **made, "cpu_ms_a_pair": spent / pairs * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=Path("data/raw/sample"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 112])
    parser.add_argument("--only", nargs="+", choices=[*SOURCES], default=[*SOURCES])
    parser.add_argument("--textures", type=int, default=len(TEXTURES), help="as many videos are moved")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    made = [(scene, encoded(scene.frames)) for scene in scenes(options.media, TEXTURES[: options.textures])]
    result: dict[str, Any] = {"facts": facts(("av", "numpy", "opencv-python-headless", "torch"))}
    for size in options.sizes:
        views = [view(scene, video, size) for scene, video in made]
        rows = {"no motion": measured(None, views)}
        rows |= {name: measured(SOURCES[name], views) for name in options.only}
        if size == 224:
            rows |= masks_alone(views)
        result[str(size)] = rows
        show(f"{size} px, stride {STRIDE}", rows)
    for stride in (8, 12) if 224 in options.sizes else ():
        views = [view(scene, video, 224, stride=stride) for scene, video in made]
        rows = {"no motion": measured(None, views)} | {n: measured(SOURCES[n], views) for n in options.only}
        result[f"stride {stride}"] = rows
        show(f"224 px, stride {stride}", rows)
    result["cuts"] = cuts(options.media, options.only)
    show("cuts", result["cuts"])
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def cuts(media: Path, only: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of real clips joined in 60 ways: the share of the cuts that are found, false alarms, and what repeats across."""
    rows: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in only}
    grid = TokenGrid.video(FRAMES // STRIDE, 224, 224)
    for cut in (30, 42):
        for frames in joined(media, cut):
            clip, true = clip_of(encoded(frames), 224), np.arange(FRAMES // STRIDE - 1) == (cut - 1) // STRIDE
            for source in only:
                vectors, found = cut_flow(SOURCES[source], clip)
                rows[source]["found"].append(float(found[true].all()))
                rows[source]["false alarms"].append(float(found[~true].sum()))
                for restart in ("with", "without"):
                    mask = MotionGuided(ratio=0.9, restart=restart == "with")
                    draw = Draw(rng=np.random.default_rng(cut), cues=Cues(flow=vectors, cuts=found))
                    shown = ~mask.hide(grid, draw).reshape(len(true) // 2 + 1, -1)
                    at = int(np.flatnonzero(true)[0])
                    before, after = shown[(at - 1) // 2], shown[at // 2 + 1]
                    rows[source][f"repeated {restart} restart"].append(float((before & after).sum() / before.sum()))
    return {name: {what: mean(values) for what, values in row.items()} for name, row in rows.items()}


def cut_flow(source: FlowSource, clip: DecodedClip) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The flow of a clip and its cuts, as a loader finds them."""
    if isinstance(source, SampleFlow):
        flow = source.of_clip(clip)
        return flow.vectors, source.cuts(clip, flow)
    vectors = flow_of(source, clip)
    return vectors, clip_cuts(clip.pixels, vectors)


def masks_alone(views: Sequence[View]) -> dict[str, dict[str, float]]:
    """What a tube keeps, and what the true flow keeps."""
    rows: dict[str, dict[str, list[float]]] = {"tube": defaultdict(list), "true": defaultdict(list)}
    for one in views:
        rows["tube"][f"kept {one.scene.kind}"].append(kept(None, one))
        rows["true"][f"kept {one.scene.kind}"].append(kept(one.vectors, one))
    return {name: {kind: mean(values) for kind, values in row.items()} for name, row in rows.items()}


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a table."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("", *names, title=title)
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.3f}" if column in row else "" for column in names))
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
