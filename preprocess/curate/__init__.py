"""Curation: signals of samples, near-duplicates, and a new version of a split without the unwanted samples."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskstream.preprocess.told import Told
    from maskstream.preprocess.versions.card import write_card

    from .curated import Curated
    from .curation import curate
    from .measures import SIGNALS, Measures, measure
    from .options import CurateOptions
    from .rules import KeepRule
    from .signals import Signals
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            ".told": "Told",
            ".versions.card": "write_card",
            "curated": "Curated",
            "curation": "curate",
            "measures": "SIGNALS Measures measure",
            "options": "CurateOptions",
            "rules": "KeepRule",
            "signals": "Signals",
        },
    )

__all__ = [
    "SIGNALS",
    "CurateOptions",
    "Curated",
    "KeepRule",
    "Measures",
    "Signals",
    "Told",
    "curate",
    "measure",
    "write_card",
]
