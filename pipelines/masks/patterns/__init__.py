"""Where it is hidden."""
