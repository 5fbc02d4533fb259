"""Streaming data pipelines for masked pre-training: raw media, tar shards, masked batches, a compact trainer."""

__version__ = "0.2.0"
