"""Questions about images that need knowledge, put to any predictor."""
