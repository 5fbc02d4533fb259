"""How well `block=` shuffles, for blocks of several sizes.

    python benchmarks/shuffle.py [--shards 10000] [--per-shard 100] [--batch 256]

The figures are computed from the loader's orders, without reading files. They are means over several epochs; of the
correlation, the mean of absolute values.
"""

from __future__ import annotations

import argparse
from dataclasses import fields

import numpy as np
from rich.console import Console
from rich.table import Table
from shuffle_quality import ShuffleQuality, expected_quality, shuffle_quality

from maskstream.pipelines.stream.order import Order

EPOCHS = 3
BLOCKS = (1, 4, 16, 64, None)
MEASURES = tuple(field.name for field in fields(ShuffleQuality))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shards", type=int, default=10_000, help="shards of the dataset")
    parser.add_argument("--per-shard", type=int, default=100, help="samples per shard")
    parser.add_argument("--batch", type=int, default=256, help="samples per global batch")
    arguments = parser.parse_args()
    sizes = (arguments.per_shard,) * arguments.shards
    shard = np.repeat(np.arange(arguments.shards), arguments.per_shard)
    table = Table(title=f"{len(shard):,} samples in {len(sizes):,} shards, batches of {arguments.batch}")
    for name in ("block", *MEASURES):
        table.add_column(name.replace("_", " "), justify="right")
    ordered = shuffle_quality(np.arange(len(shard)), shard, batch_size=arguments.batch)
    table.add_row("not shuffled", *_cells(ordered))
    for block in BLOCKS:
        order = Order(shard_sizes=sizes, global_batch=arguments.batch, block=block)
        epochs = [shuffle_quality(order.epoch(e), shard, batch_size=arguments.batch) for e in range(EPOCHS)]
        means = {name: float(np.mean([abs(getattr(quality, name)) for quality in epochs])) for name in MEASURES}
        table.add_row("all" if block is None else str(block), *_cells(ShuffleQuality(**means)))
    table.add_row("a permutation", *_cells(expected_quality(shard, batch_size=arguments.batch)))
    Console().print(table)


def _cells(quality: ShuffleQuality) -> list[str]:
    return [
        f"{quality.position_correlation:.3f}",
        f"{quality.same_shard_neighbours:.4f}",
        f"{quality.shards_per_batch:.1f}",
    ]


if __name__ == "__main__":
    main()
