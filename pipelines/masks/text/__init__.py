"""Masks of text."""
