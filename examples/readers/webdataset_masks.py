"""Read any tars of videos with webdataset; each sample becomes a clip with its mask.

python webdataset_masks.py data/shards/k400/train/*.tar

Needs: pip install 'maskstream[webdataset]'

Nothing is indexed or written. Clips that cannot be decoded are skipped with a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import webdataset

from maskstream.pipelines import ClipDecoder, VideoBatch, VideoClip, masks

CLIP = VideoClip(frames=4, stride=4, size=32)


def clip_of(clips: ClipDecoder, epoch: int, sample: dict[str, Any]) -> VideoBatch:
    """Return the row of a sample, a function of seed, epoch and key."""
    return clips(sample["mp4"], key=sample["__key__"], seed=0, epoch=epoch)


def batches(
    tars: str | Sequence[str],
    epoch: int = 0,
    batch_size: int = 4,
) -> Iterator[VideoBatch]:
    """Yield batches in webdataset's order; the last one may be smaller."""
    clips = ClipDecoder(CLIP, mask=masks.Tube(ratio=0.75), patch=8)
    data = webdataset.WebDataset(tars, shardshuffle=100, seed=epoch).shuffle(100)
    skip = webdataset.warn_and_continue
    data = data.map(partial(clip_of, clips, epoch), handler=skip)
    yield from data.batched(batch_size, collation_fn=VideoBatch.concatenated)


if __name__ == "__main__":
    for batch in batches(sys.argv[1:]):
        print(batch.key, tuple(batch.video.shape), tuple(batch.mask.visible.shape))
