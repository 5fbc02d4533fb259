"""The steps of `make gpu` about decoding and training. Each returns its figures and what it found wrong.

A step that a CPU can run does so without a card, on few small videos: there its logic is tried, and no speed is judged.
"""

import gc
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from gpu_motion import seconds_of
from gpu_rig import (
    DATA,
    DECODERS,
    KINDS,
    ON_A_CPU,
    Found,
    Rig,
    decoders,
    expected,
    loader_of,
    rate_of,
    said,
    split_of,
    usual,
)
from machine import ROOT, version_of

from maskstream.pipelines.decode.cpu import select_packets_for, select_pts
from maskstream.pipelines.decode.nvdec import missing_libraries
from maskstream.pipelines.flow.ofa import Ofa, build_flow_graph
from maskstream.pipelines.modalities.audio.dali import build_mel_graph
from maskstream.pipelines.modalities.audio.spectrogram import LogMel
from maskstream.pipelines.modalities.row_sampler import RowSampler
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.clip_plan import read_clip
from maskstream.pipelines.modalities.video.dali import clip_graph
from maskstream.pipelines.modalities.video.data import HARDWARE
from maskstream.pipelines.modalities.video.packing import PackedRowMaker
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.mp4 import read_header
from maskstream.train.core.loop import Trainer
from maskstream.train.core.metrics import StepMetrics, read_metrics
from maskstream.train.core.parallel import what_triton_lacks
from maskstream.train.recipes import chosen_recipe

TESTS, CUDA = ROOT / "tests", torch.device("cuda")
DRIVERS = {12: 525, 13: 580}
"""The oldest driver of each CUDA."""
DALI = {"nvidia-dali-cuda120": 12, "nvidia-dali-cuda130": 13}


def probe(rig: Rig) -> Found:
    """The driver, what it must be for this torch and this DALI, its libraries, a compiler, and whether graphs build."""
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
    cudas = {name: cuda for name, cuda in DALI.items() if version_of(name) != "not installed"}
    if torch.version.cuda:
        cudas[f"torch {torch.__version__}"] = int(torch.version.cuda.partition(".")[0])
    missing = missing_libraries()
    flow, lack = Ofa().missing(CUDA), what_triton_lacks(rig.device) if rig.is_real else None
    card = torch.device("cuda", rig.device.index) if rig.is_real else CUDA
    mel, ofa = build_mel_graph(LogMel(), 8, 20480, 4, card), build_flow_graph(8, "slow", 4, card.index)
    graphs = (clip_graph(8, 2, 224, 4, card), mel, ofa)
    figures = {
        "driver": driver or "none",
        "needs": cudas,
        "engines_of_nvdec": rig.engines or "not known",
        "cores": rig.cores,
        "missing_libraries": missing,
        "graph_bytes": [len(graph.serialize()) for graph in graphs],
    }
    if not rig.card:
        return figures, []
    wrong = [f"{name} cannot be loaded; a container needs the capability 'video'" for name in missing]
    wrong += [flow] if flow else []
    wrong += [f"torch.compile needs {lack}"] if lack else []
    for name, cuda in cudas.items():
        if int(driver.partition(".")[0] or 0) < DRIVERS[cuda]:
            wrong.append(
                f"driver {driver or 'none'}: {name} needs {DRIVERS[cuda]}; the extra gpu-cu12 needs {DRIVERS[12]}"
            )
    if rig.is_real:
        for graph in graphs:
            graph.build()
    return figures, wrong


def tests(rig: Rig) -> Found:
    """The tests that need a card."""
    files = files_with_gpu_tests()
    words = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", "gpu", *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout.strip().splitlines()
    return {"pytest": said[-1:]}, [] if done.returncode == 0 else said[-12:] or [done.stderr[-500:]]


def files_with_gpu_tests() -> list[str]:
    """The files of these tests: to import only them takes fewer packages than to import all tests."""
    return [str(path) for path in sorted(TESTS.rglob("test_*.py")) if "pytest.mark.gpu" in path.read_text()]


