"""What a split holds, told from dataset.json, the manifest and the rejects alone; no shard is opened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ShardError
from ..members.sound_member import SOUND_TABLE
from .dataset import REJECTS
from .manifest import CONTAINERS, Manifest, VideoColumns

TOP = 10


def inspect(folder: str | Path) -> dict[str, Any]:
    """A JSON-able summary of the split in `folder`.

    Always: dataset, split, modality, profile, settings, fingerprint, counts, bytes_per_component, samples_per_label and
    rejects_per_stage (the ten most frequent, then "others"). `video`, or None: hours, bytes_per_second, and how many
    samples have which codec, resolution and fps, and the mean, least and most frames of videos and of GOPs. `facts`:
    mean, least and most of every fact that samples have (facts.py). `audio`, or None: hours, and how many samples have
    which rate and how many channels.
    Raises ShardError where the split cannot be read.
    """
    manifest = Manifest.load(folder)
    info = manifest.info
    names = [*info["label_names"]]
    labels = {names[label] if 0 <= label < len(names) else str(label): n for label, n in _count(manifest.label).items()}
    sizes = {name: int(manifest.component(name).size.sum()) for name in manifest.component_names}
    return {
        **{name: info[name] for name in ("dataset", "split", "modality", "profile", "settings", "counts")},
        "fingerprint": manifest.fingerprint,
        "bytes_per_component": sizes,
        "samples_per_label": _top(labels),
        "rejects_per_stage": _top(Counter(_reject_stages(manifest.folder))),
        "video": _video(manifest, manifest.video_columns),
        "audio": _audio(manifest.facts),
        "facts": {name: _spread(values) for name, values in manifest.facts.items() if name != SOUND_TABLE},
    }


def _video(manifest: Manifest, columns: VideoColumns | None) -> dict[str, Any] | None:
    if columns is None:
        return None
    has = columns.codec >= 0
    timed = columns.fps > 0
    seconds = float((columns.n_frames[timed] / columns.fps[timed]).sum())
    names = [name for name in CONTAINERS if name in manifest.component_names]
    sizes = sum(int(manifest.component(name).size[has].sum()) for name in names)
    pixels = Counter(zip(columns.width[has].tolist(), columns.height[has].tolist(), strict=True))
    return {
        "hours": seconds / 3600,
        "bytes_per_second": sizes / seconds if seconds else 0.0,
        "codec": _top({columns.codec_names[code]: n for code, n in _count(columns.codec[has]).items()}),
        "resolution": _top({f"{width}x{height}": n for (width, height), n in pixels.items()}),
        "fps": _top({f"{fps:g}": n for fps, n in _count(columns.fps[has].round(3)).items()}),
        "frames_per_video": _spread(columns.n_frames[has]),
        "frames_per_gop": _spread(_gop_lengths(columns)),
    }


def _audio(facts: dict[str, npt.NDArray[Any]]) -> dict[str, Any] | None:
    if "n_samples" not in facts:
        return None
    has = facts["sample_rate"] > 0
    seconds = facts["n_samples"][has] / facts["sample_rate"][has]
    return {
        "hours": float(seconds.sum()) / 3600,
        "seconds_per_sample": _spread(seconds),
        "sample_rate": _top({str(rate): n for rate, n in _count(facts["sample_rate"][has]).items()}),
        "channels": _top({str(channels): n for channels, n in _count(facts["channels"][has]).items()}),
    }


def _gop_lengths(columns: VideoColumns) -> npt.NDArray[np.int64]:
    """Frames of every GOP: to the next one's first frame, and for the last one of a video to the video's end."""
    ends = np.roll(columns.first_frame, -1).astype(np.int64)
    has = np.diff(columns.start) > 0
    ends[columns.start[1:][has] - 1] = columns.n_frames[has]
    return ends - columns.first_frame


def _spread(values: npt.NDArray[Any]) -> dict[str, float]:
    return {"mean": float(values.mean()), "min": values.min().item(), "max": values.max().item()}


def _count(values: npt.NDArray[Any]) -> dict[Any, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _top(counts: dict[str, int]) -> dict[str, int]:
    """The ten most frequent, equal ones by name, and what the others come to."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(n for _, n in ordered[TOP:])
    return dict(ordered[:TOP]) | ({"others": others} if others else {})


def _reject_stages(folder: Path) -> list[str]:
    path = folder / REJECTS
    try:
        stages: list[str] = pq.read_table(path, columns=["stage"]).column(0).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ShardError(f"{path} is unreadable ({error}); run `maskstream shards` again to write it anew") from error
    return stages
