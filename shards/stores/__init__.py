"""Stores: they read checked byte ranges of files and publish files atomically."""
