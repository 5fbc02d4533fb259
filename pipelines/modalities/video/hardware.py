"""Decode packed clips on the device with DALI or torchcodec, and detect decoder errors.

Clips, crops and masks are drawn as on the CPU path (rows.py), and the same packets are decoded; `PackedRowMaker` packs
them (packing.py). Clips in unsupported formats were decoded on the CPU and are inserted into the batch.

Only one batch is in flight: DALI frees a decoder's buffers without waiting for their last copies (seen in the source of
DALI 2.4), and a second batch could overwrite them.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.row_sampler import RowSampler
from maskstream.pipelines.stream.sampler import BadRowsError
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.topology import compute_alone, cores_of_rank
from maskstream.shards.arrays import Bools
from maskstream.shards.errors import SampleError

from .batch import PlaneBatch, VideoBatch
from .clip_plan import ClipPlan
from .packing import EncodedBatch, EncodedClip, Refusal
from .yuv import convert_planes

log = logging.getLogger(__name__)
MadeT = TypeVar("MadeT")

MOST_FAULTS, WITHIN = 3, 100
"""After this many decoder faults within this many batches, the rest of the run is decoded on the CPU."""
LIMIT_S = 60.0
"""Seconds after which a batch is considered lost."""
LARGE_STEP = 24.0
"""Mean difference in levels between the thumbnails of consecutive frames that indicates a scene cut or
a wrong frame.
"""
EVERY = 16
"""In every batch of this number, one clip is also decoded on the CPU and compared."""


class DaemonThreads:
    """Threads in which a decoder may hang without keeping the process alive. They end with this object."""

    def __init__(self, count: int) -> None:
        self._count, self._works = count, SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]()
        for _ in range(count):
            Thread(target=_serve, args=(self._works,), daemon=True, name="maskstream-decoder").start()

    def submit(self, work: Callable[[], MadeT]) -> Future[MadeT]:
        """Run `work` in a thread and return its future."""
        done: Future[MadeT] = Future()
        self._works.put((work, done))
        return done

    def __del__(self) -> None:
        for _ in range(self._count):
            self._works.put(None)


def _serve(works: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    while (own := works.get()) is not None:
        work, done = own
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        del own, work, done  # these references would keep a batch in memory


class BatchDecoder(Protocol):
    """Decoder of whole batches."""

    name: str
    most_difference: float
    """Largest mean difference over a frame, in intensity levels, from the CPU path's pixels."""

    def __call__(
        self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Decode clips with one crop per view.

        Returns:
            Pixels, uint8 (rows, views, T, size, size, 3), on the device, and luma of thumbnails of the keyframe and of
                each frame, float32 (rows, 1 + T, LOOK, LOOK) from 0 to 255, on the host.
        """

    def forget(self) -> None:
        """Reset the decoder after a failure."""


class HardwareFinish:
    """Decodes batches on the device, with error detection and a CPU fallback.

    A failing decoder fails for the whole batch. The clips are then decoded on the CPU, and those that fail there too
    are bad rows. A decoder can also silently return memory that it did not write. Therefore thumbnails of LOOK x LOOK
    pixels are compared: each clip's keyframe with the worker's, and each frame with the previous one. A clip that
    differs, has a large step, or is frozen although its packets are too large for that is decoded on the CPU and
    compared in full; so is one clip of every `EVERY`th batch. Failures that no bad clip explains, and clips that
    differ, are decoder faults; after `MOST_FAULTS` faults, or a batch that takes `LIMIT_S` seconds, everything is
    decoded on the CPU. `on_cpu` counts the clips decoded on the CPU by reason.

    Args:
        sampler: Creates clips on the CPU, without fields.
        decoder: Decoder on the device.
        size: Height and width in pixels.
    """

    def __init__(self, sampler: RowSampler[ClipPlan, VideoBatch], size: int, decoder: BatchDecoder) -> None:
        self._sampler, self._size, self._decoder, self._thread = sampler, size, decoder, DaemonThreads(1)
        self._batches, self._faults, self._given_up = 0, list[int](), False
        self.on_cpu: Counter[str] = Counter()

    def __call__(self, batch: EncodedBatch, device: torch.device) -> VideoBatch:
        """Return the batch with its pixels on `device`."""
        given: dict[str, Any] = {one.name: getattr(batch, one.name) for one in fields(VideoBatch)}
        return VideoBatch(**{**given, "video": self._video(batch, device), "planes": None})

    def _video(self, batch: EncodedBatch, device: torch.device) -> Tensor:
        encoded = {row: clip for row, clip in enumerate(batch.clips) if isinstance(clip, EncodedClip)}
        refusals = {row: clip for row, clip in enumerate(batch.clips) if isinstance(clip, Refusal)}
        self._note([clip.reason for clip in refusals.values()])
        here = self._pixels(batch.video, batch.planes, device)
        if not encoded:
            return here
        decoded = self._decode_or_fall_back(encoded, batch, device)
        if not refusals:
            return decoded.flatten(0, 1)
        places = np.argsort([*encoded, *refusals])
        return torch.cat([decoded, self._group_by_sample(here)])[
            torch.from_numpy(places).to(device, non_blocking=True)
        ].flatten(0, 1)

    def _pixels(self, video: Tensor, planes: PlaneBatch | None, device: torch.device) -> Tensor:
        """Convert clips decoded on the CPU to pixels on the device."""
        return video.to(device) if planes is None else convert_planes(planes.to(device), self._size)

    def _decode_or_fall_back(self, clips: dict[int, EncodedClip], batch: EncodedBatch, device: torch.device) -> Tensor:
        """Return the pixels of the clips by row, uint8 (rows, views, T, size, size, 3).

        Raises:
            BadRowsError: Some clips cannot be decoded on the CPU either.
        """
        if self._given_up:
            self._note([f"after faults of {self._decoder.name}"] * len(clips))
            return self._decode_on_cpu(batch, list(clips), device)
        self._batches += 1
        crops = [batch.crops[row] for row in clips]
        try:
            made = self._thread.submit(partial(self._decoder, list(clips.values()), crops, device))
            video, looks = made.result(LIMIT_S)
        except Exception as error:  # whatever the error, the CPU may decode these clips
            self._decoder.forget()
            hangs = isinstance(error, TimeoutError)
            said = f"no answer for {LIMIT_S:g} s" if hangs else " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("%s failed, so %d clips are decoded on the CPU: %s", self._decoder.name, len(clips), said)
            self._note([f"{self._decoder.name} failed"] * len(clips))
            right = self._decode_on_cpu(batch, list(clips), device)  # raises if a bad clip explains the failure
            self._count_fault(at_once=hangs)
            return right
        if video.is_cuda:
            video.record_stream(torch.cuda.current_stream(device))
        return self._compared(video, looks, clips, batch)

    def _compared(self, video: Tensor, looks: Tensor, clips: dict[int, EncodedClip], batch: EncodedBatch) -> Tensor:
        """Check the pixels and replace clips that the decoder did not decode correctly."""
        order, name = list(clips), self._decoder.name
        doubtful, frozen = _find_doubtful(looks, list(clips.values()), self._decoder.most_difference)
        if self._batches % EVERY == 0:
            doubtful[self._batches // EVERY % len(order)] = True
        some = np.flatnonzero(doubtful).tolist()
        if not some:
            return video
        right = self._decode_on_cpu(batch, [order[n] for n in some], video.device)
        places = torch.tensor(some, device=video.device)
        most = self._decoder.most_difference
        differs = torch.stack([_differ(video[n], own, most) for n, own in zip(some, right, strict=True)])
        replaced = differs | torch.from_numpy(frozen[some]).to(video.device)
        video[places[replaced]] = right[replaced]
        if wrong := [order[n] for n, own in zip(some, differs.tolist(), strict=True) if own]:
            keys = ", ".join(batch.key[row * self._sampler.views] for row in wrong)
            log.warning("%s returned wrong frames for %s; they are decoded on the CPU", name, keys)
            self._note([f"{name} returned wrong frames"] * len(wrong))
            self._count_fault()
        return video

    def _count_fault(self, *, at_once: bool = False) -> None:
        """Count a fault, and stop using the decoder after several."""
        self._faults = [one for one in self._faults if one > self._batches - WITHIN] + [self._batches]
        if self._given_up or not (at_once or len(self._faults) >= MOST_FAULTS):
            return
        self._given_up = True
        log.error(
            "%s %s, so the rest of this run is decoded on the CPU",
            self._decoder.name,
            "hangs" if at_once else f"failed {MOST_FAULTS} times within {WITHIN} batches",
        )

    def _note(self, reasons: list[str]) -> None:
        """Count clips that are decoded on the CPU, and log each reason once."""
        for reason in reasons:
            if reason not in self.on_cpu:
                log.info("decoded on the CPU, as similar clips will be: %s", reason)
            self.on_cpu[reason] += 1

    def _decode_on_cpu(self, batch: EncodedBatch, rows: list[int], device: torch.device) -> Tensor:
        """Decode some rows on the CPU.

        Raises:
            BadRowsError: Some clips cannot be decoded.
        """
        requests = [self._sampler.request(batch.wanted[row]) for row in rows]
        draft = self._sampler.allocate(requests)
        with ThreadPoolExecutor(cores_of_rank(), initializer=compute_alone) as pool:
            filled = [
                pool.submit(self._sampler.fill, request, draft, [n], Stats()) for n, request in enumerate(requests)
            ]
        failed = {row: error for row, done in zip(rows, filled, strict=True) if (error := done.exception())}
        if bad := {row: error for row, error in failed.items() if isinstance(error, SampleError)}:
            raise BadRowsError(bad)
        for error in failed.values():
            raise error
        planes = [view for request in requests for plan in request.plans for view in plan.planes]
        return self._group_by_sample(self._pixels(draft.batch.video, PlaneBatch.of(planes) if planes else None, device))

    def _group_by_sample(self, video: Tensor) -> Tensor:
        """Reshape views to (rows, views, T, size, size, 3)."""
        return video.reshape(-1, self._sampler.views, *video.shape[1:])


def _find_doubtful(looks: Tensor, clips: Sequence[EncodedClip], most: float) -> tuple[Bools, Bools]:
    """Find clips that may contain wrong frames, and those frozen although their packets are too large for that: bool
    (rows,).

    `looks` is the luma of thumbnails, (rows, 1 + T, LOOK, LOOK).
    """
    seen = looks.numpy()
    known = np.stack([clip.look for clip in clips]).astype(np.float32)
    limited = ~np.array([clip.full_range for clip in clips])
    known[limited] = ((known[limited] - 16) * (255 / 219)).clip(0, 255)
    apart = np.abs(seen[:, 0] - known).mean(axis=(1, 2))
    steps = np.abs(np.diff(seen, axis=1)).mean(axis=(2, 3))
    frozen: Bools = ((steps == 0) & np.stack([clip.moves for clip in clips])).any(axis=1)
    return (apart > most) | (steps.max(axis=1) > LARGE_STEP) | frozen, frozen


def _differ(found: Tensor, right: Tensor, most: float) -> Tensor:
    """Return whether frames of a clip (views, T, size, size, 3) differ from the correct ones by more than `most`
    levels, or a frame is frozen that should move by more.
    """
    apart = (found.float() - right).abs().flatten(2).mean(2).max()
    still = (found[:, 1:] == found[:, :-1]).flatten(2).all(2)
    moves = (right[:, 1:].int() - right[:, :-1]).abs().flatten(2).amax(2) > most
    return (apart > most) | (still & moves).any()
