"""Curation: what pictures and clips show, copies among them, and the version of a split without what is unwanted."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskstream.preprocess.versions.card import Told, write_card

    from .curation import Curated, curate
    from .measures import SIGNALS, Measures, measure
    from .rules import KeepRule
    from .signals import Signals
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            ".versions.card": "Told write_card",
            "curation": "Curated curate",
            "measures": "SIGNALS Measures measure",
            "rules": "KeepRule",
            "signals": "Signals",
        },
    )

__all__ = ["SIGNALS", "Curated", "KeepRule", "Measures", "Signals", "Told", "curate", "measure", "write_card"]
