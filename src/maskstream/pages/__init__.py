"""HTML pages of samples, masks, runs and scores."""
