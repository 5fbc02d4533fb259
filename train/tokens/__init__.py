"""Tokenisers: one file per kind of token."""
