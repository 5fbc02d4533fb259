"""Video clips with audio: their loader, on one clock."""
