"""Patterns of text, the batch of text masks, and the feedback that one of them follows."""
