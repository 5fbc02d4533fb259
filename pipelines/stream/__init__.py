"""Common code of all loaders: order, randomness, plans, production, workers, state."""
