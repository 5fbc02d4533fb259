"""Sounds as their publishers lay them out."""
