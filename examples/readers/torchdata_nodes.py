"""torchdata's nodes decode files in threads: each becomes a clip with its mask, as a loader would make it.

python torchdata_nodes.py FILES     # pip install torchdata

FILES are videos, such as folder/*.mp4.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torchdata.nodes

from maskstream.pipelines import ClipDecoder, VideoBatch, VideoClip, masks

CLIP = VideoClip(frames=4, stride=4, size=32)


def clip_of(clips: ClipDecoder, epoch: int, file: Path) -> VideoBatch:
    """A row of the batch: a function of seed, epoch and key, whatever reads the file, and when."""
    return clips(file, key=file.stem, seed=0, epoch=epoch)


def batches(files: Sequence[Path], epoch: int = 0, batch_size: int = 4, threads: int = 2) -> Iterator[VideoBatch]:
    """Batches in the order of the files; the last one may be smaller."""
    clips = ClipDecoder(CLIP, mask=masks.Tube(ratio=0.75), patch=8)
    node = torchdata.nodes.IterableWrapper(files)
    node = torchdata.nodes.ParallelMapper(node, partial(clip_of, clips, epoch), threads, method="thread")
    node = torchdata.nodes.Batcher(node, batch_size, drop_last=False)
    yield from torchdata.nodes.Loader(torchdata.nodes.Mapper(node, VideoBatch.concatenated))


if __name__ == "__main__":
    for batch in batches([Path(name) for name in sys.argv[1:]]):
        print(batch.key, tuple(batch.video.shape), tuple(batch.mask.visible.shape))
