"""Which numbers of a mesh are drawn: the length of its first vector, its one channel, or a surface's normals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from maskstream.pipelines.modalities.mesh.read import MeshReader, MeshStatistics
from maskstream.shards.errors import DataError

from .mesh_picture import field_colours
from .pictures import UInt8

Float32s = npt.NDArray[np.float32]
_NOTHING = 1e-4
_TAILS = ("_x", "_y", "_z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownField:
    """What is drawn of one mesh. `channels` are those whose length is shown; of a surface none, and its normals are
    colours.
    """

    statistics: MeshStatistics
    name: str
    channels: tuple[int, ...]

    @classmethod
    def of(cls, reader: MeshReader, index: int) -> Self:
        """Of sample `index`: the first field of its json's `field_names`. Raises SampleError if they are no names."""
        member = reader.manifest.member(index, "json")
        with reader.manifest.reading(index, "json"):
            described = json.loads(reader.manifest.store.read(*member))
            names = described.get("field_names", []) if isinstance(described, dict) else None
            if not isinstance(names, list) or (names and len(names) != len(reader.statistics.mean)):
                raise DataError(f"field_names are {names!r}, not the names of {len(reader.statistics.mean)} channels")
        names = [str(name) for name in names]
        if not names:
            return cls(statistics=reader.statistics, name="normals", channels=())
        stem = names[0].removesuffix(_TAILS[0])
        channels = tuple(i for i, name in enumerate(names) if name in (stem, *(stem + tail for tail in _TAILS)))
        said = f"length of {stem}" if len(channels) > 1 else stem
        return cls(statistics=reader.statistics, name=said, channels=channels)

    def values(self, fields: Float32s) -> Float32s:
        """Normalised fields (..., D) as the numbers that are drawn, (...), in the data's units."""
        chosen = list(self.channels)
        mean, deviation = (np.asarray(each)[chosen] for each in (self.statistics.mean, self.statistics.deviation))
        stored = fields[..., chosen] * deviation + mean
        values: Float32s = np.linalg.norm(stored, axis=-1) if len(chosen) > 1 else stored[..., 0]
        return values

    def scale(self, fields: Float32s) -> tuple[float, float] | None:
        """The numbers at the ends of the colours of such fields (..., D); None for normals."""
        if not self.channels:
            return None
        low, high = map(float, np.percentile(self.values(fields), (1, 99)))
        return (0.0 if abs(low) < _NOTHING * abs(high) else low), high

    def colours(self, fields: Float32s, scale: tuple[float, float] | None) -> UInt8:
        """Fields (V, D) as colours uint8 (V, 3)."""
        if scale is None:
            return ((np.clip(fields, -1, 1) + 1) * 127.5).astype(np.uint8)
        return field_colours(self.values(fields), *scale)
