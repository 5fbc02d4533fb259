"""Measures the speed of a loader on this machine and of its stages, and finds the best workers and threads; and which
decoder is faster for each format of a split: PyAV's threads, or DALI.
"""

import os
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

from maskstream.pipelines.modalities.video.packing import Refusal, clip_format, encoded_clip
from maskstream.pipelines.stream.stats import limit, shares
from maskstream.pipelines.stream.topology import compute_alone

from .modality import RUN_STEPS, Modality
from .pipelines.modalities.data import DataConfig
from .pipelines.modalities.rows import Planned, PlanT, RowSampler
from .pipelines.modalities.split import Split
from .pipelines.modalities.video.batch import VideoBatch
from .pipelines.modalities.video.data import VideoData
from .pipelines.modalities.video.decoders import describe_machine, fastest, write_speeds
from .pipelines.modalities.video.packing import PackedRowMaker
from .pipelines.modalities.video.rows import ClipPlan, ClipRowMaker
from .pipelines.stream.sampler import HostT, Wanted
from .pipelines.stream.stats import WAITS, Stats
from .pipelines.stream.topology import default_threads
from .shards.errors import DataError, SampleError
from .shards.format.manifest import Manifest, SplitLocation

ROUNDS = 3
PREFETCH = 3
"""The loader's default."""
_LABELS = {"wait": "consumer waits for data", "consumer": "consumer is away"}


def measure(
    modality: Modality,
    location: SplitLocation,
    data: DataConfig[Any],
    *,
    batch_size: int = 8,
    device: str = "auto",
    for_s: float,
    samples: int | None = None,
    step_s: float = 0.0,
    workers: int = 0,
    threads: int | None = None,
) -> dict[str, Any]:
    """Measures the loader of a split for `for_s` seconds or until `samples` samples. The result can be written as JSON.

    The consumer takes each batch and then waits for `step_s` seconds. Samples made during the start are not counted.
    Raises ValueError if the split is smaller than a batch, ShardError if there is no finished split.
    """
    manifest = Manifest.load(location)
    have = len(manifest)
    if have < batch_size:
        raise ValueError(f"{location} has {have} samples, less than a batch of {batch_size}; give a smaller batch size")
    loader = data.loader(
        manifest, batch_size=batch_size, device=device, workers=workers, threads=threads, steps=RUN_STEPS
    )
    ahead = PREFETCH * max(workers, 1)
    before: dict[str, Any] = {}
    start = 0.0
    for n, _ in enumerate(loader.repeat()):
        if n <= ahead:
            before, start = loader.stats(), time.perf_counter()
            continue
        time.sleep(step_s)
        wall = time.perf_counter() - start
        spent = difference(loader.stats(), before)
        if wall >= for_s or (samples is not None and spent["samples"] >= samples):
            break
    loader.close()
    return _result(modality, spent, wall, workers)


