"""Videos as the CVD Foundation ships Kinetics-400: parts that are packed, and lists in annotations/."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HEAD = "label,youtube_id,time_start,time_end,split"


def write_k400(root: Path, splits: Mapping[str, Sequence[tuple[str, Path]]], parts: int = 2) -> None:
    """Write `k400_targz/SPLIT/part_N.tar.gz` and `annotations/SPLIT.csv` of (label, video) pairs."""
    (root / "annotations").mkdir(parents=True)
    for split, videos in splits.items():
        rows = [HEAD]
        folder = root / "k400_targz" / split
        folder.mkdir(parents=True)
        for part in range(min(parts, len(videos))):
            with tarfile.open(folder / f"part_{part}.tar.gz", "w:gz", compresslevel=6) as tar:
                for label, video in videos[part::parts]:
                    name = f"{video.stem:_<11.11}"
                    tar.add(video, f"./{name}_000000_000010.mp4")
                    rows.append(f"{label},{name},0,10,{split}")
        (root / "annotations" / f"{split}.csv").write_text("\n".join(rows) + "\n")
