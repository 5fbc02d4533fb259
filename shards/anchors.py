"""Anchors: the frames of our own H.264 that are predicted from the anchor before them alone."""

from __future__ import annotations

ANCHOR_STRIDE = 4
"""In the profiles ANCHORED every 4th frame is an anchor, I or P; no frame refers to the B-frames between."""
ANCHORED = ("train", "fast")
"""The profiles (`VideoProfile.name`) whose videos have anchors."""