def difference(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """The difference between the counters of two `loader.stats()`."""
    spent: dict[str, Any] = {name: after[name] - before[name] for name in ("samples", "read_bytes", "bad")}
    for name in ("seconds", "cpu_seconds"):
        spent[name] = {stage: value - before[name].get(stage, 0.0) for stage, value in after[name].items()}
    return {**spent, "threads": after["threads"]}


def sweep(
    modality: Modality,
    location: SplitLocation,
    data: DataConfig[Any],
    *,
    batch_size: int = 8,
    device: str = "auto",
    for_s: float,
    step_s: float = 0.0,
    cores: int | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Measures several numbers of workers and threads, `for_s` seconds each. The result can be written as JSON: the
    name of samples ("unit"), all settings that were tried, the fastest first ("tried"), and the fastest ("best").

    rounds: how often each setting is measured, in turn, so that the noise of the machine affects all settings alike.
    """
    manifest = Manifest.load(location)
    tried: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for workers, threads in candidates(cores or default_threads(0)):
            result = measure(
                modality,
                manifest,
                data,
                batch_size=batch_size,
                device=device,
                for_s=for_s / rounds,
                step_s=step_s,
                workers=workers,
                threads=threads,
            )
            tried.setdefault((workers, threads), []).append(result)
    rows = [
        {
            "workers": workers,
            "threads": threads,
            "samples_per_s": round(median(result["samples_per_s"] for result in results), 2),
            "cpu_ms_per_sample": round(median(result["cpu_ms_per_sample"] for result in results), 3),
            "rounds": [result["samples_per_s"] for result in results],
        }
        for (workers, threads), results in tried.items()
    ]
    rows.sort(key=lambda row: -float(row["samples_per_s"]))
    return {"unit": modality.units, "best": rows[0], "tried": rows}


def show(modality: Modality, result: Mapping[str, Any], console: Console) -> None:
    """Prints the result of `measure` or `sweep`."""
    if "tried" in result:
        _show_sweep(result, console)
    else:
        _show_stages(modality, result, console)


def _show_sweep(result: Mapping[str, Any], console: Console) -> None:
    unit = result["unit"]
    table = Table("workers", "threads of each", f"{unit}/s", "CPU ms each", f"{unit}/s in each round")
    for row in result["tried"]:
        rounds = ", ".join(f"{speed:.1f}" for speed in row["rounds"])
        speeds = (f"{row['samples_per_s']:.1f}", f"{row['cpu_ms_per_sample']:.2f}", rounds)
        table.add_row(str(row["workers"]), str(row["threads"]), *speeds)
    console.print(table)
    best = result["best"]
    console.print(f"Fastest here: workers={best['workers']}, threads={best['threads']}.", highlight=False)


def _show_stages(modality: Modality, result: Mapping[str, Any], console: Console) -> None:
    unit = result["unit"]
    table = Table("stage", f"wall ms/{modality.unit}", f"CPU ms/{modality.unit}", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in result["stages"].items():
        if name == WAITS[0]:
            table.add_section()
        table.add_row(_LABELS.get(name, name), f"{row['wall_ms']:.2f}", f"{row['cpu_ms']:.2f}", f"{row['share']:.0%}")
    console.print(table)
    made_by = f"{result['threads']} thread(s)" + (
        f" in each of {result['workers']} workers" if result["workers"] else ""
    )
    for line in (
        f"{result['samples_per_s']:.1f} {unit}/s, {result['mb_per_s']:.2f} MB/s read, {result['kb_per_sample']:.1f} kB "
        f"and {result['cpu_ms_per_sample']:.2f} CPU ms each",
        f"{result['samples']} {unit} in {result['wall_s']:.1f} s, made by {made_by}; {result['cores']} cores, "
        f"load {result['load']}",
        result["limit"],
    ):
        console.print(line, highlight=False, soft_wrap=True)


def candidates(cores: int) -> list[tuple[int, int]]:
    """The (workers, threads of each) worth trying on this many cores, including the default."""
    pairs = [(0, cores // 2), (0, cores), (0, cores * 2), (2, cores // 2), (cores // 4, 4), (cores, 1)]
    return list(dict.fromkeys((workers, max(threads, 1)) for workers, threads in pairs if workers <= cores))


def _result(modality: Modality, stats: Mapping[str, Any], wall: float, workers: int) -> dict[str, Any]:
    cores = default_threads(0)
    samples = max(stats["samples"], 1)
    return {
        "modality": modality.name,
        "unit": modality.units,
        "samples": stats["samples"],
        "wall_s": round(wall, 3),
        "samples_per_s": round(stats["samples"] / wall, 2),
        "mb_per_s": round(stats["read_bytes"] / wall / 1e6, 3),
        "kb_per_sample": round(stats["read_bytes"] / samples / 1e3, 1),
        "cpu_ms_per_sample": round(sum(stats["cpu_seconds"].values()) / samples * 1e3, 3),
        "stages": shares(stats),
        "bad": stats["bad"],
        "workers": workers,
        "threads": stats["threads"] // max(workers, 1),
        "cores": cores,
        "load": round(os.getloadavg()[0], 2),
        "limit": limit(stats, cores, modality.stages),
    }


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
    return {"machine": describe_machine(split.device), "clips_per_s": speeds, "not_measured": missing}


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
                name = clip_format(clips.read(request.item, request.plan), request.plan.numbers, size)
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
