"""Finishes packed clips with a decoder of the device, DALI or torchcodec, and watches it.

The draws of clips, crops and masks are those of the CPU path (rows.py), and so are the decoded packets, which
`PackedRowMaker` packs (packing.py). Clips of other formats were decoded on the CPU, and are put into the batch.

One batch is in flight. DALI frees the buffers of a clip's decoder without waiting for their last copies (DALI 2.4, read
in its source), which a second batch could overwrite.
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
import numpy.typing as npt
import torch
from torch import Tensor

from maskstream.pipelines.augment.crop import Crop
from maskstream.pipelines.modalities.row_sampler import RowSampler
from maskstream.pipelines.stream.sampler import BadRowsError
from maskstream.pipelines.stream.stats import Stats
from maskstream.pipelines.stream.topology import compute_alone, cores_of_rank
from maskstream.shards.errors import SampleError

from .batch import PlaneBatch, VideoBatch
from .clip_plan import ClipPlan
from .packing import EncodedBatch, EncodedClip, Refusal
from .yuv import convert_planes

log = logging.getLogger(__name__)
MadeT = TypeVar("MadeT")

MOST_FAULTS, WITHIN = 3, 100
"""After so many faults of a decoder within so many batches, the rest of the run is decoded on the CPU."""
LIMIT_S = 60.0
"""A batch that takes longer will never come."""
LARGE_STEP = 24.0
"""Levels, the mean over the looks of two frames in turn: a scene cut, or a frame that is none of the clip's."""
EVERY = 16
"""Of every so many batches, a clip is decoded on the CPU and compared, whatever it looks like."""


class DaemonThreads:
    """Threads that a decoder may hang in: they do not keep the process from ending. They end with this object."""

    def __init__(self, count: int) -> None:
        self._count, self._works = count, SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]()
        for _ in range(count):
            Thread(target=_serve, args=(self._works,), daemon=True, name="maskstream-decoder").start()

    def submit(self, work: Callable[[], MadeT]) -> Future[MadeT]:
        """What `work` will return or raise."""
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
        del own, work, done  # which hold a batch


class BatchDecoder(Protocol):
    """A decoder of whole batches, with a name. most_difference: levels, the mean over a frame, by which its pixels and
    those of the CPU path may differ.
    """

    name: str
    most_difference: float

    def __call__(
        self, clips: list[EncodedClip], crops: list[list[Crop]], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The pixels of clips with crops for each view, uint8 (rows, views, T, size, size, 3) on the device, and the
        luma of looks at the keyframe and at each frame, float32 (rows, 1 + T, LOOK, LOOK) from 0 to 255, on the host.
        """

    def forget(self) -> None:
        """Begins anew after a failure."""


class HardwareFinish:
    """Decodes batches with a decoder of the device.

    If the decoder fails, it fails for the whole batch. Its clips are then decoded on the CPU, and those that fail there
    are bad rows. A decoder can also hand out memory that it did not write, without a word. So each clip's keyframe is
    compared with that of the worker, and each frame with the one before, at LOOK x LOOK pixels. A clip that differs,
    has a large step, or stands still where its packets are too large for that, is decoded on the CPU and compared as a
    whole; so is a clip of every `EVERY`th batch. A failure that no bad clip explains, and a clip that differs, are
    faults of the decoder; after `MOST_FAULTS` of them, or a batch that takes `LIMIT_S` seconds, all is decoded on the
    CPU.

    sampler: makes clips on the CPU, without fields. size: of the pixels. on_cpu: the clips that were decoded on the
    CPU, by reason.
    """

    def __init__(self, sampler: RowSampler[ClipPlan, VideoBatch], size: int, decoder: BatchDecoder) -> None:
        self._sampler, self._size, self._decoder, self._thread = sampler, size, decoder, DaemonThreads(1)
        self._batches, self._faults, self._given_up = 0, list[int](), False
        self.on_cpu: Counter[str] = Counter()

    def __call__(self, batch: EncodedBatch, device: torch.device) -> VideoBatch:
        """The batch with its pixels on `device`."""
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
        """What the CPU decoded as pixels on the device."""
        return video.to(device) if planes is None else convert_planes(planes.to(device), self._size)

    def _decode_or_fall_back(self, clips: dict[int, EncodedClip], batch: EncodedBatch, device: torch.device) -> Tensor:
        """The pixels of the clips by row, uint8 (rows, views, T, size, size, 3); raises BadRowsError."""
        if self._given_up:
            self._note([f"after faults of {self._decoder.name}"] * len(clips))
            return self._decode_on_cpu(batch, list(clips), device)
        self._batches += 1
        crops = [batch.crops[row] for row in clips]
        try:
            made = self._thread.submit(partial(self._decoder, list(clips.values()), crops, device))
            video, looks = made.result(LIMIT_S)
        except Exception as error:  # whatever it is, the CPU may decode these clips
            self._decoder.forget()
            hangs = isinstance(error, TimeoutError)
            said = f"no answer for {LIMIT_S:g} s" if hangs else " ".join(f"{type(error).__name__}: {error}".split())
            log.warning("%s failed, so %d clips are decoded on the CPU: %s", self._decoder.name, len(clips), said)
            self._note([f"{self._decoder.name} failed"] * len(clips))
            right = self._decode_on_cpu(batch, list(clips), device)  # raises if a clip explains it
            self._count_fault(at_once=hangs)
            return right
        if video.is_cuda:
            video.record_stream(torch.cuda.current_stream(device))
        return self._compared(video, looks, clips, batch)

    def _compared(self, video: Tensor, looks: Tensor, clips: dict[int, EncodedClip], batch: EncodedBatch) -> Tensor:
        """The pixels, those of clips that the decoder did not decode replaced."""
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
            log.warning("%s returned other pictures than those of %s; they are decoded on the CPU", name, keys)
            self._note([f"{name} returned other pictures"] * len(wrong))
            self._count_fault()
        return video

    def _count_fault(self, *, at_once: bool = False) -> None:
        """Counts a fault, and gives the decoder up after many."""
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
        """Counts clips that are decoded on the CPU, and logs each reason once."""
        for reason in reasons:
            if reason not in self.on_cpu:
                log.info("decoded on the CPU, as others like it will be: %s", reason)
            self.on_cpu[reason] += 1

    def _decode_on_cpu(self, batch: EncodedBatch, rows: list[int], device: torch.device) -> Tensor:
        """The pixels of some rows, decoded on the CPU; raises BadRowsError for those that cannot be."""
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
        """Views as (rows, views, T, size, size, 3)."""
        return video.reshape(-1, self._sampler.views, *video.shape[1:])


Bools = npt.NDArray[np.bool_]


def _find_doubtful(looks: Tensor, clips: Sequence[EncodedClip], most: float) -> tuple[Bools, Bools]:
    """Of which clips the frames may be others, and which of these stand still though their packets are too large for
    it: bool (rows,), by the luma of their looks (rows, 1 + T, LOOK, LOOK).
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
    """Whether frames of a clip (views, T, size, size, 3) are others than the right ones, or one stands still that moves
    by more than `most` levels somewhere."""
    apart = (found.float() - right).abs().flatten(2).mean(2).max()
    still = (found[:, 1:] == found[:, :-1]).flatten(2).all(2)
    moves = (right[:, 1:].int() - right[:, :-1]).abs().flatten(2).amax(2) > most
    return (apart > most) | (still & moves).any()
