"""Indexes tars that other programs wrote; the tars are checked and never rewritten."""

from .job import IndexReport, index_tars

__all__ = ["IndexReport", "index_tars"]
