"""Kinds of members: their columns and their checks, one file each."""
