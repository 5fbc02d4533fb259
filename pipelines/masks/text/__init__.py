"""Text masks, their batches, and a channel for training feedback."""
