"""Measures the speed of a loader on this machine and of its stages, and finds the best workers and threads."""

import os
import time
from collections.abc import Mapping
from itertools import chain, count, islice
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from maskstream.pipelines.stream.stats import limit, shares

from .modality import RUN_STEPS, Modality
from .pipelines.modalities.data import DataConfig
from .pipelines.stream.row_mix import RowMixOrder
from .pipelines.stream.row_order import RowOrder
from .pipelines.stream.stats import WAITS
from .pipelines.stream.topology import default_threads
from .shards.format.manifest import Manifest

ROUNDS = 3
RANKS = 4
"""Number of ranks for which the balance of decoding is reported."""
PREFETCH = 3
"""The loader's default."""
_LABELS = {"wait": "consumer waits for data", "consumer": "consumer computes"}


def measure(
    modality: Modality,
    manifest: Manifest,
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
    """Measure the loader of a split.

    The consumer takes each batch and then waits for `step_s` seconds. Samples loaded during start-up are not counted.
    For packed rows, the result includes the empty fraction, and how evenly ranks decode (see `decode_balance`).

    Args:
        modality: Modality of the data.
        manifest: The split.
        data: Data config to measure.
        batch_size: Samples per batch.
        device: Device of the batches.
        for_s: Largest duration in seconds.
        samples: Number of samples after which to stop.
        step_s: Simulated time of a training step in seconds.
        workers: Worker processes.
        threads: Threads per process.

    Returns:
        The result, which can be written as JSON.

    Raises:
        ValueError: The split is smaller than a batch.
        ShardError: The split is unfinished.
    """
    have = len(manifest)
    if have < batch_size:
        raise ValueError(f"{manifest} has {have} samples, less than a batch of {batch_size}; use a smaller batch size")
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
    order, rows = loader.order, {}
    if isinstance(order, RowOrder | RowMixOrder):
        rows = {"empty": loader.stats()["empty"], "decode_balance": decode_balance(order, RANKS)}
    return _build_result(modality, spent, wall, workers) | rows


def decode_balance(order: RowOrder | RowMixOrder, ranks: int, most: int = 64) -> dict[str, float] | None:
    """Return the largest work of a rank over the mean of all ranks, in decoded source pixels of packed rows.

    Args:
        order: Order of the rows of one rank.
        ranks: Number of ranks.
        most: Largest number of batches to count.

    Returns:
        The "median" and the "worst" over batches; None if the split is too small for a batch.
    """
    try:
        wide = order.samples.order(order.global_batch * ranks, RUN_STEPS)
    except ValueError:
        return None
    batches = islice(chain.from_iterable(map(wide.batches, count())), most if wide.n_batches else 0)
    rows = [batch.packed or () for batch in batches]
    cost = np.array([[row.pixels for row in own] for own in rows if len(own) == wide.global_batch])
    if not cost.size:
        return None
    of = cost.reshape(len(cost), ranks, -1).sum(axis=2)
    uneven = of.max(axis=1) * ranks / np.maximum(of.sum(axis=1), 1)
    return {"median": round(float(np.median(uneven)), 4), "worst": round(float(uneven.max()), 4)}


def difference(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the difference between the counters of two `loader.stats()`.

    Args:
        after: Later counters.
        before: Earlier counters.
    """
    spent: dict[str, Any] = {name: after[name] - before[name] for name in ("samples", "read_bytes", "bad")}
    for name in ("seconds", "cpu_seconds"):
        spent[name] = {stage: value - before[name].get(stage, 0.0) for stage, value in after[name].items()}
    return {**spent, "threads": after["threads"]}


def sweep(
    modality: Modality,
    manifest: Manifest,
    data: DataConfig[Any],
    *,
    batch_size: int = 8,
    device: str = "auto",
    for_s: float,
    step_s: float = 0.0,
    cores: int | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Measure several numbers of workers and threads.

    Args:
        modality: Modality of the data.
        manifest: The split.
        data: Data config to measure.
        batch_size: Samples per batch.
        device: Device of the batches.
        for_s: Duration of each setting in seconds.
        step_s: Simulated time of a training step in seconds.
        cores: Number of cores to use; defaults to all.
        rounds: Number of measurements of each setting, in turn, so that the noise of the machine affects all settings
            equally.

    Returns:
        A result that can be written as JSON: the name of samples ("unit"), all measured settings, fastest first
            ("tried"), and the fastest ("best").
    """
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
    """Print the result of `measure` or `sweep`.

    Args:
        modality: Modality of the data.
        result: The result.
        console: Console to print to.
    """
    if "tried" in result:
        _show_sweep(result, console)
    else:
        _show_stages(modality, result, console)


def _show_sweep(result: Mapping[str, Any], console: Console) -> None:
    unit = result["unit"]
    table = Table("workers", "threads per worker", f"{unit}/s", "CPU ms per sample", f"{unit}/s per round")
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
        f"and {result['cpu_ms_per_sample']:.2f} CPU ms per sample",
        f"{result['samples']} {unit} in {result['wall_s']:.1f} s, loaded by {made_by}; {result['cores']} cores, "
        f"load {result['load']}",
        *_describe_rows(result),
        result["limit"],
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _describe_rows(result: Mapping[str, Any]) -> list[str]:
    """Describe packed rows, if there are any."""
    if result.get("empty") is None:
        return []
    balance = result["decode_balance"]
    even = ""
    if balance is not None:
        even = (
            f"; of {RANKS} ranks, the one with the most decodes {balance['median']:.2f} times the mean, "
            f"{balance['worst']:.2f} times in the worst batch"
        )
    return [f"rows are {result['empty']:.2%} empty{even}"]


def candidates(cores: int) -> list[tuple[int, int]]:
    """Return the (workers, threads of each) worth trying on a number of cores, including the default."""
    pairs = [(0, cores // 2), (0, cores), (0, cores * 2), (2, cores // 2), (cores // 4, 4), (cores, 1)]
    return list(dict.fromkeys((workers, max(threads, 1)) for workers, threads in pairs if workers <= cores))


def _build_result(modality: Modality, stats: Mapping[str, Any], wall: float, workers: int) -> dict[str, Any]:
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
