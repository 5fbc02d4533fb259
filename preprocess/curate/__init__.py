"""Curation: what pictures and clips show, copies among them, and the version of a split without what is unwanted."""

from .curation import Curated, curate
from .measures import SIGNALS, Measures, measure

__all__ = ["SIGNALS", "Curated", "Measures", "curate", "measure"]
