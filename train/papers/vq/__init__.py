"""Quantisers of pictures and frames, which other papers need trained."""
