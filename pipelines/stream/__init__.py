"""What all loaders share: order, randomness, plans, production, workers, state."""
