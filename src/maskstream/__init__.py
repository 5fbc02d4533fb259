"""Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer.

Base classes of custom parts are imported from here; CONTRIBUTING.md has a complete example of each:

    from maskstream import Augmentation, Dataset, Mask, Source, Transform
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipelines.augment.crop import Augmentation
    from .pipelines.augment.transform import Transform
    from .pipelines.masks.core.base import Mask
    from .preprocess.datasets.dataset import Dataset
    from .preprocess.source import Source
else:
    from .shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "pipelines.augment.crop": "Augmentation",
            "pipelines.augment.transform": "Transform",
            "pipelines.masks.core.base": "Mask",
            "preprocess.datasets.dataset": "Dataset",
            "preprocess.source": "Source",
        },
    )

__version__ = "0.2.0"
__all__ = ["Augmentation", "Dataset", "Mask", "Source", "Transform", "__version__"]
