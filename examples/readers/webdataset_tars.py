"""webdataset reads the tars as they are: frames, label and what a sample's json says, in shuffled batches.

python webdataset_tars.py data/shards/k400/train     # pip install webdataset
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import webdataset

FRAMES, SIDE = 8, 64


def clip_of(sample: dict[str, Any]) -> dict[str, Any]:
    """The first frames of a sample, uint8 (8, 64, 64, 3), and its json."""
    with av.open(io.BytesIO(sample["mp4"])) as video:
        frames = [
            frame.to_ndarray(width=SIDE, height=SIDE, format="rgb24")
            for frame, _ in zip(video.decode(video=0), range(FRAMES), strict=False)
        ]
    return {"key": sample["__key__"], "video": np.stack(frames), "about": json.loads(sample["json"])}


def batches(split: Path, batch_size: int = 4) -> Iterator[list[dict[str, Any]]]:
    """Lists of samples, in webdataset's order: tars and samples are shuffled, and the last list may be shorter."""
    tars = sorted(str(path) for path in split.glob("*.tar"))
    data = webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(100)
    yield from data.map(clip_of).listed(batch_size)


if __name__ == "__main__":
    for batch in batches(Path(sys.argv[1])):
        print([one["key"] for one in batch], np.stack([one["video"] for one in batch]).shape)
