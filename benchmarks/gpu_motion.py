"""The steps of the acceptance about motion: flow of the whole batch, and the masks that follow it on the device.

Each returns its figures and what it found wrong. Without a card Lucas-Kanade and the masks run on the CPU, where only
their results are judged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import get_args

import cv2
import numpy as np
import torch
from gpu_loaders import Figures, loader_of, rate_of, said, split_of
from gpu_videos import ON_A_CPU, Kind
from torch import Tensor

from maskstream.pipelines.flow import BatchFlow, Lk, Ofa
from maskstream.pipelines.flow.ofa import Grid, Preset
from maskstream.pipelines.masks import Cues, Draw, MaskBatch, MotionGuided, TokenGrid
from maskstream.pipelines.masks.patterns.motion_guided import Base, Fill, Per, Start
from maskstream.pipelines.stream.rng import Place

STEPS = ((3, 0), (0, -5))
"""By how many pixels to the right and down a texture moves from frame to frame."""
SIZES = (112, 224)
MOST_ERROR = 0.5
"""The largest median distance to the true flow, in pixels."""
WANTED_PAIRS = 15 * 3000
"""Pairs a second from which a source keeps up with 3,000 clips of 16 frames."""
MOST_COST = 0.08
"""The largest share of a clip's time in the loader that its mask may cost on a card."""


def flow(device: torch.device) -> tuple[Figures, list[str]]:
    """Every source that a device can have on textures that move: the error of its flow, and pairs a second."""
    on_card = device.type == "cuda"
    clips, frames = (32, 16) if on_card else (2, 3)
    figures: Figures = {}
    given = sources(on_card)
    missing = {name: reason for name, source in given.items() if (reason := source.missing(device))}
    wrong = [f"{name}: {reason}" for name, reason in missing.items()]
    for size in SIZES:
        moved = [moving(step, clips=clips, frames=frames, size=size).to(device) for step in STEPS]
        for name, source in given.items():
            if name in missing:
                continue
            try:
                found = [source.of_clips(each) for each in moved]
                for_s = 0.3 if on_card else 0.0
                rate = pairs_per_s(partial(source.of_clips, moved[0]), clips * (frames - 1), for_s)
            except RuntimeError as error:
                wrong.append(f"{name} at {size} px: {said(error)}")
                continue
            errors = [judged(each, step) for each, step in zip(found, STEPS, strict=True)]
            figures[f"{name}, {size} px"] = {
                "median_error_px": [round(error, 3) for error, _ in errors],
                "pairs_per_s": round(rate, 1),
                "keeps_up": rate >= WANTED_PAIRS,
            }
            wrong += [f"{name} at {size} px: {says}" for _, says in errors if says]
    return figures, wrong


def sources(on_card: bool) -> dict[str, BatchFlow]:
    """The sources without weights: those of torch, and on a card its engine with each preset and grid."""
    found: dict[str, BatchFlow] = {"lk": Lk()}
    for preset, grid in product(get_args(Preset), get_args(Grid)) if on_card else ():
        found[f"ofa {preset}, grid {grid}"] = Ofa(preset=preset, grid=grid)
    return found


def moving(step: tuple[int, int], *, clips: int, frames: int, size: int) -> Tensor:
    """Clips uint8 (B, T, size, size, 3) of textures that move by `step` pixels from frame to frame."""
    across, down = (abs(each) * (frames - 1) for each in step)
    made = []
    for number in range(clips):
        noise = np.random.default_rng(number).random((size + down, size + across, 3), dtype=np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 3) + 0.5 * cv2.GaussianBlur(noise, (0, 0), 9)
        smooth = (smooth - smooth.min()) * (255 / (smooth.max() - smooth.min()))
        for t in range(frames):
            x, y = (
                -each * t if each < 0 else whole - each * t for each, whole in zip(step, (across, down), strict=True)
            )
            made.append(smooth[y : y + size, x : x + size].astype(np.uint8))
    return torch.from_numpy(np.stack(made).reshape(clips, frames, size, size, 3))


