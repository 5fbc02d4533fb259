"""What can be wrong with a member of points: its form, their number, and numbers that are none."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from ..format.manifest import Manifest


def points_problems(manifest: Manifest, row: int, body: bytes, decode: bool) -> Iterator[str]:
    """What is wrong with the points of sample `row`; their values are looked at only if that is asked for."""
    try:
        points = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError) as error:
        yield f"is no NPY file of numbers ({error})"
        return
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype != np.float32:
        yield f"holds {points.dtype} {points.shape}, not float32 (N, 3 or more)"
        return
    n = int(manifest.facts["n_points"][row]) if "n_points" in manifest.facts else None
    if n is not None and len(points) != n:
        yield f"has {len(points)} points, not {n}"
    if decode and (bad := int((~np.isfinite(points).all(axis=1)).sum())):
        yield f"has {bad} points with a number that is not finite"
