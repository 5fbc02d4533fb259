"""Readers of the insides of members by offset: boxes, frames and packets."""
