"""Real media for the gallery of masks."""
