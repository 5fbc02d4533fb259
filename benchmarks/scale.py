"""Simulates 1,024 ranks over 10,000 shards: the computation of each rank, and the reads of each node.

    python benchmarks/scale.py [--ranks 1024] [--per-node 8] [--shards 10000] [--per-shard 100] [--batch 8]

It uses one machine and no network. Time and memory are measured in one process that does the work of a rank: the order
of an epoch, a saved state, a resume. Requests and bytes follow from the samples that the order gives to each rank, with
the index of `big_index.py`, whose clips are real. The cache of a node is simulated: it holds whole shards, fetched at
their first use, and evicts the least recently used ones when it is full.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from big_split import make_splits
from machine import facts

from maskstream.pipelines import VideoClip, masks, video_loader
from maskstream.pipelines.augment import MultiScaleCrop
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.pipelines.stream.order import Order, rank_share
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.format.manifest import Manifest

ROOT = Path(__file__).resolve().parents[1]
CACHES = (0.25, 1.0, 2.0, 4.0)
"""Sizes of a node's cache, in shares of the dataset that one node has if all share it evenly."""
EPOCHS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The ranks, how many of them are on a node, and the samples of each rank's batch."""

    ranks: int
    per_node: int
    batch: int

    @property
    def nodes(self) -> int:
        return self.ranks // self.per_node


def main() -> None:
    arguments = parse()
    cluster = Cluster(ranks=arguments.ranks, per_node=arguments.per_node, batch=arguments.batch)
    make_splits(arguments.data, arguments.shards, arguments.per_shard)
    manifest = Manifest.load(arguments.data / "linked")
    clip = clip_costs(manifest)
    print(f"a clip: {clip['requests']:.2f} requests, {clip['bytes'] / 1e3:.0f} kB (mean of {clip['clips']} clips)")
    shard_bytes = int(manifest.shard_bytes[0])
    rows = []
    for lanes in (1, cluster.nodes):
        for block in (None, 16):
            order = Order(
                shard_sizes=(arguments.per_shard,) * arguments.shards,
                global_batch=cluster.ranks * cluster.batch,
                lanes=lanes,
                block=block,
            )
            row = {"lanes": lanes, "block": block, **rank_costs(order, cluster)}
            row |= node_reads(order, cluster, manifest.shard, clip, shard_bytes)
            rows.append(row)
            print("\n" + "\n".join(f"  {name:<52} {_text(value)}" for name, value in row.items()), flush=True)
    loader = loader_costs(arguments.data / "linked", cluster)
    print("\n" + "\n".join(f"  {name:<52} {_text(value)}" for name, value in loader.items()))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    about = {"machine": facts(("numpy",)), "clip": clip, "shard_bytes": shard_bytes, "rank": loader, "orders": rows}
    arguments.out.write_text(json.dumps(about, indent=1) + "\n")
    print(f"wrote {arguments.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--ranks", type=int, default=1024, help="number of ranks")
    parser.add_argument("--per-node", type=int, default=8, help="ranks per node")
    parser.add_argument("--batch", type=int, default=8, help="samples per batch of a rank")
    parser.add_argument("--shards", type=int, default=10_000, help="shards of the split")
    parser.add_argument("--per-shard", type=int, default=100, help="samples per shard")
    parser.add_argument("--data", type=Path, default=ROOT / "runs/bench/big_index", help="folder of the splits")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/bench/scale.json", help="the JSON file to write")
    return parser.parse_args()


def clip_costs(manifest: Manifest, clips: int = 2000) -> dict[str, float]:
    """Requests and bytes of a clip, as the loader draws and reads them; the mean over some."""
    data = VideoData(clip=VideoClip(align=4), augment=MultiScaleCrop())
    sampler = data.sampler(Split.open(manifest.folder, "video", device="cpu", threads=1))
    requests = size = 0
    for index in np.linspace(0, len(manifest) - 1, clips).astype(int).tolist():
        request = sampler.requests([Wanted(index=index, epoch=0)])[0]
        requests += len(request.ranges)
        size += sum(one.size for one in request.ranges)
    return {"requests": requests / clips, "bytes": size / clips, "clips": clips}


