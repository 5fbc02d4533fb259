"""Splits of samples that a test has made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.sample import DatasetInfo, Sample
from maskstream.shards.format.writer import write_shard


def write_samples(
    out: Path, samples: Sequence[Sample], modality: str, *, sizes: Sequence[int] = (), **info: Any
) -> Path:
    """A finished split of samples, in one shard or in shards of some sizes.

    Args:
        out: The folder, which may be there.
        samples: The samples in their order.
        modality: What dataset.json says of them.
        sizes: Samples of each shard.
        info: Other fields of `DatasetInfo`; by default the dataset "t", split "train" and profile "train".
    """
    out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"dataset": "t", "split": "train", "profile": "train"} | info
    left = iter(samples)
    shards = [list(islice(left, size)) for size in sizes or (len(samples),)]
    records = [write_shard(out / f"{about['dataset']}-{n:06d}.tar", shard) for n, shard in enumerate(shards)]
    finish_split(out, DatasetInfo(modality=modality, **about), records, [])
    return out
