"""Summarises a split from dataset.json, the manifest and the rejects; no shard is opened."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from maskstream.shards.arrays import Int64s
from maskstream.shards.members.member import TABLE_FACTS
from maskstream.shards.members.sound import SOUND
from maskstream.shards.members.video import VIDEO

from .component import Component
from .data_errors import parsing
from .dataset import DATASET_JSON, FEW, HELD_OUT, HELD_OUT_OF
from .manifest import Manifest, SplitLocation
from .rejects import read_rejects
from .sample import Reject

TOP = 10
NO_LABEL = "no label"
_PLACES = {*TABLE_FACTS, "header_size", "data_offset"}
"""Facts about the position of bytes, which a summary leaves out."""


def inspect(location: SplitLocation) -> dict[str, Any]:
    """Summarise the split at a location as JSON values.

    The summary contains dataset, split, modality, profile, version, settings, fingerprint, counts, bytes_per_component,
    samples_per_label (samples without a label count as "no label") and rejects_per_stage (the ten most frequent, then
    "others"). A divided split also has `held_out`, which describes the held-out part, and that part has `held_out_of`.
    `video` lists, per video component, hours, bytes_per_second, the counts of codecs, resolutions and frame rates, and
    the mean, min and max of frames per video and per GOP. `sound` lists, per audio component, hours, seconds per sample
    and the counts of sample rates and channels. `facts` lists mean, min and max of every fact `COMPONENT.FACT`. Raises
    ShardError if the split cannot be read.
    """
    manifest = Manifest.load(location)
    rejects = read_rejects(manifest.store, manifest.info)
    with parsing(f"{manifest.location}/{DATASET_JSON}"):
        return _summarize(manifest, rejects)


def _summarize(manifest: Manifest, rejects: list[Reject]) -> dict[str, Any]:
    info = manifest.info
    names = [*info["label_names"]]
    labels = {
        NO_LABEL if label < 0 else names[label] if label < len(names) else str(label): n
        for label, n in _count(manifest.label).items()
    }
    components = manifest.components
    return {
        **{name: info[name] for name in ("dataset", "split", "modality", "profile", "version", "settings", "counts")},
        **{name: info[name] for name in (HELD_OUT, HELD_OUT_OF, FEW) if name in info},
        "fingerprint": manifest.fingerprint,
        "bytes_per_component": {name: int(component.size.sum()) for name, component in components.items()},
        "samples_per_label": _count_top(labels),
        "rejects_per_stage": _count_top(Counter(reject.stage for reject in rejects)),
        "video": {
            name: _inspect_video(component) for name, component in components.items() if component.kind == VIDEO.name
        },
        "sound": {
            name: _inspect_sound(component) for name, component in components.items() if component.kind == SOUND.name
        },
        "facts": {
            f"{name}.{fact}": _measure_spread(values[component.present])
            for name, component in components.items()
            for fact, values in component.facts.items()
            if fact not in _PLACES
        },
    }


def _inspect_video(video: Component) -> dict[str, Any]:
    facts, codec = video.facts, video.words["codec"]
    has, fps, n_frames = video.present, facts["fps"], facts["n_frames"]
    timed = fps > 0
    seconds = float((n_frames[timed] / fps[timed]).sum())
    pixels = Counter(zip(facts["width"][has].tolist(), facts["height"][has].tolist(), strict=True))
    return {
        "hours": seconds / 3600,
        "bytes_per_second": int(video.size.sum()) / seconds if seconds else 0.0,
        "codec": _count_top({codec.names[code]: n for code, n in _count(codec.code[has]).items()}),
        "resolution": _count_top({f"{width}x{height}": n for (width, height), n in pixels.items()}),
        "fps": _count_top({f"{rate:g}": n for rate, n in _count(fps[has].round(3)).items()}),
        "frames_per_video": _measure_spread(n_frames[has]),
        "frames_per_gop": _measure_spread(_count_gop_lengths(video)),
    }


def _inspect_sound(sound: Component) -> dict[str, Any]:
    has = sound.present
    rate, n_samples, channels = (sound.facts[name][has] for name in ("sample_rate", "n_samples", "channels"))
    seconds = n_samples / rate
    return {
        "hours": float(seconds.sum()) / 3600,
        "seconds_per_sample": _measure_spread(seconds),
        "sample_rate": _count_top({str(hertz): n for hertz, n in _count(rate).items()}),
        "channels": _count_top({str(count): n for count, n in _count(channels).items()}),
    }


def _count_gop_lengths(video: Component) -> Int64s:
    """Return the number of frames of every GOP."""
    gops = video.lists["gop_first_frame"]
    ends = np.roll(gops.values, -1).astype(np.int64)
    has = np.diff(gops.start) > 0
    ends[gops.start[1:][has] - 1] = video.facts["n_frames"][has]
    return ends - gops.values


def _measure_spread(values: npt.NDArray[Any]) -> dict[str, float]:
    return {"mean": float(values.mean()), "min": values.min().item(), "max": values.max().item()}


def _count(values: npt.NDArray[Any]) -> dict[Any, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _count_top(counts: dict[str, int]) -> dict[str, int]:
    """Return the ten most frequent entries, ties sorted by name, and the sum of the others."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    others = sum(n for _, n in ordered[TOP:])
    return dict(ordered[:TOP]) | ({"others": others} if others else {})
