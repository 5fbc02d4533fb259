"""The steps of the acceptance of the GPU path. Each returns its figures and what it found wrong.

Steps take the device, so that those which a CPU can run are run there too: with VP9, which DALI decodes without a card.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_loaders import Figures, loader_of, own_frame_nearest, rate_of, split_of
from gpu_videos import KINDS, ON_A_CPU, Kind
from machine import ROOT

from maskstream.pipelines.decode.nvdec import missing_libraries
from maskstream.pipelines.flow.ofa import flow_graph
from maskstream.pipelines.modalities.audio.dali import mel_graph
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.video import packing
from maskstream.pipelines.modalities.video.dali import clip_graph


def probe(device: torch.device) -> tuple[Figures, list[str]]:
    """The driver, its libraries, and whether the graphs are accepted: built on a card, serialised without."""
    on_card = device.type == "cuda"
    driver = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    missing = [*missing_libraries(), *_unloadable("libnvidia-opticalflow.so.1")]
    mel = mel_graph(LogMel(), 8, 20480, 4, "gpu", device.index)
    graphs = (clip_graph(8, 2, 224, 4, "gpu", device.index), mel, flow_graph(8, "slow", 4, device.index))
    sizes = [len(graph.serialize()) for graph in graphs]
    wrong = [f"no video capability: {', '.join(missing)} cannot be loaded"] if on_card and missing else []
    if on_card:
        for graph in graphs:
            graph.build()
        if int(driver.split(",")[-1].split(".")[0] or 0) < 580:
            wrong.append(f"driver {driver}; DALI for CUDA 13 needs 580")
    return {"card_and_driver": driver or "none", "missing_libraries": missing, "graph_bytes": sizes}, wrong


def pixels(device: torch.device) -> tuple[Figures, list[str]]:
    """Every format by DALI against the CPU, after a bright batch whose memory would show; who decoded what."""
    rows, wrong, mean_601 = {}, [], 0.0
    for name, kind in (KINDS if device.type == "cuda" else ON_A_CPU).items():
        with split_of(kind, videos=8) as folder:
            bright = loader_of(folder, device, "dali", seed=99)
            for batch in bright:
                batch.video.fill_(255)
            fast, slow = (loader_of(folder, where, backend) for where, backend in ((device, "dali"), ("cpu", "cpu")))
            means, most, nearest = [], 0.0, True
            for _ in range(4):
                for batch, expected in zip(fast, slow, strict=True):
                    found, right = batch.video.cpu().float(), expected.video.float()
                    difference = (found - right).abs()
                    means.append(difference.mean().item())
                    most = max(most, difference.max().item())
                    nearest &= own_frame_nearest(found, right)
            on_cpu: Counter[str] = fast._production._delivery.finish.on_cpu  # type: ignore[attr-defined]
        mean, share = float(np.mean(means)), sum(on_cpu.values()) / (4 * 8)
        rows[name] = {"mean": round(mean, 3), "most": most, "on_cpu": dict(on_cpu)}
        mean_601 = mean_601 or mean
        bars = {
            f"mean difference {mean:.2f}": mean < (mean_601 + 1.5 if kind.matrix == "ITU709" else 3),
            f"largest difference {most:.0f}": most <= 20 or kind.matrix == "ITU709",
            "a frame is nearer to another": nearest,
            f"share decoded on the CPU {share:.2f}": {"none": share == 0, "all": share == 1, "some": 0 < share < 1}[
                kind.on_cpu
            ],
        }
        wrong += [f"{name}: {bar}" for bar, held in bars.items() if not held]
    return rows, wrong


def cache(device: torch.device) -> tuple[Figures, list[str]]:
    """Whether decoders are found again: sizes in multiples of 16, others, and others whose headers keep cropping."""
    figures: Figures = {}
    plain = packing.uncropped_header
    for name, size, kept in (("448", (448, 256), False), ("456", (456, 256), False), ("456 cropped", (456, 256), True)):
        packing.uncropped_header = (lambda header: header) if kept else plain  # type: ignore[attr-defined]
        try:
            with split_of(Kind(size=size), videos=16) as folder:
                figures[name] = round(rate_of(loader_of(folder, device, "dali"), 300), 1)
        finally:
            packing.uncropped_header = plain  # type: ignore[attr-defined]
    figures["bug confirmed"] = figures["456 cropped"] * 5 <= figures["448"]
    slow = figures["456"] < 0.9 * figures["448"]
    return figures, [f"456 wide: {figures['456']} clips/s, 448 wide: {figures['448']}"] if slow else []


def decoding(device: torch.device) -> tuple[Figures, list[str]]:
    """Clips a second of the whole loader, by backend, threads and output, batches of 32."""
    on_card = device.type == "cuda"
    figures: Figures = {}
    with split_of(Kind() if on_card else ON_A_CPU["vp9"], videos=32) as folder:
        cores = len(os.sched_getaffinity(0))
        for threads in (4, 8, 16) if on_card else (min(cores, 2),):
            for backend, output in (("dali", "rgb"), ("cpu", "rgb"), *((("cpu", "yuv"),) if on_card else ())):
                batch_size = 32 if on_card else 4
                loader = loader_of(folder, device, backend, output=output, batch_size=batch_size, threads=threads)
                name = f"{backend}, {output}, {threads} threads"
                figures[name] = round(rate_of(loader, 3000 if on_card else 16), 1)
                figures[f"{name}: stages"] = loader.stats()["seconds"]
    rates = {name: rate for name, rate in figures.items() if isinstance(rate, float)}
    best = max(rates, key=lambda name: rates[name])
    figures["fastest"] = best
    short = on_card and rates[best] < 3000
    return figures, [f"{rates[best]} clips/s at best ({best}), not 3,000; its stages say what limits"] if short else []


def endurance(device: torch.device) -> tuple[Figures, list[str]]:
    """Many batches with damaged clips among them: memory stays, bad ones are counted, a resume is exact."""
    on_card = device.type == "cuda"
    batches = 1000 if on_card else 12
    with split_of(Kind() if on_card else ON_A_CPU["vp9"], videos=64) as folder:
        _damage(folder, every=32 if on_card else 8)
        run = loader_of(folder, device, "dali", batch_size=8 if on_card else 2, max_bad_fraction=0.3)
        at, keys, states = [], [], {}
        for n, batch in enumerate(run.repeat(), start=1):
            keys.append((batch.key, batch.mask.masked.cpu()))
            if n == batches // 2:
                states = json.loads(json.dumps(run.state_dict()))
            if n % max(batches // 4, 1) == 0:
                gc.collect()
                at.append((torch.cuda.memory_allocated(device) if on_card else 0, _rss_mib()))
            if n == batches:
                break
        again = loader_of(folder, device, "dali", batch_size=8 if on_card else 2, max_bad_fraction=0.3)
        again.load_state_dict(states)
        ahead = [(batch.key, batch.mask.masked.cpu()) for batch, _ in zip(again.repeat(), range(4), strict=False)]
    same = all(k == e[0] and torch.equal(m, e[1]) for (k, m), e in zip(ahead, keys[batches // 2 :], strict=False))
    grown = (at[-1][0] - at[0][0]) / (batches * 0.75) * 100 / 2**20
    figures = {"device_mib_per_100_batches": grown, "rss_mib": [rss for _, rss in at], "bad": run.stats()["bad"]}
    wrong = [f"device memory grows by {grown:.1f} MiB per 100 batches"] if grown >= 1 else []
    wrong += [] if same else ["a resumed run has other keys or masks"]
    wrong += [] if run.stats()["bad"] else ["no bad clip was counted"]
    return figures, wrong


def training(device: torch.device) -> tuple[Figures, list[str]]:
    """Steps of videomae-small and -base by the command: clips a second, and how long they wait for data."""
    on_card = device.type == "cuda"
    bars = {"videomae-small": 4361, "videomae-base": 1381} if on_card else {"videomae-tiny": 0}
    figures: Figures = {}
    wrong = []
    with split_of(Kind() if on_card else ON_A_CPU["vp9"], videos=64) as folder, tempfile.TemporaryDirectory() as runs:
        for recipe, bar in bars.items():
            if recipe not in _recipes():
                wrong.append(f"there is no recipe {recipe}")
                continue
            _train([], folder, Path(runs) / recipe, recipe, device, steps=60 if on_card else 3)
            last = _metrics(Path(runs) / recipe)[-1]
            figures[recipe] = {name: last[name] for name in ("clips_per_s", "data_wait_share") if name in last}
            if last.get("clips_per_s", 0) < bar or (on_card and last.get("data_wait_share", 1) >= 0.05):
                wrong.append(f"{recipe}: {figures[recipe]}; {bar} clips/s with under 5 % of waiting are wanted")
    return figures, wrong


def torchrun(device: torch.device) -> tuple[Figures, list[str]]:
    """The same steps plain and under torchrun with one process."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "1",
        "-m",
        "maskstream",
    ]
    losses = []
    with split_of(Kind() if device.type == "cuda" else ON_A_CPU["vp9"], videos=16) as folder:
        for words in ([], launcher):
            with tempfile.TemporaryDirectory() as run:
                _train(
                    words, folder, Path(run) / "run", "videomae-tiny", device, steps=20 if device.type == "cuda" else 3
                )
                losses.append([row["loss"] for row in _metrics(Path(run) / "run")])
    apart = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    return {"largest_relative_difference": apart}, [f"losses differ by {apart:.1e}"] if apart > 1e-3 else []


def _damage(folder: Path, every: int) -> None:
    """Overwrites the packets of each `every`th video, and says nothing of it."""
    from maskstream.shards.format.manifest import Manifest

    manifest = Manifest.load(folder)
    with manifest.shard_path(0).open("r+b") as tar:
        for index in range(0, len(manifest), every):
            member, video = manifest.member(index, "mp4"), manifest.video(index)
            tar.seek(member.offset + video.header_size)
            tar.write(bytes(member.size - video.header_size))


def _train(launcher: list[str], data: Path, out: Path, recipe: str, device: torch.device, *, steps: int) -> None:
    words = ["train", recipe, "--data", str(data), "--out", str(out), "--device", str(device), "--steps", str(steps)]
    command = launcher or [sys.executable, "-m", "maskstream"]
    subprocess.run([*command, *words], check=True, capture_output=True, text=True, cwd=ROOT)


def _metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _recipes() -> set[str]:
    from maskstream.train import RECIPES

    return set(RECIPES)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _unloadable(name: str) -> list[str]:
    import ctypes

    try:
        ctypes.CDLL(name)
    except OSError:
        return [name]
    return []


def _rss_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
