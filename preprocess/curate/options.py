"""The options of a curation, each documented by its help text."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskstream.shards.flag import DataFlag, RunFlag
from maskstream.shards.limits import check_fields
from maskstream.shards.progress import SILENT, Progress

if TYPE_CHECKING:
    from maskstream.shards.format.manifest import SplitLocation

    from .curated import Curated


@dataclass(frozen=True, kw_only=True, slots=True)
class CurateOptions:
    """The options of `curate`.

    Attributes:
        kept: Folder in which measures are stored; None for the default one.
        threads: Threads that measure; None for one per core.
        progress: Progress display, or a function of the number of finished samples and of all samples.
        writing: Function that creates a context manager from the result; the new version is written within it. Its own
            output should be published when the context is left.
    """

    keep: Annotated[
        str | None, DataFlag("Rule that samples must meet to stay, such as 'motion>0.02 and sharpness>=p10'.")
    ] = None
    copies: Annotated[bool, DataFlag("Keep one sample of each group of near-duplicates.")] = False
    mirrored: Annotated[
        bool, DataFlag("Near-duplicates may be mirrored, or for audio be a semitone higher or lower.")
    ] = False
    best: Annotated[
        str | None, DataFlag("Keep the duplicate with the highest value of this signal, not the likely original.")
    ] = None
    scores: Annotated[
        Path | str | None,
        DataFlag("Parquet table of key and numbers, such as a model's scores, to use as signals."),
    ] = None
    features: Annotated[
        Path | str | None,
        DataFlag("Features of DATA from `maskstream embed`; samples with similar features are near-duplicates too."),
    ] = None
    cosine: Annotated[float, DataFlag("Smallest cosine between the features of near-duplicates.", above=0, max=1)] = (
        0.98
    )
    against: Annotated[
        "Sequence[SplitLocation]",
        DataFlag("Evaluation split whose samples must not be in DATA; repeatable."),
    ] = ()
    max_removed: Annotated[
        float, RunFlag("Stop without changes if a larger fraction of the samples would be removed.", min=0, max=1)
    ] = 0.5
    dry_run: Annotated[bool, RunFlag("Write the page and the list, and change nothing.")] = False
    component: Annotated[str | None, DataFlag("Component to read, such as cam0.mp4, if samples have several.")] = None
    kept: str | Path | None = None
    threads: int | None = None
    progress: Progress | Callable[[int, int], object] = SILENT
    writing: "Callable[[Curated], AbstractContextManager[object]]" = nullcontext

    def __post_init__(self) -> None:
        check_fields(self)
        if self.features is not None and not self.copies:
            raise ValueError("features= needs copies=True")
