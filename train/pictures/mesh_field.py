"""Which numbers of a field are drawn: the length of its first vector, its one channel, or a surface's normals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ...pipelines.mesh.sample import MeshSampler, StoredMesh
from ...pipelines.mesh.statistics import MeshStatistics
from ...pipelines.preview.mesh_picture import field_colours, mesh_picture
from ...pipelines.preview.pictures import Bool, UInt8

Float32s = npt.NDArray[np.float32]
_TAILS = ("_x", "_y", "_z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownField:
    """What is drawn of one mesh. `channels` are those whose length is shown; of a surface all three, as a colour."""

    mesh: StoredMesh
    statistics: MeshStatistics
    name: str
    channels: tuple[int, ...]

    @classmethod
    def of(cls, sampler: MeshSampler, index: int) -> Self:
        """Of sample `index`: the first field of its json's `field_names`."""
        mesh = sampler.mesh(index)
        path, offset, size = sampler.manifest.member(index, "json")
        names: list[str] = json.loads(sampler.manifest.store.read(path, offset, size)).get("field_names", [])
        if not names:
            return cls(mesh=mesh, statistics=sampler.statistics, name="normals", channels=())
        stem = names[0].removesuffix(_TAILS[0])
        channels = tuple(i for i, name in enumerate(names) if name in (stem, *(stem + tail for tail in _TAILS)))
        said = f"length of {stem}" if len(channels) > 1 else stem
        return cls(mesh=mesh, statistics=sampler.statistics, name=said, channels=channels)

    def values(self, fields: Float32s) -> Float32s:
        """Normalised fields (..., D) as the numbers that are drawn, (...), in the data's units."""
        chosen = list(self.channels)
        mean, deviation = (np.asarray(each)[chosen] for each in (self.statistics.mean, self.statistics.deviation))
        stored = fields[..., chosen] * deviation + mean
        values: Float32s = np.linalg.norm(stored, axis=-1) if len(chosen) > 1 else stored[..., 0]
        return values

    def scale(self, fields: Float32s) -> tuple[float, float]:
        """The ends of the colours for such fields."""
        if not self.channels:
            return -1.0, 1.0
        low, high = np.percentile(self.values(fields), (1, 99))
        return float(low), float(high)

    def picture(self, fields: Float32s, scale: tuple[float, float], hidden: Bool | None = None) -> UInt8:
        """The mesh in the colours of its fields (V, D), uint8 (H, W, 3)."""
        if self.channels:
            colours = field_colours(self.values(fields), *scale)
        else:
            colours = ((np.clip(fields, -1, 1) + 1) * 127.5).astype(np.uint8)
        return mesh_picture(self.mesh.positions, self.mesh.cells, colours, hidden=hidden)