def judged(found: Tensor, step: tuple[int, int]) -> tuple[float, str]:
    """The median distance in pixels of backward flow (B, T-1, 2, h, w) to the true one, and what is wrong with it."""
    true = found.new_tensor([-step[0], -step[1]])[:, None, None]
    error, turned = ((found - each).norm(dim=2).median().item() for each in (true, -true))
    if turned < error:
        return error, f"what moves by {step} has forward flow, or its sign is wrong"
    return error, "" if error <= MOST_ERROR else f"what moves by {step} has a median error of {error:.2f} px"


def pairs_per_s(work: Callable[[], Tensor], pairs: int, for_s: float) -> float:
    """Pairs a second of `work`, which computes the flow of `pairs` pairs and has run before."""
    start, calls = time.perf_counter(), 0
    while calls < 1 or time.perf_counter() - start < for_s:
        done = work()
        calls += 1
    _wait(done.device)
    return calls * pairs / (time.perf_counter() - start)


def masks(device: torch.device) -> tuple[Figures, list[str]]:
    """The masks in torch on the device against numba's of the same flow, and their cost beside the loader's."""
    on_card = device.type == "cuda"
    rows = 32 if on_card else 2
    grid, field = TokenGrid.video(16, 224, 224), smooth_flow(rows, device)
    wrong, tokens = [], 0
    for mask in settings():
        ours, theirs = on_device(mask, grid, field), mask.draw(grid, draws(rows, field.cpu().numpy()))
        tokens += theirs.masked.numel()
        different = int((ours.masked.cpu() != theirs.masked).sum())
        if different or not torch.equal(ours.visible.cpu(), theirs.visible):
            wrong.append(f"{mask}: {different} tokens differ from numba's")
    if on_card and (waits := waiting(grid, field)):
        wrong.append(f"the masks wait for the card: {waits}")
    seconds = mask_seconds(MotionGuided(), grid, field)
    with split_of(Kind() if on_card else ON_A_CPU["vp9"], videos=32) as folder:
        batch_size = 32 if on_card else 4
        loader = loader_of(folder, device, "dali" if on_card else "cpu", batch_size=batch_size)
        share = seconds * rate_of(loader, 3000 if on_card else 16)
    if on_card and share > MOST_COST:
        wrong.append(f"a mask costs {share:.1%} of a clip's time in the loader, more than {MOST_COST:.0%}")
    return {
        "tokens_compared": tokens,
        "us_per_clip": round(seconds * 1e6, 1),
        "share_of_loader": round(share, 3),
    }, wrong


def settings() -> Iterator[MotionGuided]:
    """Masks of every start, base, per and fill."""
    for start, base, per, fill in product(*map(get_args, (Start, Base, Per, Fill))):
        yield MotionGuided(start=start, base=base, per=per, fill=fill)


def smooth_flow(rows: int, device: torch.device) -> Tensor:
    """Flow that changes from place to place: float32 (B, 15, 28, 28, 2), up to some ten pixels of clips of 224."""
    coarse = torch.randn(rows * 15, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 6
    dense = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic")
    return dense.unflatten(0, (rows, 15)).movedim(2, 4).contiguous().to(device)


def draws(rows: int, field: np.ndarray | None = None) -> list[Draw]:
    """The draws of some views, always the same; with their flow as cues if it is given."""
    cues = [Cues() if field is None else Cues(flow=field[row]) for row in range(rows)]
    return [Draw.of(0, 0, str(row), 0, Place(), own) for row, own in enumerate(cues)]


def on_device(mask: MotionGuided, grid: TokenGrid, field: Tensor) -> MaskBatch:
    """The masks of views with this flow, made where it is."""
    return mask.draw_on_device(grid, draws(len(field)), field)


def waiting(grid: TokenGrid, field: Tensor) -> str:
    """What in the drawing of masks waits for the card, in torch's words; "" if nothing does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_device(MotionGuided(), grid, field)
    except RuntimeError as error:
        return said(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def mask_seconds(mask: MotionGuided, grid: TokenGrid, field: Tensor, times: int = 10) -> float:
    """Seconds a clip of drawing a mask, random numbers included."""
    start = time.perf_counter()
    for _ in range(times):
        on_device(mask, grid, field)
    _wait(field.device)
    return (time.perf_counter() - start) / (times * len(field))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
