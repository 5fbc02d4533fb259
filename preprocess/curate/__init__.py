"""Curation: what pictures and clips show, copies among them, and the version of a split without what is unwanted."""

from .card import Told, write_card
from .curation import Curated, curate
from .keeping import KeepRule
from .measures import SIGNALS, Measures, measure
from .signals import Signals

__all__ = ["SIGNALS", "Curated", "KeepRule", "Measures", "Signals", "Told", "curate", "measure", "write_card"]
