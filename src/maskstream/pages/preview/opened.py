"""What a preview is made of: a split, the loader that was opened on it, and its first batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipelines.masks import Mask, Padded
from ...shards.format.manifest import Manifest

_NAMES = {"video_mask": "mask of the frames", "audio_mask": "mask of the sound"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleName:
    """A sample as the templates name it. label: -1 for none. view: from 1 on; None where a sample has only one."""

    key: str
    label: int
    label_name: str | None
    view: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A batch with all that a page says of it. masks: those of the loader, by its arguments' names. index: of each row
    of the batch, its sample's number in the manifest. Rows of one sample, its views, follow each other.
    """

    location: Path
    manifest: Manifest
    loader: Any
    batch: Any
    masks: dict[str, Mask | None]
    views: int
    seed: int

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(map(str, self.manifest.info.get("label_names", ())))

    @property
    def title(self) -> str:
        """`MotionGuided mask on k400/train`."""
        names = " and ".join(dict.fromkeys(mask_name(mask) for mask in self.masks.values()))
        plural = "s" if len(self.masks) > 1 else ""
        return f"{names} mask{plural} on {self.manifest.info['dataset']}/{self.manifest.info['split']}"

    def facts(self, **of_modality: str) -> dict[str, str]:
        """What stands under the title: those of the modality between what all have."""
        views = {"views of a sample": str(self.views)} if self.views > 1 else {}
        return {
            "location": str(self.location),
            "samples": f"{len(self.manifest):,}",
            "profile": str(self.manifest.info["profile"]),
            **of_modality,
            **views,
            "seed": str(self.seed),
            **{_NAMES.get(name, name): repr(mask) if mask else "none" for name, mask in self.masks.items()},
        }

    def indexes(self) -> list[int]:
        """The number in the manifest of each row's sample."""
        wanted = set(self.batch.key)
        found = {key: i for i, key in enumerate(self.manifest.keys(range(len(self.manifest)))) if key in wanted}
        return [found[key] for key in self.batch.key]

    def name(self, row: int) -> SampleName:
        """What a row of the batch is called."""
        label = int(self.batch.label[row])
        return SampleName(
            key=self.batch.key[row],
            label=label,
            label_name=self.label_names[label] if 0 <= label < len(self.label_names) else None,
            view=row % self.views + 1 if self.views > 1 else None,
        )


def mask_name(mask: Mask | None) -> str:
    """The class of a mask, or of the one that is padded; `No` for none."""
    if mask is None:
        return "No"
    return type(mask.mask if isinstance(mask, Padded) else mask).__name__
