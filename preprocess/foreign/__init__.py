"""Tars that others wrote: found, listed, checked, and never rewritten."""

from .job import IndexReport, index_tars

__all__ = ["IndexReport", "index_tars"]
