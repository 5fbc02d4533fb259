"""The steps of `make gpu` about motion: flow of the whole batch, and the masks that follow it on the device.

Each returns its figures and what it found wrong. Without a card Lucas-Kanade and the masks run on the CPU, where only
their results are judged.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product
from typing import Any, get_args

import cv2
import numpy as np
import torch
from gpu_rig import Found, Rig, said
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
LAUNCH_US = (5, 8)
"""Microseconds that an operation's launch takes on the host: the least and the most that is expected."""


def flow(rig: Rig) -> Found:
    """Every source that a device can have on textures that move: the error of its flow, and clips a second."""
    clips, frames = rig.pick((32, 16), (2, 3))
    figures: dict[str, Any] = {}
    given = sources(rig)
    missing = {name: reason for name, source in given.items() if (reason := source.missing(rig.device))}
    wrong = [f"{name}: {reason}" for name, reason in missing.items()]
    for size in SIZES:
        moved = [moving(step, clips=clips, frames=frames, size=size).to(rig.device) for step in STEPS]
        for name, source in given.items():
            if name in missing:
                continue
            try:
                found = [source.of_clips(each) for each in moved]
                seconds = seconds_of(partial(source.of_clips, moved[0]), rig, rig.pick(10, 1))
            except RuntimeError as error:
                wrong.append(f"{name} at {size} px: {said(error)}")
                continue
            errors = [judged(each, step) for each, step in zip(found, STEPS, strict=True)]
            figures[f"{name}, {size} px"] = {
                "median_error_px": [round(error, 3) for error, _ in errors],
                "clips_per_s": round(clips / seconds, 1),
            }
            wrong += [f"{name} at {size} px: {says}" for _, says in errors if says]
    return figures, wrong


def sources(rig: Rig) -> dict[str, BatchFlow]:
    """The sources without weights: those of torch, and on a card its engine with each preset and grid."""
    found: dict[str, BatchFlow] = {"lk": Lk()}
    for preset, grid in product(get_args(Preset), get_args(Grid)) if rig.is_real else ():
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
        return error, f"flow of content that moves by {step} points forward, or its sign is wrong"
    return (
        error,
        "" if error <= MOST_ERROR else f"flow of content that moves by {step} has a median error of {error:.2f} px",
    )


def masks(rig: Rig) -> Found:
    """The masks in torch on the device against numba's of the same flow, and their cost beside that of launches."""
    rows = rig.pick(32, 2)
    grid, field = TokenGrid.video(16, 224, 224), smooth_flow(rows, rig.device)
    wrong, tokens = [], 0
    for mask in islice(settings(), 0, None, rig.pick(1, 7)):
        ours, theirs = on_device(mask, grid, field), mask.draw(grid, draws(rows, field.cpu().numpy()))
        tokens += theirs.masked.numel()
        different = int((ours.masked.cpu() != theirs.masked).sum())
        if different or not torch.equal(ours.visible.cpu(), theirs.visible):
            wrong.append(f"{mask}: {different} tokens differ from numba's")
    if rig.is_real and (waits := waiting(grid, field)):
        wrong.append(f"the masks wait for the GPU: {waits}")
    work = partial(on_device, MotionGuided(), grid, field)
    with Launches() as launches:  # on the CPU, where no CUDA graph launches them together
        on_device(MotionGuided(), grid, field[:1].cpu())
    figures = {
        "tokens_compared": tokens,
        "launches": launches.count,
        "us_of_a_batch": round(1e6 * seconds_of(work, rig, rig.pick(10, 1))),
        "us_of_launches": [round(launches.count * each) for each in LAUNCH_US],
    }
    return figures, wrong


class Launches(TorchDispatchMode):
    """Counts the operations that compute something while it is entered, of which each is about one launch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def seconds_of(work: Callable[[], object], rig: Rig, times: int) -> float:
    """Seconds of `work`, which has run before."""
    rig.wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    rig.wait()
    return (time.perf_counter() - start) / times


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
