"""Pages to look at: samples, masks, runs, scores."""
