"""The image sampler: it draws crops, reads images, decodes what the crops need, resizes, and draws masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ....shards.errors import DataError
from ....shards.format.manifest import Manifest
from ....shards.media.limits import MAX_PIXELS
from ....shards.stores.base import Announcement, Range
from ...augment import Augmentation
from ...augment.colour import ColourJitter
from ...augment.crop import Crop
from ...masks import Cues, Draw, Maps, Mask, TokenGrid
from ...stream.place import Place
from ...stream.rng import sample_rng
from ...stream.sampler import Wanted
from ...stream.stats import Stats
from .batch import ImageBatch
from .decode import REDUCIBLE, decode_image, on_grid, reduction, show


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRequest:
    """The draws of a sample: one crop per view.

    component: the member to read. width, height: the size of the image in pixels. n: it is decoded at 1/n of its size.
    """

    index: int
    epoch: int
    place: Place
    key: str
    component: str
    width: int
    height: int
    crops: list[Crop]
    n: int
    ranges: tuple[Range]


@dataclass(kw_only=True, slots=True)
class ImageDraft:
    """The memory of a batch of B views. With k views per sample, row r is the views [r k, (r + 1) k).

    image: uint8 (B, size, size, 3). label: int64 (B,). key, maps (masks): one per view; maps are None until they are
    drawn.
    """

    image: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int64]
    key: list[str]
    maps: list[Maps | None]


@dataclass(frozen=True, kw_only=True)
class ImageSampler:
    """Makes host batches of images. It holds only settings, so it can be sent to worker processes.

    Every random draw is a function of (seed, epoch, key, view). The views of a sample share the decoded image; each
    view has its own crop, colours and mask. components: the components that hold images; a sample has one of them.
    """

    manifest: Manifest
    components: tuple[str, ...]
    size: int
    grid: TokenGrid
    augment: Augmentation
    colour: ColourJitter | None
    pattern: Mask | None
    seed: int
    views: int = 1

    @property
    def needs_progress(self) -> bool:
        """Whether the mask depends on the progress of the run."""
        return self.pattern is not None and self.pattern.needs_progress

    def request(self, wanted: Wanted) -> ImageRequest:
        """Draws the crops of a sample, and finds its byte range; raises SampleError if it has none or several."""
        index, epoch = wanted.index, wanted.epoch
        key = self.manifest.key(index)
        held = [one for one in map(self.manifest.component, self.components) if one.offset[index]]
        if len(held) != 1:
            said = "has several of them; name one with component=" if held else "has no such component"
            raise self.manifest.sample_error(index, " or ".join(self.components), f"the sample {said}")
        (component,) = held
        with self.manifest.reading(index, component.name):
            width, height = int(component.facts["width"][index]), int(component.facts["height"][index])
            if min(width, height) < 1 or width * height > MAX_PIXELS:
                raise DataError(f"has {width}x{height} pixels in the manifest; legal are 1 to {MAX_PIXELS}")
        rngs = [sample_rng(self.seed, epoch, key, view, "crop") for view in range(self.views)]
        crops = self.augment.views(width, height, self.size, rngs)
        n = reduction(crops, self.size) if component.name.endswith(REDUCIBLE) else 1
        return ImageRequest(
            index=index,
            epoch=epoch,
            place=wanted.place,
            key=key,
            component=component.name,
            width=width,
            height=height,
            crops=[on_grid(crop, n, width, height) for crop in crops],
            n=n,
            ranges=(self.manifest.member(index, component.name),),
        )

    def announce(self, request: ImageRequest) -> Announcement:
        """Says that the ranges of a request will be read soon."""
        return self.manifest.store.announce(request.ranges)

    def allocate(self, rows: int) -> ImageDraft:
        """The memory of a batch of `rows` samples."""
        n = rows * self.views
        return ImageDraft(
            image=np.empty((n, self.size, self.size, 3), dtype=np.uint8),
            label=np.empty(n, dtype=np.int64),
            key=[""] * n,
            maps=[None] * n,
        )

    def mask(self, request: ImageRequest, draft: ImageDraft, row: int) -> None:
        """Draws the masks of a row."""
        if self.pattern is None:
            return
        for view in range(self.views):
            draw = Draw.of(self.seed, request.epoch, request.key, view, request.place, Cues())
            draft.maps[row * self.views + view] = self.pattern.maps(self.grid, draw)

    def fill(self, request: ImageRequest, draft: ImageDraft, row: int, stats: Stats) -> None:
        """Reads and decodes a row, and makes its views; raises SampleError if the image is unusable."""
        with self.manifest.reading(request.index, request.component):
            with stats.stage("read"):
                (data,) = self.manifest.store.read_many(request.ranges)
            stats.read_bytes += len(data)
            with stats.stage("decode"):
                pixels = decode_image(data, request.width, request.height, request.n)
        with stats.stage("convert"):
            for view, crop in enumerate(request.crops):
                place = row * self.views + view
                show(pixels, crop, request.n, draft.image[place])
                if self.colour is not None:
                    rng = sample_rng(self.seed, request.epoch, request.key, view, "colour")
                    self.colour(draft.image[place], rng)
                draft.label[place], draft.key[place] = self.manifest.label[request.index], request.key

    def join(self, draft: ImageDraft) -> ImageBatch:
        """The host batch; the views of a sample are consecutive rows."""
        maps = [one for one in draft.maps if one is not None]
        return ImageBatch(
            image=torch.from_numpy(draft.image),
            mask=self.pattern.batched(self.grid, maps) if self.pattern is not None else None,
            label=torch.from_numpy(draft.label),
            key=draft.key,
        )
