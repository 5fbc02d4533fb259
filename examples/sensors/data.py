"""Batches of recordings, and their data config, which makes the rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from maskstream.pipelines.masks import Mask, MaskBatch, TokenGrid
from maskstream.pipelines.modalities.data import RowConfig, check_cues
from maskstream.pipelines.modalities.fields import Fields
from maskstream.pipelines.modalities.rows import BatchRows, Item, Items, Masked, Memory
from maskstream.pipelines.stream.batch import Batch
from maskstream.pipelines.stream.stats import Stats
from maskstream.shards import Range
from maskstream.shards.errors import DataError

NAME = "sensors.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorBatch(Batch):
    """values: float32 (B, T, C), C sensors at T times. mask: over the grid (time, sensor)."""

    values: Tensor
    mask: MaskBatch | None


class Windows(NamedTuple):
    """The bytes of the views of a recording."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorData(RowConfig[Windows, SensorBatch]):
    """times: of a row, a random window of a recording. sensors: its columns. patch: the times of a token."""

    modality: ClassVar[str] = "sensors"
    alike: ClassVar[tuple[str, ...]] = ("times", "sensors", "patch")

    times: int = 64
    sensors: int = 3
    patch: int = 8
    mask: Mask | None = None
    views: int = 1
    fields: Fields = ()

    def validate(self) -> None:
        check_cues(self.mask, "sensors")
        if self.times < 1 or self.patch < 1 or self.times % self.patch:
            raise ValueError(f"times={self.times} must be a multiple of patch={self.patch}")

    @property
    def grids(self) -> Mapping[str, TokenGrid]:
        """The grid of "sensors", with the axes (time, sensor)."""
        shape = (self.times // self.patch, self.sensors)
        return {"sensors": TokenGrid(axes=("time", "sensor"), shape=shape, patch=(self.patch, 1))}

    @property
    def masks(self) -> tuple[Masked, ...]:
        """The mask of the values."""
        return (Masked("mask", self.mask, self.grids["sensors"]),)

    def plan(self, items: Items) -> list[Windows]:
        """Draws the windows; SampleError for a recording that is too short or has other sensors."""
        return [self._plan(item) for item in items]

    def _plan(self, item: Item) -> Windows:
        component, member = item.manifest.component(NAME), item.manifest.member(item.index, NAME)
        with item.manifest.reading(item.index, NAME):
            shape, row_bytes = component.lists["shape"][item.index].tolist(), 4 * self.sensors
            if len(shape) != 2 or shape[0] < self.times or shape[1] != self.sensors:
                raise DataError(f"has the shape {shape}, and {self.times} times or more of {self.sensors} sensors fit")
            begin = member.offset + int(component.facts_of(item.index)["data_offset"])
        starts = (int(rng.integers(shape[0] - self.times + 1)) for rng in item.rngs("window"))
        return Windows(tuple(Range(member.name, begin + at * row_bytes, self.times * row_bytes) for at in starts))

    def layout(self, memory: Memory[Windows]) -> SensorBatch:
        """The empty batch."""
        values = memory(np.float32, self.times, self.sensors)
        return SensorBatch(values=values, mask=None, key=memory.key, label=memory.label)

    def fill(self, rows: BatchRows[Windows], batch: SensorBatch, stats: Stats) -> None:
        """Reads the windows."""
        for item, plan, own in rows:
            with item.manifest.reading(item.index, NAME):
                for row, data in zip(own.of(batch.values), item.read(plan.ranges, stats), strict=True):
                    row[:] = np.frombuffer(data, np.float32).reshape(self.times, self.sensors)
