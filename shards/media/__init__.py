"""Reads the insides of members by offset: boxes, frames and packets."""