def pixels(rig: Rig) -> Found:
    """Every format by each decoder of the device against the CPU, after a bright batch whose memory would show."""
    rows: dict[str, Any] = {}
    wrong: list[str] = []
    mean_601 = 0.0
    videos, epochs = rig.pick((4, 4), (4, 1))
    hardware = [name for name in decoders(rig) if not name.startswith("cpu")]
    for (format_, kind), decoder in product(rig.pick(KINDS, ON_A_CPU).items(), hardware):
        name = format_ if decoder == "dali" else f"{format_}, {decoder}"
        with split_of(kind, videos=videos) as folder:
            for batch in loader_of(folder, rig.device, decoder, seed=99, batch_size=videos):
                batch.video.fill_(255)
            fast = loader_of(folder, rig.device, decoder, batch_size=videos)
            slow = loader_of(folder, "cpu", "cpu", batch_size=videos)
            means, most, nearest = [], 0.0, True
            for _ in range(epochs):
                for batch, right in zip(fast, slow, strict=True):
                    found, wanted = batch.video.cpu().float(), right.video.float()
                    difference = (found - wanted).abs()
                    means.append(difference.mean().item())
                    most = max(most, difference.max().item())
                    nearest &= batch.key == right.key and own_frame_nearest(found, wanted)
        mean, share = float(np.mean(means)), on_cpu(fast).total() / (epochs * videos)
        rows[name] = {"mean": round(mean, 3), "most": most, "on_cpu": dict(on_cpu(fast))}
        mean_601 = mean_601 or mean
        held = {
            f"mean difference {mean:.2f}": mean < (mean_601 + 1.5 if kind.matrix == "ITU709" else 3),
            f"largest difference {most:.0f}": most <= 20 or kind.matrix == "ITU709",
            "a frame is closer to another one": nearest,
            f"{share:.0%} decoded on the CPU, not {kind.on_cpu}": {
                "none": share == 0,
                "some": 0 < share < 1,
                "all": share == 1,
                "any": True,
            }[kind.on_cpu],
        }
        wrong += [f"{name}: {bar}" for bar, holds in held.items() if not holds]
    return rows, wrong


