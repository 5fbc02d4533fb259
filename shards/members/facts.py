"""The numbers that a loader must know of a sample before it reads a byte of it; video has its `VideoIndex` besides.

A new modality adds its lines here: the name is the column of manifest.parquet, int becomes int64 and float float64.
"""

from __future__ import annotations

from collections.abc import Mapping

FACTS: dict[str, type[int] | type[float]] = {
    # sound: hertz, channels, samples of one channel, what stored samples are multiplied by to be as loud as the source
    "sample_rate": int,
    "channels": int,
    "n_samples": int,
    "gain": float,
    # sound in tars that others wrote: where its table begins in the shard's file of packets, bytes (sound_table.py)
    "sound_table": int,
    # sound that goes with a video: when it begins, in seconds after the video's first frame
    "audio_start_s": float,
    # point clouds
    "n_points": int,
    # meshes: nodes, cells, time steps
    "n_nodes": int,
    "n_cells": int,
    "n_steps": int,
}
"""Name to kind."""


def check_facts(key: str, facts: Mapping[str, int | float]) -> None:
    """ValueError where a fact of the sample `key` has no column, or a value of another kind."""
    for name, value in facts.items():
        if name not in FACTS:
            raise ValueError(
                f"fact {name!r} of {key!r} is none of {', '.join(FACTS)}; add it to shards/members/facts.py"
            )
        if isinstance(value, bool) or not isinstance(value, (int, FACTS[name])):
            raise ValueError(f"fact {name!r} of {key!r} is {value!r}, not a number of the kind {FACTS[name].__name__}")
