"""One training loop for all models: steps, checkpoints, ranks, metrics."""
