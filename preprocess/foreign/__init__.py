"""Index tars of other programs; the tars are checked and never rewritten."""

from .job import IndexReport, index_tars

__all__ = ["IndexReport", "index_tars"]