def rank_costs(order: Order, cluster: Cluster) -> dict[str, float]:
    """What every rank computes at the start of an epoch, and its memory at most."""
    start = time.process_time()
    indexes = order.epoch(1)
    seconds = time.process_time() - start
    tracemalloc.start()
    order.epoch(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    start = time.process_time()
    for rank in range(cluster.ranks):
        rank_share(indexes[: order.global_batch], rank, cluster.ranks)
    share = (time.process_time() - start) / cluster.ranks
    return {
        "order of an epoch, CPU ms": seconds * 1e3,
        "order of an epoch, MB at the peak": peak / 1e6,
        "order of an epoch, MB that stay": indexes.nbytes / 1e6,
        "a rank's part of a batch, CPU us": share * 1e6,
    }


def loader_costs(folder: Path, cluster: Cluster) -> dict[str, float]:
    """A real loader as the last rank: its state, and loading it in the middle of an epoch up to the plan of a batch."""
    loader = video_loader(
        folder,
        clip=VideoClip(),
        mask=masks.Tube(),
        batch_size=cluster.batch,
        rank=cluster.ranks - 1,
        world_size=cluster.ranks,
        lanes=cluster.nodes,
        device="cpu",
        threads=1,
    )
    loader.seek(3, len(loader) // 2)
    state = json.dumps(loader.state_dict())
    start = time.perf_counter()
    loader.load_state_dict(json.loads(state))
    loaded = time.perf_counter() - start
    next(iter(loader))
    return {
        "batches of an epoch": len(loader),
        "state, bytes of JSON": len(state),
        "state loaded, wall ms": loaded * 1e3,
        "first batch after that, wall ms": (time.perf_counter() - start) * 1e3,
    }


def node_reads(
    order: Order, cluster: Cluster, shard: npt.NDArray[np.int32], clip: dict[str, float], shard_bytes: int
) -> dict[str, float]:
    """Different shards, requests and bytes of a node and an epoch; of the middle node, without and with a cache."""
    samples = order.n_batches * cluster.batch
    own = len(set(shard_of_node(order, cluster, shard, 0)))
    per_node = samples * cluster.per_node
    dataset = len(order.shard_sizes) * shard_bytes
    figures: dict[str, float] = {
        "requests of a rank and an epoch": samples * clip["requests"],
        "GB of a rank and an epoch": samples * clip["bytes"] / 1e9,
        "different shards that a node reads in an epoch": own,
        "GB of a node and an epoch, no cache": per_node * clip["bytes"] / 1e9,
        "GB of all nodes, no cache, / dataset": per_node * clip["bytes"] * cluster.nodes / dataset,
    }
    for share in CACHES:
        room = round(share * len(order.shard_sizes) / cluster.nodes)
        fetched = list(_fetched(order, cluster, shard, room))
        name = f"cache of {share:g} / {cluster.nodes} of the data: "
        figures[name + "GB of a node, first epoch"] = fetched[0] * shard_bytes / 1e9
        figures[name + "GB of a node, later epoch"] = fetched[-1] * shard_bytes / 1e9
        figures[name + "all nodes, later / dataset"] = fetched[-1] * shard_bytes * cluster.nodes / dataset
    return figures


def shard_of_node(order: Order, cluster: Cluster, shard: npt.NDArray[np.int32], epoch: int) -> list[int]:
    """The shards that the middle node needs, sample after sample, as its ranks go through the epoch in step."""
    ranks = range(cluster.nodes // 2 * cluster.per_node, (cluster.nodes // 2 + 1) * cluster.per_node)
    parts = order.epoch(epoch).reshape(order.n_batches, cluster.ranks, cluster.batch)[:, ranks.start : ranks.stop]
    needed: list[int] = shard[parts.reshape(-1)].tolist()
    return needed


def _fetched(order: Order, cluster: Cluster, shard: npt.NDArray[np.int32], room: int) -> Iterator[int]:
    """How many shards the node fetches in each epoch, with room for `room`; the least recently used goes first."""
    held: OrderedDict[int, None] = OrderedDict()
    for epoch in range(EPOCHS):
        fetched = 0
        for number in shard_of_node(order, cluster, shard, epoch):
            if number not in held:
                fetched += 1
                while len(held) >= max(room, 1):
                    held.popitem(last=False)
            held[number] = None
            held.move_to_end(number)
        yield fetched


def _text(value: float | None) -> str:
    if value is None or isinstance(value, int):
        return "all" if value is None else f"{value:,}"
    return f"{value:,.3f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