def own_frame_nearest(found: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether each frame is nearest to its own."""
    small = [video[..., ::8, ::8, :].flatten(2) for video in (found, right)]
    distance = torch.cdist(*small, p=1)
    return bool((distance.diagonal(dim1=1, dim2=2) <= distance.amin(2) + 1e-3).all())


def on_cpu(loader: Any) -> Counter[str]:
    """The clips of a loader by a decoder of the device that the CPU decoded, by reason."""
    found: Counter[str] = loader._production._delivery.finish.on_cpu
    return found


def decoding(rig: Rig) -> Found:
    """Clips a second of the whole loader by each decoder, with and without workers, and the fastest for each format."""
    figures: dict[str, Any] = {}
    wrong: list[str] = []
    kinds = ("448 wide", "340 wide", "hevc", "1080p")
    for name, kind in rig.pick({each: KINDS[each] for each in kinds}, {"vp9": ON_A_CPU["vp9"]}).items():
        rates: dict[str, float] = {}
        cpu_ms: dict[str, float] = {}
        with split_of(kind, videos=rig.pick(8 if name == "1080p" else 32, 8)) as folder:
            for decoder, workers in product(decoders(rig), rig.pick((0, 8), (0,))):
                own = f"{decoder}, {workers} workers"
                try:
                    with closing(loader_of(folder, rig.device, decoder, workers=workers)) as loader:
                        rates[own], spent = rate_of(loader, rig, rig.pick(2.0, 0.1))
                except Exception as error:  # the other steps still report their figures
                    wrong.append(f"{name} by {own}: {said(error)}")
                else:
                    cpu_ms |= {decoder: spent} if decoder.startswith("cpu") and not workers else {}
            packets = packets_of_a_clip(folder)
        limits = expected(rig, packets=packets, size=kind.sizes[0], cpu_ms=cpu_ms)
        best = max(rates, key=lambda own: rates[own], default="none")
        figures[name] = {"clips_per_s": rates, "fastest": best, "arithmetic": limits, "packets": round(packets, 1)}
        wrong += slower(rig, name, rates, limits)
    return figures, wrong


def slower(rig: Rig, name: str, rates: dict[str, float], limits: dict[str, list[int]]) -> list[str]:
    """What is wrong if even the fastest decoder gives less than the least that cores and one process would give."""
    least = min(low for limit, (low, _) in limits.items() if "NVDEC" not in limit)
    best = max(rates.values(), default=0.0)
    if not rig.is_real or best >= least:
        return []
    return [f"{name}: at best {best} clips/s; {rig.cores} cores alone should reach {least}"]


def packets_of_a_clip(folder: Path) -> float:
    """Packets that a decoder needs for a clip, on average."""
    sampler, counts = sampler_of(folder), []
    for index in range(len(sampler.manifest)):
        plan = sampler.request(Wanted.of([index])).plans[0]
        data = read_clip(sampler.manifest.store, plan.video, plan.numbers, plan.ranges)
        pts = select_pts(data.packets, data.first_frame, plan.numbers)
        kept = select_packets_for(memoryview(data.fragments), read_header(data.header), data.packets, pts)
        counts.append(len(kept))
    return float(np.mean(counts))


def sampler_of(folder: Path) -> Any:
    """The sampler of DATA on a split."""
    return replace(DATA, mask=None, flow="none").sampler(Split.open(folder, "video", device="cpu", threads=1))


def challenger(rig: Rig) -> Found:
    """PyNvVideoCodec on the clips as they are packed for NVDEC: all their frames as RGB on the card, by threads."""
    codec = import_module("PyNvVideoCodec")
    with split_of(usual(rig), videos=rig.pick(32, 4)) as folder:
        sampler = sampler_of(folder)
        rows = PackedRowMaker(clips=sampler.rows, device=rig.device.type)
        packing = RowSampler(rows=rows, manifest=sampler.manifest, fields=sampler.fields, seed=sampler.seed, views=1)
        clips = batch_of(packing, Wanted.of(range(len(sampler.manifest)))).clips
    kind = {"gpu_id": rig.device.index or 0, "use_device_memory": True, "output_color_type": codec.OutputColorType.RGB}

    def rises(clip: Any) -> bool:
        """Whether the frames of a clip are in their order: each is brighter than the one before."""
        frames = codec.SimpleDecoder(clip.mp4.tobytes(), **kind).get_batch_frames_by_index(clip.frames.tolist())
        means = torch.stack([torch.from_dlpack(frame).float().mean() for frame in frames])
        return bool((means.diff() > 0).all())

    figures, wrong = {}, []
    for threads in (1, 8, 16):
        with ThreadPoolExecutor(threads) as pool:
            held = all(pool.map(rises, clips))
            seconds = seconds_of(lambda pool=pool: [*pool.map(rises, clips)], rig, rig.pick(3, 1))
        figures[f"{threads} threads"] = {"clips_per_s": round(len(clips) / seconds, 1)}
        wrong += [] if held else [f"{threads} threads: frames are out of order"]
    return figures, wrong


def endurance(rig: Rig) -> Found:
    """Many batches with packets damaged behind the sums: memory stays, other clips are right, a resume is exact."""
    videos, batch_size, batches = rig.pick((64, 8, 1000), (16, 2, 16))
    at: list[tuple[float, int]] = []
    kept, ahead, wrong = [], [], []
    with split_of(usual(rig), videos=videos) as folder:
        settings: dict[str, Any] = {"batch_size": batch_size, "max_bad_fraction": 0.5}
        right = {
            key: video.float()
            for batch in loader_of(folder, "cpu", "cpu", shuffle=False, **settings)
            for key, video in zip(batch.key, batch.video, strict=True)
        }
        damaged = damage(folder, every=rig.pick(32, 8))
        for batch in loader_of(folder, rig.device, "dali", shuffle=False, **settings):
            for key, video in zip(batch.key, batch.video.cpu().float(), strict=True):
                if key not in damaged and (video - right[key]).abs().mean() > 3:
                    wrong.append(f"{key}: an undamaged clip has wrong pixels")
        run, again = (loader_of(folder, rig.device, "dali", **settings) for _ in range(2))
        for n, batch in zip(range(1, batches + 1), run.repeat(), strict=False):
            if n == batches // 2:
                again.load_state_dict(json.loads(json.dumps(run.state_dict())))
            if 0 < n - batches // 2 <= 4:
                kept.append((batch.key, batch.mask.masked.tolist()))
            if n % (batches // 4) == 0:
                gc.collect()
                at.append((memory_mib(rig), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
        for batch in islice(again.repeat(), len(kept)):
            ahead.append((batch.key, batch.mask.masked.tolist()))
        bad, cpu = run.stats()["bad"], on_cpu(run)
    grown = (at[-1][0] - at[0][0]) * 100 / (0.75 * batches)
    wrong += [f"device memory grows by {grown:.1f} MiB per 100 batches"] if grown >= 1 else []
    wrong += [] if kept == ahead else ["a resumed run has different keys or masks"]
    wrong += [] if bad or cpu else ["no damaged clip was noticed"]
    figures = {"device_mib_per_100_batches": grown, "rss_mib": [rss for _, rss in at], "bad": bad, "on_cpu": dict(cpu)}
    return figures, wrong


def damage(folder: Path, every: int) -> set[str]:
    """Overwrites the second half of each GOP of each `every`th video, and removes the sums that would tell: the keys.

    The tables stay, so that the packets reach the decoder.
    """
    rng, keys = np.random.default_rng(0), set()
    for sums in folder.glob("*.sums"):
        sums.unlink()
    manifest = Manifest.load(folder)
    with manifest.shard_path(0).open("r+b") as tar:
        for index in range(0, len(manifest), every):
            member, video = manifest.member(index, "mp4"), manifest.video(index)
            for offset, size in zip(video.offset.tolist(), video.size.tolist(), strict=True):
                tar.seek(member.offset + offset + size // 2)
                tar.write(rng.bytes(size - size // 2))
            keys |= set(manifest.keys([index]))
    return keys


def memory_mib(rig: Rig) -> float:
    """Memory of torch's tensors on the card."""
    return torch.cuda.memory_allocated(rig.device) / 2**20 if rig.is_real else 0.0


def training(rig: Rig) -> Found:
    """Steps with each decoder: clips a second, the share that waits for data, and what that leaves out.

    Without colour jitter, which needs RGB on the CPU.
    """
    figures: dict[str, Any] = {}
    wrong = []
    with split_of(usual(rig), videos=rig.pick(32, 8)) as folder:
        models = rig.pick(("videomae-small", "videomae-base"), ("videomae-tiny",))
        for model, decoder in product(models, decoders(rig)):
            recipe = chosen_recipe(model, batch_size=rig.pick(32, 4))
            recipe = replace(recipe, data=replace(recipe.data, colour=None, views=1, **DECODERS[decoder]))
            name = f"{model}, {decoder}"
            start = time.perf_counter()
            rows, cpu = train(rig, recipe, folder, rig.pick(60, 2))
            rate, waiting = rows[-1].clips_per_s, rows[-1].data_wait_share
            figures[name] = {
                "clips_per_s": round(rate, 1),
                "data_wait_share": round(waiting, 3),
                "clips_per_s_without_waiting": round(rate / max(1 - waiting, 1e-3), 1),
                "mfu": rows[-1].mfu,
                "seconds_in_all": round(time.perf_counter() - start, 1),
            }
            wrong += [] if all(math.isfinite(row.loss) for row in rows) else [f"{name}: a loss is not finite"]
            wrong += [f"{name}: {cpu} clips were decoded on the CPU"] if cpu else []
    return figures, wrong


def train(rig: Rig, recipe: Any, folder: Path, steps: int, **options: Any) -> tuple[list[StepMetrics], int]:
    """The metrics of each step, and how many clips that the device was to decode the CPU decoded."""
    with tempfile.TemporaryDirectory() as out:
        with closing(recipe.loader(folder, steps=steps, seed=0, device=rig.device)) as loader:
            Trainer(recipe, loader, out, steps=steps, device=rig.device, progress=False, **options).run()
            cpu = on_cpu(loader).total() if recipe.data.backend in HARDWARE else 0
        rows = read_metrics(Path(out) / "metrics.jsonl")
    if len(rows) != steps:
        raise RuntimeError(f"{len(rows)} steps have metrics, not {steps}")
    return rows, cpu


WAYS: dict[str, Any] = {"ddp": {"compile": "no"}, "fsdp": {"compile": "block", "parallel": "fsdp"}}


def ranks(rig: Rig) -> Found:
    """A group of one rank, of NCCL on a card: losses with DDP, and with FSDP and compiled blocks, are those without."""
    recipe = chosen_recipe("videomae-tiny", ["data.backend=cpu"], batch_size=4)
    apart = {}
    with split_of(usual(rig), videos=8) as folder:

        def losses(**options: Any) -> np.ndarray:
            rows, _ = train(rig, recipe, folder, rig.pick(10, 2), precision="fp32", **options)
            return np.array([row.loss for row in rows])

        plain = losses(compile="no")
        dist.init_process_group(rig.pick("nccl", "gloo"), store=dist.HashStore(), rank=0, world_size=1)
        try:
            for name, options in WAYS.items():
                apart[name] = float((np.abs(losses(**options) - plain) / plain).max())
        finally:
            dist.destroy_process_group()
    wrong = [f"{name}: losses differ by {most:.1e}" for name, most in apart.items() if not most < 1e-3]
    return {"largest_relative_difference": apart}, wrong


def output_of(*command: str) -> str:
    """What a command prints; "" if it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
