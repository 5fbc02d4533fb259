"""Measures which decoder of this machine is faster for each format of a split: PyAV's threads, or DALI."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.modalities.video.packing import Refusal, encoded_clip, format_of
from maskstream.pipelines.stream.topology import compute_alone

from .pipelines.modalities.data import DataConfig
from .pipelines.modalities.rows import Planned, PlanT, RowSampler
from .pipelines.modalities.split import Split
from .pipelines.modalities.video.batch import VideoBatch
from .pipelines.modalities.video.data import VideoData
from .pipelines.modalities.video.decoders import fastest, machine_of, write_speeds
from .pipelines.modalities.video.packing import PackedRowMaker
from .pipelines.modalities.video.rows import ClipPlan, ClipRowMaker
from .pipelines.stream.sampler import HostT, Wanted
from .pipelines.stream.stats import Stats
from .shards.errors import DataError, SampleError
from .shards.format.manifest import SplitLocation

SCANNED, ROWS, LEAST = 256, 8, 3
"""Samples that are looked at, clips of a batch, and batches of each decoder at least."""
Decode = Callable[[list[Wanted]], None]
ClipSampler = RowSampler[ClipPlan, VideoBatch]


def measure_decoders(
    location: SplitLocation,
    data: DataConfig[Any],
    *,
    out: Path,
    device: str = "auto",
    threads: int | None = None,
    for_s: float = 10.0,
) -> dict[str, Any]:
    """Measures clips a second of each format and decoder in turns, for about `for_s` seconds; writes them to `out`.

    Returns what can be written as JSON: the machine, "clips_per_s" by format and decoder, and "not_measured": what is
    not there and why. Raises ValueError for another modality, ShardError if there is no finished split.
    """
    if not isinstance(data, VideoData):
        raise ValueError(f"--decode measures decoders of video, and {location} is read by {type(data).__name__}")
    split = Split.open(location, "video", device=device, threads=threads)
    data = replace(data, mask=None, flow="none", colour=None, backend="cpu", fields=()).resolved(split)
    clips, sampler = data.rows(split), data.sampler(split)
    found, unread = formats(clips, sampler)
    speeds: dict[str, dict[str, float]] = {}
    missing = {"samples": unread} if unread else {}
    if split.device.type != "cuda":
        missing["DALI with NVDEC"] = "no CUDA device is used"
    with ThreadPoolExecutor(split.threads, initializer=compute_alone) as pool:
        for name, wanted in found.items():
            ways: dict[str, Decode] = {"cpu": by_threads(sampler, pool, split.device)}
            if reason := lacking(clips, sampler.request(wanted[0]), split.device):
                missing[f"{name} by DALI"] = reason
            else:
                ways["dali"] = by_dali(clips, sampler, pool, split)
            speeds[name] = in_turns(ways, wanted, for_s / len(found))
    write_speeds(out, split.device, speeds)
    return {"machine": machine_of(split.device), "clips_per_s": speeds, "not_measured": missing}


def formats(clips: ClipRowMaker, sampler: ClipSampler) -> tuple[dict[str, list[Wanted]], str]:
    """Up to ROWS clips of each format in the split, and how many samples could not be read, in words."""
    count, bad = len(sampler.manifest), 0
    found: dict[str, list[Wanted]] = {}
    for index in np.unique(np.linspace(0, count - 1, min(count, SCANNED)).astype(int)).tolist():
        wanted = Wanted(index=index, epoch=0)
        try:
            request = sampler.request(wanted)
            size = (request.plan.video.width, request.plan.video.height)
            with sampler.manifest.reading(index, clips.component):
                name = format_of(clips.read(request.item, request.plan), request.plan.numbers, size)
        except (SampleError, DataError):
            bad += 1
            continue
        if len(found.setdefault(name, [])) < ROWS:
            found[name].append(wanted)
    return found, f"{bad} of them cannot be decoded" if bad else ""


def lacking(clips: ClipRowMaker, request: Planned[ClipPlan], device: torch.device) -> str:
    """Why DALI does not decode a clip on a device, in words; "" if it does."""
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        return "DALI is not installed: pip install 'maskstream[gpu]' (CUDA 13) or 'maskstream[gpu-cu12]'"
    from .pipelines.decode.nvdec import missing_libraries

    if device.type == "cuda" and (libraries := missing_libraries()):
        return f"NVDEC needs {' and '.join(libraries)}, which cannot be loaded"
    plan = request.plan
    clip = encoded_clip(
        clips.read(request.item, plan), plan.numbers, (plan.video.width, plan.video.height), device.type
    )
    return clip.reason if isinstance(clip, Refusal) else ""


def by_threads(sampler: ClipSampler, pool: ThreadPoolExecutor, device: torch.device) -> Decode:
    """PyAV in the threads of a pool; the pixels go to the device."""

    def decode(wanted: list[Wanted]) -> None:
        _made(sampler, pool, wanted).video.to(device)
        _wait(device)

    return decode


def by_dali(clips: ClipRowMaker, sampler: ClipSampler, pool: ThreadPoolExecutor, split: Split) -> Decode:
    """DALI on the device of a split, of clips that the threads of a pool pack."""
    from .pipelines.modalities.video.dali import DaliFinish

    packing = RowSampler(
        rows=PackedRowMaker(clips=clips, device=split.device.type),
        manifest=sampler.manifest,
        fields=sampler.fields,
        seed=sampler.seed,
        views=sampler.views,
    )
    finish = DaliFinish(sampler, clips.clip, split.threads)

    def decode(wanted: list[Wanted]) -> None:
        finish(_made(packing, pool, wanted), split.device)
        _wait(split.device)

    return decode


def _made(sampler: RowSampler[PlanT, HostT], pool: ThreadPoolExecutor, wanted: list[Wanted]) -> HostT:
    """The host batch of some samples, whose rows the threads of a pool fill."""
    requests = [sampler.request(one) for one in wanted]
    draft = sampler.allocate(requests)
    list(pool.map(lambda row: sampler.fill(requests[row], draft, row, Stats()), range(len(requests))))
    return sampler.join(draft)


def in_turns(ways: Mapping[str, Decode], wanted: list[Wanted], for_s: float) -> dict[str, float]:
    """Clips a second of each way, the median over batches that take turns for about `for_s` seconds."""
    for decode in ways.values():
        decode(wanted)  # opens decoders
    taken: dict[str, list[float]] = {name: [] for name in ways}
    end, rounds = time.perf_counter() + for_s, 0
    while rounds < LEAST or time.perf_counter() < end:
        for name, decode in ways.items():
            start = time.perf_counter()
            decode(wanted)
            taken[name].append(time.perf_counter() - start)
        rounds += 1
    return {name: round(len(wanted) / median(seconds), 1) for name, seconds in taken.items()}


def show_decoders(result: Mapping[str, Any], out: Path, console: Console) -> None:
    """Prints the result of `measure_decoders`."""
    table = Table("format", "PyAV, clips/s", "DALI, clips/s", 'backend="auto" takes')
    for name, speeds in result["clips_per_s"].items():
        cells = [f"{speeds[decoder]:.1f}" if decoder in speeds else "-" for decoder in ("cpu", "dali")]
        table.add_row(name, *cells, {"cpu": "PyAV", "dali": "DALI"}[fastest(speeds)])
    console.print(table)
    for what, why in result["not_measured"].items():
        console.print(f"not measured: {what}: {why}", highlight=False, soft_wrap=True)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
